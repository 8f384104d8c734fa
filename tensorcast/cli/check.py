"""`tensorcast check`: is a model, a file of user code or a machine fit for use? One line per check."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tensorcast.cli.options import NonEmpty, Verb, debug_option, json_flag, option, repeatable, source_options
from tensorcast.cli.progress import progress
from tensorcast.content import path_of
from tensorcast.errors import InputError

if TYPE_CHECKING:
    from tensorcast.checking.result import Report

WIDTH = 80
LABEL = 30  # columns of an outcome and a check's name


@click.command(
    "check",
    cls=Verb,
    short_help="Is a model, a file of yours or a machine fit for use?",
    examples=(
        "tensorcast check qwen3-8b --hw ascend-910b",
        "tensorcast check custom_model/my_moe.py",
        "tensorcast check hardware_profiles/my-chip.yaml",
    ),
)
@click.argument("target", required=False, type=NonEmpty("MODEL"), metavar="TARGET")
@option("--model", "-m", type=NonEmpty("MODEL"), help="Model to check, or to check TARGET with.")
@source_options
@option("--hw", type=NonEmpty("MACHINE"), help="Machine it is deployed for: a known name or a YAML file.")
@repeatable("--kernel", type=NonEmpty("KERNEL"), help="OP[/VARIANT][@GLOB]=NAME: check with this kernel.")
@click.option("--weights", is_flag=True, help="Compare with the headers of the checkpoint in the model's folder.")
@click.option("--trust-remote-code", is_flag=True, help="Load model code found in the model's own folder.")
@json_flag
@debug_option
def command(
    target: str | None,
    model: str | None,
    custom: tuple[str, ...],
    no_custom_dir: bool,
    no_plugin: tuple[str, ...],
    hw: str | None,
    kernel: tuple[str, ...],
    weights: bool,
    trust_remote_code: bool,
    as_json: bool,
    debug: bool,
) -> None:
    """Check TARGET before it is used: a model (name, folder, config.json, hub id), a file or package of your own code,
    a graph, or a hardware file. Prints what it resolved to and one line per check.
    """
    kind, text, model = _target(target, model, custom, hw)
    options: dict[str, Any] = {
        "custom_dir": not no_custom_dir,
        "no_plugin": no_plugin,
        "kernel": list(kernel),
        "trust_remote_code": trust_remote_code,
    }
    folder = _checkpoint(model if kind != "model" else text) if weights else None
    with progress(begin=f"checking {text}"):
        if kind == "hardware":
            report = _hardware(text, model, weights or kernel or custom)
        elif kind == "code":
            paths = list(dict.fromkeys((*custom, text)))
            report = _code(text, model, {**options, "custom": paths, "hw": hw}, folder)
        else:
            from tensorcast.checking.model import check_model
            from tensorcast.checking.subject import Subject

            report = check_model(Subject(text, hw=hw, custom=list(custom), **options), folder)
    _show(report, as_json)
    _verdict(report, debug)


def _target(
    target: str | None, model: str | None, custom: tuple[str, ...], hw: str | None
) -> tuple[str, str, str | None]:
    """(kind, reference, model to check it with)."""
    from tensorcast.checking.target import target_of

    if target is not None:
        found = target_of(target)
        if found.kind == "model" and model is not None:
            raise InputError(f"the model is given twice: {target} and --model {model}; give one")
        return found.kind, found.text, model
    if custom:
        return "code", custom[-1], model
    if model is not None:
        return "model", model, None
    if hw is not None:
        return "hardware", hw, None
    raise InputError("nothing to check; name a model, a folder, a file of your own or a hardware file")


def _checkpoint(model: str | None) -> Path:
    """The folder whose checkpoint is compared."""
    folder = path_of(model or "", "model")
    folder = folder.parent if folder.is_file() else folder
    if model is None or not folder.is_dir():
        raise InputError(f"--weights {model or ''}: needs a folder with the checkpoint; give --model FOLDER")
    return folder


def _hardware(reference: str, model: str | None, unused: Any) -> Report:
    from tensorcast.checking.machine import REFERENCE, Machine, check_machine

    if unused:
        raise InputError(f"{reference} is a machine: --weights, --kernel and --custom go with a model")
    return check_machine(Machine(reference, model or REFERENCE))


def _code(path: str, model: str | None, options: dict[str, Any], weights: Path | None) -> Report:
    from tensorcast.checking.code import Code, check_code
    from tensorcast.custom.sources import Sources

    sources = Sources.of(options["custom"], folder=options["custom_dir"], no_plugin=options["no_plugin"])
    return check_code(Code(Path(path), sources), model, options, weights)


def _show(report: Report, as_json: bool) -> None:
    if as_json:
        from tensorcast.report.data.json import dumps

        click.echo(dumps(report.to_dict()), nl=False)
        return
    for line in _wrapped(f"{report.kind} {report.name}", "    "):
        click.echo(line)
    for name, value in report.matched.items():
        for line in _fact(name, value):
            click.echo(line)
    for result in report.results:
        head = f"{result.status}  {result.name}".ljust(LABEL)
        for line in _wrapped(f"{head}{result.detail}", " " * LABEL):
            click.echo(line)


ROWS = {
    "steps": "{status}  {name}: {reason}",
    "kernels": "{op}/{variant} x{slots} = {name} ({source})",
    "reuse": "{stack}: {layers} layers, {groups} distinct",
    "sharding rules": "{rule}: {style} x{modules}",
    "quantised": "{scheme} x{modules}",
    "network": "{tier}: {kind} of {devices}, {bandwidth}",
    "peaks": "{format}: {rate}",
}
"""How a row of each table is said in one line."""


def _fact(name: str, value: Any) -> Iterator[str]:
    """One fact; the rows of a table below its title. What is empty is left out."""
    if not value:
        return
    if not isinstance(value, list):
        yield from _wrapped(f"  {name}: {value}", " " * 6)
        return
    yield f"  {name}"
    for row in value:
        yield from _wrapped(f"    {ROWS[name].format(**row) if name in ROWS else row}", " " * 8)


def _wrapped(text: str, indent: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, subsequent_indent=indent, break_on_hyphens=False) or [""]


def _verdict(report: Report, debug: bool) -> None:
    """InputError naming the first failed check."""
    if not report.failures:
        return
    first, more = report.failures[0], len(report.failures) - 1
    if debug and first.error is not None:
        import traceback

        traceback.print_exception(first.error)
    others = f" ({more} more failed)" if more else ""
    raise InputError(f"check {report.name}: {first.name}: {first.detail}{others}")
