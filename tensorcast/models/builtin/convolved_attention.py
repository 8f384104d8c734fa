"""Attention with convolutions in front of it.

Inkling: keys and values pass a convolution of every channel; r_proj gives every head what it adds by distance.
Zaya: queries and keys are convolved together, and a value head mixes two tokens: heads are not apart, so that every
rank runs the attention whole.
"""

from __future__ import annotations

from tensorcast.pipelines import ModelProfile, register_model_profile

for _model_type in ("inkling_text", "inkling_mm_model", "inkling2_text", "inkling2"):
    register_model_profile(ModelProfile(model_type=_model_type, tp_plan={"*.self_attn.r_proj": "column"}))
register_model_profile(ModelProfile(model_type="zaya", tp_plan={"*.self_attn.qkv_proj.*": "replicated"}))
