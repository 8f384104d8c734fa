"""Llama 4: transformers runs every expert on every token, scaled by a score that is zero for all but the chosen ones.

What a serving engine runs, and what the published model is, is a router, the chosen experts and one shared expert. The
score (a sigmoid of the router's logit) multiplies the expert's input, which grouped experts do while they gather it.
"""

from __future__ import annotations

from tensorcast.pipelines import ModelProfile, register_model_profile
from tensorcast.trace.context import current


def routed_and_shared(block, hidden_states):
    """forward of a Llama4TextMoe: hidden_states [batch, tokens, hidden] → ([batch · tokens, hidden], router logits)."""
    tokens = hidden_states.reshape(-1, hidden_states.shape[-1])
    scores, logits = block.router(tokens)
    with current().suspended():
        chosen = scores.new_empty((tokens.shape[0], block.router.top_k), dtype=int)
    shared = block.shared_expert(tokens)
    return shared + block.experts(tokens, chosen), logits


for _model_type in ("llama4", "llama4_text"):
    register_model_profile(ModelProfile(model_type=_model_type, moe_block_forward=routed_and_shared))
