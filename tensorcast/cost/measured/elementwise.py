"""The table `memory`: operators that move bytes and compute little, one op of ROWS × COLUMNS elements a row.

Its rows are kept under the family of their op, for any format: what these kernels cost goes with the bytes alone.
"""

from __future__ import annotations

from tensorcast.cost.call import Call
from tensorcast.cost.tables import Table, ours, sizes
from tensorcast.errors import InputError
from tensorcast.ops.base import Work, item_bytes

# op: (family of its coefficients, arrays of rows × columns read, the same written, vectors of columns read)
OPS = {
    "copy": ("copy", 1, 1, 0),
    "add": ("elementwise", 2, 1, 0),
    "silu_mul": ("activation", 2, 1, 0),
    "rms_norm": ("norm", 1, 1, 1),
    "layer_norm": ("norm", 1, 1, 2),
    "softmax": ("softmax", 1, 1, 0),
    "gather": ("gather", 1, 1, 0),
}


def _call(frame, group, hw) -> Call:
    _, read, written, vectors = _facts(group)
    item = item_bytes(ours(group["dtype"]))
    rows, columns = sizes(frame, "rows", "columns")
    into, out = (read * rows + vectors) * columns * item, written * rows * columns * item
    warm = group.get("cache_state") == "warm_L2"
    return Call(Work(read_bytes=into, write_bytes=out), vector="fp32", loop_bytes=into + out if warm else None)


def _facts(group) -> tuple[str, int, int, int]:
    if group["op"] not in OPS:
        raise InputError(f"memory: {group['op']!r} is no op of this table; ops: {', '.join(OPS)}")
    return OPS[group["op"]]


KERNELS = tuple((f"torch:torch_{op}", f"torch_{op}") for op in OPS)  # the first of a family is its default

TABLES = {
    "memory": Table(
        "memory",
        ("op", "dtype", "rows", "columns"),
        format=lambda group: "any",
        call=_call,
        formula="stream",
        kernels=KERNELS,
        families=lambda group: _facts(group)[0],
    )
}
