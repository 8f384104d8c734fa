"""The options of a request: their names, their other spellings, and the plain form of each kind of value. No torch."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import Any

from tensorcast.errors import InputError, near_names
from tensorcast.kernels.choice import KernelRequest

PLAN = ("tp", "ep", "dp", "pp", "sp", "cfg", "dcp", "sequence_parallel")
WORK = (
    "phase", "batch", "input_len", "output_len", "prefix_len", "seq_lens", "chunk", "mtp", "acceptance_rate",
    "micro_batches", "moe_imbalance", "image", "images", "frames", "steps", "guidance", "dit_cache", "optimizer",
    "grad_checkpoint", "zero", "overlap",
)  # fmt: skip
PRECISION = ("quant", "kv_cache_dtype", "attention_quant", "exclude", "quant_lm_head")
OTHER = (
    "overrides", "layers", "dtype", "runtime", "kernel", "reuse", "max_model_len", "gpu_memory_utilization", "engine",
    "concurrency", "config",
)  # fmt: skip
KNOWN = (*PLAN, *WORK, *PRECISION, *OTHER)
SOURCE = ("model", "hw", "custom", "trust_remote_code", "custom_dir", "no_plugin", "strict")
"""What a request takes beside the options."""

WHOLE = (
    "tp", "ep", "dp", "pp", "sp", "cfg", "dcp", "micro_batches", "batch", "input_len", "output_len", "prefix_len",
    "chunk", "mtp", "frames", "steps", "zero", "layers", "max_model_len", "concurrency",
)  # fmt: skip
"""Options that are a whole number."""
SHARES = ("acceptance_rate", "gpu_memory_utilization")
"""Options that are a number from 0 to 1."""
SWITCHES = ("sequence_parallel", "quant_lm_head", "reuse", "trust_remote_code", "custom_dir", "strict")
"""Options that are on or off."""
LISTS = ("exclude", "kernel", "image", "images", "seq_lens", "custom", "no_plugin")
"""Options of which one value may be a list. All others but `overrides`, a mapping, are a text."""
INVERTED = {"reuse": "no_reuse", "custom_dir": "no_custom_dir", "cache": "no_cache"}
"""Options that are on, and the flag that turns each off."""
SPELLINGS = {
    "tensor_parallel_size": "tp", "expert_parallel_size": "ep", "data_parallel_size": "dp",
    "pipeline_parallel_size": "pp", "ulysses_size": "sp", "cfg_parallel": "cfg",
    "decode_context_parallel_size": "dcp", "batch_size": "batch",
    "isl": "input_len", "osl": "output_len", "set": "overrides", "images": "image", "no_reuse": "reuse",
    "kernels": "kernel",
}  # fmt: skip
"""The other spellings of the flags, with `_` for `-`."""


def given_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that have a value, under their short names; an unknown one is an error."""
    given: dict[str, Any] = {}
    for asked, value in options.items():
        name = short_name(asked, KNOWN)
        if asked == "no_reuse":
            value = not value
        if value is None:
            continue
        if name in given and given[name] != value:
            raise InputError(f"{asked} {value!r}: given twice, as {name} {given[name]!r} too; give it once")
        given[name] = value
    return given


def short_name(asked: str, known: Iterable[str] = (*SOURCE, *KNOWN)) -> str:
    """The short name of an option of `known`; InputError with the nearest ones when there is none."""
    name = SPELLINGS.get(asked, asked)
    if name not in known:
        near = near_names(name, (*known, *SPELLINGS))
        raise InputError(f"unknown option {name!r}" + (f"; nearest: {', '.join(near)}" if near else ""))
    return name


def flag(name: str) -> str:
    """The command line's spelling of an option.

    >>> flag("input_len"), flag("overrides")
    ('--input-len', '--set')
    """
    spelt = {"overrides": "set", "cfg": "cfg_parallel"}.get(name, name)
    return f"--{spelt.replace('_', '-')}"


def command(verb: str, asked: Mapping[str, Any]) -> str | None:
    """The command line that asks the same as a call with these options; None for values that only Python has.

    >>> command("simulate", {"model": "qwen3-8b", "hw": "h100-sxm", "tp": 2, "reuse": False})
    'tensorcast simulate --model qwen3-8b --hw h100-sxm --tp 2 --no-reuse'
    """
    words = ["tensorcast", verb]
    for asked_as, value in asked.items():
        name = asked_as if asked_as in INVERTED.values() else SPELLINGS.get(asked_as, asked_as)
        if name in INVERTED:
            words += [flag(INVERTED[name])] * (value is False)
        elif isinstance(value, bool):
            words += [flag(name)] * value
        elif name == "overrides":
            import json

            words += [word for key, each in (value or {}).items() for word in ("--set", f"{key}={json.dumps(each)}")]
        elif value is not None:
            is_list = name in LISTS and isinstance(value, Iterable) and not isinstance(value, str)
            several = value if is_list else (value,)
            if name == "kernel" and isinstance(several, Mapping):
                several = [f"{key}={each}" for key, each in several.items()]
            if name == "seq_lens":
                several = [",".join(map(str, several))]
            if not all(isinstance(each, (str, int, float, PurePath)) for each in several):
                return None
            words += [word for each in several for word in (flag(name), str(each))]
    return shlex.join(words)


def texts(name: str, value: Any) -> tuple[str, ...]:
    """A repeatable option: one text or several."""
    texts = (value,) if isinstance(value, str) else value
    if texts is None:
        return ()
    if not isinstance(texts, (list, tuple)) or not all(isinstance(text, str) and text.strip() for text in texts):
        raise InputError(f"--{name} {value!r}: a text or a list of texts")
    return tuple(texts)


def kernels(value: Any) -> tuple[KernelRequest, ...]:
    """`--kernel` texts, or a mapping of the same: {"attention": "flash"}."""
    if isinstance(value, Mapping):
        return tuple(KernelRequest.of(key, name, "asked", f"kernels {key}={name}") for key, name in value.items())
    return tuple(KernelRequest.parse(text) for text in texts("kernel", value))


def overrides(value: Any) -> Mapping[str, Any]:
    """Changes to the configuration, dotted key to value."""
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise InputError(f'overrides {value!r}: a mapping such as {{"num_hidden_layers": 4}}')
    return value
