"""Rows of a table of served models → what to simulate: model, machine, plan, precision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tensorcast.errors import InputError

SUFFIXES = ("-NVFP4", "-FP4", "-FP8-dynamic", "-FP8", "-MXFP4", "-BF16", "-W8A8", "-AWQ")
FORMATS = {"nvfp4": "nvfp4", "fp4": "nvfp4", "fp8": "fp8", "fp8_block": "fp8-block", "mxfp4": "mxfp4", "int8": "w8a8"}
MOST_STEPS = 1 << 20


@dataclass(frozen=True)
class Deployed:
    """What is deployed, the same for all loads: hashable."""

    model: str
    device: str
    engine: str
    quant: str
    kv_quantised: bool
    tp: int
    dp: int
    ep: int


@dataclass(frozen=True)
class Case:
    """One row: a deployment (two where prompts have machines of their own) and its load."""

    decode: Deployed
    prefill: Deployed | None
    clients: int
    input_len: int
    output_len: int
    decode_workers: int = 1
    prefill_workers: int = 1


def case_of(row: Mapping[str, Any]) -> Case:
    """InputError names what the row lacks."""
    if _text(row, "mode", "agg") == "disagg":
        decode, prefill = _deployed(row, "decode_"), _deployed(row, "prefill_")
    else:
        decode, prefill = _deployed(row, ""), None
    workers = {f"{name}_workers": _whole(row, f"{name}_num_workers", 1) for name in ("decode", "prefill")}
    return Case(
        decode,
        prefill,
        _clients(row, decode, workers["decode_workers"]),
        _whole(row, "isl"),
        _whole(row, "osl"),
        **(workers if prefill else {}),
    )


def _clients(row: Mapping[str, Any], decode: Deployed, workers: int) -> int:
    """Requests in the system: told, else those of a group times groups."""
    told = _whole(row, "concurrency", 0)
    if told:
        return told
    if (group := _whole(row, "batch_size", 0)) > 0:
        return group * max(_whole(row, "attention_dp_size", 1), 1)
    if (group := _whole(row, "decode_batch_size", 0)) > 0:
        return group * max(_whole(row, "decode_attention_dp_size", 1), 1) * workers
    raise InputError("neither concurrency nor batch_size")


def _deployed(row: Mapping[str, Any], side: str) -> Deployed:
    if _whole(row, f"{side}pp_size", 1) > 1:
        raise InputError("pipeline stages of a served model")
    tp, dp, ep = plan_of(
        _whole(row, f"{side}tp_size"),
        _whole(row, f"{side}attention_dp_size", 0),
        _whole(row, f"{side}moe_tp_size", 0),
        _whole(row, f"{side}moe_ep_size", 0),
    )
    model = _text(row, "model")
    if not model:
        raise InputError("no model")
    quant, quantised = quant_of(row)
    return Deployed(model, _text(row, "device"), _text(row, "backend", "bare"), quant, quantised, tp, dp, ep)


def plan_of(tp: int, dp: int, moe_tp: int, moe_ep: int) -> tuple[int, int, int]:
    """(tp, dp, ep) of engine flags; 0 = not told.

    Engines whose attention copies are the tensor ranks themselves state the same ranks twice: "tp n, attention dp n,
    experts over n·n", or "n·n ranks, experts cut n ways and spread n ways". Both are n ranks.

    >>> plan_of(8, 1, 1, 8), plan_of(64, 1, 8, 8), plan_of(1, 64, 8, 8), plan_of(4, 4, 1, 16)
    ((8, 1, 8), (8, 1, 8), (1, 8, 8), (1, 4, 4))
    """
    told, dp = dp > 0, max(dp, 1)
    tp, moe_tp, moe_ep = max(tp, 1), max(moe_tp, 1), max(moe_ep, 1)
    if told and moe_tp == moe_ep > 1 and tp * dp == moe_tp * moe_ep:
        return (1, moe_ep, moe_ep) if dp > 1 else (moe_ep, 1, moe_ep)
    if tp == dp > 1 and moe_ep == tp * dp:
        return 1, dp, dp
    if moe_tp * moe_ep > tp * dp and tp == 1 and not told:
        return moe_tp * moe_ep, 1, moe_ep  # only the experts' degrees are told
    return tp, dp, moe_ep


def quant_of(row: Mapping[str, Any]) -> tuple[str, bool]:
    """(scheme, whether weights are quantised): the table's formats; `auto` where the checkpoint's own is meant."""
    asked = _text(row, "gemm_dtype") or _text(row, "precision")
    if asked in ("", "bf16", "bfloat16", "fp16", "float16", "none"):
        return "none", False
    if asked not in FORMATS:
        raise InputError(f"format {asked!r}; known: {', '.join(FORMATS)}, bf16")
    if "fp8_block" in (_text(row, "gemm_dtype"), _text(row, "moe_dtype")):
        return FORMATS["fp8_block"], True
    return FORMATS[asked], True


def _absent(value: Any) -> bool:
    return value is None or value != value or str(value) in ("<NA>", "nan", "")


def _text(row: Mapping[str, Any], name: str, default: str = "") -> str:
    value = row.get(name)
    return default if _absent(value) else str(value).strip()


def _whole(row: Mapping[str, Any], name: str, default: int | None = None) -> int:
    value = row.get(name)
    if _absent(value):
        if default is None:
            raise InputError(f"no {name}")
        return default
    number = float(value)
    if number != int(number) or number < 0 or (number == 0 and default is None):
        raise InputError(f"{name} {value!r}: a whole number, 1 or more")
    return int(number)
