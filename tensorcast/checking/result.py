"""The outcome of checks: one `Result` each, and the `Report` of them all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from tensorcast.custom.loading import shown
from tensorcast.errors import TensorcastError


class Failed(Exception):
    """What was checked is wrong; the text says how, in one line."""


class Skipped(Exception):
    """There is nothing to check; the text says why, in one line."""


@dataclass(frozen=True)
class Check:
    """A named check. `run(subject)` returns what it saw, or raises."""

    name: str
    run: Callable[[Any], str]


@dataclass(frozen=True)
class Result:
    """How one check ended. `error` is the exception behind a failure, for a traceback."""

    name: str
    status: Literal["pass", "fail", "skip"]
    detail: str
    error: BaseException | None = field(default=None, compare=False, repr=False)

    def to_dict(self) -> dict[str, str]:
        return {"name": self.name, "status": self.status, "detail": self.detail}


@dataclass(frozen=True)
class Report:
    """Everything one run of checks found. `matched` says what the request resolved to."""

    kind: Literal["model", "hardware", "file"]
    name: str
    matched: Mapping[str, Any]
    results: tuple[Result, ...]

    @property
    def failures(self) -> list[Result]:
        return [result for result in self.results if result.status == "fail"]

    def to_dict(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "name": self.name,
            "passed": not self.failures,
            "matched": dict(self.matched),
            "checks": [result.to_dict() for result in self.results],
        }


def run_check(check: Check, subject: Any) -> Result:
    """The result of one check; whatever it raises is a failure with its reason."""
    try:
        return Result(check.name, "pass", check.run(subject))
    except Skipped as reason:
        return Result(check.name, "skip", str(reason))
    except (Failed, TensorcastError) as reason:
        return Result(check.name, "fail", str(reason), reason)
    except Exception as fault:
        text = " ".join(str(fault).split())[:300]
        return Result(check.name, "fail", f"{type(fault).__name__}: {text}{_place(fault)}", fault)


def run_checks(checks: Iterable[Check], subject: Any, first: Check) -> tuple[Result, ...]:
    """`first`, and the others if it did not fail: nothing can be said of what does not load.

    What fails for the very reason that another check failed for is skipped.
    """
    results = [run_check(first, subject)]
    if results[0].status == "fail":
        return tuple(results)
    reasons: dict[str, str] = {}
    for check in checks:
        result = run_check(check, subject)
        if result.status == "fail" and result.detail in reasons:
            result = Result(check.name, "skip", f"as {reasons[result.detail]}")
        elif result.status == "fail":
            reasons[result.detail] = check.name
        results.append(result)
    return tuple(results)


def _place(fault: BaseException) -> str:
    """` (file:line)` of the innermost frame of code that is neither ours nor an installed library's."""
    from pathlib import Path

    package, place, trace = Path(__file__).resolve().parents[1], "", fault.__traceback__
    while trace is not None:
        file = Path(trace.tb_frame.f_code.co_filename)
        if file.is_file() and package not in file.resolve().parents and "site-packages" not in file.parts:
            place = f" ({shown(file)}:{trace.tb_lineno})"
        trace = trace.tb_next
    return place
