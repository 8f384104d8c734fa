"""Worked example: a profile and a pipeline, for a model whose own code is not in the form of transformers.

The family meant here keeps query, key and value in one product (`query_key_value`), the attention itself written by
hand, and its experts in a list behind a plain linear (`router`). The profile says what structure cannot show; the
pipeline puts another attention in the place of the model's own. Use it with such a model's folder:

    tensorcast simulate --model ./my-model --hw ascend-910b --trust-remote-code

Nothing here imports torch before a model is built, so the file costs nothing when it lies in ./custom_model.
"""

import tensorcast as tc

tc.register_model_profile(
    tc.ModelProfile(
        model_type="bailing_like*",  # a pattern: every version of the family; an exact name would win over it
        model_family="bailing",
        moe_module_name="BailingLikeMoE",  # the block around the experts, by class
        moe_num_experts_key="num_local_experts",  # must agree with the modules
        moe_gate_returns_raw_logits=True,  # the router is a product; softmax and top-k come on top
        moe_field_names_override={"gate": "router", "shared_experts": "shared_expert"},
    )
)


@tc.register_custom_model("bailing_like*")
def deploy(model):
    """Called in place of the nine steps: here all of them, one replaced and one of our own behind it."""
    return tc.run_standard(
        model,
        replace={"patch_attention": lambda m: tc.patch_attention(m, attention=separate_projections)},
        after={"patch_moe": require_shared_experts},
    )


@tc.step  # a step of our own: reported under its name, with what it changed
def require_shared_experts(model):
    """Every MoE block of this family has a shared expert; a configuration without would be another model."""
    blocks = model.modules_of("BailingLikeMoE")
    if not all(hasattr(block, "shared_expert") for _, block in blocks):
        raise tc.TransformationError("a BailingLikeMoE without shared_expert: not the model this file describes")
    return model.report("require_shared_experts", len(blocks), f"{len(blocks)} blocks have one")


def separate_projections(old):
    """The module to put in the place of the attention `old`: three projections, and transformers' attention function.

    It takes the parts of the old one that stay, and makes the projections anew: their sizes are what counts. Written
    like this it is found by every step: heads are cut by shard_model, the three products run as one.
    """
    from torch import nn
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    class SeparateAttention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            config = self.config = old.config
            self.layer_idx, self.is_causal, self.head_dim = old.layer_idx, True, config.head_dim
            self.num_key_value_groups = config.num_attention_heads // config.num_key_value_heads
            hidden, bias = config.hidden_size, old.query_key_value.bias is not None
            self.q_proj = nn.Linear(hidden, config.num_attention_heads * self.head_dim, bias=bias)
            self.k_proj = nn.Linear(hidden, config.num_key_value_heads * self.head_dim, bias=bias)
            self.v_proj = nn.Linear(hidden, config.num_key_value_heads * self.head_dim, bias=bias)
            self.o_proj = old.dense

        def forward(self, hidden_states, position_embeddings, attention_mask=None, past_key_values=None, **options):
            shape = (*hidden_states.shape[:-1], -1, self.head_dim)
            parts = (self.q_proj, self.k_proj, self.v_proj)
            q, k, v = (part(hidden_states).view(shape).transpose(1, 2) for part in parts)
            q, k = rotate(q, k, *position_embeddings)
            if past_key_values is not None:
                k, v = past_key_values.update(k, v, self.layer_idx)
            attend = ALL_ATTENTION_FUNCTIONS["tensorcast"]
            out, _ = attend(self, q, k, v, attention_mask, scaling=self.head_dim**-0.5)
            return self.o_proj(out.reshape(*hidden_states.shape[:-1], -1)), None

    return SeparateAttention()


def rotate(q, k, cos, sin):
    """Rotary embedding as one operator: q and k [batch, heads, tokens, head size]."""
    from tensorcast.trace.library import call

    return call.rotary(q, k, cos)
