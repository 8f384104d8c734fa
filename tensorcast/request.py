"""A request, resolved and validated once: model, machine, plan, precision, work. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tensorcast.custom import load_custom_folder, stamps
from tensorcast.errors import DeploymentError, InputError, near_names
from tensorcast.formats import format_named
from tensorcast.hardware.load import hardware
from tensorcast.hardware.profile import HardwareProfile
from tensorcast.kernels.registry import KernelRequest
from tensorcast.models.reference import ModelSource, resolve_model
from tensorcast.plan import ParallelPlan, Workload
from tensorcast.quantization.plan import QuantPlan, plan_from_request

PLAN = ("tp", "ep", "dp", "pp", "sp")
WORK = (
    "phase", "batch", "input_len", "output_len", "prefix_len", "seq_lens", "chunk", "mtp", "acceptance_rate",
    "micro_batches",
)  # fmt: skip
PRECISION = ("quant", "kv_cache_dtype", "attention_quant", "exclude", "quant_lm_head")
OTHER = ("overrides", "layers", "dtype", "runtime", "kernel", "reuse", "max_model_len", "gpu_memory_utilization")


@dataclass(frozen=True)
class Request:
    """What was asked, with every name resolved."""

    source: ModelSource
    hw: HardwareProfile
    asked_hw: str
    plan: ParallelPlan
    work: Workload
    quant: QuantPlan
    dtype: str
    kernels: tuple[KernelRequest, ...] = ()
    reuse: bool = True
    eager: bool = False
    max_model_len: int | None = None
    utilization: float = 1.0
    trust_remote_code: bool = False
    custom: tuple[tuple[str, float, int], ...] = ()  # files of ./custom_model: name, time, size
    notes: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, *, model: str, hw: Any, trust_remote_code: bool = False, custom_dir: bool = True, **options: Any
    ) -> Request:
        """Resolve and validate; raises a TensorcastError that names the option and what would work.

        `custom_dir`: load ./custom_model first, so that what it registers counts.
        """
        if custom_dir:
            load_custom_folder()
        known = (*PLAN, *WORK, *PRECISION, *OTHER)
        for name in options:
            if name not in known:
                near = near_names(name, known)
                raise InputError(f"unknown option {name!r}" + (f"; nearest: {', '.join(near)}" if near else ""))
        given = {name: value for name, value in options.items() if value is not None}
        work = _workload(given)
        plan = ParallelPlan(**{k: given[k] for k in PLAN if k in given})
        machine = hardware(hw)
        machine.topology.validate(plan.devices)
        source = resolve_model(model, overrides=given.get("overrides") or {}, layers=given.get("layers"))
        dtype, notes = _dtype(source, given.get("dtype"), machine)
        quant = plan_from_request(
            given.get("quant", "auto"),
            source.config,
            source.quant_side,
            machine.has,
            given.get("kv_cache_dtype"),
            given.get("attention_quant"),
            tuple(given.get("exclude", ())),
            bool(given.get("quant_lm_head", False)),
            dtype,
        )
        _check_work(work, plan, source, given.get("max_model_len"))
        runtime = given.get("runtime", "graph")
        if runtime not in ("graph", "eager"):
            raise InputError(f"--runtime {runtime!r}: graph or eager")
        share = given.get("gpu_memory_utilization", 1.0)
        if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 < share <= 1:
            raise InputError(f"--gpu-memory-utilization {share!r}: a share above 0, at most 1")
        return cls(
            source=source,
            hw=machine,
            asked_hw=str(hw) if isinstance(hw, str) else machine.name,
            plan=plan,
            work=work,
            quant=quant,
            dtype=dtype,
            kernels=tuple(KernelRequest.parse(k) for k in given.get("kernel", ())),
            reuse=bool(given.get("reuse", True)),
            eager=runtime == "eager",
            max_model_len=given.get("max_model_len"),
            utilization=float(share),
            trust_remote_code=trust_remote_code,
            custom=tuple(stamps()) if custom_dir else (),
            notes=(*source.notes, *notes, *quant.notes),
        )

    def deployment(self) -> dict[str, Any]:
        """The fields of the `Deployment` that this request asks for."""
        return {
            "plan": self.plan,
            "quant": self.quant,
            "kernels": self.kernels,
            "mtp": self.work.mtp,
            "reuse": self.reuse,
            "hw": self.hw,
        }

    def cache_key(self) -> Mapping[str, Any]:
        """Everything the deployed model and its tables depend on."""
        return {
            "model": self.source.digest,
            "name": self.source.name,
            "origin": self.source.origin,
            "remote": self._remote_files(),
            "custom": self.custom,
            "plan": [self.plan.tp, self.plan.ep, self.plan.dp],
            "quant": repr(self.quant),
            "dtype": self.dtype,
            "kernels": repr(self.kernels),
            "defaults": [self.hw.name, self.hw.kind, self.hw.compute_capability, sorted(self.hw.kernels.items())]
            if self.kernels
            else sorted(self.hw.kernels.items()),
            "reuse": self.reuse,
            "mtp": self.work.mtp,
        }


    def _remote_files(self) -> list[tuple[str, float, int]]:
        """The model's own code files, where they may run: name, time, size."""
        if not self.trust_remote_code or self.source.folder is None:
            return []
        return [(p.name, p.stat().st_mtime, p.stat().st_size) for p in sorted(self.source.folder.glob("*.py"))]


def _workload(given: Mapping[str, Any]) -> Workload:
    options = {k: given[k] for k in WORK if k in given}
    lengths = tuple(options.get("seq_lens", ()))
    if lengths:
        if options.setdefault("batch", len(lengths)) != len(lengths):
            raise InputError(f"--seq-lens names {len(lengths)} sequences, --batch {options['batch']}; leave --batch out")
        options["seq_lens"] = lengths
        options["input_len"] = max(lengths)
        if len(lengths) == 1:
            options["seq_lens"] = ()
    return Workload(**options)


def _dtype(source: ModelSource, asked: str | None, machine: HardwareProfile) -> tuple[str, tuple[str, ...]]:
    """The model's floating-point format: asked, else the configuration's; 16 bit of the other kind where bf16 is absent."""
    if asked is not None:
        fmt = format_named(asked)
        if fmt.name not in ("fp32", "bf16", "fp16"):
            raise InputError(f"--dtype {asked}: one of bf16, fp16, fp32 (quantise with --quant)")
        if not machine.has(fmt.name):
            raise DeploymentError(f"--dtype {asked}: {machine.name} does not compute {fmt.name}; it has {', '.join(machine.peaks)}")
        return fmt.name, ()
    text = source.config.get("text_config") or {}
    said = next((v for c in (source.config, text) for k in ("dtype", "torch_dtype") if (v := c.get(k))), None)
    notes: tuple[str, ...] = ()
    if said is None or said == "auto":
        fmt, notes = format_named("bf16"), ("the configuration names no dtype: bf16 assumed",)
    else:
        fmt = format_named(said)
    if not machine.has(fmt.name):
        other = "fp16" if machine.has("fp16") else "bf16"
        return other, (*notes, f"{machine.name} does not compute {fmt.name}: simulated in {other}")
    return fmt.name, notes


def _check_work(work: Workload, plan: ParallelPlan, source: ModelSource, max_model_len: Any) -> None:
    if plan.dp > work.batch:
        raise InputError(f"--dp {plan.dp} needs at least as many sequences: --batch {work.batch}")
    if work.seq_lens and (plan.dp > 1 or plan.pp > 1):
        raise InputError("--seq-lens goes with --tp and --ep only")
    if work.micro_batches > work.batch:
        raise InputError(f"--micro-batches {work.micro_batches} is more than --batch {work.batch}")
    need = work.input_len + work.output_len
    if max_model_len is not None:
        if isinstance(max_model_len, bool) or not isinstance(max_model_len, int) or max_model_len < need:
            raise InputError(f"--max-model-len {max_model_len!r}: a whole number, at least input + output = {need}")
    text = {**source.config, **(source.config.get("text_config") or {})}
    limit = text.get("max_position_embeddings")
    if isinstance(limit, int) and need > limit:
        raise InputError(
            f"--input-len + --output-len = {need} tokens is more than {source.name} takes (max_position_embeddings {limit})"
        )
