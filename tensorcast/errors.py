"""Every exception a user of TensorCast can meet.

::

    TensorcastError
    ├── UnknownNameError   (LookupError)   a model, machine, kernel … that no catalog has
    ├── AmbiguousMatchError(LookupError)   two patterns fit a name equally well
    ├── DuplicateError     (ValueError)    a name registered twice
    ├── InputError         (ValueError)    a flag, a file or a field that cannot be used
    ├── ModelError         (ValueError)    a configuration that describes no buildable model
    ├── HardwareError      (ValueError)    a hardware profile that is not valid
    ├── DeploymentError    (ValueError)    tp, ep, pp, quantisation … that this model or machine cannot have
    ├── TransformationError(RuntimeError)  a pipeline step that could not do what was asked
    ├── KernelError        (RuntimeError)  an unknown, unusable or absent kernel
    └── CustomModelError   (ImportError)   a user file that does not load or contributes nothing

Each message is one line: what was wrong, and what would work. The command line prints it and exits 2.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any


class TensorcastError(Exception):
    """Base of all errors caused by a request or by a user's file, never by a bug of ours."""


class UnknownNameError(TensorcastError, LookupError):
    """A name that is not in a catalog.

    `noun` is what was looked for, `name` what was asked, `near` up to three similar names, `how` the way to list
    everything that is known.
    """

    def __init__(self, noun: str, name: str, known: Iterable[str] = (), how: str = "") -> None:
        self.noun, self.name, self.how = noun, name, how
        self.near = near_names(name, known)
        message = f"unknown {noun} {name!r}"
        if self.near:
            message += f"; nearest: {', '.join(self.near)}"
        if how:
            message += f"; {how}"
        super().__init__(message)


class AmbiguousMatchError(TensorcastError, LookupError):
    """Two equally specific patterns match one name."""


class DuplicateError(TensorcastError, ValueError):
    """A key that is already registered, by another source line."""


class InputError(TensorcastError, ValueError):
    """A flag value, a file or a field that cannot be used."""


class ModelError(TensorcastError, ValueError):
    """A model configuration that is broken, contradicts itself, or that no class can hold."""


class HardwareError(TensorcastError, ValueError):
    """A hardware profile with a missing, unknown or impossible field."""


class DeploymentError(TensorcastError, ValueError):
    """A parallel or quantisation plan that this model or this machine cannot have."""


class TransformationError(TensorcastError, RuntimeError):
    """A pipeline step that failed or returned something it must not."""


class KernelError(TensorcastError, RuntimeError):
    """A kernel that is unknown, does not run on the simulated machine, or has no slot in the model."""


class CustomModelError(TensorcastError, ImportError):
    """A user's file or package that cannot be loaded, or that contributes nothing."""


def there_is(name: Any, known: Iterable[Any], most: int = 8) -> str:
    """What a message says of a name that is not among `known`: the similar ones, else the first `most`.

    >>> there_is("tpp", ["tp", "ep"]), there_is("x", range(100), most=2), there_is("x", [])
    ('there is tp', 'there is 0, 1, … (100 in all)', 'there is none')
    """
    names = [*map(str, known)]
    near = near_names(str(name), names) or names
    more = f", … ({len(near)} in all)" if len(near) > most else ""
    return f"there is {', '.join(near[:most]) or 'none'}{more}"


def near_names(name: str, known: Iterable[str], count: int = 3) -> list[str]:
    """Up to `count` entries of `known` that look like `name`, best first."""
    return get_close_matches(str(name), sorted(set(known)), n=count, cutoff=0.5)
