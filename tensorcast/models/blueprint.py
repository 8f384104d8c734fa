"""A model before anything is done to it: a module on the meta device and the configuration it was made from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from tensorcast.models.recipes import Kind, Step
    from tensorcast.models.reference import ModelSource


@dataclass
class Blueprint:
    """What a builder hands to the transformation steps.

    `module` is on meta, tied, in eval mode, without gradients. `model_type` (lower case, `_` for `-`, `.` and space) is
    the key for profiles and pipelines; `architecture` the class name published with the model; `origin` where the
    module class came from. `inputs(model, step)` makes the arguments of one forward. `notes` are for the report.
    """

    module: torch.nn.Module
    config: Any
    kind: Kind
    model_type: str
    architecture: str
    origin: str
    dtype: torch.dtype
    source: ModelSource
    inputs: Callable[[Any, Step], dict[str, Any]]
    notes: tuple[str, ...] = ()


def normalise_type(model_type: str) -> str:
    """`Nemotron-NAS` → `nemotron_nas`."""
    return model_type.strip().lower().replace("-", "_").replace(".", "_").replace(" ", "_")
