"""quantize: device, op, dtype, m, k: m × k elements of 16 bits, scaled and written in `dtype`."""

from __future__ import annotations

from tensorcast.cost.call import Call
from tensorcast.cost.tables import Table, ours, sizes
from tensorcast.ops.base import Work, item_bytes

MEASURED_OP = "scale_matrix"  # compute_scale rows are differences of two timings, half of them 0


def _format(group) -> str:
    return ours(group.get("dtype") or "fp8")


def _call(frame, group, hw) -> Call:
    m, k = sizes(frame, "m", "k")
    work = Work(vector_flops=m * k, read_bytes=2 * m * k, write_bytes=item_bytes(_format(group)) * m * k)
    return Call(work, vector="fp16", loop_bytes=work.read_bytes + work.write_bytes)  # the same operands every time


def _keep(frame):
    return frame["op"] == MEASURED_OP if "op" in frame else slice(None)


KERNELS = (("trtllm:*", "trtllm"), ("vllm:*", "vllm"), ("sglang:*", "sglang"))

TABLES = {"quantize": Table("quantize", ("m", "k"), "quantize", _format, _call, "stream", KERNELS, keep=_keep)}
