"""Figures of a whole diffusion pipeline: the denoiser's answer, and those of the stages before and after it.

A request takes the time of the text encoders, one after the other, of all denoising steps, and of the VAE. With a DiT
cache, F of the n steps run in full and n - F take kept results: latency = text encoders + F × full + (n - F) × cached +
VAE. All components are in memory together; activations are those of the stage that needs most, those of denoising with
what a DiT cache keeps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property, partial
from typing import Any

from tensorcast.answer import Answer
from tensorcast.cost.phase import Phase
from tensorcast.diffusion.dit_cache import Schedule, cached_table, kept_bytes
from tensorcast.memory import Memory
from tensorcast.optable import OpTable
from tensorcast.plan import Workload
from tensorcast.request import Request
from tensorcast.steps import steps_of
from tensorcast.units import bytes_

CACHED = "denoise_cached"


class DenoiserAnswer(Answer):
    """Figures of a denoiser, with the other stages of its pipeline where the request has them."""

    def __init__(self, request: Request, *, cache: bool = True, progress: Callable | None = None) -> None:
        ask = partial(Answer, cache=cache, progress=progress)
        self.stages = [(s, ask(s.request)) for s in request.stages if s.phase == "text_encoder"]
        seen = sum(answer.work.image_tokens for _, answer in self.stages)
        if seen:  # what the encoder made of a picture is part of what the denoiser reads as the prompt
            request = replace(request, work=request.work.with_image_tokens(seen))
        super().__init__(request, cache=cache, progress=progress)
        self.stages += [(s, ask(s.request)) for s in request.stages if s.phase != "text_encoder"]
        self.schedule = Schedule.parse(self.work.dit_cache) if self.work.dit_cache else None

    @cached_property
    def phases(self) -> dict[str, Phase]:
        """text_encoder, vae_encoder, denoise (one step, in full), denoise_cached (one that takes kept results), vae."""
        out = {name: self._stage(name) for name in ("text_encoder", "vae_encoder")}
        out["denoise"] = self._phase("denoise", self.steps["denoise"])
        if self.schedule is not None:
            out[CACHED] = self._phase(CACHED, self.steps["denoise"], {"denoise": self._cached})
        out["vae"] = self._stage("vae")
        return {name: phase for name, phase in out.items() if phase is not None}

    @cached_property
    def _cached(self) -> OpTable:
        """The table of a step that takes kept results."""
        return cached_table(self.deployed.tables["denoise"], self.schedule, self.facts.architecture, self.plan.tp)

    def _stage(self, name: str) -> Phase | None:
        """All components of a stage, one after the other; the module of an operator starts with its component."""
        guided = self.work.guidance != "none"  # the picture is looked at again with the negative prompt
        parts = [
            _within(stage.name, phase)
            for stage, answer in self.stages
            if stage.phase == name
            for kind, phase in answer.phases.items()
            for _ in range(2 if kind == "vision" and guided else 1)
        ]
        return Phase.sum(parts) if len(parts) > 1 else parts[0] if parts else None

    @property
    def full_steps(self) -> int:
        return self.work.steps if self.schedule is None else self.schedule.full_steps(self.work.steps)

    def metrics(self) -> dict[str, float | None]:
        seconds = {name: phase.step_time_s for name, phase in self.phases.items()}
        steps = self.full_steps * seconds["denoise"] + (self.work.steps - self.full_steps) * seconds.get(CACHED, 0.0)
        others = {name: seconds[name] for name in ("text_encoder", "vae_encoder", "vae") if name in seconds}
        latency = sum(others.values()) + steps
        own = {"request_latency_s": latency, "denoise_step_s": steps / self.work.steps, "denoise_s": steps}
        if self.stages:
            rate = self.work.batch / latency
            own |= {f"{name}_s": time for name, time in others.items()}
            own |= {"image_latency_s": latency, "images_per_s": rate}
            own |= {"images_per_s_per_device": rate / self.plan.devices}
        return {**super().metrics(), **own}

    # -- memory --------------------------------------------------------------------------------------------------------

    def memory(self, work: Workload | None = None, reserve: int = 0) -> Memory | None:
        own = super().memory(work, reserve)
        batch = (work or self.work).batch
        others = [answer.memory(replace(answer.work, batch=batch)) for _, answer in self.stages]
        if own is None or None in others:
            return None
        own = replace(own, activation_peak=own.activation_peak + self._kept_results(work or self.work))
        most = max([own, *others], key=lambda memory: memory.activation_peak + memory.workspace)
        weights = own.weights * (1 + len(self.request.experts)) + sum(
            other.weights for other, (stage, _) in zip(others, self.stages, strict=True) if stage.resident
        )
        return replace(own, weights=weights, activation_peak=most.activation_peak, workspace=most.workspace)

    def _kept_results(self, work: Workload) -> float:
        """Bytes that a DiT cache keeps from step to step, for every prediction that this device makes."""
        if self.schedule is None:
            return 0.0
        passes = steps_of(work, self.plan)["denoise"]
        return sum(
            kept_bytes(self._cached, (steps.batch, *point))
            for _, steps in passes
            for point in zip(steps.tokens, steps.past, strict=True)
        )

    def memory_dict(self) -> dict[str, Any]:
        out = super().memory_dict()
        if not out["fits"] and self.stages and (alone := self._one_at_a_time()) <= out["capacity_bytes"]:
            said = f"one component in memory at a time, the others offloaded: about {bytes_(alone)} per device"
            out["suggestions"] = [*out.get("suggestions", ()), said]
        return out

    def _other_plans(self, memory: Memory) -> list[str]:
        """What the other components hold does not shrink with more ranks."""
        own = super().memory().weights
        return super()._other_plans(replace(memory, weights=own, reserved=memory.reserved + memory.weights - own))

    def _one_at_a_time(self) -> float:
        return max(part.total for part in (super().memory(), *(a.memory() for _, a in self.stages)))

    # -- the whole -----------------------------------------------------------------------------------------------------

    @property
    def tables(self) -> list[OpTable]:
        return [*super().tables, *(table for _, answer in self.stages for table in answer.tables)]

    def remarks(self) -> list[str]:
        said = super().remarks()
        for stage, answer in self.stages:
            new = [note for note in answer.remarks() if note not in said]
            said += [note if stage.name in note else f"{stage.name}: {note}" for note in new]
        if self.stages and self.plan.devices > 1:
            said.append("text encoders and VAE run whole on every device, on its share of the batch")
        if self.schedule is not None:
            cached = self.work.steps - self.full_steps
            said.append(f"--dit-cache: {self.full_steps} steps in full, {cached} with kept results")
        combined = "" if self.work.guidance == "none" else ", the combination of the two predictions among it"
        said.append(f"the scheduler's arithmetic on the latents is not counted{combined}: elementwise, once a step")
        return said

    def to_dict(self, *, strict: bool = False) -> dict[str, Any]:
        out = super().to_dict(strict=strict)
        if self.stages:
            out["model"]["pipeline"] = str(self.request.source.beside["_class_name"])
            out["model"]["components"] = self._components()
        return out

    def _components(self) -> list[dict[str, Any]]:
        """Every component with weights: its class, parameters of the whole model, bytes of a device."""
        named = [(stage.name, stage.phase, answer) for stage, answer in self.stages if stage.resident]
        named += [(name, "denoise", self) for name in (_first(self.request.experts), *self.request.experts)]
        order = {"text_encoder": 0, "denoise": 1, "vae": 2}
        return [
            {
                "name": name,
                "phase": phase,
                "architecture": answer.facts.architecture,
                "parameters": answer.facts.parameters,
                "dtype": answer.facts.dtype,
                "weights_bytes": int(Answer.memory(answer).weights),
            }
            for name, phase, answer in sorted(named, key=lambda part: order[part[1]])
        ]


def _first(experts: tuple[str, ...]) -> str:
    """What the folder of the first denoiser is called, beside `transformer_2`."""
    return experts[0].rpartition("_")[0] if experts else "denoiser"


def _within(name: str, phase: Phase) -> Phase:
    ops = [{**op, "module": f"{name}.{op['module']}".rstrip(".")} for op in phase.ops]
    return replace(phase, ops=ops, component=name)
