"""What is asked for, validated once: the work, the parallel plan, and how ranks lie in the grid."""

from __future__ import annotations

from dataclasses import dataclass, fields

from tensorcast.errors import DeploymentError, InputError

PHASES = ("auto", "prefill", "decode", "chunked")


@dataclass(frozen=True)
class ParallelPlan:
    """Degrees of parallelism; tensor parallel innermost, then attention data parallel, then pipeline stages.

    `tp` ranks share every attention head and matrix; `dp` such groups hold different sequences (attention data
    parallel); experts live on tp·dp ranks, spread over `ep` of them and cut into tp·dp/ep parts; `pp` pipeline stages.
    """

    tp: int = 1
    ep: int = 1
    dp: int = 1
    pp: int = 1
    sp: int = 1

    def __post_init__(self) -> None:
        for field in fields(self):
            check_positive(f"--{field.name}", getattr(self, field.name))
        if (self.tp * self.dp) % self.ep:
            valid = [n for n in range(1, self.tp * self.dp + 1) if (self.tp * self.dp) % n == 0]
            raise DeploymentError(
                f"--ep {self.ep} must divide tp x dp = {self.tp * self.dp}; values that do: {', '.join(map(str, valid))}"
            )
        if self.sp > 1:
            raise DeploymentError("--sp (Ulysses) applies to diffusion transformers; use --tp for a language model")

    @property
    def devices(self) -> int:
        return self.tp * self.dp * self.pp * self.sp

    def to_dict(self) -> dict[str, int]:
        return {field.name: getattr(self, field.name) for field in fields(self)}


@dataclass(frozen=True)
class Workload:
    """What is computed: `batch` sequences in all, `input_len` prompt tokens and `output_len` new ones each.

    `prefix_len` tokens of every prompt are cached already; `seq_lens` gives each sequence its own prompt length;
    `chunk` cuts the prefill; `mtp` draft tokens a step, of which each is accepted with `acceptance_rate`.
    """

    phase: str = "auto"
    batch: int = 1
    input_len: int = 4096
    output_len: int = 1024
    prefix_len: int = 0
    seq_lens: tuple[int, ...] = ()
    chunk: int = 0
    mtp: int = 0
    acceptance_rate: float | None = None
    micro_batches: int = 0

    def __post_init__(self) -> None:
        if self.phase not in PHASES:
            raise InputError(f"--phase {self.phase!r}: one of {', '.join(PHASES)}")
        for name in ("batch", "input_len", "output_len"):
            check_positive(f"--{name.replace('_', '-')}", getattr(self, name))
        for name in ("prefix_len", "chunk", "mtp", "micro_batches"):
            check_positive(f"--{name.replace('_', '-')}", getattr(self, name), zero=True)
        for length in self.seq_lens:
            check_positive("--seq-lens", length)
        if self.prefix_len >= self.input_len:
            raise InputError(f"--prefix-len {self.prefix_len} must be less than --input-len {self.input_len}")
        if self.seq_lens and (self.prefix_len or self.chunk):
            raise InputError("--seq-lens goes with neither --prefix-len nor --chunk")
        if self.phase == "chunked" and not self.chunk:
            raise InputError("--phase chunked needs --chunk, the tokens of one step")
        if self.acceptance_rate is not None and not self.mtp:
            raise InputError("--acceptance-rate needs --mtp, the draft tokens of a step")
        if self.acceptance_rate is not None and not 0 <= self.acceptance_rate <= 1:
            raise InputError(f"--acceptance-rate {self.acceptance_rate}: between 0 and 1")

    @property
    def draft_acceptance(self) -> float:
        """Probability that a draft token is accepted. 0.85 unless told: the DeepSeek-V3 report gives 85 to 90 %."""
        return 0.85 if self.acceptance_rate is None else self.acceptance_rate

    @property
    def tokens_per_step(self) -> float:
        """Expected tokens a decode step yields: 1 + a + a² + … for the accepted run of drafts."""
        return sum(self.draft_acceptance**i for i in range(self.mtp + 1))

    @property
    def phases(self) -> tuple[str, ...]:
        return ("prefill", "decode") if self.phase == "auto" else (self.phase,)

    def to_dict(self) -> dict:
        out = {f.name: getattr(self, f.name) for f in fields(self)}
        out["seq_lens"] = list(self.seq_lens)
        out["acceptance_rate"] = self.draft_acceptance if self.mtp else None
        return out


def check_positive(name: str, value: object, *, zero: bool = False) -> None:
    """InputError unless `value` is a whole number above zero (or zero, where that is allowed)."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0 or (value == 0 and not zero):
        raise InputError(f"{name} {value!r}: a whole number, {'0 or more' if zero else '1 or more'}")
