"""Attention over rows that hold images or windows one behind the other, as kernels for packed rows take them."""

from __future__ import annotations

import re
from collections.abc import Callable

import torch

from tensorcast.errors import ModelError
from tensorcast.layers.patching import GlobalPatch
from tensorcast.models.recipes import VISION
from tensorcast.trace.context import current

_PACKED = re.compile(r"^is_flash_attention_requested$")


def install_packed_attention(model) -> None:
    """Towers hand the boundaries of images and windows to attention, as they do for kernels that take packed rows."""
    model.patches.append(GlobalPatch(_PACKED, _packed))


def _packed(original, module_name):
    def requested(*args, **kwargs):
        return current().phase == VISION or original(*args, **kwargs)

    return requested


def attend_packed(attend: Callable, q, k, v, bounds: torch.Tensor):
    """Attention within the parts that `bounds` cuts one row into; parts of equal length are rows of one call.

    q [1, heads, n, d], k and v [1, kv_heads, n, d]; attend(q, k, v) → [parts, length, heads, dv]; → [1, n, heads, dv].
    """
    lengths = (bounds[1:] - bounds[:-1]).tolist()
    if sum(lengths) != q.shape[2]:
        raise ModelError(f"attention over {q.shape[2]} packed tokens whose parts have {sum(lengths)}")
    context, parts = current(), []
    for length in sorted({*lengths} - {0}):
        rows = lengths.count(length)
        with context.suspended():
            taken = [x.new_empty((rows, x.shape[1], length, x.shape[3])) for x in (q, k, v)]
        parts.append(attend(*taken))
    with context.fused():
        flat = [part.reshape(1, -1, *part.shape[2:]) for part in parts]
        return flat[0] if len(flat) == 1 else torch.cat(flat, dim=1)
