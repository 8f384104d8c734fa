"""TensorCast: how fast a model runs on a machine, whether it fits, and how best to deploy it, without running it.

    import tensorcast as tc
    e = tc.simulate(model="deepseek-v3", hw="ascend-910b", tp=8, ep=8, quant="w8a8", batch=32)
    e.metrics["tpot_s"]; e.memory["fits"]; e.phases["decode"].ops

Everything public is here and imported on first use, so that `import tensorcast` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "tensorcast.estimate": ("Estimate", "simulate"),
    "tensorcast.search.sweep": ("sweep",),
    "tensorcast.search.sweep_frame": ("SweepFrame",),
    "tensorcast.search.optimization.optimize": ("optimize",),
    "tensorcast.search.optimization.optimum": ("Optimum",),
    "tensorcast.search.pareto": ("pareto",),
    "tensorcast.search.comparison.compare": ("Comparison", "compare"),
    "tensorcast.serving.predict": ("predict_serving",),
    "tensorcast.build": ("build_model",),
    "tensorcast.emit.line": ("start_line", "start_lines"),
    "tensorcast.plan": ("ParallelPlan", "Workload"),
    "tensorcast.hardware.profile": ("HardwareProfile",),
    "tensorcast.kernels": ("KERNELS", "HardwareRequirement", "KernelSpec"),
    "tensorcast.pipelines": (
        "PIPELINES",
        "PROFILES",
        "get_model_profile",
        "register_custom_model",
        "register_model_profile",
    ),
    "tensorcast.profiles": ("MlaFieldNames", "ModelProfile", "MoEFieldNames", "VisualConfig"),
    "tensorcast.recording": ("StepReport", "step"),
    "tensorcast.transformations": (
        "maybe_enable_mtp",
        "maybe_reuse_layers",
        "patch_attention",
        "patch_mla",
        "patch_moe",
        "patch_rotary_emb",
        "quantize_linear",
        "quantize_model",
        "run_standard",
        "shard_model",
        "wrap_model",
    ),
    "tensorcast.models.builders": ("BUILDERS", "register_auto_model"),
    "tensorcast.graph": ("ComputeGraph",),
    "tensorcast.ops.base": ("OPERATORS", "OpCall", "Part", "Parts", "Work", "operator"),
    "tensorcast.ops.own": ("Cost", "op", "register_op_cost"),
    "tensorcast.errors": (
        "AmbiguousMatchError",
        "CustomModelError",
        "DeploymentError",
        "DuplicateError",
        "HardwareError",
        "InputError",
        "KernelError",
        "ModelError",
        "TensorcastError",
        "TransformationError",
        "UnknownNameError",
    ),
}
_HOME = {name: module for module, names in _PUBLIC.items() for name in names}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name in ("cost", "nn", "testing"):
        return importlib.import_module(f"tensorcast.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'tensorcast' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
