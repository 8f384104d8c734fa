"""From a request to figures: the deployed model (cached or traced), priced phases, metrics and memory."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from math import ceil
from typing import Any

from tensorcast import memory as mem
from tensorcast.cost.phase import Phase, Pipeline, Steps, activation_peak, evaluate
from tensorcast.deployed import DeployedModel
from tensorcast.errors import InputError
from tensorcast.request import Request
from tensorcast.trace import cache as disk

Point = tuple[int, int, int]


class Answer:
    """Figures of one request. `to_dict()` is the JSON."""

    def __init__(self, request: Request, *, cache: bool = True, progress: Callable | None = None) -> None:
        self.request, self.work, self.plan, self.hw = request, request.work, request.plan, request.hw
        self.notes: list[str] = list(request.notes)
        self.steps = self._steps()
        self.deployed = self._deployed(cache, progress)
        self.facts = self.deployed.facts

    # -- what runs -----------------------------------------------------------------------------------------------------

    @property
    def batch(self) -> int:
        """Sequences of the fullest attention group."""
        return ceil(self.work.batch / self.plan.dp)

    @cached_property
    def micro_batches(self) -> int:
        if self.work.micro_batches > self.batch:
            raise InputError(f"--micro-batches {self.work.micro_batches}: a group has {self.batch} sequences")
        return self.work.micro_batches or min(self.plan.pp, self.batch)

    def _steps(self) -> dict[str, list[tuple[str, Steps]]]:
        """Phase → (table, steps) that make it up."""
        batch = ceil(self.batch / self.micro_batches)
        out: dict[str, list[tuple[str, Steps]]] = {}
        for phase in self.work.phases:
            out[phase] = self._decode(batch) if phase == "decode" else self._prefill(batch)
        if self.work.chunk and "prefill" in out and self.work.phase == "auto":
            out = {"chunked": out.pop("prefill"), **out}
        return out

    def _prefill(self, batch: int) -> list[tuple[str, Steps]]:
        work = self.work
        if work.seq_lens:
            lengths = tuple((n, 0) for n in work.seq_lens)
            return [("prefill", Steps(len(lengths), (ceil(sum(work.seq_lens) / len(lengths)),), (0,), lengths=lengths))]
        end, size = work.input_len, work.chunk or work.input_len - work.prefix_len
        starts = range(work.prefix_len, end, size)
        cuts = [(min(size, end - start), start) for start in starts]
        out = []
        for table, chosen in (
            ("prefill", [c for c in cuts if c[1] == 0]),
            ("chunked", [c for c in cuts if c[1] > 0 and c[0] > 1]),
            ("decode", [c for c in cuts if c[1] > 0 and c[0] == 1]),
        ):
            if chosen:
                tokens, past = zip(*chosen, strict=True)
                out.append((table, Steps(batch, tokens, past)))
        return out

    def _decode(self, batch: int) -> list[tuple[str, Steps]]:
        work = self.work
        tokens, steps = work.mtp + 1, max(work.output_len - 1, 1)
        if work.seq_lens:
            middle = steps // 2
            lengths = tuple((tokens, n + middle) for n in work.seq_lens)
            mean = ceil(sum(work.seq_lens) / len(lengths)) + middle
            return [("decode", Steps(len(lengths), (tokens,), (mean,), lengths=lengths))]
        past = tuple(range(work.input_len, work.input_len + steps))
        return [("decode", Steps(batch, (tokens,) * steps, past, weight=1 / steps))]

    # -- the deployed model --------------------------------------------------------------------------------------------

    def _deployed(self, cache: bool, progress: Callable | None) -> DeployedModel:
        key = disk.key_of(self.request.cache_key())
        found, note = disk.load(key) if cache else (None, "")
        if note:
            self.notes.append(note)
        missing = self._missing(found)
        if found is not None and not missing:
            return found
        deployed = self._trace(missing, found, progress)
        if cache and (note := disk.save(key, deployed)):
            self.notes.append(note)
        return deployed

    def _missing(self, found: DeployedModel | None) -> list[tuple[str, Point]]:
        """(table, point) that no piece covers: one a table where there is no table yet, else every such point."""
        out: dict[tuple[str, Point], None] = {}
        for name, steps in (part for parts in self.steps.values() for part in parts):
            table = found.tables.get(name) if found is not None else None
            points = [(steps.batch, t, p) for t, p in zip(steps.tokens, steps.past, strict=True)]
            uncovered = [p for p in points if table is None or table.piece_for(*p) is None]
            out.update(dict.fromkeys((name, p) for p in uncovered))
        return list(out)

    def _trace(self, missing, found: DeployedModel | None, progress: Callable | None) -> DeployedModel:
        from tensorcast.trace.deploy import deploy

        return deploy(
            self.request.source,
            self.request.deployment(),
            missing,
            found,
            dtype=self.request.dtype,
            trust_remote_code=self.request.trust_remote_code,
            progress=progress,
        )

    # -- figures -------------------------------------------------------------------------------------------------------

    def pipeline(self, steady: bool = False) -> Pipeline:
        if self.plan.pp > max(self.facts.layers, 1):
            raise InputError(f"--pp {self.plan.pp}: {self.facts.name} has {self.facts.layers} layers")
        return Pipeline(self.plan.pp, self.micro_batches, self.facts.layers, self.plan.tp * self.plan.dp, steady)

    @cached_property
    def phases(self) -> dict[str, Phase]:
        return {name: self._phase(name, parts) for name, parts in self.steps.items()}

    def _phase(self, name: str, parts: list[tuple[str, Steps]]) -> Phase:
        priced = [
            evaluate(
                self.deployed.tables[table],
                steps,
                self.hw,
                pipeline=self.pipeline(steady=name == "decode"),
                eager=self.request.eager,
                hidden=self.facts.hidden,
                item=self.facts.dtype,
            )
            for table, steps in parts
        ]
        return priced[0] if len(priced) == 1 else Phase.sum(priced)

    @property
    def prefill(self) -> Phase | None:
        return self.phases.get("prefill") or self.phases.get("chunked")

    def metrics(self) -> dict[str, float | None]:
        """Latency and throughput; a figure the asked phase does not have is None."""
        prefill, decode, work = self.prefill, self.phases.get("decode"), self.work
        ttft = prefill.step_time_s if prefill else None
        tpot = decode.step_time_s / work.tokens_per_step if decode else None
        latency = ttft + tpot * (work.output_len - 1) if ttft is not None and tpot is not None else None
        if latency is not None:
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
        }

    def memory(self, *, batch: int | None = None, context: int | None = None) -> mem.Memory:
        """Memory with the asked work, or with another batch (all groups together) or context length."""
        pipeline, work = self.pipeline(), self.work
        reserve = context or self.request.max_model_len or work.input_len + work.output_len + work.mtp
        per_group = ceil((batch or work.batch) / self.plan.dp)
        lengths = [(per_group, reserve)]
        if work.seq_lens and batch is None and context is None:
            lengths = [(1, n + work.output_len + work.mtp) for n in work.seq_lens]
        return mem.Memory(
            weights=mem.weight_bytes(self.facts, pipeline),
            kv_cache=mem.cache_bytes(self.facts, pipeline, lengths),
            activation_peak=self._activations(per_group, context),
            workspace=max((p.workspace_bytes for p in self.phases.values()), default=0.0),
            reserved=self.hw.reserved_bytes,
            capacity=self.hw.memory_bytes * self.request.utilization,
        )

    def _activations(self, per_group: int, context: int | None) -> float:
        """Peak over the phases with that batch; a longer context means a longer prompt unless it is cut into chunks."""
        peak, scale = 0.0, ceil(per_group / self.micro_batches)
        for parts in self.steps.values():
            for name, steps in parts:
                tokens = max(steps.tokens)
                if context is not None and name == "prefill" and not self.work.chunk:
                    tokens = max(tokens, context - self.work.output_len)
                table = self.deployed.tables[name]
                piece = table.piece_for(scale, tokens, steps.past[-1]) or table.pieces[-1]
                peak = max(peak, activation_peak(piece, piece.basis(scale, tokens, steps.past[-1])))
        return peak

    def memory_dict(self) -> dict[str, Any]:
        memory = self.memory()
        out = memory.to_dict()
        out["max_batch"] = mem.largest(lambda n: self.memory(batch=n).fits)
        out["max_context"] = mem.largest(lambda n: self.memory(context=n).fits)
        if self.facts.max_positions:
            out["max_context"] = min(out["max_context"], self.facts.max_positions)
        if not memory.fits:
            quantised = bool(self.facts.quantised["modules"])
            out["suggestions"] = mem.suggestions(self.facts, self.plan, memory, self.hw, quantised)
        return out

    def to_dict(self, *, strict: bool = False) -> dict[str, Any]:
        """The JSON of interface `simulate`. `strict`: an uncosted operator or an assumed figure is an error."""
        from tensorcast.provenance import assumed, provenance

        tables = [self.deployed.tables[t] for parts in self.steps.values() for t, _ in parts]
        uncosted = sorted({op for table in tables for op in table.uncosted})
        warnings = [*dict.fromkeys((*self.notes, *self.facts.notes, *(n for t in tables for n in t.notes)))]
        if self.work.mtp and self.work.acceptance_rate is None:
            warnings.append(f"acceptance rate of draft tokens assumed {self.work.draft_acceptance}; set --acceptance-rate")
        if strict:
            _strict(uncosted, assumed(self.hw, tables))
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
            "hardware": {"name": self.hw.name, "devices": self.plan.devices, "asked": self.request.asked_hw},
            "plan": self.plan.to_dict(),
            "quant": dict(facts.quantised),
            "workload": self.work.to_dict(),
            "phases": {name: phase.to_dict() for name, phase in self.phases.items()},
            "metrics": self.metrics(),
            "memory": self.memory_dict(),
            "steps": [dict(s) for s in facts.steps],
            "kernels": [dict(k) for k in facts.kernels],
            "uncosted_ops": uncosted,
            "warnings": warnings,
            "provenance": provenance(self.hw, tables),
        }


def _strict(uncosted: list[str], assumptions: list[str]) -> None:
    if uncosted:
        raise InputError(f"--strict: operators without a cost: {', '.join(uncosted)}")
    if assumptions:
        raise InputError(f"--strict: assumed figures: {', '.join(assumptions)}")
