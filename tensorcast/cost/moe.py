"""A layer of routed experts on one rank."""

from __future__ import annotations

from tensorcast.cost.call import Call
from tensorcast.cost.roofline import roofline_time
from tensorcast.cost.time import Time


def experts_time(call: Call, p, hw) -> Time:
    return roofline_time(call, p, hw)
