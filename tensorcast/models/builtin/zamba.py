"""Zamba 2: shared attention and feed-forward blocks with adapters, two products each, for every place they run in.

The first product of an adapter is the same on every rank, the second gives what the rank's part of the block takes.
"""

from __future__ import annotations

from tensorcast.pipelines import ModelProfile, register_model_profile

register_model_profile(
    ModelProfile(
        model_type="zamba2",
        tp_plan={"*adapter_list.*.0": "replicated", "*adapter_list.*.1": "column"},
    )
)
