"""One row a configuration: the inputs under their flag names, the figures of `simulate`, `fits` and `reason`.

| column | unit | meaning |
|---|---|---|
| model, hw | text | as asked |
| tp, ep, dp, pp, sp | number | degrees of the plan, 1 where not asked |
| quant, kv_cache_dtype | text | as asked, "auto" where not asked |
| batch, input_len, output_len | sequences, tokens | really used; null in a refused row that asks for none |
| every other option that the space names | its own | as asked, null where left out; lists with ", " between |
| the figures of figures.FIGURES | s, bytes, 1/s, number | per device; null where there is no such figure |
| fits | truth | whether total_bytes is at most capacity_bytes; null in a refused row |
| reason | text | empty, or `simulate`'s line on why the row has no figures |

The columns are those of the space, never of the results: all shards of a sweep have one schema.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from tensorcast.options import SHARES, SWITCHES, WHOLE
from tensorcast.search.axes.space import DEFAULTS, Shard
from tensorcast.search.evaluation.figures import FIGURES, SOME, Figure
from tensorcast.search.evaluation.group import WORK, Group

if TYPE_CHECKING:
    from tensorcast.search.sweep_frame import SweepFrame

INPUTS = ("model", "hw", "tp", "ep", "dp", "pp", "sp", "quant", "kv_cache_dtype", "batch", "input_len", "output_len")
"""Inputs that every row has."""
TEXT = pa.dictionary(pa.int32(), pa.string())
FEW = 4096  # rows that are worth a table of their own
_ALWAYS = {"gpu_memory_utilization": 1.0}  # its default: what varies where nothing does


def schema(options: Iterable[str]) -> pa.Schema:
    """The columns of a space that names these options."""
    options = tuple(options)
    names = dict.fromkeys((*INPUTS, *options))
    inputs = [pa.field(column_of(name), _type(name)) for name in names]
    figures = [pa.field(name, pa.int64() if f.whole else pa.float64()) for name, f in _figures(options).items()]
    return pa.schema([*inputs, *figures, pa.field("fits", pa.bool_()), pa.field("reason", TEXT)])


def evaluate(shard: Shard, cache: bool = True, progress: Callable | None = None) -> pa.Table:
    """The rows of a shard, in its order, in columns of `schema(shard.options)`; `cache`, `progress`: as tc.simulate's.

    A configuration that cannot be is a row with its reason. A shard of 2^18 rows takes at most 150 MB.
    """
    asked = shard.variables()
    varied = asked or {name: np.full(len(shard), value) for name, value in _ALWAYS.items()}
    found = Group(shard.fixed, cache=cache, progress=progress).columns(varied)
    reason = found.pop("reason")
    refused = np.asarray(reason != "", dtype=bool)
    wanted = schema(shard.options)
    columns: dict[str, pa.Array] = {"reason": pa.array(reason, pa.string()).dictionary_encode()}
    fits = np.asarray(found.pop("fits", refused), dtype=float)
    columns["fits"] = pa.array(fits == 1, mask=refused | np.isnan(fits) | np.isnan(found.get("total_bytes", fits)))
    for name in dict.fromkeys((*INPUTS, *shard.options)):
        values = _used(name, found.pop(name, None), asked.get(name), shard)
        kind = wanted.field(column_of(name)).type
        columns[column_of(name)] = (
            _numbers(values, kind) if isinstance(values, np.ndarray) else _filled(said(values), kind, len(shard))
        )
    nothing = {kind: pa.nulls(len(shard), kind) for kind in (pa.int64(), pa.float64())}
    for name in _figures(shard.options):
        kind = wanted.field(name).type
        columns[name] = _numbers(found.pop(name), kind) if name in found else nothing[kind]
    if found.keys() - {"suggestions"}:
        raise LookupError(f"figures that search/evaluation/figures.py does not list: {', '.join(found)}")
    return pa.table([columns[name] for name in wanted.names], schema=wanted)


def joined(tables: Iterable[pa.Table], least: int = FEW) -> Iterator[pa.Table]:
    """The same rows in fewer tables, of at least `least` rows but the last: many plans make tables of a few rows each.

    What sums up or writes rows takes about a millisecond a table, however few its rows are.
    """
    held: list[pa.Table] = []
    for table in tables:
        held.append(table)
        if sum(map(len, held)) >= least:
            yield _whole(held)
            held = []
    if held:
        yield _whole(held)


def _whole(tables: list[pa.Table]) -> pa.Table:
    return tables[0] if len(tables) == 1 else pa.concat_tables(tables).unify_dictionaries().combine_chunks()


def to_pandas(table: pa.Table) -> SweepFrame:
    """The rows as a pandas DataFrame: whole numbers Int64, `fits` boolean, texts categories; null is pandas' NA.

    Figures that only other kinds of models have are left out where no row has them.
    """
    empty = [name for name in table.column_names if name in SOME and table[name].null_count == len(table)]
    import pandas

    from tensorcast.search.sweep_frame import SweepFrame

    kinds = {pa.int64(): pandas.Int64Dtype(), pa.bool_(): pandas.BooleanDtype()}
    return SweepFrame(table.drop_columns(empty).to_pandas(types_mapper=kinds.get))


def _figures(options: tuple[str, ...]) -> dict[str, Figure]:
    return {name: figure for name, figure in FIGURES.items() if not figure.asked or figure.asked in options}


def column_of(name: str) -> str:
    """The column of an option, its flag's name."""
    return "set" if name == "overrides" else name


def _type(name: str) -> pa.DataType:
    if name in WHOLE:
        return pa.int64()
    return pa.float64() if name in SHARES else pa.bool_() if name in SWITCHES else TEXT


def _used(name: str, found: np.ndarray | None, asked: np.ndarray | None, shard: Shard) -> Any:
    """What a configuration really has of an option: a column, or one value for all rows."""
    given = asked if asked is not None else shard.fixed.get(name, DEFAULTS.get(name))
    if name in WORK and found is not None:
        return found if given is None else np.where(np.isnan(found.astype(float)), given, found)
    if name == "model" and given is None:
        return shard.fixed.get("custom")
    return given


def said(value: Any) -> Any:
    """One value as a cell shows it."""
    if value is None or isinstance(value, (str, int, float)):
        return value
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    if isinstance(value, Mapping):
        kind = value.get("architectures") or value.get("model_type") or value.get("_class_name")
        return said(kind) if kind else ", ".join(f"{key}={item}" for key, item in value.items())
    return str(getattr(value, "name", None) or getattr(value, "__name__", None) or type(value).__name__)


def _filled(value: Any, kind: pa.DataType, count: int) -> pa.Array:
    """`count` times one value."""
    if kind != TEXT:
        return pa.nulls(count, kind) if value is None else pa.array(np.full(count, value)).cast(kind)
    if value is None:
        return pa.DictionaryArray.from_arrays(pa.nulls(count, pa.int32()), pa.array([], pa.string()))
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int32)), pa.array([value], pa.string()))


def _numbers(values: np.ndarray, kind: pa.DataType) -> pa.Array:
    """A column of numbers, NaN as null."""
    values = np.asarray(values)
    if kind != pa.int64() or values.dtype.kind in "iu":
        return pa.array(values, kind, from_pandas=True)
    missing = np.isnan(values)
    return pa.array(np.where(missing, 0, values).astype(np.int64), kind, mask=missing)
