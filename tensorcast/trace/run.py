"""One forward of a deployed model on meta, traced."""

from __future__ import annotations

import torch

from tensorcast.layers.attention import InterceptAttention
from tensorcast.layers.cache import build_cache
from tensorcast.layers.mtp import block_kinds, run_drafts
from tensorcast.layers.patching import patched
from tensorcast.trace.context import Context, entered
from tensorcast.trace.tracer import Tracer
from tensorcast.transformer_model import TransformerModel


def trace_step(model: TransformerModel, phase: str, batch: int, tokens: int, past: int) -> Tracer:
    """Run `tokens` new tokens of `batch` sequences that have `past` tokens in their cache; returns what was recorded.

    Logits are asked for the last token of each sequence, in decode for every new token (drafts are verified).
    """
    tracer = Tracer(paths={id(m): path for path, m in model.module.named_modules()})
    tracer.memory.resident(model.module.parameters())
    tracer.memory.resident(model.module.buffers())
    context = Context(phase=phase, model=model, tracer=tracer)
    with torch.no_grad(), torch.device("meta"), entered(context), patched(model.module, model.patches):
        cache = build_cache(model.config, past, block_kinds(model.text_config) * len(model.drafts or ()))
        ids = torch.empty((batch, tokens), dtype=torch.long)
        positions = torch.empty((batch, tokens), dtype=torch.long)
        tracer.memory.resident((ids, positions))
        hidden = _Capture(model.final_norm) if model.drafts is not None else None
        with InterceptAttention(), tracer:
            result = model.module(
                input_ids=ids,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=tokens if phase == "decode" else 1,
            )
            if hidden is not None:
                run_drafts(model, hidden.taken(), ids, context.block_options)
        del result
    return tracer


class _Capture:
    """The output of one module during one forward."""

    def __init__(self, module) -> None:
        self._value = None
        self._hook = module.register_forward_hook(self._keep)

    def _keep(self, module, args, result) -> None:
        self._value = result

    def taken(self):
        self._hook.remove()
        return self._value
