"""Operators that only a training step has: the loss and the optimizer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tensorcast.ops.base import OPERATORS, Operator, Work, dtype_name, item_bytes, operator


@operator("cross_entropy(Tensor logits) -> Tensor", family="softmax")
class CrossEntropy:
    """Mean loss of the next tokens: logits [..., vocabulary] widened to fp32, and their log-softmax, which is kept."""

    def meta(logits):
        return logits.new_empty(())

    def dims(logits):
        return {"elements": logits.numel(), "attrs": {"format": dtype_name(logits)}}

    def work(d, a):
        elements = d["elements"]
        return Work(
            vector_flops=8 * elements,
            read_bytes=(item_bytes(a["format"]) + 4) * elements,
            write_bytes=(4 + 4) * elements,
            workspace_bytes=4 * elements,
        )


@dataclass(frozen=True)
class Optimizer:
    """Per parameter: fp32 states beside the master weight, and FLOP of one update."""

    states: int
    flops: int


OPTIMIZERS: Mapping[str, Optimizer] = {
    "adamw": Optimizer(states=2, flops=14),  # two moments with their corrections, root, quotient, decay, step
    "sgd": Optimizer(states=0, flops=2),  # without momentum
}


def state_bytes(optimizer: str, weight_bytes):
    """Bytes an optimizer keeps for a parameter that is stored in `weight_bytes`: fp32 states, and an fp32 master weight
    where the weight itself is narrower."""
    return 4 * OPTIMIZERS[optimizer].states + (4 if weight_bytes < 4 else 0)


def _update(d, a) -> Work:
    """Each parameter: read the gradient and, in fp32, weight and states; write those and the model's own weight."""
    weight = item_bytes(a["format"])
    states = 4 * (OPTIMIZERS[a["optimizer"]].states + 1)
    narrow = weight if weight < 4 else 0  # an fp32 weight is its own master
    return Work(
        vector_flops=OPTIMIZERS[a["optimizer"]].flops * d["parameters"],
        read_bytes=(weight + states) * d["parameters"],
        write_bytes=(states + narrow) * d["parameters"],
    )


OPERATORS.register(
    "optimizer_step",
    Operator(
        "optimizer_step",
        "optimizer_step(…)",
        "elementwise",
        None,
        lambda **_: {},
        _update,
        "One update of the weights, all of a layer's in one pass.",
    ),
)
