"""Which module gets which format: the quantisation plan, resolved against the modules that are there."""

from __future__ import annotations

from torch import nn

from tensorcast.layers.experts import experts_weights
from tensorcast.layers.moe import is_router
from tensorcast.layers.parameters import empty_parameter
from tensorcast.layers.state import has_state, state_of


def quantise_linears(model) -> int:
    """Attach a QuantSpec to every linear and experts module that the plan covers. Returns how many have one."""
    kinds = {path: kind for path, module in model.module.named_modules() if (kind := _kind(model, module))}
    specs = model.quant.resolve(kinds)
    for path, spec in specs.items():
        state_of(model.module.get_submodule(path)).quant = spec
    model.quantised = specs
    _untie(model)
    return len(specs)


def _untie(model) -> None:
    """A head in another format than the token embedding is a tensor of its own: both are stored."""
    head, table = model.output_head, model.token_embedding
    if not model.tied or state_of(head).quant == state_of(table).quant:
        return
    head._parameters["weight"] = empty_parameter(head.weight, head.weight.shape)
    model.tied = False
    formats = ", ".join(f"{state_of(m).quant.weight if state_of(m).quant else model.dtype_name}" for m in (head, table))
    model.notes.append(f"head and token embedding untied by quantisation: both are stored ({formats})")


def _kind(model, module: nn.Module) -> str | None:
    if not has_state(module):
        return None
    if experts_weights(module) is not None:
        return "experts"
    if is_router(module):
        return "router"
    if isinstance(module, nn.Embedding):
        return "embedding"
    if isinstance(module, nn.Linear):
        return "lm_head" if module is model.output_head else "linear"
    return None


def describe_attention(model) -> str:
    """KV-cache and attention formats for the step report; empty when both are the model's own."""
    parts = []
    if model.kv_format != model.dtype_name:
        parts.append(f"KV cache {model.kv_format}")
    if model.attention_format:
        parts.append(f"attention {model.attention_format}")
    return f", {', '.join(parts)}" if parts else ""
