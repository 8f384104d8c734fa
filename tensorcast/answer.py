"""From a request that is covered to figures: priced phases, metrics and memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from math import ceil
from typing import TYPE_CHECKING, Any

from tensorcast import memory as mem
from tensorcast.cost.passes import Pipeline
from tensorcast.cost.phase import Phase, evaluate
from tensorcast.covered import Covered
from tensorcast.deployed import CROSS
from tensorcast.errors import InputError
from tensorcast.optable import OpTable
from tensorcast.plan import MOST_SEQUENCES, MOST_STEPS, MOST_TOKENS, STREAMS, Workload
from tensorcast.serving.engines import BARE
from tensorcast.steps import Parts, group_batch, micro_batches, steps_of

if TYPE_CHECKING:
    from tensorcast.serving.steady import Load, Served


class Answer(Covered):
    """Figures of one request. `to_dict()` is the JSON."""

    def pipeline(self, steady: bool = False) -> Pipeline:
        plan, layers = self.plan, self.facts.layers
        if plan.pp > max(layers, 1):
            raise InputError(f"--pp {plan.pp}: {self.facts.name} has {layers} layers; give at most {layers}")
        return Pipeline(
            plan.pp,
            micro_batches(self.work, plan),
            layers,
            plan.tp * plan.dp,
            steady,
            plan.tp if plan.sequence_parallel else 1,
        )

    @cached_property
    def phases(self) -> dict[str, Phase]:
        return {name: self._phase(name, parts) for name, parts in self.steps.items()}

    def _phase(self, name: str, parts: Parts, tables: Mapping[str, OpTable] | None = None) -> Phase:
        """The phase priced with the deployed model's tables, or with others of the same names."""
        tables = tables or self.deployed.tables
        return evaluate(
            [(tables[table], steps) for table, steps in parts],
            self.hw,
            pipeline=Pipeline() if name == "vision" else self.pipeline(steady=name == "decode"),
            eager=self.request.eager,
            hidden=self.facts.hidden,
            item=self.facts.dtype,
            overlap=self.work.overlap == STREAMS or any(steps.cut for _, steps in parts),
        )

    @property
    def prefill(self) -> Phase | None:
        return self.phases.get("prefill") or self.phases.get("chunked")

    def metrics(self) -> dict[str, float | None]:
        """Latency and throughput; a figure the asked phase does not have is None."""
        prefill, decode, work = self.prefill, self.phases.get("decode"), self.work
        seen = self.phases["vision"].step_time_s if "vision" in self.phases else 0.0
        ttft = seen + prefill.step_time_s + self._engine_prompt_s() if prefill else None
        tpot = (decode.step_time_s + self._engine_step_s()) / work.tokens_per_step if decode else None
        latency = ttft + tpot * (work.output_len - 1) if ttft is not None and tpot is not None else None
        single = self.phases.get("forward") or self.phases.get("denoise")
        if single is not None:  # equal passes and done: no tokens come out
            latency, rate = single.step_time_s * work.steps, None
        elif latency is not None:
            rate = work.batch * work.output_len / latency
        else:
            rate = work.batch / tpot if tpot is not None else None
        return {
            "ttft_s": ttft,
            "tpot_s": tpot,
            "request_latency_s": latency,
            "tokens_per_s": rate,
            "tokens_per_s_per_device": rate / self.plan.devices if rate is not None else None,
            "tokens_per_s_per_user": 1 / tpot if tpot else None,
            **({"requests_per_s": work.batch / latency} if "forward" in self.phases else {}),
            **self._loaded(),
        }

    def _serving(self) -> dict[str, Any]:
        """What was asked of runtime, engine and memory beyond the defaults, and the seconds that the engine adds."""
        request, named = self.request, self.request.engine.name != BARE
        asked = {
            "runtime": "eager" if request.eager else None,
            "engine": request.engine.name if named else None,
            "engine_prompt_s": self._engine_prompt_s() if named and self.prefill else None,
            "engine_step_s": self._engine_step_s() if named and "decode" in self.phases else None,
            "concurrency": request.concurrency,
            "max_model_len": request.max_model_len,
            "gpu_memory_utilization": request.utilization if request.utilization != 1 else None,
        }
        return {name: value for name, value in asked.items() if value is not None}

    def _engine_step_s(self) -> float:
        """Seconds of the engine's own in a decode step."""
        return self.request.engine.step_overhead(group_batch(self.work, self.plan))

    def _engine_prompt_s(self) -> float:
        """Seconds of the engine's own before the first token: of all steps that the prefill takes."""
        passes = (steps for name in ("prefill", "chunked") for _, steps in self.steps.get(name, ()))
        return self.request.engine.prompt_overhead(sum(len(steps.tokens) for steps in passes))

    def _loaded(self) -> dict[str, float]:
        """Figures with a number of clients at all times, where that was asked."""
        clients = self.request.concurrency
        if clients is None:
            return {}
        from tensorcast.serving.steady import Load

        work = self.work
        load = Load([ceil(clients / self.plan.dp)], [work.input_len], [work.output_len], work.tokens_per_step)
        served = self.under_load(load, work.chunk)
        return {"ttft_loaded_s": float(served.ttft_s[0]), "tpot_loaded_s": float(served.tpot_s[0])}

    def under_load(self, load: Load, chunk) -> Served:
        """Requests at all times, arrays: clients of an attention group and their lengths."""
        from tensorcast.serving.steady import under_load
        from tensorcast.serving.steps import StepTimes

        plan = self.plan
        times = StepTimes(self.deployed, self.hw, drafts=self.work.mtp, stages=plan.pp, stride=plan.tp * plan.dp)
        return under_load(times, load, chunk, self.request.engine)

    def memory(self, work: Workload | None = None, reserve: int = 0) -> mem.Memory | None:
        """Memory with the asked work or another, `reserve` tokens of cache a sequence; None: no table covers it."""
        ragged, work = work is None and bool(self.work.seq_lens), work or self.work
        peak = self.footprints.of(part for parts in steps_of(work, self.plan).values() for part in parts)
        if peak is None:
            return None
        new = work.output_len + work.mtp
        lengths = [(group_batch(work, self.plan), reserve or self.request.max_model_len or work.input_len + new)]
        if ragged:
            lengths = [(1, n + new) for n in work.seq_lens]
        caches, across = self.facts.caches, 0.0
        if work.encoder:  # what the encoder read is kept apart from the decoder's own tokens
            lengths = [(group_batch(work, self.plan), new)]
            across = sum(float(c.nbytes(work.input_len)) * lengths[0][0] for c in caches if c.kind == CROSS)
            caches = [c for c in caches if c.kind != CROSS]
        weights, cache = mem.fullest_stage(self.facts.weights, caches, self.pipeline(), lengths)
        return mem.Memory(
            weights=weights,
            kv_cache=cache + across,
            activation_peak=peak[0],
            workspace=peak[1],
            reserved=self.hw.reserved_bytes,
            capacity=self.hw.memory_bytes * self.request.utilization,
        )

    def _elsewhere(self, work: Workload, reserve: int = 0) -> mem.Memory | None:
        """`memory` of other work, which may take passes of a kind that the asked work does not: their table is made."""
        passes = [part for parts in steps_of(work, self.plan).values() for part in parts]
        absent = {name: steps for name, steps in passes if name not in self.deployed.tables}
        if absent:
            self.cover((name, (s.batch, s.tokens[0], s.past[0])) for name, s in absent.items())
        return self.memory(work, reserve)

    def _with_batch(self, batch: int) -> mem.Memory | None:
        """Memory with `batch` sequences in all, each as long as the longest asked."""
        return self._elsewhere(replace(self.work, batch=batch, seq_lens=()))

    def _with_context(self, tokens: int) -> mem.Memory | None:
        """Memory with `tokens` a sequence; the prompt has what the output leaves, two tokens at least."""
        work = self.work
        prompt = tokens if work.encoder else max(tokens - work.output_len - work.mtp, work.prefix_len + 2)
        return self._elsewhere(replace(work, input_len=prompt, seq_lens=()), tokens)

    def memory_dict(self) -> dict[str, Any]:
        memory, work = self.memory(), self.work
        out = memory.to_dict()
        out["max_batch"] = mem.largest(self._with_batch, MOST_SEQUENCES)
        longest = self.facts.max_positions or MOST_TOKENS
        out["max_context"] = mem.largest(self._with_context, min(longest, (work.chunk or longest) * MOST_STEPS))
        if not memory.fits:
            fewer = out["max_batch"] if not work.seq_lens else 0
            out["suggestions"] = [f"--batch {fewer}"] if fewer else []
            out["suggestions"] += self._other_plans(memory)
        return out

    def _other_plans(self, memory: mem.Memory) -> list[str]:
        """Flags of plans that fit."""
        quantised = bool(self.facts.quantised["modules"])
        return mem.suggestions(self.facts, self.plan, self.pipeline(), memory, self.hw, quantised)

    def remarks(self) -> list[str]:
        """What the user should know of the figures."""
        return [*dict.fromkeys((*self.notes, *self.facts.notes, *(n for t in self.tables for n in t.notes)))]

    def check_strict(self) -> None:
        """InputError where an operator has no cost, a figure is assumed, or a rule of the model's plan is not used."""
        from tensorcast.provenance import assumed

        tables, engine = self.tables, self.request.engine
        if self.facts.unmatched:
            rules = ", ".join(self.facts.unmatched)
            raise InputError(f"--strict: rules of the configuration's tensor-parallel plan match nothing: {rules}")
        uncosted = sorted({op for table in tables for op in table.uncosted})
        _strict(uncosted, assumed(self.hw, tables) + [f"engine {engine.name}"] * engine.assumed)

    def to_dict(self, *, strict: bool = False) -> dict[str, Any]:
        """The JSON of interface `simulate`. `strict`: an uncosted operator or an assumed figure is an error."""
        from tensorcast.provenance import assumptions, provenance

        tables = self.tables
        uncosted = sorted({op for table in tables for op in table.uncosted})
        warnings = self.remarks()
        if self.work.mtp and self.work.acceptance_rate is None:
            rate = self.work.draft_acceptance
            warnings.append(f"acceptance rate of draft tokens assumed {rate}; set --acceptance-rate")
        if strict:
            self.check_strict()
        source, facts = self.request.source, self.facts
        return {
            "schema": 1,
            "model": {
                "name": source.name,
                "architecture": facts.architecture,
                "model_type": facts.model_type,
                "origin": facts.origin,
                "parameters": facts.parameters,
                "active_parameters": facts.active_parameters,
            },
            "hardware": {
                "name": self.hw.name,
                "devices": self.plan.devices,
                "asked": self.request.asked_hw,
                **self.hw.to_dict(),
            },
            "plan": self.plan.to_dict(),
            "quant": dict(facts.quantised),
            "workload": self.work.to_dict(),
            **({"serving": serving} if (serving := self._serving()) else {}),
            "phases": {name: phase.to_dict() for name, phase in self.phases.items()},
            "metrics": self.metrics(),
            "memory": self.memory_dict(),
            "steps": [dict(s) for s in facts.steps],
            "kernels": [dict(k) for k in facts.kernels],
            "uncosted_ops": uncosted,
            "warnings": warnings,
            "provenance": provenance(self.hw, tables),
            "assumptions": assumptions(self.hw, tables),
        }


def _strict(uncosted: list[str], assumptions: list[str]) -> None:
    if uncosted:
        raise InputError(f"--strict: operators without a cost: {', '.join(uncosted)}")
    if assumptions:
        raise InputError(f"--strict: assumed figures: {', '.join(assumptions)}")
