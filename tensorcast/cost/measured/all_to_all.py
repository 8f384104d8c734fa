"""moe_all_to_all_deepep: device, op (dispatch, combine), mode (ll, normal), nodes, hidden, tokens, topk, experts, sms.

Eight ranks of one node. Dispatch sends fp8 with a scale for every 128 elements, combine brings bf16 back.
"""

from __future__ import annotations

import numpy as np

from tensorcast.cost.all_to_all import cores_of, ranks_reached
from tensorcast.cost.call import Call
from tensorcast.cost.tables import Table, sizes
from tensorcast.ops.base import Work

RANKS = 8
ITEM = {"dispatch": 1 + 4 / 128, "combine": 2.0}  # bytes an element on the wire
FEWEST_CORES = 20  # of a normal kernel where the table does not tell


def _call(frame, group, hw) -> Call:
    tokens, hidden, top_k, experts = sizes(frame, "tokens", "hidden", "topk", "experts")
    ranks = min(RANKS, hw.topology.tiers[0].devices)
    if group.get("mode", "ll") == "ll":
        copies, cores = top_k, cores_of(experts, hw.cores or 1)
    else:
        copies = np.minimum(ranks_reached(top_k, ranks), experts)
        cores = sizes(frame, "sms")[0] if "sms" in frame.columns else np.full(len(frame), FEWEST_CORES)
        cores = np.where(cores >= 1, cores, FEWEST_CORES)
    row = hidden * ITEM[group.get("op", "dispatch")]
    sent = tokens * copies * row
    shape = {
        "wire": sent * (ranks - 1) / ranks,
        "link": hw.topology.tiers[0].egress(ranks),
        "tokens": tokens,
        "row": row,
        "experts": experts,
        "sms": cores,
    }
    return Call(Work(comm_bytes=shape["wire"], read_bytes=tokens * hidden), shape)


def _format(group) -> str:
    op = group.get("op", "dispatch")
    return f"{op}_ll" if group.get("mode", "ll") == "ll" else op


TABLES = {
    "moe_all_to_all_deepep": Table(
        "moe_all_to_all_deepep",
        ("op", "mode", "hidden", "tokens", "topk", "experts"),
        "exchange",
        _format,
        _call,
        "exchange",
        (("*:deepep*", "deepep"),),
    )
}
