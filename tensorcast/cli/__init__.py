"""The command line, one file per verb; `tensorcast.cli:main` is the installed command."""

from __future__ import annotations

from tensorcast.cli.main import main

__all__ = ["main"]
