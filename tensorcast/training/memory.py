"""Memory of a training step, by kind, on the fullest stage; and settings that would fit."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from tensorcast import memory as mem
from tensorcast.cost.footprint import Footprint
from tensorcast.cost.passes import Pipeline
from tensorcast.optable import Piece
from tensorcast.training.shares import GRADIENTS, STATES, WEIGHTS, Share


@dataclass(frozen=True)
class TrainingMemory(mem.Memory):
    """Bytes on the fullest device; `activation_peak` holds those kept for the backward pass too."""

    gradients: float = 0
    optimizer: float = 0

    @property
    def total(self) -> float:
        return super().total + self.gradients + self.optimizer

    def to_dict(self) -> dict:
        held = super().to_dict()
        more = {"gradients_bytes": round(self.gradients), "optimizer_bytes": round(self.optimizer)}
        return {"weights_bytes": held.pop("weights_bytes"), **more, **held}


@dataclass(frozen=True)
class Activations:
    """Bytes of one micro-batch on one rank.

    kept, entered: by layer of the main stack, all that is kept and the hidden states it starts with. before, behind:
    kept outside of the stack. inside, after: most bytes alive at a moment of the forward pass up to the last layer,
    and after it with what was kept there by then. scratch: of an operator.
    """

    kept: dict[int, float]
    entered: dict[int, float]
    before: float
    behind: float
    inside: float
    after: float
    scratch: float

    @classmethod
    def of(cls, piece: Piece, batch: int, tokens: int) -> Activations:
        basis = piece.basis(batch, tokens, 0)[:, 0]
        kept: dict[int, float] = defaultdict(float)
        entered: dict[int, float] = defaultdict(float)
        before = behind = inside = after = 0.0
        for row in piece.rows:
            size, begins = (float(np.dot(row.dims.get(name, 0.0), basis).sum()) for name in ("kept", "entered"))
            alive = max(float(np.dot(moment, basis)) for moment in row.memory)
            if row.place == "":
                for layer in row.layers:
                    kept[layer] += size
                    entered[layer] += begins
            elif row.place == "pre":
                before += size * row.count
            if row.place == "post":
                behind += size * row.count
                after = max(after, behind + alive)
            else:
                inside = max(inside, alive)
        workspace = float(Footprint(piece).at(batch, tokens, 0)[1][0])
        return cls(dict(kept), dict(entered), before, behind, inside, after, workspace)

    def peak(self, pipeline: Pipeline, stage: int, full: bool) -> float:
        """Most bytes in use on a stage: what its micro-batches in flight keep, and the gradients of one of them."""
        layers = pipeline.layers_of(stage) if pipeline.layers else ()
        stored = sum((self.entered if full else self.kept).get(layer, 0.0) for layer in layers)
        stored += self.before if stage == 0 else 0.0
        again = max((self.kept.get(layer, 0.0) for layer in layers), default=0.0) if full else 0.0
        flying = min(pipeline.stages - stage, pipeline.micro_batches)
        last = self.after if stage == pipeline.stages - 1 else 0.0
        return flying * stored + max(again + self.inside, last)


def training_memory(
    shares: list[Share], activations: Activations, pipeline: Pipeline, settings, hw, capacity: float
) -> TrainingMemory:
    """Memory of the stage that holds most; `settings` has optimizer, grad_checkpoint, zero."""

    def of(stage: int) -> TrainingMemory:
        weights, gradients, states = _held(shares, pipeline, stage, settings)
        return TrainingMemory(
            weights=weights,
            kv_cache=0,
            activation_peak=activations.peak(pipeline, stage, settings.grad_checkpoint == "full"),
            workspace=activations.scratch + _buffers(shares, pipeline, stage, settings.zero),
            reserved=hw.reserved_bytes,
            capacity=capacity,
            gradients=gradients,
            optimizer=states,
        )

    return max(map(of, range(pipeline.stages)), key=lambda memory: memory.total)


def _held(shares: Iterable[Share], pipeline: Pipeline, stage: int, settings) -> tuple[float, float, float]:
    """(weights, gradients, optimizer states) in bytes."""
    total = np.zeros(3)
    for share in shares:
        each = (
            share.nbytes * share.left(settings.zero, WEIGHTS),
            share.nbytes * share.left(settings.zero, GRADIENTS),
            share.state_bytes(settings.optimizer) * share.left(settings.zero, STATES),
        )
        total += np.array(each) * share.count(pipeline, stage)
    return tuple(total)


def _buffers(shares: Iterable[Share], pipeline: Pipeline, stage: int, zero: int) -> float:
    """What ZeRO needs whole for a while: the gradients of a layer (2, 3), the weights of it and the next (3)."""
    whole: dict[object, float] = defaultdict(float)
    for share in shares:
        if share.ranks > 1 and share.count(pipeline, stage):
            for where in share.layers or (share.place,):
                whole[where] += share.nbytes
    largest = max(whole.values(), default=0.0)
    return largest * ((zero >= GRADIENTS) + 2 * (zero >= WEIGHTS))
