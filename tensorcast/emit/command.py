"""Settings as a command line, quoted for a POSIX shell."""

from __future__ import annotations

import json
import shlex
from typing import Any

from tensorcast.emit.server import Server, Start


def command_line(server: Server, command: tuple[str, ...], start: Start) -> str:
    """`command` and every setting: a switch where the value is True, else flag and value, mappings as JSON."""
    words = [*command]
    for setting, value in start.settings.items():
        words += [server.flag(setting)] if value is True else [server.flag(setting), as_text(value)]
    return shlex.join(words)


def as_text(value: Any) -> str:
    return json.dumps(value, separators=(",", ":")) if isinstance(value, dict) else str(value)


def only(**settings: tuple[bool, Any]) -> dict[str, Any]:
    """The settings whose condition holds: name=(condition, value)."""
    return {name: value for name, (asked, value) in settings.items() if asked}
