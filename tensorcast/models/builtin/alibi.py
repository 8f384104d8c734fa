"""Models that add a bias by distance to their scores: one slope a head, made once for all layers.

A rank that holds a part of the heads adds the part of the bias that belongs to them.
"""

from __future__ import annotations

import torch

from tensorcast.pipelines import ModelProfile, register_model_profile
from tensorcast.trace.context import current


def bloom_slopes(num_heads, device):
    """[heads of a rank]"""
    with current().suspended():
        return torch.empty(num_heads // current().model.plan.tp, dtype=torch.float32)


def falcon_bias(attention_mask, num_heads, dtype):
    """[batch · heads of a rank, 1, keys]"""
    batch, keys = attention_mask.shape
    with current().suspended():
        return torch.empty((batch * (num_heads // current().model.plan.tp), 1, keys), dtype=dtype)


def mpt_bias(module, num_heads, sequence_length, alibi_bias_max=8, device=None):
    """[heads of a rank, 1, keys], fp32"""
    with current().suspended():
        return torch.empty((num_heads // current().model.plan.tp, 1, sequence_length), dtype=torch.float32)


for _model_type, _replaced, _function in (
    ("bloom", "_get_alibi_slopes", bloom_slopes),
    ("falcon", "build_alibi_tensor", falcon_bias),
    ("mpt", "MptModel.build_mpt_alibi_tensor", mpt_bias),
):
    register_model_profile(ModelProfile(model_type=_model_type, forwards={_replaced: _function}))
