"""Kernels of the moe_experts op. Signature: moe_experts(x, module, top_k) -> x-shaped result of this rank's experts.

A kernel whose attribute `exchanges` is True brings the tokens to their experts and the results back by itself.
"""

from __future__ import annotations

from tensorcast.kernels.registry import EAGER, KERNELS, KernelSpec


def _kernel(name: str):
    def factory():
        from tensorcast.layers import experts

        return getattr(experts, name)

    return factory


def _travels(model) -> str | None:
    plan = model.plan
    if plan.dp > 1:
        return None
    return f"sends no tokens to other ranks with tp {plan.tp}, ep {plan.ep}, dp {plan.dp}; use grouped, or --dp above 1"


KERNELS.register(
    KernelSpec(
        "grouped",
        "moe_experts",
        _kernel("grouped_experts"),
        description="grouped products over the active experts",
        default=True,
    )
)
KERNELS.register(
    KernelSpec(
        "loop",
        "moe_experts",
        _kernel("looped_experts"),
        description="one pair of products for each active expert, permutation and sum once",
    )
)
KERNELS.register(
    KernelSpec(
        EAGER,
        "moe_experts",
        _kernel("eager_experts"),
        description="for each active expert: gather, product, activation, product, weights, scattered sum",
    )
)
KERNELS.register(
    KernelSpec(
        "fused_all_to_all",
        "moe_experts",
        _kernel("exchanged_experts"),
        description="dispatch, grouped products and combine as one kernel; the links work beside the products",
        requires=_travels,
    )
)
