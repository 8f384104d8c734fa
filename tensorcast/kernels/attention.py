"""Kernels of the attention op. Signature: attention(q, k, v, rule) -> [b, s, heads, dv].

q [b, heads, s, d], k and v [b, kv_heads, kv, d]; `rule` is a layers.attention.AttentionRule. A kernel whose attribute
`shards` is True minds `rule.shards`.
"""

from __future__ import annotations

from tensorcast.errors import TransformationError
from tensorcast.kernels.registry import EAGER, KERNELS, HardwareRequirement, KernelSpec


def _flash(figures: str):
    """Fused attention, priced with the coefficients a machine has of the kernel `figures` ("" = of its default one)."""

    def factory():
        from tensorcast.trace.library import call

        def flash(q, k, v, rule):
            limits = (rule.causal, rule.window, rule.chunk, rule.topk)
            formats = (rule.kv_format, rule.math, rule.phase, figures)
            if rule.bias is not None:
                if rule.shards > 1:
                    what = "no kernel adds a position bias to a part of the keys"
                    raise TransformationError(f"--dcp {rule.shards}: {what}; leave it out")
                return call.biased_attention(q, k, v, rule.bias, *limits, *formats)
            if rule.ahead:
                return call.joined_attention(q, k, v, rule.ahead, *limits, *formats)
            return call.attention(q, k, v, *limits, *formats, rule.shards)

        flash.shards = True
        return flash

    return factory


def _paged(block: int):
    """Fused attention that finds keys and values through a table of blocks of `block` tokens."""

    def factory():
        from tensorcast.trace.context import current
        from tensorcast.trace.library import call

        def paged(q, k, v, rule):
            if not rule.causal:  # encoders keep no cache: there are no blocks
                return flash(q, k, v, rule)
            if rule.bias is not None:
                how = "choose --kernel attention=flash or eager"
                raise TransformationError(f"attention=paged: no kernel adds a position bias to paged keys; {how}")
            if rule.ahead:  # the prompt's own keys are at hand: no blocks are read
                return flash(q, k, v, rule)
            current().note_paged(block)
            limits = (rule.causal, rule.window, rule.chunk, rule.topk)
            return call.paged_attention(q, k, v, *limits, rule.kv_format, rule.math, rule.phase, "", block, rule.shards)

        flash = _flash("")()
        paged.shards = True
        return paged

    return factory


def _block_sparse(share: float, block: int = 128):
    """Attention of a picture or video to itself in which a block of queries sees `share` of the blocks of keys."""

    def factory():
        from math import ceil

        from tensorcast.trace.library import call

        def block_sparse(q, k, v, rule):
            if rule.causal or rule.bias is not None:
                how = "choose --kernel attention=flash"
                raise TransformationError(f"attention=block_sparse is for attention in both directions; {how}")
            if q.shape[2] != k.shape[2]:  # to a prompt: few keys, and each counts
                return flash(q, k, v, rule)
            kept = max(1, ceil(share * ceil(k.shape[2] / block)))
            return call.block_sparse_attention(q, k, v, rule.kv_format, rule.math, block, kept)

        flash = _flash("")()
        return block_sparse

    return factory


def _eager():
    import torch

    from tensorcast.trace.context import current

    def eager(q, k, v, rule):
        b, heads, s, d = q.shape
        kv_heads, kv = k.shape[1], k.shape[2]
        q = q.reshape(b * kv_heads, heads // kv_heads * s, d)
        scores = torch.bmm(q, k.reshape(b * kv_heads, kv, d).transpose(1, 2)) * rule.scale
        if rule.bias is not None:
            scores = (scores.view(b, heads, s, kv) + rule.bias).view(scores.shape)
        if (rule.causal or rule.window) and (s > 1 or rule.window or rule.chunk):
            mask = scores.new_empty((1, 1, s, kv))
            with current().suspended():  # made once for all layers
                mask.copy_(_hidden(s, kv, rule, scores))
            scores = (scores.view(b, heads, s, kv) + mask).view(scores.shape)
        weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(q.dtype)
        out = torch.bmm(weights, v.reshape(b * kv_heads, kv, v.shape[-1]))
        return out.view(b, heads, s, -1).transpose(1, 2).contiguous()

    return eager


def _hidden(s: int, kv: int, rule, like):
    """What is added to the scores [s, kv]: minus infinity where a query must not see a key."""
    import torch

    position = torch.arange(kv - s, kv, device=like.device)[:, None]
    key = torch.arange(kv, device=like.device)
    seen = key <= position if rule.causal else key >= 0
    if rule.window:
        seen = seen & ((position - key).abs() < rule.window)
    if rule.chunk:
        seen = seen & (position // rule.chunk == key // rule.chunk)
    return torch.zeros((s, kv), dtype=like.dtype, device=like.device).masked_fill(~seen, float("-inf"))


KERNELS.register(
    KernelSpec(
        "flash",
        "attention",
        _flash(""),
        description="one kernel; scores stay on chip, masked pairs are skipped; the machine's usual one",
        default=True,
    )
)
for _name, _needs, _what in (
    ("fa2", HardwareRequirement("gpu", 80), "FlashAttention 2"),
    ("fa3", HardwareRequirement("gpu", 90, 90), "FlashAttention 3"),
    ("trtllm", HardwareRequirement("gpu", 80), "the kernels of TensorRT-LLM"),
    ("trtllm_gen", HardwareRequirement("gpu", 100), "generated TensorRT-LLM kernels, as FlashInfer ships them"),
):
    KERNELS.register(
        KernelSpec(
            _name,
            "attention",
            _flash(_name),
            hardware=_needs,
            coefficients=_name,
            description=f"as flash, priced as {_what}",
        )
    )
for _name, _block in (("paged", 16), ("paged_128", 128)):
    KERNELS.register(
        KernelSpec(
            _name,
            "attention",
            _paged(_block),
            description=f"as flash, keys and values in blocks of {_block} tokens found through a table",
        )
    )
for _percent in (50, 75, 90):
    KERNELS.register(
        KernelSpec(
            f"block_sparse_{_percent}",
            "attention",
            _block_sparse(1 - _percent / 100),
            description=f"as flash, {_percent} % of the pairs left out in blocks of 128; choosing them is not costed",
        )
    )
KERNELS.register(
    KernelSpec(EAGER, "attention", _eager, description="matrix product, softmax in fp32, matrix product; all pairs")
)
