"""`tensorcast ui`: the figures in a local web page."""

from __future__ import annotations

import socket
import sys
from importlib.util import find_spec
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlencode

import click

from tensorcast.cli.options import NonEmpty, Verb, Whole, debug_option, option, source_options
from tensorcast.errors import InputError

NEEDED = ("fastapi", "uvicorn", "cloudpickle")
HOST, PORT, MOST_PORT = "127.0.0.1", 8765, 65535


@click.command(
    "ui",
    cls=Verb,
    short_help="A local web page: choose, move sliders, compare.",
    examples=("tensorcast ui", "tensorcast ui --model deepseek-v3 --hw h200-sxm", "tensorcast ui --port 0 --no-open"),
)
@option("--model", "-m", type=NonEmpty("MODEL"), help="Model that the page starts with.")
@option("--hw", type=NonEmpty("MACHINE"), help="Machine that the page starts with.")
@source_options
@click.option("--trust-remote-code", is_flag=True, help="Load model code found in the model's own folder.")
@option("--host", type=NonEmpty("ADDRESS"), help=f"Address to listen on.  [default: {HOST}, this computer only]")
@option("--port", type=Whole(0), help=f"Port to listen on; 0 is any free one.  [default: {PORT}]")
@click.option("--no-open", is_flag=True, help="Do not open a browser.")
@debug_option
def command(
    model: str | None,
    hw: str | None,
    host: str | None,
    port: int | None,
    no_open: bool,
    debug: bool,
    custom: tuple[str, ...],
    no_custom_dir: bool,
    no_plugin: tuple[str, ...],
    trust_remote_code: bool,
) -> int:
    """Choose a model, a machine, a plan and work with sliders, and see what comes of it. Ctrl-C ends it."""
    if absent := [name for name in NEEDED if find_spec(name) is None]:
        raise InputError(f"the page needs {', '.join(absent)}: pip install tensorcast[ui]")
    from tensorcast.ui.answers import Answers
    from tensorcast.ui.server import LOOPBACK, application, page, serve
    from tensorcast.ui.tracer import Tracer

    if custom or no_plugin:  # a fault in what was named is said now, not in every answer
        from tensorcast.custom.sources import Sources

        Sources.of(list(custom), folder=not no_custom_dir, no_plugin=no_plugin).load()
    page()
    listening = bound(host or HOST, PORT if port is None else port)
    code = {"custom": list(custom), "no_plugin": list(no_plugin), "custom_dir": not no_custom_dir}
    answers = Answers({**code, "trust_remote_code": trust_remote_code}, Tracer())
    address = listening.getsockname()
    here = is_loopback(address[0])
    names = LOOPBACK if here else ["*"]
    if not here:
        print("note: anybody who reaches this computer's network can use the page", file=sys.stderr)
    query = urlencode({name: value for name, value in (("model", model), ("hw", hw)) if value})
    where = f"http://{shown(address[0])}:{address[1]}/{'?' if query else ''}{query}"
    print(f"{where}\nCtrl-C ends it", flush=True)
    run(serve, application(answers, names), listening, answers, None if no_open else where)
    return 0


def run(serve: Any, app: Any, listening: socket.socket, answers: Any, opened: str | None) -> None:
    """Serve until interrupted."""
    import gc
    import threading

    gc.enable()  # the command line goes without, which only short lives can
    answers.tracer.start()
    if opened is not None:
        import webbrowser

        # A browser of the terminal would keep us from answering it.
        threading.Thread(target=webbrowser.open, args=(opened,), daemon=True).start()
    try:
        serve(app, listening)
    except KeyboardInterrupt:
        pass


def bound(host: str, port: int) -> socket.socket:
    """A socket that listens there; InputError."""
    if port > MOST_PORT:
        raise InputError(f"--port {port}: at most {MOST_PORT}")
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError):
        raise InputError(f"--host {host}: no such address; give one of this computer's, such as {HOST}") from None
    listening = socket.socket(family, kind, proto)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen()
    except OSError as error:
        listening.close()
        hint = "; give another, or --port 0 for any free one" if port else ""
        raise InputError(f"--host {host} --port {port}: {error.strerror or error}{hint}") from None
    return listening


def is_loopback(address: str) -> bool:
    return ip_address(address.partition("%")[0]).is_loopback


def shown(address: str) -> str:
    """The address as a URL has it.

    >>> shown("::1"), shown("127.0.0.1")
    ('[::1]', '127.0.0.1')
    """
    return f"[{address}]" if ":" in address else address
