"""`build_model`: a deployed model as an object, for looking at what the steps did."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tensorcast.models.blueprint import Blueprint
    from tensorcast.request import Request

ANY_MACHINE = "h100-sxm"


def build_model(model: Any = None, hw: Any = None, **options: Any):
    """The deployed `TransformerModel` of a model reference or object: its module on meta, steps, slots and notes.

    Options are those of `simulate` that shape the model: custom, tp, ep, dp, quant, kernel, mtp, layers, dtype, reuse.
    Without `hw`, h100-sxm stands for any machine. Raises a TensorcastError.
    """
    from tensorcast.request import Request
    from tensorcast.transformer_model import Deployment, deployed_model

    request = Request.of(model=model, hw=ANY_MACHINE if hw is None else hw, idle=True, **options)
    return deployed_model(blueprint_of(request), Deployment(**request.deployment()))


def blueprint_of(request: Request) -> Blueprint:
    """The model of a request before any step: what the user's files add is loaded first."""
    from tensorcast.layers.attention import INTERFACE, register_interface
    from tensorcast.models.build import build_blueprint

    request.sources.load()
    register_interface()
    return build_blueprint(
        request.source,
        dtype=request.dtype,
        trust_remote_code=request.trust_remote_code,
        attn_implementation=INTERFACE,
    )
