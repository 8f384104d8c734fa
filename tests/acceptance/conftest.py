"""Running the command as a user does, in an empty folder, offline, with a cache that one session shares."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tensorcast.custom import loading

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Result:
    """How a command line ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def tensorcast(own_folder, cache_folder, run, undone, monkeypatch) -> Callable[..., Result]:
    """Run `tensorcast ARGS` in `tmp_path`, in this process; what one run registers or loads, the next does not see."""

    def tensorcast(*args: str, **environment: str) -> Result:
        with undone(), monkeypatch.context() as patch:
            patch.setattr(loading, "_loaded", {})
            for name, value in {"TENSORCAST_CACHE": str(cache_folder), "HF_HUB_OFFLINE": "1", **environment}.items():
                patch.setenv(name, value)
            return Result(*run(*args))

    return tensorcast


@pytest.fixture
def process(tmp_path, cache_folder) -> Callable[..., Result]:
    """The same by a process of its own, with nothing to read on stdin."""

    def process(*args: str, **environment: str) -> Result:
        variables = {**os.environ, "TENSORCAST_CACHE": str(cache_folder), "HF_HUB_OFFLINE": "1", **environment}
        done = subprocess.run(
            [sys.executable, str(ROOT / "cli.py"), *args],
            cwd=tmp_path,
            env=variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
        )
        return Result(done.returncode, done.stdout, done.stderr)

    return process


@pytest.fixture
def write(own_folder) -> Callable[[str, str], Path]:
    """Write a file below the empty current directory."""

    def write(name: str, text: str) -> Path:
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return write
