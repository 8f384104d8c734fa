"""The columns of every table and the keys of every object that a report has: name, unit, meaning, type.

Said once here: pages, Markdown, CSV, Parquet, the JSON Schema and docs/reports.md are made of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from tensorcast import units
from tensorcast.options import KNOWN, LISTS, SHARES, SOURCE, SWITCHES, flag
from tensorcast.options import WHOLE as WHOLE_OPTIONS
from tensorcast.search.evaluation.figures import COSTS, FIGURES

WHOLE, NUMBER, TEXT, TRUTH, NUMBERS, TEXTS, COUNTS, ANY = (
    "integer", "number", "string", "boolean", "numbers", "texts", "counts", "any",
)  # fmt: skip


class Column(NamedTuple):
    """`unit`: "s", "bytes", "FLOP", "1/s", "share", "count" or "" for text; `meaning`: a short phrase.

    `kind`: the type where the unit does not say it: numbers have units, text has none. `always` is False for what only
    some rows or objects have, and for what may be null.
    """

    name: str
    unit: str
    meaning: str
    kind: str = ""
    always: bool = True

    @property
    def type(self) -> str:
        return self.kind or (TEXT if not self.unit else WHOLE if self.unit == "count" else NUMBER)

    @property
    def numeric(self) -> bool:
        """Whether its cells are numbers, several too, and are sorted as such."""
        return self.type in (WHOLE, NUMBER, NUMBERS, COUNTS)

    def maybe(self) -> Column:
        return self._replace(always=False)


FORMS: Mapping[str, Callable[[Any], str]] = {
    "s": units.seconds, "bytes": units.bytes_, "FLOP": units.flop, "share": units.percent, "count": units.count,
    "FLOP/s": units.flops, "B/s": units.bandwidth,
    **dict.fromkeys(("1/s", "J", "currency"), lambda value: units.rate(value, "").rstrip()),
}  # fmt: skip
"""Unit → how people read its figures."""


def shown(value: Any, unit: str) -> str:
    """One cell as people read it; nothing where there is no value.

    >>> shown(0.0123, "s"), shown(None, "s"), shown([8.2, 21.0], ""), shown(3, "count"), shown(0.991735, "J")
    ('12.3 ms', '', '8.2 / 21', '3', '0.992')
    """
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return " / ".join(f"{each:g}" if isinstance(each, float) else str(each) for each in value)
    if isinstance(value, (int, float)):
        return FORMS.get(unit, lambda number: f"{number:g}" if isinstance(number, float) else str(number))(value)
    return str(value)


PHASE = Column("phase", "", "prefill, decode, chunked, denoise, train …")
OP = Column("op", "", "operator; aten:: for those of PyTorch")
MODULE = Column("module", "", "where in the model; * stands for every layer of a stack")
BOUND = Column("bound", "", "what takes longest, most of the time: matrix, vector, memory, communication or overhead")
WORK = (
    Column("matrix_flops", "FLOP", "of matrix products, a multiply-add counted as 2"),
    Column("vector_flops", "FLOP", "of everything else"),
    Column("read_bytes", "bytes", "read from device memory"),
    Column("write_bytes", "bytes", "written to device memory"),
    Column("comm_bytes", "bytes", "sent to other devices"),
)
LINK = (
    Column("collective", "", "what is done with other devices", always=False),
    Column("ranks", "count", "devices that take part", always=False),
    Column("tier", "", "tiers of the network that they are spread over, innermost first", always=False),
)
CALLS = (Column("count", "count", "calls in a step"), Column("time_s", "s", "of all calls"))
BOUNDS = tuple(
    Column(name, "s", f"of operators bound by {name}")
    for name in ("matrix", "vector", "memory", "communication", "overhead")
)
STEP = (
    Column("step_time_s", "s", "of one step; of decode the mean over all output positions"),
    Column("host_time_s", "s", "that the host needs to start a step's kernels"),
    *WORK,
    Column("mfu", "share", "of the matrix engine's peak"),
    Column("mbu", "share", "of the memory bandwidth"),
    Column("overlapped_s", "s", "that --overlap hides", always=False),
)
OPERATOR = (
    OP, MODULE, *CALLS, BOUND, *WORK,
    Column("math", "", "number format of the products", always=False),
    *LINK,
    Column("part", "", "of a training step: forward, recompute, backward …", always=False),
)  # fmt: skip
SHARE = Column("share", "share", "of the time of all operators of the phase", always=False)
STEPS = (
    Column("name", "", "of the nine steps, in their order"),
    Column("status", "", "applied or skipped"),
    Column("reason", "", "why, or what was done"),
    Column("matched", "count", "modules"),
)
KERNEL = (
    Column("op", "", "operator slot"),
    Column("variant", "", "form of the operator"),
    Column("name", "", "kernel that fills the slot"),
    Column("source", "", "who chose it: asked, config, profile, hardware or default"),
    Column("slots", "count", "modules"),
)
ASSUMPTION = (
    Column("figure", "", "family of kernels (number format, kernel), collective, or field of the profile"),
    Column("kind", "", "calibrated, inherited, universal, specified, measured or assumed"),
    Column("error_percent", "", "median and 90th percentile on measurements the fit did not see", NUMBERS, False),
    Column("rows", "count", "measurements fitted", always=False),
    Column("source", "", "where the figure is from"),
)
RUN = (
    Column("name", "", "layer, or what lies before or after the layers"),
    Column("kind", "count", "runs with the same number have the same operators"),
    Column("start_s", "s", "from the start of the phase"),
    Column("end_s", "s", "from the start of the phase"),
)
CALL = (
    OP, MODULE,
    Column("stream", "", "compute, communication or both"),
    BOUND,
    Column("start_s", "s", "from the start of the layer"),
    Column("time_s", "s", "of one call"),
    Column("layer", "count", "that it is in, where two halves of the batch run beside each other", always=False),
    Column("half", "count", "of the batch, 1 or 2", always=False),
)  # fmt: skip
FIGURE = (
    Column("figure", "", "name as in the JSON"),
    Column("value", "", "in this unit", NUMBER),
    Column("unit", "", "of the value"),
    Column("meaning", "", "what it is"),
)


def _asked(*names: str, unit: str = "") -> list[Column]:
    return [Column(name, unit, f"as --{name.replace('_', '-')}") for name in names]


MODEL = (
    Column("name", "", "as asked"),
    Column("architecture", "", "class of the model"),
    Column("model_type", "", "of its configuration"),
    Column("origin", "", "where its structure is from"),
    Column("parameters", "count", "of the whole model, tied weights once"),
    Column("active_parameters", "count", "that one token uses"),
    Column("pipeline", "", "class of the pipeline that it is part of", always=False),
)
COMPONENT = (
    Column("name", "", "folder of the component"),
    Column("phase", "", "that it runs in"),
    Column("architecture", "", "class of the component"),
    Column("parameters", "count", "of the whole component"),
    Column("dtype", "", "number format of its weights"),
    Column("weights_bytes", "bytes", "of one device"),
)
HARDWARE = (
    Column("name", "", "of the profile"),
    Column("devices", "count", "that the plan takes"),
    Column("asked", "", "name it was asked for by"),
    Column("description", "", "of the profile"),
    Column("memory_bytes", "bytes", "of a device"),
    Column("memory_bandwidth", "B/s", "of a device"),
)
QUANT = (
    Column("source", "", "who chose the formats"),
    Column("kv_cache", "", "number format of the KV cache"),
    Column("attention", "", "number format of the attention products"),
)
WORKLOAD = (
    Column("phase", "", "as --phase"),
    *_asked("batch", "input_len", "prefix_len", "chunk", "mtp", "micro_batches", unit="count"),
    *(each.maybe() for each in _asked("output_len", "frames", "steps", "zero", unit="count")),
    Column("seq_lens", "", "prompt tokens of each sequence of a ragged batch; empty for none", COUNTS),
    Column("acceptance_rate", "share", "of draft tokens that are kept; null without --mtp", always=False),
    Column("encoder", "", "whether an encoder reads the prompt", TRUTH, False),
    Column("images", "", "HxW pixels of those of every request", TEXTS, False),
    Column("image_tokens", "count", "of the prompt, that these become", always=False),
    *(
        each.maybe()
        for each in _asked("moe_imbalance", "image", "guidance", "dit_cache", "optimizer", "grad_checkpoint", "overlap")
    ),
)
SERVING = tuple(
    each.maybe()
    for each in (
        *_asked("runtime", "engine"),
        Column("engine_prompt_s", "s", "of the engine's own before the first token, part of ttft_s"),
        Column("engine_step_s", "s", "of the engine's own in a decode step, part of tpot_s"),
        *_asked("concurrency", "max_model_len", unit="count"),
        *_asked("gpu_memory_utilization", unit="share"),
    )
)
PART = (
    Column("name", "", "pass through the model, or what else is done or waited for"),
    Column("start_s", "s", "from the start of the phase"),
    Column("end_s", "s", "from the start of the phase"),
    Column("batch", "count", "sequences that go through the model; 0 for none"),
)
SHOWN = (
    Column("start_s", "s", "from the start of the phase"),
    Column("end_s", "s", "from the start of the phase"),
    Column("batch", "count", "sequences of the pass"),
    Column("tokens", "count", "new tokens of a sequence"),
    Column("past", "count", "tokens in its cache"),
    Column("component", "", "model of a pipeline that it belongs to; empty for none"),
)
KIND = (
    Column("kind", "count", "as in the runs"),
    Column("name", "", "of the first run of the kind"),
    Column("count", "count", "runs of the kind"),
)
TIERS = (
    Column("name", "", "tier of the network, innermost first"),
    Column("kind", "", "how its devices are joined: switch, mesh …"),
    Column("devices", "count", "that it joins"),
    Column("bandwidth", "B/s", "of a device, one way"),
    Column("latency_s", "s", "of a message"),
)
ROWS = {
    each.name: each
    for each in (
        Column("alternative", "", "name of the alternative"),
        Column("devices", "count", "of the deployment"),
        Column("instance_devices", "count", "of one instance"),
        Column("instances", "count", "of this kind", always=False),
        Column("copies", "count", "how often the plan fills the devices", always=False),
        Column("ratio", "", "instances that read prompts : those that decode", always=False),
        Column("kv_transfer_s", "s", "for the KV cache of a prompt, part of ttft_s", always=False),
        Column("kv_transfer_bytes", "bytes", "of a prompt, from one rank", always=False),
        Column("kv_transfer_tier", "", "tier of the network that they pass", always=False),
        Column("miss", "share", "the worst excess over a limit, as a share of it; 0 where all are met"),
        Column("binding", "", "the limit that keeps more sequences out; empty where none does"),
        Column("price_per_hour", "currency", "of a device", NUMBER, False),
        Column("fits", "", "whether total_bytes is at most capacity_bytes; null in a refused row", TRUTH, False),
        Column("reason", "", "empty, or why the row has no figures"),
    )
}
"""What rows of searches have beside options and figures."""
HALVES = ("prefill_", "decode_")
"""Begin the columns of one kind of instance, where there are two."""


def row_column(name: str) -> Column:
    """A column of the rows of `sweep`, `optimize` and `compare`: an option, a figure, or one of ROWS; LookupError."""
    if name in ROWS:
        return ROWS[name]
    if figure := (FIGURES | COSTS).get(name):
        return Column(name, figure.unit, figure.meaning, WHOLE if figure.whole else NUMBER, always=False)
    option = {"set": "overrides"}.get(name, name)
    if option in (*SOURCE, *KNOWN):
        kind = TRUTH if option in SWITCHES else ANY if option in (*LISTS, "overrides") else ""
        unit = "count" if option in WHOLE_OPTIONS else "share" if option in SHARES else ""
        return Column(name, unit, f"as {flag(option)}", kind, always=False)
    half = next((half for half in HALVES if name.startswith(half)), None)
    if half is None:
        raise LookupError(f"a column that report/tables/columns.py does not list: {name}")
    return row_column(name.removeprefix(half))._replace(name=name)
