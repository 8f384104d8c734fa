"""Kernels of the attention op. Signature: attention(q, k, v, rule) -> [b, s, heads, dv].

q [b, heads, s, d], k and v [b, kv_heads, kv, d]; `rule` is a layers.attention.AttentionRule.
"""

from __future__ import annotations

from tensorcast.kernels.registry import KERNELS, HardwareRequirement, KernelSpec


def _flash(figures: str):
    """Fused attention, priced with the coefficients a machine has of the kernel `figures` ("" = of its default one)."""

    def factory():
        from tensorcast.trace.library import call

        def flash(q, k, v, rule):
            return call.attention(
                q, k, v, rule.causal, rule.window, rule.chunk, rule.topk, rule.kv_format, rule.math, rule.phase, figures
            )

        return flash

    return factory


def _eager():
    import torch

    def eager(q, k, v, rule):
        b, heads, s, d = q.shape
        kv_heads, kv = k.shape[1], k.shape[2]
        q = q.reshape(b * kv_heads, heads // kv_heads * s, d)
        scores = torch.bmm(q, k.reshape(b * kv_heads, kv, d).transpose(1, 2)) * rule.scale
        if rule.causal and s > 1:
            mask = scores.new_empty((1, 1, s, kv))
            scores = (scores.view(b, heads, s, kv) + mask).view(scores.shape)
        weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(q.dtype)
        out = torch.bmm(weights, v.reshape(b * kv_heads, kv, v.shape[-1]))
        return out.view(b, heads, s, -1).transpose(1, 2).contiguous()

    return eager


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
KERNELS.register(
    KernelSpec("eager", "attention", _eager, description="matrix product, softmax in fp32, matrix product; all pairs")
)
