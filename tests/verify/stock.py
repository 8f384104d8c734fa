"""Models exactly as transformers ships them: the other side of every comparison in this folder."""

from __future__ import annotations

import copy
import inspect
import re
from collections.abc import Mapping

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from tensorcast.layers.experts import experts_weights
from tensorcast.layers.reuse import signature
from tensorcast.models.build import build_blueprint
from tensorcast.models.reference import ModelSource

ROTARY = re.compile(r"Rotary")
EXPERTS = "batched_mm"  # the one stock form without data-dependent shapes: every (token, expert) pair is a product


def build(source: ModelSource, **options) -> nn.Module:
    """The model on meta with transformers' own eager attention and batched experts."""
    found = build_blueprint(source, attn_implementation="eager", **options)
    blocks = {type(m).__module__ for m in found.module.modules() if experts_weights(m) is not None}
    if not blocks or any(runs_every_expert(m) for m in found.module.modules()):
        return found.module
    return build_blueprint(source, attn_implementation="eager", experts_implementation=EXPERTS, **options).module


def runs_every_expert(module: nn.Module) -> bool:
    """Whether an experts module multiplies all tokens with all experts: it is not told what was routed where."""
    return experts_weights(module) is not None and len(inspect.signature(type(module).forward).parameters) == 2


def decoder_layers(module: nn.Module) -> tuple[str, nn.ModuleList]:
    """The longest list of layers that is not a vision tower's."""
    towers = re.compile(r"vis(ual|ion)")
    lists = [(p, m) for p, m in module.named_modules() if isinstance(m, nn.ModuleList) and not towers.search(p)]
    return max((x for x in lists if "expert" not in x[0]), key=lambda x: len(x[1]))


def depth_with_every_kind(source: ModelSource) -> int:
    """How many layers from the first one show every kind of layer that the model has."""
    _, layers = decoder_layers(build_blueprint(source).module)
    kinds = [signature(block, index) for index, block in enumerate(layers)]
    return max(kinds.index(kind) for kind in set(kinds)) + 1


def step_inputs(batch: int, tokens: int, past: int, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """What one step takes, with a mask of four dimensions: stock code looks into the values of any other."""
    return {
        "input_ids": torch.zeros((batch, tokens), dtype=torch.long),
        "position_ids": torch.arange(past, past + tokens).expand(batch, tokens),
        "attention_mask": torch.zeros((batch, 1, tokens, past + tokens), dtype=dtype),
    }


def counted(module: nn.Module, batch: int, tokens: int, past: int = 0) -> Mapping[str, Mapping[str, int]]:
    """FlopCounterMode's figures, operator by operator, under the path of every module ("Global" is the whole)."""
    counter = FlopCounterMode(display=False)
    dtype = next(module.parameters()).dtype
    with torch.no_grad(), torch.device("meta"):
        cache = None
        if past:
            cache = module(**step_inputs(batch, past, 0, dtype), use_cache=True, logits_to_keep=1).past_key_values
        inputs = step_inputs(batch, tokens, past, dtype)
        with counter:
            module(**inputs, past_key_values=cache, use_cache=bool(past), logits_to_keep=1)
    prefix = f"{type(module).__name__}."
    return {
        path.removeprefix(prefix): {str(op): flops for op, flops in ops.items()}
        for path, ops in counter.get_flop_counts().items()
    }


def own_flops(counts: Mapping[str, Mapping[str, int]], path: str, module: nn.Module) -> int:
    """FLOPs of a module's own code: without those of the modules inside it."""
    total = sum(counts.get(path, {}).values())
    return total - sum(sum(counts.get(f"{path}.{name}", {}).values()) for name, _ in module.named_children())


def build_real(source: ModelSource, seed: int = 0) -> nn.Module:
    """The same in memory, fp32, with random weights."""
    meta = build(source, dtype="fp32")
    torch.manual_seed(seed)
    options = {"attn_implementation": "eager"}
    if any(experts_weights(m) is not None for m in meta.modules()):
        options["experts_implementation"] = EXPERTS
    module = type(meta)._from_config(copy.deepcopy(meta.config), dtype=torch.float32, **options)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.05)
    return module.eval().requires_grad_(False)
