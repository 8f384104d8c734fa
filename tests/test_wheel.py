"""The wheel carries the folders a user adds to, where content.py looks for them."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tensorcast.content import KINDS

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.nightly
def test_content_travels_in_the_wheel(tmp_path) -> None:
    pytest.importorskip("hatchling", reason="hatchling builds the wheel; it is no test dependency")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    names = set(zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist())
    for kind in KINDS:
        for file in (ROOT / kind).glob("*.*"):
            assert f"tensorcast/_content/{kind}/{file.name}" in names
    assert not any("__pycache__" in name or name.startswith("tests/") for name in names)
