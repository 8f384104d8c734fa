"""What one class of denoiser needs beyond what its code shows: one registry, one file a family in models/builtin."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tensorcast.catalog import Catalog


@dataclass(frozen=True, kw_only=True)
class Denoiser:
    """What one class of diffusers takes; every field is optional.

    `arguments`: argument of forward → function of the `Scene`; it comes before the rule for that name, and None leaves
    the argument out. `axes` of the latents (diffusion.scene.axes_of). `space`, `time`: pixels and frames of a latent,
    where no pipeline states them; `space` may be a function of the configuration, which comes first. `frames` of one
    video, likewise. `whole_groups`: frames come in groups of `time`; usually the first frame is a latent of its own.
    `multiple`: latents along one side that belong together. `prepare` is called with the module that was made.

    `defaults`: published values of fields that the class leaves open. `alone`: why the class is not run for itself;
    `fixed`: a note on sizes that --image and --frames do not reach.
    """

    arguments: Mapping[str, Callable[[Any], Any]] = field(default_factory=dict)
    axes: str = ""
    space: int | Callable[[Mapping[str, Any]], int] | None = None
    time: int | None = None
    frames: int | None = None
    prepare: Callable[[Any], None] | None = None
    whole_groups: bool = False
    multiple: int = 1
    defaults: Mapping[str, Any] = field(default_factory=dict)
    alone: str = ""
    fixed: str = ""


DENOISERS: Catalog[Denoiser] = Catalog("denoiser class", how="")
_PLAIN = Denoiser()


def register_denoiser(names: str | Iterable[str], like: str | None = None, **fields: Any) -> None:
    """Make one `Denoiser` known for the classes `names`; `like` starts from the fields of a class that is known."""
    base = DENOISERS.get(like) if like is not None else _PLAIN
    if like is not None and "arguments" in fields:
        fields["arguments"] = {**base.arguments, **fields["arguments"]}
    for name in names.split() if isinstance(names, str) else names:
        DENOISERS.register(name, replace(base, **fields))


def denoiser(*names: str) -> Denoiser:
    """What is known of the first of the classes that anything is known of."""
    importlib.import_module("tensorcast.models.builtin.diffusion")  # its files register themselves
    return next((found for name in names if (found := DENOISERS.find(name)) is not None), _PLAIN)
