"""The server of `tensorcast ui`: one page, its scripts, and answers in JSON. It keeps nothing of what it was asked.

A page of the internet that is open in the same browser must learn nothing from it: names of other hosts are refused
(which a rebound DNS name would be), so are bodies that are not JSON and requests from another site, and no header
lets other sites read an answer.
"""

from __future__ import annotations

import base64
import hashlib
import re
import sys
from collections.abc import Awaitable, Callable, Collection
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from anyio import from_thread
from fastapi import FastAPI, Request, Response
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse
from pydantic import BaseModel, Field, StrictBool, StrictStr
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.trustedhost import TrustedHostMiddleware

from tensorcast import content
from tensorcast.cli.main import BUG, describe
from tensorcast.errors import TensorcastError
from tensorcast.report.charts.palette import SERIES
from tensorcast.report.pages.html import plotly_bundle, render
from tensorcast.ui.answers import DOWNLOADS, Answers
from tensorcast.ui.controls import sections

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
MOST_BYTES = 64 * 1024
"""Of a request: names and numbers."""
KEPT_HERE = {
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
}
"""Headers of every answer."""
_INLINE = re.compile(r"<script>(.*?)</script>", re.DOTALL)


class Asked(BaseModel):
    """What a page asks: controls by name, a line of more flags, the phase it looks at, the control moved last."""

    model_config = {"extra": "forbid"}
    options: dict[StrictStr, StrictStr | StrictBool] = Field(default={}, max_length=100)
    more: StrictStr = ""
    view: StrictStr = ""
    moved: StrictStr = ""


def application(answers: Answers, hosts: Collection[str] = LOOPBACK) -> FastAPI:
    """The web application; `hosts`: the names it may be called by."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(Guard)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False)

    @app.get("/")
    def desk() -> Response:
        try:
            text = page()
        except TensorcastError as error:  # in a template of the user's, changed while we serve it
            return PlainTextResponse(str(error), 500)
        scripts = " ".join(f"'sha256-{_digest(script)}'" for script in _INLINE.findall(text))
        policy = (
            f"default-src 'none'; script-src 'self' {scripts}; style-src 'unsafe-inline'; img-src data: blob:; "
            "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        return Response(text, media_type="text/html", headers={"Content-Security-Policy": policy})

    @app.get("/ui/{name}")
    def script(name: str) -> Response:
        found = scripts().get(name)
        if found is None:
            return PlainTextResponse("no such script", 404)
        # Scripts of two versions of ours must not meet in a browser.
        return FileResponse(found, media_type="text/javascript", headers={"Cache-Control": "no-cache"})

    @app.get("/plotly.js")
    def plotly() -> Response:
        headers = {"Content-Encoding": "gzip", "Cache-Control": "max-age=3600"}
        return Response(_plotly(), media_type="text/javascript", headers=headers)

    @app.post("/answer")
    def answer(asked: Asked, request: Request) -> Response:
        def wanted() -> bool:
            return not from_thread.run(request.is_disconnected)

        # A refusal is an answer too: the page shows its line.
        try:
            found = answers.page(asked.options, asked.more, asked.view, moved=asked.moved, wanted=wanted)
            return JSONResponse(found)
        except Exception as error:
            return JSONResponse({"error": _said(error)})

    @app.post("/download/{kind}")
    def download(kind: str, asked: Asked) -> Response:
        try:
            name, media_type, report = answers.download(kind, asked.options, asked.more)
        except Exception as error:
            return JSONResponse({"error": _said(error)})
        headers = {"Content-Disposition": f'attachment; filename="{name}"'}
        return Response(report, media_type=media_type, headers=headers)

    return app


class Guard:
    """Around the application: refuses what no page of ours sends, and lets no other site make use of an answer.

    Not a middleware of FastAPI's own kind, behind which nobody learns that a client has left.
    """

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def kept(message: Any) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(KEPT_HERE)
            await send(message)

        refusal = _refusal(Headers(scope=scope)) if scope.get("method") == "POST" else None
        await (refusal or self.app)(scope, receive, kept)


def _refusal(headers: Headers) -> Response | None:
    length = headers.get("content-length", "")
    if not length.isdecimal() or int(length) > MOST_BYTES:
        return PlainTextResponse(f"at most {MOST_BYTES} bytes, and say how many", 413)
    if headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        return PlainTextResponse("only application/json", 415)
    # Not every browser tells the site, and none leaves out the origin.
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site not in (None, "same-origin") or (origin is not None and urlsplit(origin).netloc != headers["host"]):
        return PlainTextResponse("only for pages from here", 403)
    return None


def page() -> str:
    """The page without figures; InputError for an error in a template."""
    from tensorcast.hardware.load import names
    from tensorcast.models.entries import list_models

    models = [(row["name"], row["architecture"]) for row in list_models()]
    known = {"model": models, "hw": [(name, "") for name in names()]}
    return render("ui.html", {}, sections=sections(), known=known, downloads=list(DOWNLOADS), series=SERIES)


@cache
def _plotly() -> bytes:
    return base64.b64decode(plotly_bundle())


def scripts() -> dict[str, Path]:
    """File name → the page's script: of the user's reports/ui/ where it is there, else ours."""
    folders = reversed(content.folder("reports"))
    return {path.name: path for folder in folders for path in sorted((folder / "ui").glob("*.js"))}


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _said(error: Exception) -> str:
    """The line of an error; one of ours leaves its traceback on stderr."""
    line, code = describe(error)
    if code == BUG:
        import traceback

        traceback.print_exception(error, file=sys.stderr)
        line += " (a bug of ours)"
    return line


def serve(app: Any, listening: Any) -> None:
    """Answer on the socket `listening` until interrupted."""
    import logging

    import uvicorn

    class Server(uvicorn.Server):
        async def shutdown(self, sockets: Any = None) -> None:
            logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # giving up an answer is no error any more
            await super().shutdown(sockets)

    config = uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off", timeout_graceful_shutdown=1)
    Server(config).run(sockets=[listening])
