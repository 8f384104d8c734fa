"""Running the command as a user does: a process of its own, in an empty folder, with an empty cache."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Result:
    """How a command line ended."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="session")
def cache_folder(tmp_path_factory) -> Path:
    """One cache for a session: what one test traced, the next finds."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def tensorcast(tmp_path, cache_folder) -> Callable[..., Result]:
    """Run `tensorcast ARGS` in `tmp_path`, offline, with nothing to read on stdin."""

    def tensorcast(*args: str, **environment: str) -> Result:
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

    return tensorcast


@pytest.fixture
def write(own_folder) -> Callable[[str, str], Path]:
    """Write a file below the empty current directory."""

    def write(name: str, text: str) -> Path:
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return write
