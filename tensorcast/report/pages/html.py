"""Pages that open from disk, without a network: templates of reports/, filled in, with everything they need inside.

Templates are looked up in ./reports first, then in what ships: a user's `simulate.html` replaces ours, and may extend
it as `shipped/simulate.html`. So are those that a shipped template names: a user's `style.css` is that of every page.
Text is escaped wherever it comes from.
"""

from __future__ import annotations

import base64
import gzip
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tensorcast import __version__, content, units
from tensorcast.errors import InputError
from tensorcast.report.data.json import strict
from tensorcast.report.facts import label

if TYPE_CHECKING:
    import jinja2

FORMATS: Mapping[str, Callable[..., str]] = {
    "seconds": units.seconds, "bytes": units.bytes_, "flop": units.flop, "flops": units.flops, "count": units.count,
    "bandwidth": units.bandwidth, "percent": units.percent, "rate": units.rate, "label": label,
}  # fmt: skip
"""Filters that templates write figures with."""
SHIPPED = "shipped/"


def render(template: str, figures: Mapping[str, Any], **context: Any) -> str:
    """The page that `template` makes of `context`, with the charts `figures` (id → chart) to be drawn in it.

    InputError, one line with file and line number, for a template with an error.
    """
    page = {"version": __version__, "figures": strict(figures), "plotly": plotly_bundle() if figures else ""}
    with _told(template):
        return _environment().get_template(template).render(page | context)


def check(template: str) -> None:
    """InputError as `render`, before any work: for a template that is none, or names one that is not there."""
    if content.folder("reports") == [content.shipped_root() / "reports"]:
        return  # nobody's but ours
    environment, seen, names = _environment(), set(), {template}
    while names := names - seen:
        name = names.pop()
        with _told(name):
            file = environment.get_template(name).filename
        for line, other in _names_in(environment, name):
            if _source(other) is None:
                raise _refused(f"{file}:{line}", f"no template {other!r} in {_folders_of(other)}")
            names.add(other)
        seen.add(name)


def _names_in(environment: jinja2.Environment, name: str) -> Iterator[tuple[int, str]]:
    """(line, name) of each template that one extends, includes or imports, and has to."""
    from jinja2 import nodes

    text, _, _ = _source(name)
    for node in environment.parse(text).find_all((nodes.Extends, nodes.Include, nodes.Import, nodes.FromImport)):
        if isinstance(node.template, nodes.Const) and not getattr(node, "ignore_missing", False):
            yield node.lineno, node.template.value


def _environment() -> jinja2.Environment:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_source), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    environment.filters.update(FORMATS, raw=_raw, gzipped=gzipped)
    return environment


@contextmanager
def _told(template: str) -> Iterator[None]:
    """Whatever goes wrong in a template as an InputError that says where."""
    import jinja2

    try:
        yield
    except InputError:
        raise
    except jinja2.TemplateSyntaxError as error:
        raise _refused(f"{error.filename or error.name}:{error.lineno}", str(error.message)) from None
    except jinja2.TemplateNotFound as error:
        raise _refused(_place(error) or template, f"no template {error.name!r} in {_folders_of(error.name)}") from None
    except Exception as error:  # whatever an expression of the user's template raises
        raise _refused(_place(error) or template, f"{type(error).__name__}: {error}") from None


def _source(name: str) -> tuple[str, str, None] | None:
    """What jinja2.FunctionLoader wants of a template: its text and file; InputError where it cannot be read."""
    path = next((folder / name.removeprefix(SHIPPED) for folder in _searched(name) if _is_in(folder, name)), None)
    if path is None:
        return None
    try:
        return path.read_text("utf-8"), str(path), None
    except (OSError, UnicodeDecodeError) as error:
        raise _refused(str(path), f"{error.strerror if isinstance(error, OSError) else error}") from None


def _searched(name: str) -> list[Path]:
    return [content.shipped_root() / "reports"] if name.startswith(SHIPPED) else content.folder("reports")


def _is_in(folder: Path, name: str) -> bool:
    return os.path.lexists(folder / name.removeprefix(SHIPPED))  # a link to nowhere is an error, not ours in its place


def _folders_of(name: str | None) -> str:
    return ", ".join(map(str, _searched(name or "")))


def _refused(place: str, why: str) -> InputError:
    return InputError(f"report template {place}: {' '.join(why.split())}")


def _place(error: Exception) -> str:
    """file:line of the innermost template that an error passed through; "" where it is in none."""
    place, trace = "", error.__traceback__
    while trace is not None:
        file = Path(trace.tb_frame.f_code.co_filename)
        if any(file.is_relative_to(folder) for folder in content.folder("reports")):
            place = f"{file}:{trace.tb_lineno}"
        trace = trace.tb_next
    return place


def _raw(value: Any) -> str:
    """A value with every digit, for sorting and CSV; of several all, the first of which counts."""
    if value is None or isinstance(value, bool):
        return "" if value is None else str(value).lower()
    return " ".join(map(_raw, value)) if isinstance(value, (list, tuple)) else str(value)


@cache
def plotly_bundle() -> str:
    """plotly.js, gzipped, in base64: 2 MB in place of 5. InputError where Plotly is not installed."""
    spec = None
    with suppress(ImportError):  # of whoever forbids it
        spec = find_spec("plotly")
    if spec is None or spec.origin is None:
        raise InputError("charts need Plotly: pip install plotly")
    script = Path(spec.origin).with_name("package_data") / "plotly.min.js"
    return gzipped(script.read_bytes())


def gzipped(text: str | bytes) -> str:
    """In base64, as `unpack` of report.js reads it."""
    data = text.encode() if isinstance(text, str) else text
    return base64.b64encode(gzip.compress(data, 6, mtime=0)).decode("ascii")
