"""JetMoE: feed-forward and attention both route tokens. Queries and outputs of attention are products of experts.

Its code counts the tokens of every expert and cuts its input at those counts; here routing is uniform over the experts.
"""

from __future__ import annotations

import torch

from tensorcast.ops.base import dtype_name
from tensorcast.pipelines import ModelProfile, register_model_profile
from tensorcast.trace.context import current
from tensorcast.trace.library import call


def route(module, hidden_states):
    """forward of a JetMoeTopKGating, hidden_states [tokens, hidden]: the order of the (token, expert) pairs, their
    tokens and weights [tokens · top_k]; experts of a token in place of the counts; logits [tokens, experts]."""
    logits = module.layer(hidden_states)
    call.moe_route(logits, module.top_k)
    with current().suspended():
        pairs = hidden_states.shape[0] * module.top_k
        order, weights = torch.empty(pairs, dtype=torch.long), hidden_states.new_empty(pairs)
    return order, order, weights, module.top_k, logits


def experts_product(module, inputs, top_k):
    """forward of a JetMoeParallelExperts, inputs [tokens · top_k, inputs]."""
    fmt = dtype_name(module.weight)
    return call.expert_linear(inputs, module.weight, top_k, fmt, fmt)


register_model_profile(
    ModelProfile(
        model_type="jetmoe",
        forwards={"JetMoeTopKGating.forward": route, "JetMoeParallelExperts.forward": experts_product},
    )
)
