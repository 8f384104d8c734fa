"""An estimate as `Estimate.to_dict()` gives it, with round figures."""

from __future__ import annotations

import copy
from typing import Any

GIB = 2**30


def op(name: str, module: str, time_s: float, bound: str, **figures: float) -> dict[str, Any]:
    """One operator row; work and traffic default to zero."""
    row = {"op": name, "module": module, "count": 61, "time_s": time_s, "bound": bound}
    return row | {
        key: figures.get(key, 0) for key in ("matrix_flops", "vector_flops", "read_bytes", "write_bytes", "comm_bytes")
    }


def phase(step: float) -> dict[str, Any]:
    """A phase of three operators: 60 % matrix, 30 % memory, 10 % communication."""
    return {
        "step_time_s": step,
        "host_time_s": step / 10,
        "matrix_flops": 2e15,
        "vector_flops": 1e12,
        "read_bytes": 100 * GIB,
        "write_bytes": 10 * GIB,
        "comm_bytes": GIB,
        "mfu": 0.42,
        "mbu": 0.13,
        "time_by_bound_s": {
            "matrix": 0.6 * step, "vector": 0.0, "memory": 0.3 * step, "communication": 0.1 * step, "overhead": 0.0,
        },
        "ops": [
            op("linear", "model.layers.*.mlp.experts", 0.6 * step, "matrix", matrix_flops=2e15, read_bytes=90 * GIB),
            op("rms_norm", "model.layers.*.input_layernorm", 0.3 * step, "memory", vector_flops=1e12, read_bytes=GIB),
            op("all_reduce", "model.layers.*.self_attn.o_proj", 0.1 * step, "communication", comm_bytes=GIB),
        ],
    }  # fmt: skip


_SAMPLE = {
    "schema": 1,
    "model": {
        "name": "deepseek-v3", "architecture": "DeepseekV3ForCausalLM", "model_type": "deepseek_v3",
        "origin": "catalogue", "parameters": 671_026_404_352, "active_parameters": 37_552_000_000,
    },
    "hardware": {"name": "ascend-910b2", "devices": 8, "asked": "ascend-910b"},
    "plan": {"tp": 8, "ep": 1, "dp": 1, "pp": 1, "sp": 1},
    "quant": {"source": "asked (w8a8)", "modules": {"w8a8": 426}, "kv_cache": "bf16", "attention": "bf16"},
    "workload": {"phase": "auto", "batch": 1, "input_len": 4096, "output_len": 1024},
    "phases": {"prefill": phase(1.0), "decode": phase(0.05)},
    "metrics": {
        "ttft_s": 1.0, "tpot_s": 0.05, "request_latency_s": 52.15, "tokens_per_s": 19.6,
        "tokens_per_s_per_device": 2.45, "tokens_per_s_per_user": 19.6,
    },
    "memory": {
        "weights_bytes": 32 * GIB, "kv_cache_bytes": 8 * GIB, "activation_peak_bytes": 4 * GIB,
        "workspace_bytes": 2 * GIB, "reserved_bytes": 2 * GIB, "total_bytes": 48 * GIB, "capacity_bytes": 64 * GIB,
        "fits": True, "max_batch": 3, "max_context": 12_288,
    },
    "steps": [
        {"name": "wrap_model", "status": "applied", "reason": "", "matched": 1},
        {"name": "maybe_enable_mtp", "status": "skipped", "reason": "no --mtp", "matched": 0},
    ],
    "kernels": [
        {"op": "attention", "variant": "standard", "name": "flash", "source": "default", "slots": 61},
        {"op": "mla", "variant": "decode", "name": "absorbed", "source": "asked", "slots": 61},
    ],
    "uncosted_ops": [],
    "warnings": ["bf16 weights: ascend-910b2 has no fp8; nearest format that works: w8a8"],
}  # fmt: skip


def sample(*, fits: bool = True) -> dict[str, Any]:
    """A fresh copy; `fits=False` has four times the weights and a plan that would fit."""
    estimate = copy.deepcopy(_SAMPLE)
    if not fits:
        estimate["memory"] |= {
            "weights_bytes": 128 * GIB, "total_bytes": 144 * GIB, "fits": False, "max_batch": 0, "max_context": 0,
            "suggestions": ["--tp 32 (4 nodes): 48.0 GiB per device"],
        }  # fmt: skip
    return estimate
