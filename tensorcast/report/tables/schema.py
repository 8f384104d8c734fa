"""JSON Schemas (draft 2020-12) of the JSON that the verbs write; `tensorcast show schema VERB` prints them.

Objects of ours take no keys but those listed here, so that a new one has to be described. The rule of `schema`, the
version: what is added keeps the number; what changes its meaning, its unit or its type, or is taken away, raises it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tensorcast.errors import InputError
from tensorcast.options import KNOWN, PLAN, SOURCE
from tensorcast.plan import RARE
from tensorcast.report.tables import columns as c
from tensorcast.report.tables.columns import Column, row_column
from tensorcast.search.evaluation.figures import COSTS, FIGURES
from tensorcast.search.frame import INPUTS, column_of

Schema = dict[str, Any]
VERSION = 1
DIALECT = "https://json-schema.org/draft/2020-12/schema"
TYPES: Mapping[str, Schema] = {
    c.NUMBERS: {"type": "array", "items": {"type": "number"}},
    c.TEXTS: {"type": "array", "items": {"type": "string"}},
    c.COUNTS: {"type": "array", "items": {"type": "integer"}},
    c.ANY: {},
}


def value(column: Column) -> Schema:
    """What stands under a column's name; its unit as `x-unit`."""
    kind = dict(TYPES.get(column.type, {"type": column.type}))
    if not column.always and kind:
        kind["type"] = [kind["type"], "null"]
    return {**kind, "description": column.meaning, **({"x-unit": column.unit} if column.unit else {})}


def record(meaning: str, columns: Iterable[Column] = (), maybe: Iterable[str] = (), **inside: Schema) -> Schema:
    """An object of these columns and parts and of nothing else; `maybe`: parts that not every one has."""
    columns, maybe = list(columns), tuple(maybe)
    parts = {column.name: value(column) for column in columns} | inside
    required = [each.name for each in columns if each.always] + [name for name in inside if name not in maybe]
    return {
        "type": "object",
        "description": meaning,
        "properties": parts,
        "required": required,
        "additionalProperties": False,
    }


def listing(meaning: str, of: Schema) -> Schema:
    return {"type": "array", "description": meaning, "items": of}


def by_name(meaning: str, of: Schema) -> Schema:
    """An object whose keys are names of others' making."""
    return {"type": "object", "description": meaning, "additionalProperties": of}


def or_null(of: Schema) -> Schema:
    return {**of, "type": [of["type"], "null"]}


def texts(meaning: str) -> Schema:
    return listing(meaning, {"type": "string"})


def document(title: str, columns: Iterable[Column] = (), maybe: Iterable[str] = (), **inside: Schema) -> Schema:
    version = {"const": VERSION, "description": "version of this format"}
    return {"$schema": DIALECT, "title": title, **record(title, columns, maybe, schema=version, **inside)}


NUMBER, COUNT, NAME = {"type": "number"}, {"type": "integer"}, {"type": "string"}
WARNINGS = texts("what the user should know of the figures")

TIMELINE = record(
    "when each operator runs on one device",
    (
        Column("seconds", "s", "from first to last"),
        Column("whole", "", "whether that is all of the phase, not one pass of many", c.TRUTH),
        Column("passes", "count", "parts that follow each other"),
    ),
    parts=listing("passes through the model, and what lies between and after them", record("a part", c.PART)),
    shown=record("the pass whose runs follow", c.SHOWN),
    runs=listing("layers and what lies around them, in order of time", record("a run", c.RUN)),
    kinds=listing(
        "operators of each kind of run",
        record("a kind", c.KIND, ops=listing("calls in order of time", record("a call", c.CALL))),
    ),
)
STEP = record(
    "one step of the phase on one device",
    c.STEP,
    ("timeline",),
    time_by_bound_s=record("seconds by what bounds the operators", c.BOUNDS),
    ops=listing("operators in the order of the model", record("an operator", c.OPERATOR)),
    timeline=TIMELINE,
)


def figures(names: Iterable[str]) -> list[Column]:
    return [row_column(name) for name in names]


COMMAND = Column("command", "", "the command line that asks the same; null for what only Python can say", always=False)
SIMULATE = document(
    "the result of tensorcast simulate",
    (COMMAND,),
    ("serving",),
    model=record(
        "what was simulated", c.MODEL, ("components",), components=listing("of a pipeline", record("one", c.COMPONENT))
    ),
    hardware=record(
        "the machine",
        c.HARDWARE,
        peak_flops=by_name("FLOP/s of the matrix engine by number format", NUMBER),
        vector_flops=by_name("FLOP/s of everything else by number format", NUMBER),
        tiers=listing("the network, innermost first", record("a tier", c.TIERS)),
    ),
    plan=record("degrees of parallelism", (row_column(name)._replace(always=name not in RARE) for name in PLAN)),
    quant=record("number formats", c.QUANT, modules=by_name("modules by scheme", COUNT)),
    workload=record("what is computed", c.WORKLOAD),
    serving=record("what was asked of runtime, engine and memory beyond the defaults", c.SERVING),
    phases=by_name("phase → its figures", STEP),
    metrics=record("latency and throughput", figures(name for name in FIGURES if not FIGURES[name].whole)),
    memory=record(
        "of the fullest device",
        (*figures(name for name in FIGURES if FIGURES[name].whole), c.ROWS["fits"]),
        ("suggestions",),
        suggestions=texts("what would fit, where this does not"),
    ),
    steps=listing("the nine steps that deployed the model", record("a step", c.STEPS)),
    kernels=listing("what fills the slots of operators", record("a kernel", c.KERNEL)),
    uncosted_ops=texts("operators without a cost: no time is counted for them"),
    warnings=WARNINGS,
    provenance=by_name("kind of figure → the families of operators priced with such", NAME),
    assumptions=listing("every figure of the machine that the answer rests on", record("one", c.ASSUMPTION)),
)
SWEEP = document(
    "the result of tensorcast sweep",
    (
        Column("configurations", "count", "rows in all"),
        Column("fit", "count", "rows that fit in memory"),
        Column("unfit", "count", "rows that do not"),
        Column("refused", "count", "rows without figures"),
        COMMAND,
    ),
    rows=listing(
        "one row a configuration",
        record(
            "a configuration; options that the space does not name are not there",
            (
                *(row_column(column_of(name)) for name in dict.fromkeys((*INPUTS, *SOURCE, *KNOWN))),
                *figures(FIGURES),
                c.ROWS["fits"],
                c.ROWS["reason"],
            ),
        ),
    ),
    reasons=listing(
        "why rows are refused, the commonest first",
        record("one", (Column("reason", "", "as in the rows"), Column("rows", "count", "that it refuses"))),
    ),
)
_OPTIONS = [row_column(column_of(name)) for name in dict.fromkeys((*SOURCE, *KNOWN))]
_FIGURES = figures((*FIGURES, *COSTS))
_SIDE = record(
    "one kind of instance",
    (*_OPTIONS, *_FIGURES, c.ROWS["instance_devices"], c.ROWS["instances"], c.ROWS["fits"]),
)
_OWN = ("instance_devices", "copies", "ratio", "kv_transfer_s", "kv_transfer_bytes", "kv_transfer_tier", "miss")
_PLAN = record(
    "a plan: its options as asked, its figures",
    (*_OPTIONS, *_FIGURES, *(c.ROWS[name] for name in (*_OWN, "binding", "fits"))),
    ("prefill", "decode"),
    prefill=_SIDE,
    decode=_SIDE,
)
OPTIMIZE = document(
    "the result of tensorcast optimize",
    (
        Column("model", "", "name"),
        Column("devices", "count", "that there are"),
        Column("mode", "", "as --mode"),
        Column("objective", "", "as --objective"),
        Column("binding", "", "the limit that binds the best plan; empty for none"),
        Column("lead", "share", "by which it is ahead of the next; null where there is none", always=False),
    ),
    limits=record(
        "what was asked; null for nothing",
        (
            Column("ttft_s", "s", "as --ttft", always=False),
            Column("tpot_s", "s", "as --tpot", always=False),
            Column("memory_headroom", "share", "of the memory, that stays free"),
        ),
    ),
    best=or_null(_PLAN),
    runners_up=listing("the next plans that meet the limits", _PLAN),
    nearest=or_null(_PLAN),
    what_would=texts("limits that the nearest plan would meet, where none meets those asked"),
    plans=record(
        "how many plans there are",
        (
            Column("considered", "count", "in all"),
            Column("priced", "count", "that have figures"),
            Column("ruled_out", "count", "that cannot be among the best"),
        ),
        refused=by_name("reason → plans that cannot be", COUNT),
    ),
    warnings=WARNINGS,
)
_STRETCH = record(
    "neighbouring values with one answer",
    (
        Column("first", "count", "value of the option"),
        Column("last", "count", "value of the option"),
        Column("best", "", "alternatives that lead: all of them where they are equal", c.TEXTS),
        Column("among", "", "alternatives that have the figure there", c.TEXTS),
        Column("most", "", "how many times better the best is than the worst of them, at most", c.NUMBER, False),
    ),
)
_STANDING = record(
    "neighbouring values with one standing",
    (
        Column("first", "count", "value of the option"),
        Column("last", "count", "value of the option"),
        Column("state", "", "fits, does not fit, refused, or has no such figure"),
        Column("reason", "", "why it is refused, at the first"),
    ),
)
_CURVE = record(
    "one figure along one option",
    (
        Column("along", "", "the option"),
        Column("metric", "", "the figure"),
        Column("less_is_better", "", "of the figure", c.TRUTH),
        Column("points", "count", "values that were priced"),
        Column("every_number", "", "whether these are all whole numbers from first to last", c.TRUTH),
        Column("values", "", "those asked for", c.COUNTS),
    ),
    figures=by_name("alternative → the figure at the values", {"type": "array", "items": {"type": ["number", "null"]}}),
    standings=by_name("alternative → where it fits", {"type": "array", "items": _STANDING}),
    leads=listing("who leads of all", _STRETCH),
    pairs=listing(
        "every two alternatives",
        record(
            "a pair",
            (
                Column("alternatives", "", "the two", c.TEXTS),
                Column("break_even", "", "the first value of every new order", c.COUNTS),
            ),
            stretches=listing("who leads of the two", _STRETCH),
        ),
    ),
)
COMPARE = document(
    "the result of tensorcast compare",
    (Column("ratios_to", "", "name of the alternative that ratios are to"),),
    alternatives=listing(
        "the deployments",
        record(
            "a deployment",
            (
                Column("name", "", "what tells it from the others"),
                Column("devices", "count", "of the deployment; null where it is refused", always=False),
                c.ROWS["fits"],
                c.ROWS["reason"],
            ),
            options=record(
                "as asked",
                (row_column(column_of(name)).maybe() for name in (*SOURCE, *KNOWN, "price_per_hour")),
            ),
            work=record(
                "batch and lengths that were used", (row_column(n) for n in ("batch", "input_len", "output_len"))
            ),
            figures=record("at the asked work", _FIGURES),
            ratios=by_name("each figure over that of the base", NUMBER),
        ),
    ),
    curve=or_null(_CURVE),
    warnings=WARNINGS,
)

SCHEMAS: Mapping[str, Schema] = {"simulate": SIMULATE, "sweep": SWEEP, "optimize": OPTIMIZE, "compare": COMPARE}


def schema_of(verb: str) -> Schema:
    """The schema of a verb's JSON; InputError."""
    if verb not in SCHEMAS:
        raise InputError(f"schema {verb!r}: there is one for {', '.join(SCHEMAS)}")
    return SCHEMAS[verb]
