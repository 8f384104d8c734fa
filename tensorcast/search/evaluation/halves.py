"""Prefill and decode of one deployed model, each on instances of its own: figures of both, and the cache between them.

An instance for prompts keeps the caches of its prompts and their first token; one for the rest, of whole sequences.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tensorcast.memory import stage_cache
from tensorcast.search.evaluation.capacity import Capacity
from tensorcast.search.evaluation.cases import Cases, Shape
from tensorcast.search.evaluation.grid import Grid
from tensorcast.search.optimization.optimum import HALVES

PREFILL, DECODE = HALVES


class HalvesGrid(Grid):
    """The metrics of `simulate`; as `prefill_…` and `decode_…` the memory of an instance that runs that phase alone.

    `prompt_bytes`: what the fullest rank keeps of one prompt; `group_prompt_bytes`: all ranks that share a sequence
    together, copies counted.
    """

    def _memory(self, cases: Cases) -> dict[str, np.ndarray]:
        rest = np.zeros_like(cases.chunk)
        parts = cases.with_(output_len=np.ones_like(cases.output_len)), cases.with_(chunk=rest, prefix_len=rest)
        found = {}
        for phase, part in zip(HALVES, parts, strict=True):
            work = replace(self.request.work, phase=phase, chunk=0, prefix_len=0)
            columns = Capacity(self.answer, Shape(self.request.plan, work)).columns(part)
            found |= {f"{phase}_{name}": values for name, values in columns.items()}
        return found | self._handed_over(cases)

    def _handed_over(self, cases: Cases) -> dict[str, np.ndarray]:
        caches, pipeline = self.answer.facts.caches, self.answer.pipeline()
        stages = np.array(
            [
                np.broadcast_to(stage_cache(caches, pipeline, stage, [(1, cases.input_len)]), len(cases))
                for stage in range(pipeline.stages)
            ]
        )
        return {
            "prompt_bytes": stages.max(axis=0),
            "group_prompt_bytes": stages.sum(axis=0) * self.request.plan.tp,
        }
