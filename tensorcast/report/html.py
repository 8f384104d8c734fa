"""Pages that open from disk, without a network: templates of reports/, filled in, with everything they need inside.

Templates are looked up in ./reports first, then in what ships: a user's `simulate.html` replaces ours, and may extend
it as `shipped/simulate.html`. Text is escaped wherever it comes from.
"""

from __future__ import annotations

import base64
import gzip
from collections.abc import Callable, Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tensorcast import __version__, content, units
from tensorcast.errors import InputError
from tensorcast.report.json import strict

FORMATS: Mapping[str, Callable[[Any], str]] = {
    "seconds": units.seconds, "bytes": units.bytes_, "flop": units.flop, "flops": units.flops, "count": units.count,
    "bandwidth": units.bandwidth, "percent": units.percent,
}  # fmt: skip
"""Filters that templates write figures with."""
SHIPPED = "shipped"


def render(template: str, figures: Mapping[str, Any], **context: Any) -> str:
    """The page that `template` makes of `context`, with the charts `figures` (id → chart) to be drawn in it.

    InputError, one line with file and line number, for a template with an error.
    """
    import jinja2

    folders = content.folder("reports")
    shipped = content.shipped_root() / "reports"
    loader = jinja2.ChoiceLoader(
        [jinja2.FileSystemLoader(folders), jinja2.PrefixLoader({SHIPPED: jinja2.FileSystemLoader(shipped)})]
    )
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    environment.filters.update(FORMATS, rate=units.rate)
    page = {"version": __version__, "figures": strict(figures), "plotly": plotly_bundle() if figures else ""}
    try:
        return environment.get_template(template).render(page | context)
    except jinja2.TemplateNotFound as error:
        raise InputError(f"report template {error.name}: not found in {', '.join(map(str, folders))}") from None
    except jinja2.TemplateSyntaxError as error:
        place = f"{error.filename or error.name}:{error.lineno}"
        raise InputError(f"report template {place}: {error.message}") from None
    except Exception as error:  # whatever an expression of the user's template raises
        raise InputError(f"report template {_place(error, folders)}: {type(error).__name__}: {error}") from None


def _place(error: Exception, folders: list[Path]) -> str:
    """file:line of the innermost template that an error passed through."""
    place, trace = "", error.__traceback__
    while trace is not None:
        file = Path(trace.tb_frame.f_code.co_filename)
        if any(file.is_relative_to(folder) for folder in folders):
            place = f"{file}:{trace.tb_lineno}"
        trace = trace.tb_next
    return place


@cache
def plotly_bundle() -> str:
    """plotly.js, gzipped, in base64: 2 MB in place of 5. InputError where Plotly is not installed."""
    spec = find_spec("plotly")
    if spec is None or spec.origin is None:
        raise InputError("charts need Plotly: pip install plotly")
    script = Path(spec.origin).with_name("package_data") / "plotly.min.js"
    return base64.b64encode(gzip.compress(script.read_bytes(), 6, mtime=0)).decode("ascii")
