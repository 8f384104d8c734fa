"""DBRX: its experts are three tall matrices with one slice of rows for every expert; here they are stacked."""

from __future__ import annotations

import torch
from torch import nn

from tensorcast.pipelines import ModelProfile, register_model_profile


class OneExpert(nn.Module):
    """Expert `index` of a DbrxExperts module: gate, up and down products of hidden [inter, hidden]."""

    def __init__(self, experts: nn.Module, index: int) -> None:
        super().__init__()
        hidden, inter = experts.hidden_size, experts.ffn_hidden_size
        with torch.device("meta"):
            options = {"bias": False, "dtype": experts.mlp.w1.dtype}
            self.gate_proj, self.up_proj = (nn.Linear(hidden, inter, **options) for _ in range(2))
            self.down_proj = nn.Linear(inter, hidden, **options)


register_model_profile(
    ModelProfile(
        model_type="dbrx",
        moe_module_name="DbrxFFN",
        moe_gate_returns_raw_logits=True,
        moe_num_experts_key="ffn_config.moe_num_experts",
        moe_field_names_override={"gate": "router", "shared_experts": None, "shared_experts_gate": None},
        custom_expert_module_type=OneExpert,
        # of databricks/dbrx-base, whose class leaves the base of its rotation and the clipping out
        defaults={"attn_config.rope_theta": 500000.0, "attn_config.clip_qkv": 8},
        tp_plan={"*.attn.Wqkv": "column", "*.attn.out_proj": "row"},
    )
)
