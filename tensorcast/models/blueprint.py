"""A model before anything is done to it: a module on the meta device and the configuration it was made from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import torch

    from tensorcast.models.reference import ModelSource


@dataclass
class Blueprint:
    """What a builder hands to the transformation steps.

    `module` is on meta, tied, in eval mode, without gradients. `model_type` (lower case, `_` for `-`, `.` and space) is
    the key for profiles and pipelines; `architecture` the class name published with the model; `origin` where the
    module class came from. `notes` are for the report.
    """

    module: torch.nn.Module
    config: Any
    kind: Literal["transformers", "diffusers", "packed", "graph", "module"]
    model_type: str
    architecture: str
    origin: str
    dtype: torch.dtype
    source: ModelSource
    notes: tuple[str, ...] = ()


def normalise_type(model_type: str) -> str:
    """`Nemotron-NAS` → `nemotron_nas`."""
    return model_type.strip().lower().replace("-", "_").replace(".", "_").replace(" ", "_")
