"""One model type after the other: does it build, trace, and cut; and are its parameters and FLOPs those of the library?

Every type of transformers' causal-LM mapping is made from its class's default configuration, with None repaired
(models/default_config.py), through the public door `tc.build_model`.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import tensorcast as tc
from tensorcast.models.build import count_parameters
from tensorcast.models.default_config import default_config
from tensorcast.models.recipes.transformers import own_part
from tensorcast.trace.run import trace_step
from tests.verify import stock
from tests.verify.deployed import has_slot, matrix_flops

STEPS = {"prefill": (2, 16, 0), "decode": (2, 1, 16)}
APART = ("gated_delta_rule", "mamba2_scan", "selective_scan", "causal_conv1d", "index_scores")
"""Operators whose stock code does not run what a machine runs: compared in test_scans.py and test_hybrids.py."""
TP = 2


@dataclass
class Row:
    """What was found of one model type. A phase is "ok" or the reason why not."""

    kind: str
    architecture: str = ""
    parameters: int = 0
    library_parameters: int = 0
    prefill: str = ""
    decode: str = ""
    tp: str = ""
    cut: float = 0.0  # share of the parameters that tensor parallelism spreads over the ranks
    work: float = 0.0  # matrix FLOPs of all ranks together over those of one device, prefill
    uncosted: dict[str, int] = field(default_factory=dict)
    flops: str = ""  # equal, a ratio ours / theirs, or why the stock class was not counted
    seconds: float = 0.0  # slowest first trace at full depth

    @property
    def traces(self) -> bool:
        return self.prefill == self.decode == "ok"


def model_types() -> list[str]:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return list(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def causal_config(kind: str) -> Any:
    """The default configuration of a type, as that of a causal language model with the class that the mapping names."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    config_class = CONFIG_MAPPING[kind]
    decoder = {"is_decoder": True} if "is_decoder" in getattr(config_class, "__dataclass_fields__", {}) else {}
    config = default_config(config_class, **decoder)
    config.architectures = [MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[kind]]
    return config


def survey(kind: str, *, tp: bool = True, flops: bool = True) -> Row:
    """Everything there is to know of one type; nothing is raised."""
    row = Row(kind)
    whole = _whole(row)
    if whole is None:
        return row
    if tp:
        _cut(row, whole)
    if flops:
        row.flops = _reason_of(lambda: _flops(kind))
    return row


def _whole(row: Row):
    try:
        model = tc.build_model(causal_config(row.kind), quant="none")
        row.architecture, row.parameters = type(model.module).__name__, model.parameters
        row.library_parameters = library_parameters(model)
    except Exception as reason:
        row.prefill = row.decode = _said(reason)
        return None
    for phase, step in STEPS.items():
        start = perf_counter()
        result = _reason_of(lambda phase=phase, step=step: _traced(row, model, phase, step))
        setattr(row, phase, result)
        row.seconds = max(row.seconds, perf_counter() - start)
    return model if row.traces else None


def _traced(row: Row, model, phase: str, step: tuple) -> str:
    tracer = trace_step(model, phase, *step)
    row.uncosted.update(tracer.uncosted)
    return "ok" if tracer.calls else "no operators"


def library_parameters(model) -> int:
    """What transformers counts for the same class and configuration, tied parameters once."""
    code, config = type(model.module), model.blueprint.config
    with torch.device("meta"), torch.no_grad():
        module = code(own_part(type(config).from_dict(config.to_dict()), code))
        module.tie_weights()
    return count_parameters(module)


def _cut(row: Row, whole) -> None:
    try:
        model = tc.build_model(causal_config(row.kind), quant="none", tp=TP)
        held = count_parameters(model.module)
        row.cut = (row.parameters - held) / row.parameters * TP / (TP - 1)
        for phase, step in STEPS.items():
            calls, ours = trace_step(whole, phase, *step).calls, trace_step(model, phase, *step).calls
            if _head_widths(calls) != _head_widths(ours):
                row.tp = f"{phase}: heads of another width than the whole model's"
                return
            row.work = row.work or TP * matrix_flops(ours) / matrix_flops(calls)
    except Exception as reason:
        row.tp = _said(reason)
        return
    row.tp = "ok"


def _head_widths(calls) -> set[tuple[str, int]]:
    return {(c.op, c.dims["d"]) for c in calls if c.op in ("attention", "attention_eager", "mla_attention")}


# -- FLOPs at the depth that shows every kind of layer -----------------------------------------------------------------


def _flops(kind: str) -> str:
    """ours against FlopCounterMode on the stock class on meta, prefill, all pairs computed on both sides."""
    from tests.verify.test_flops import expected

    batch, tokens, _ = STEPS["prefill"]
    options = {"quant": "none", **_depth(kind)}
    model = tc.build_model(causal_config(kind), **options)
    kernels = [form for form in ("attention=eager", "mla=expanded") if has_slot(model, form.partition("=")[0])]
    model = tc.build_model(causal_config(kind), kernel=kernels, **options)
    ours = matrix_flops(trace_step(model, "prefill", batch, tokens, 0).calls, APART)
    module = stock.build(model.blueprint.source)
    counts = _counted(module, batch, tokens)
    theirs = expected(module, counts)
    return "equal" if ours == theirs else f"{ours / theirs:.4f}"


def _depth(kind: str) -> dict[str, int]:
    """The layers that show every kind; {} where the configuration calls its depth otherwise: the whole model is run."""
    source = tc.build_model(causal_config(kind), quant="none").blueprint.source
    layers = stock.depth_with_every_kind(source)
    try:
        trace_step(tc.build_model(causal_config(kind), quant="none", layers=layers), "prefill", *STEPS["prefill"])
    except tc.TensorcastError:
        return {}
    return {"layers": layers}


def _counted(module: nn.Module, batch: int, tokens: int):
    """FlopCounterMode's figures of one prefill without a cache, module by module; see `stock.counted`."""
    takes = inspect.signature(type(module).forward).parameters
    dtype = next(p.dtype for p in module.parameters() if p.dtype.is_floating_point)
    for masked in (True, False):
        counter = FlopCounterMode(display=False)
        with torch.no_grad(), torch.device("meta"):
            inputs = {**stock.step_inputs(batch, tokens, 0, dtype), "use_cache": False, "logits_to_keep": 1}
            inputs = {k: v for k, v in inputs.items() if k in takes and (masked or k != "attention_mask")}
            try:
                with counter:
                    module(**inputs)
            except Exception:
                if not masked:
                    raise
                continue
        break
    prefix = f"{type(module).__name__}."
    return {
        path.removeprefix(prefix): {str(op): n for op, n in ops.items()}
        for path, ops in counter.get_flop_counts().items()
    }


def _reason_of(run) -> str:
    try:
        return run()
    except Exception as reason:
        return _said(reason)


def _said(reason: Exception) -> str:
    text = " ".join(str(reason).split())
    return text if isinstance(reason, tc.TensorcastError) else f"{type(reason).__name__}: {text}"


def totals(rows: list[Row]) -> Iterator[str]:
    """The figures at the top of the table, one line each."""
    built = [row for row in rows if row.parameters]
    yield f"{len(rows)} model types, {len(built)} built"
    yield f"{sum(r.traces for r in rows)} trace prefill and decode"
    yield f"{sum(r.tp == 'ok' for r in rows)} also with --tp {TP}"
    counted = sum(r.parameters == r.library_parameters for r in built)
    yield f"{counted} of {len(built)} have transformers' parameter count"
    flops = [r.flops for r in rows if r.flops == "equal" or r.flops[:1].isdigit()]
    yield f"{flops.count('equal')} of {len(flops)} whose stock class runs on meta have FlopCounterMode's matrix FLOPs"
    yield f"{sum(bool(r.uncosted) for r in rows)} use operators without a description of their cost"
