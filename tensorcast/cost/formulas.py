"""Which function evaluates which formula: name → f(call, coefficients, hardware) → Time.

Their parameters stand in `tensorcast.hardware.formulas`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tensorcast.cost.all_to_all import exchange_time
from tensorcast.cost.attention import flash_time
from tensorcast.cost.decode import splitkv_time
from tensorcast.cost.gemm import tiles_time
from tensorcast.cost.memory import stream_time
from tensorcast.cost.moe import experts_time
from tensorcast.cost.roofline import roofline_time
from tensorcast.cost.scan import scan_time
from tensorcast.cost.time import Time

FUNCTIONS: Mapping[str, Callable[..., Time]] = {
    "roofline": roofline_time,
    "stream": stream_time,
    "tiles": tiles_time,
    "flash": flash_time,
    "splitkv": splitkv_time,
    "exchange": exchange_time,
    "experts": experts_time,
    "scan": scan_time,
}
