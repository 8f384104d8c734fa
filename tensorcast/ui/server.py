"""The server of `tensorcast ui`: one page, its script, and answers in JSON. It keeps nothing of what it was asked.

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

from fastapi import FastAPI, Request, Response
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse
from pydantic import BaseModel, Field, StrictBool, StrictStr
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
_INLINE = re.compile(r"<script>(.*?)</script>", re.DOTALL)


class Asked(BaseModel):
    """What a page asks: controls by name, a line of more flags, the phase it looks at."""

    model_config = {"extra": "forbid"}
    options: dict[StrictStr, StrictStr | StrictBool] = Field(default={}, max_length=100)
    more: StrictStr = ""
    view: StrictStr = ""


def application(answers: Answers, hosts: Collection[str] = LOOPBACK) -> FastAPI:
    """The web application; `hosts`: the names it may be called by."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.middleware("http")(_guarded)
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

    @app.get("/ui.js")
    def script() -> Response:
        return FileResponse(_found("ui.js"), media_type="text/javascript")

    @app.get("/plotly.js")
    def plotly() -> Response:
        headers = {"Content-Encoding": "gzip", "Cache-Control": "max-age=3600"}
        return Response(_plotly(), media_type="text/javascript", headers=headers)

    @app.post("/answer")
    def answer(asked: Asked) -> Response:
        # A refusal is an answer too: the page shows its line.
        try:
            return JSONResponse(answers.page(asked.options, asked.more, asked.view))
        except Exception as error:
            return JSONResponse({"error": _said(error)})

    @app.post("/download/{kind}")
    def download(kind: str, asked: Asked) -> Response:
        try:
            name, report = answers.download(kind, asked.options, asked.more)
        except Exception as error:
            return JSONResponse({"error": _said(error)})
        headers = {"Content-Disposition": f'attachment; filename="{name}"'}
        return Response(report, media_type=DOWNLOADS[kind].media, headers=headers)

    return app


async def _guarded(request: Request, call: Callable[[Request], Awaitable[Response]]) -> Response:
    """Refuse what no page of ours sends."""
    headers = request.headers
    if request.method == "POST":
        length = headers.get("content-length", "")
        if not length.isdecimal() or int(length) > MOST_BYTES:
            return PlainTextResponse(f"at most {MOST_BYTES} bytes, and say how many", 413)
        if headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            return PlainTextResponse("only application/json", 415)
        if headers.get("sec-fetch-site", "same-origin") != "same-origin":
            return PlainTextResponse("only for pages from here", 403)
    response = await call(request)
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Cross-Origin-Resource-Policy"] = "same-origin"
    response.headers["Referrer-Policy"] = "no-referrer"
    return response


def page() -> str:
    """The page without figures; InputError for an error in a template."""
    from tensorcast.hardware.load import names
    from tensorcast.models.entries import list_models

    models = [(row["name"], row["architecture"]) for row in list_models()]
    lists = {"models": models, "machines": list(names()), "downloads": list(DOWNLOADS), "series": SERIES}
    return render("ui.html", {}, sections=sections(), **lists)


@cache
def _plotly() -> bytes:
    return base64.b64decode(plotly_bundle())


def _found(name: str) -> Path:
    return next(path for folder in content.folder("reports") if (path := folder / name).is_file())


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
    import uvicorn

    config = uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off", timeout_graceful_shutdown=1)
    uvicorn.Server(config).run(sockets=[listening])
