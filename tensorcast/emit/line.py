"""`start_line`: the text that starts a server with a deployment, and where its words come from."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tensorcast.emit.launch import Launch, launch_of
from tensorcast.emit.server import SERVERS, Server, Start
from tensorcast.errors import DeploymentError, InputError
from tensorcast.request import Request

ENGINES = ("vllm", "sglang", "trtllm", "mindie")
ONE_MACHINE = 8
"""Devices above which a person is told where the documentation speaks of several machines."""


def start_line(engine: str, request: Request | Mapping[str, Any]) -> str:
    """The command (of MindIE: the fields of config.json) that starts `engine` with this deployment.

    `request` is a Request or an estimate's dictionary (see `launch_of`). Parallel sizes, precision, KV-cache format,
    length limit, sequences at a time, chunk and draft tokens are those of the request; how the server schedules
    prompts is left to it unless a chunk was asked. Ends with comment lines: what differs from the simulation, and the
    documentation that names the flags, with version and day. Quoted for a POSIX shell.

    UnknownNameError for another engine; DeploymentError or InputError, one line that names what the engine can, for a
    deployment that it cannot have: never another one instead.
    """
    server, launch = server_named(engine), launch_of(request)
    return _text(server, launch, _start(server, launch))


def start_lines(
    engine: str, prefill: Request | Mapping[str, Any], decode: Request | Mapping[str, Any], connector: str = "nixl"
) -> tuple[str, str]:
    """The start lines of a prefill server and of a decode server that passes KV caches on with `connector`.

    Besides `start_line`'s errors: DeploymentError where the documentation gives no way to start the two, for an unknown
    connector, and for two that could not share a cache (another model or another KV-cache format).
    """
    server, launches = server_named(engine), {"prefill": launch_of(prefill), "decode": launch_of(decode)}
    if server.roles is None:
        raise DeploymentError(f"{server.title}: one plan at a time; its documentation starts the two by a controller")
    if connector not in server.transfer:
        known = ", ".join(server.transfer)
        raise DeploymentError(f"{server.title} has no way {connector!r} to pass KV caches on; one of {known}")
    _check_pair(*launches.values())
    return tuple(_half(server, launch, connector, role) for role, launch in launches.items())


def server_named(engine: str) -> Server:
    """The table of that engine; UnknownNameError with near names."""
    if engine not in ENGINES:
        for name in ENGINES:
            importlib.import_module(f"tensorcast.emit.{name}")
    else:
        importlib.import_module(f"tensorcast.emit.{engine}")
    return SERVERS.get(engine)


def _start(server: Server, launch: Launch) -> Start:
    server.check(launch)
    return server.settings(launch)


def _half(server: Server, launch: Launch, connector: str, role: str) -> str:
    start = _start(server, launch)
    more = server.roles(server.transfer[connector].text, role, launch)
    start = replace(start, settings={**start.settings, **more})
    return _text(server, launch, start, role, f"requests go through a proxy: {server.router.url}")


def _check_pair(prefill: Launch, decode: Launch) -> None:
    for what, one, other in (
        ("model", prefill.weights, decode.weights),
        ("KV-cache format", prefill.kv_cache or prefill.dtype, decode.kv_cache or decode.dtype),
    ):
        if one != other:
            raise InputError(f"prefill has {what} {one} and decode {other}: they cannot share KV caches; give one")


def _text(server: Server, launch: Launch, start: Start, role: str = "", also: str = "") -> str:
    """The rendered settings and the comments."""
    notes = [*launch.remarks, *start.remarks, *([also] if also else [])]
    if launch.utilization == 1:
        notes.append(
            f"simulated with all of the device's memory; unless told otherwise, the server takes {server.memory}"
        )
    if launch.devices > ONE_MACHINE:
        notes.append(f"{launch.devices} devices: on more than one machine, see {server.elsewhere.url}")
    pages = ", ".join(f"{page.url} ({page.version})" for page in server.pages(start))
    day = max(page.date for page in server.pages(start))
    said = [*notes, f"{server.title} documentation, read {day} when {server.release} was out: {pages}"]
    return "\n".join([server.render(server, launch, start, role), *(f"# {_one_line(note)}" for note in said)])


def _one_line(note: str) -> str:
    """A comment stays one, whatever a name holds."""
    return " ".join(note.split())
