"""One model type after the other: does it build, trace, and cut; and are its parameters and FLOPs those of the library?

Every type of transformers' causal-LM mapping is made from its class's default configuration, with None repaired
(models/default_config.py), through the public door `tc.build_model`.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass, field
from time import process_time
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
from tests.verify.deployed import as_stock, matrix_flops
from tests.verify.terms import terms

STEPS = {"prefill": (2, 16, 0), "decode": (2, 1, 16)}
COUNTED = {"prefill": STEPS["prefill"], "decode": (1, 1, 16)}
"""One sequence in decoding: for more, RWKV's stock step mixes each with every other one."""
CACHES = ("past_key_values", "cache_params", "state")  # what stock code calls what it keeps of earlier tokens
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
    # phase → equal, equal after terms of operators, a ratio ours / theirs, or why the stock class was not counted
    flops: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0  # of the processor: slowest first trace at full depth

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
        try:
            row.flops = _flops(kind)
        except Exception as reason:
            row.flops = dict.fromkeys(COUNTED, _said(reason))
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
        start = process_time()
        result = _reason_of(lambda phase=phase, step=step: _traced(row, model, phase, step))
        setattr(row, phase, result)
        row.seconds = max(row.seconds, process_time() - start)
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


def _flops(kind: str) -> dict[str, str]:
    """Phase by phase ours against FlopCounterMode on the stock class on meta, all pairs computed on both sides, and the
    terms of operators that the stock code computes in another way."""
    options = {"quant": "none", **_depth(kind)}
    model = as_stock(lambda *kernels: tc.build_model(causal_config(kind), kernel=kernels, **options))
    module = stock.build(model.blueprint.source)
    return {
        phase: _reason_of(lambda step=(phase, *step): _compared(model, module, *step))
        for phase, step in COUNTED.items()
    }


def _compared(model, module: nn.Module, phase: str, batch: int, tokens: int, past: int) -> str:
    calls = trace_step(model, phase, batch, tokens, past).calls
    counts = _counted(module, batch, tokens, past)
    apart = terms(calls, module, counts)
    ours, theirs = matrix_flops(calls) + sum(apart.values()), sum(counts["Global"].values())
    if ours != theirs:
        return f"{ours / theirs:.4f}"
    return f"equal after {', '.join(sorted(apart))}" if apart else "equal"


def _depth(kind: str) -> dict[str, int]:
    """The layers that show every kind; {} where the configuration calls its depth otherwise: the whole model is run."""
    source = tc.build_model(causal_config(kind), quant="none").blueprint.source
    layers = stock.depth_with_every_kind(source)
    try:
        trace_step(tc.build_model(causal_config(kind), quant="none", layers=layers), "prefill", *STEPS["prefill"])
    except tc.TensorcastError:
        return {}
    return {"layers": layers}


def _counted(module: nn.Module, batch: int, tokens: int, past: int):
    """FlopCounterMode's figures of one step, module by module; see `stock.counted`. A prompt has no cache; before a
    step of decoding the stock code fills one."""
    for masked in (True, False):
        try:
            return _run(module, batch, tokens, past, masked)
        except Exception:
            if not masked:
                raise


def _run(module: nn.Module, batch: int, tokens: int, past: int, masked: bool):
    from transformers import DynamicCache

    takes = inspect.signature(type(module).forward).parameters
    dtype = next(p.dtype for p in module.parameters() if p.dtype.is_floating_point)
    name = next((n for n in CACHES if n in takes), None)

    def inputs(tokens, past, **options):
        given = {**stock.step_inputs(batch, tokens, past, dtype), "logits_to_keep": 1, **options}
        return {k: v for k, v in given.items() if k in takes and (masked or k != "attention_mask")}

    counter, cache = FlopCounterMode(display=False), {}
    with torch.no_grad(), torch.device("meta"):
        if past and name is None:  # every step runs the whole sequence
            tokens, past = past + tokens, 0
        elif past:
            kept = getattr(module(**inputs(past, 0, use_cache=True)), name, None)
            if kept is None:  # made inside and not given back, while states stay on modules
                kept = DynamicCache(config=module.config)
                module(**inputs(past, 0, use_cache=True, **{name: kept}))
            cache = {name: kept}
        step = inputs(tokens, past, use_cache=bool(past), **cache)
        with counter:
            module(**step)
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
    for phase in COUNTED:
        found = [row.flops.get(phase, "") for row in rows]
        same, after = found.count("equal"), sum(text.startswith("equal after") for text in found)
        of = same + after + sum(text[:1].isdigit() for text in found)
        yield (
            f"{phase}: {same + after} of {of} whose stock class runs on meta have FlopCounterMode's matrix FLOPs, "
            f"{same} as they are and {after} after terms of operators"
        )
    yield f"{sum(bool(r.uncosted) for r in rows)} use operators without a description of their cost"
