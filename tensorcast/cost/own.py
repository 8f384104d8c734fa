"""Operators that user code gives a cost: the slowest of products, vector work and memory traffic.

The memory side is priced as any element-wise kernel of the machine; products and vector work at the peak rates, as
nothing is known about how the kernel is made.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tensorcast.cost.call import Call
from tensorcast.cost.time import Time
from tensorcast.ops.base import Work


def own_call(dims, work: Work, attrs) -> Call:
    """The call of a row; its matrix engine counts only where it has products."""
    return Call(work, math=attrs["math"] if np.any(work.matrix_flops) else "", vector=attrs["format"])


def with_products(time: Time, call: Call, hw) -> Time:
    """`time`, the memory side of a call, with the rest of its work beside it."""
    matrix = call.work.matrix_flops / hw.peak(call.math) if call.math else 0.0
    vector = call.work.vector_flops / hw.vector_peak(call.vector)
    body = np.maximum(time.seconds - time.overhead, np.maximum(matrix, vector))
    return replace(time, matrix=matrix, vector=vector, body=body)
