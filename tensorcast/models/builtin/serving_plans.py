"""Models whose published tensor-parallel plan is not how serving engines split them.

Those plans gather the results of the attention's or the feed-forward's first products on every rank and multiply all
heads there, because transformers reads fused or normed projections whole. Serving engines keep the heads apart.
"""

from __future__ import annotations

from tensorcast.pipelines import ModelProfile, register_model_profile

ATTENTION = {
    **dict.fromkeys(("*.self_attn.q_proj", "*.self_attn.k_proj", "*.self_attn.v_proj"), "column"),
    "*.self_attn.qkv_proj": "column",
    "*.self_attn.o_proj": "row",
}
_FEED_FORWARD = {"*.mlp.gate_up_proj": "column", "*.mlp.down_proj": "row"}
_SCAN = {"*.linear_attn.in_proj*": "column", "*.linear_attn.out_proj": "row"}

_SHARED = {"*.shared_mlp.input_linear": "column", "*.shared_mlp.output_linear": "row"}

for _model_type, _plan in {
    "granitemoehybrid": _SHARED,
    "granitemoeshared": _SHARED,
    "minimax_m2": ATTENTION,
    "olmo_hybrid": ATTENTION,
    "phi3": ATTENTION | _FEED_FORWARD,
    "qwen3_next": _SCAN,
    "qwen3_5": _SCAN,
    "qwen3_5_text": _SCAN,
    "qwen3_5_moe": _SCAN,
    "qwen3_5_moe_text": _SCAN,
}.items():
    register_model_profile(ModelProfile(model_type=_model_type, tp_plan=_plan))
