"""What is asked for, validated once: the work, the parallel plan, and how ranks lie in the grid."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from math import inf, isqrt
from operator import index
from typing import Any

from tensorcast.errors import DeploymentError, InputError

UNIFORM = "uniform"  # every expert is as popular as any other
PHASES = ("auto", "prefill", "decode", "chunked", "forward", "denoise", "text_encoder", "vae_encoder", "vae", "train")
TRAIN = "train"
OPTIMIZERS = ("adamw", "sgd")
CHECKPOINTS = ("none", "full")
NO_OVERLAP, STREAMS, DUAL_BATCH = OVERLAPS = ("none", "streams", "dual-batch")
GUIDANCE = ("none", "batch", "passes")
DIT_CACHE = "every=3,first=4,last=1,skip=1:"  # an example

# Beyond these a figure is a slip of the keyboard, and some loops would take hours.
MOST_DEVICES = 1 << 20
MOST_TOKENS = 1 << 24  # a prompt; the longest published context is 10 M
MOST_SEQUENCES = 1 << 24
MOST_STEPS = 1 << 20  # decode steps of a request, chunks of a prefill: each is priced
MOST_SIDE = 1 << 16  # pixels
MOST_FRAMES = 1 << 20
MOST_DRAFTS = 64  # of one step; each is a pass through the draft layer
RARE = ("cfg", "dcp", "sequence_parallel")  # parts of a plan that are shown where they are in use


@dataclass(frozen=True)
class ParallelPlan:
    """Degrees of parallelism; tensor parallel innermost, then attention data parallel, then pipeline stages.

    `tp` ranks share every attention head and matrix; `dp` such groups hold different sequences (attention data
    parallel); experts live on tp·dp ranks, spread over `ep` of them and cut into tp·dp/ep parts; `pp` pipeline stages.
    `sp` ranks, next to the tensor-parallel ones, hold parts of the tokens of one sequence (Ulysses, diffusion only).
    `cfg` 2: one such group computes the guided prediction of a denoising step, another the unguided one.
    `dcp` of the tp ranks, neighbours, share the tokens of the KV cache that each of them would hold a copy of (decode
    context parallelism). `sequence_parallel`: between attention and feed-forward each of the tp ranks holds a part of
    the tokens. Neither adds devices.
    """

    tp: int = 1
    ep: int = 1
    dp: int = 1
    pp: int = 1
    sp: int = 1
    cfg: int = 1
    dcp: int = 1
    sequence_parallel: bool = False

    def __post_init__(self) -> None:
        for field in fields(self):
            if field.name != "sequence_parallel":
                whole(self, field.name, most=MOST_DEVICES)
        if self.cfg > 2:
            raise DeploymentError(f"--cfg-parallel {self.cfg}: guidance has two predictions; give 1 or 2")
        ranks = self.tp * self.dp
        if ranks % self.ep:
            raise DeploymentError(
                f"--ep {self.ep} must divide tp x dp = {ranks}; values that do: {', '.join(map(str, divisors(ranks)))}"
            )
        if self.tp % self.dcp:
            valid = ", ".join(map(str, divisors(self.tp)))
            raise DeploymentError(f"--dcp {self.dcp} must divide --tp {self.tp}; values that do: {valid}")
        if not isinstance(self.sequence_parallel, bool):
            raise InputError(f"--sequence-parallel {self.sequence_parallel!r}: true or false")
        if self.sequence_parallel and self.tp == 1:
            what = "divides tokens among the tensor-parallel ranks"
            raise DeploymentError(f"--sequence-parallel {what}: it needs --tp 2 or more")

    @property
    def devices(self) -> int:
        return self.tp * self.dp * self.pp * self.sp * self.cfg

    def to_dict(self) -> dict[str, int | bool]:
        """Every degree; of those that few plans have, only the ones that this plan has."""
        out = {field: getattr(self, field.name) for field in fields(self)}
        return {field.name: size for field, size in out.items() if field.name not in RARE or size != field.default}


@dataclass(frozen=True)
class Workload:
    """What is computed: `batch` sequences in all, `input_len` prompt tokens and `output_len` new ones each.

    `prefix_len` tokens of every prompt are cached already; `seq_lens` gives each sequence its own prompt length;
    `chunk` cuts the prefill; `mtp` draft tokens a step, of which each is accepted with `acceptance_rate`.
    `encoder`: an encoder reads the prompt, and the decoder's cache holds new tokens only.
    `moe_imbalance`: how popular the experts are, "uniform" or "power-law:ALPHA". Of a denoiser: `image` "HxW" pixels,
    `frames` of a video, `steps` of a request, and `input_len` tokens of the prompt that it reads. `guidance` of a
    denoising step: "none", "batch" (both predictions in one pass of twice the batch) or "passes" (one after the other).
    `dit_cache`: the steps that keep results of earlier ones, as diffusion.dit_cache.Schedule reads them.
    Of a training step, whose `batch` sequences of `input_len` tokens are those of all copies: `optimizer`,
    `grad_checkpoint` (full: every layer is run again in the backward pass), `zero` 0 to 3 (what the copies divide:
    nothing, optimizer states, gradients too, weights too).
    `overlap`: what runs beside communication: nothing, what does not wait for it ("streams"), the other half of the
    batch ("dual-batch").
    Of a vision-language model: `images` "HxW" of every request; `image_tokens` of the prompt are what they become.
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
    moe_imbalance: str = "uniform"
    image: str = ""
    frames: int = 1
    steps: int = 1
    encoder: bool = False
    guidance: str = "none"
    dit_cache: str = ""
    optimizer: str = "adamw"
    grad_checkpoint: str = "none"
    zero: int = 0
    images: tuple[str, ...] = ()
    image_tokens: int = 0
    overlap: str = NO_OVERLAP

    def __post_init__(self) -> None:
        skew_of(self.moe_imbalance)
        if self.phase not in PHASES:
            raise InputError(f"--phase {self.phase!r}: one of {', '.join(PHASES)}")
        whole(self, "batch", most=MOST_SEQUENCES)
        whole(self, "input_len", most=MOST_TOKENS)
        whole(self, "output_len", most=MOST_STEPS)
        whole(self, "prefix_len", least=0, most=MOST_TOKENS)
        whole(self, "chunk", least=0, most=MOST_TOKENS)
        whole(self, "mtp", least=0, most=MOST_DRAFTS)
        whole(self, "micro_batches", least=0, most=MOST_SEQUENCES)
        whole(self, "frames", most=MOST_FRAMES)
        whole(self, "steps", most=MOST_STEPS)
        whole(self, "zero", least=0, most=3)
        for name, known in (
            ("guidance", GUIDANCE),
            ("optimizer", OPTIMIZERS),
            ("grad_checkpoint", CHECKPOINTS),
            ("overlap", OVERLAPS),
        ):
            if (value := getattr(self, name)) not in known:
                raise InputError(f"--{name.replace('_', '-')} {value!r}: one of {', '.join(known)}")
        if self.image:
            object.__setattr__(self, "image", "x".join(map(str, size_of(self.image))))
        object.__setattr__(self, "seq_lens", tuple(checked("--seq-lens", n, most=MOST_TOKENS) for n in self.seq_lens))
        self._check_prefill()
        rate = self.acceptance_rate
        if rate is not None and not self.mtp:
            raise InputError("--acceptance-rate needs --mtp, the draft tokens of a step")
        if rate is not None and (isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0 <= rate <= 1):
            raise InputError(f"--acceptance-rate {rate!r}: a number from 0 to 1")

    def _check_prefill(self) -> None:
        if self.prefix_len >= self.input_len:
            raise InputError(f"--prefix-len {self.prefix_len} must be less than --input-len {self.input_len}")
        if self.seq_lens and (self.prefix_len or self.chunk):
            raise InputError("--seq-lens goes with neither --prefix-len nor --chunk")
        if self.phase == "chunked" and not self.chunk:
            raise InputError("--phase chunked needs --chunk, the tokens of one step")
        if self.phase == "decode" and self.chunk:
            raise InputError("--chunk cuts the prefill, which --phase decode leaves out; give --phase auto or chunked")
        if self.chunk and self.input_len > self.chunk * MOST_STEPS:
            least = -(-self.input_len // MOST_STEPS)
            raise InputError(f"--chunk {self.chunk}: more than {MOST_STEPS:,} steps; give at least {least}")

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

    @property
    def image_sizes(self) -> tuple[tuple[int, int], ...]:
        """(height, width) in pixels of the images of a request."""
        return tuple(map(size_of, self.images))

    def with_image_tokens(self, tokens: int) -> Workload:
        """The work whose prompts hold `tokens` of images, besides the tokens of text that were asked."""
        return replace(self, input_len=self.input_len - self.image_tokens + tokens, image_tokens=tokens)

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return size_of(self.image)

    def to_dict(self) -> dict:
        out = {f.name: getattr(self, f.name) for f in fields(self)}
        out["seq_lens"], out["images"] = list(self.seq_lens), list(self.images)
        out["input_len"] -= self.image_tokens
        out["acceptance_rate"] = self.draft_acceptance if self.mtp else None
        if self.moe_imbalance == UNIFORM:
            del out["moe_imbalance"]
        if not self.encoder:
            del out["encoder"]
        unused = () if self.phase == "denoise" else ("image", "frames", "steps", "guidance", "dit_cache")
        unused += () if self.dit_cache else ("dit_cache",)
        unused += () if self.overlap != NO_OVERLAP else ("overlap",)
        unused += () if self.images else ("images", "image_tokens")
        unused += ("output_len",) if self.phase == TRAIN else ("optimizer", "grad_checkpoint", "zero")
        out = {name: value for name, value in out.items() if name not in unused}
        return out


def size_of(image: Any) -> tuple[int, int]:
    """(height, width) of "HxW" pixels; InputError.

    >>> size_of("480x832")
    (480, 832)
    """
    sides = image.lower().split("x") if isinstance(image, str) else ()
    if len(sides) != 2 or not all(side.isascii() and side.isdigit() and 0 < int(side) <= MOST_SIDE for side in sides):
        raise InputError(f"--image {image!r}: height x width in pixels, such as 1024x1024; at most {MOST_SIDE} a side")
    return int(sides[0]), int(sides[1])


def skew_of(imbalance: Any) -> float | None:
    """Exponent of the power law that "power-law:ALPHA" names, None for "uniform"; InputError."""
    if imbalance == UNIFORM:
        return None
    head, _, alpha = imbalance.partition(":") if isinstance(imbalance, str) else ("", "", "")
    try:
        value = float(alpha)
    except ValueError:
        value = 0.0
    if head != "power-law" or not 0 < value < inf:
        raise InputError(f"--moe-imbalance {imbalance!r}: uniform, or power-law:ALPHA with ALPHA above 0")
    return value


def whole(holder: Any, name: str, *, least: int = 1, most: int) -> None:
    """Check the field `name` of a frozen dataclass, a whole number, and keep it as a plain int."""
    object.__setattr__(holder, name, checked(f"--{name.replace('_', '-')}", getattr(holder, name), least, most))


def checked(flag: str, value: object, least: int = 1, most: int | None = None) -> int:
    """`value` as an int (NumPy's whole numbers too); InputError when it is none or outside of least … most."""
    try:
        number = None if isinstance(value, bool) else index(value)  # type: ignore[arg-type]
    except TypeError:
        number = None
    if number is None or number < least or (most is not None and number > most):
        span = f"{least:,} or more" if most is None else f"{least:,} to {most:,}"
        raise InputError(f"{flag} {value!r}: a whole number, {span}")
    return number


def divisors(number: int) -> list[int]:
    """Every divisor, in order.

    >>> divisors(12)
    [1, 2, 3, 4, 6, 12]
    """
    small = [n for n in range(1, isqrt(number) + 1) if number % n == 0]
    return sorted({*small, *(number // n for n in small)})
