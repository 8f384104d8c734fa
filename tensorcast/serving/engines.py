"""Serving engines: what each adds to the device's time of a step, and how it mixes prompts with running sequences."""

from __future__ import annotations

from dataclasses import dataclass

from tensorcast.catalog import Catalog

BARE = "bare"
ASSUMED = "assumed"
_FITTED = (
    "fitted with benchmarks/serving.py on runs of dense models on H100, H200 and B200, 2026-11-21; "
    "0 and the 30 ms of a request are ends of the range allowed"
)
# As their names stand in the hardware profiles: kernels that each engine was measured with.
_VLLM = ("vllm_flashinfer", "vllm_flashinfer_modular", "vllm_triton", "vllm_cutlass", "vllm_marlin")
_SGLANG = ("flashinfer", "triton", "sglang_cutlass", "marlin", "fa3_sglang")
_TRTLLM = ("flashinfer", "trtllm")


@dataclass(frozen=True)
class Engine:
    """One serving engine. Seconds and tokens.

    step_s, sequence_s: host time of a step that the device does not hide, and more of it for each running sequence.
    request_s: before the first step of a request: HTTP, tokeniser, scheduler. prompt_step_s: more for a step that holds
    prompt tokens (no captured graph; sampling of the first token).
    step_tokens: most tokens of one step. mixes: prompt tokens join the running sequences' step, else these wait while
    prompts run on their own. waves: the share of requests that come and leave all at once.
    kv_cache: format of the KV cache where weights are quantised, nothing else was asked and the machine has 4-bit
    matrices (there the engines' recipes ask for it). kernels: those it runs where a machine has figures of them, the
    preferred ones first. mx_activations: mxfp4 weights meet mxfp8 activations where the machine multiplies those.
    source: where the figures come from.
    """

    name: str
    step_s: float = 0.0
    sequence_s: float = 0.0
    request_s: float = 0.0
    prompt_step_s: float = 0.0
    step_tokens: int = 8192
    mixes: bool = True
    waves: float = 0.0
    kv_cache: str | None = None
    kernels: tuple[str, ...] = ()
    mx_activations: bool = False
    source: str = ""

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know about its figures."""
        return () if self.name == BARE else (f"engine {self.name}: {self.source}",)

    @property
    def assumed(self) -> bool:
        """Whether nobody measured its figures."""
        return self.source.startswith(ASSUMED)

    def prompt_overhead(self, steps):
        """Seconds to the first token, beside the device's, of a request that comes alone and takes so many steps."""
        return self.request_s + steps * (self.step_overhead(1) + self.prompt_step_s)

    def step_overhead(self, sequences):
        """Seconds that a step of so many running sequences takes beside the device's."""
        return self.step_s + self.sequence_s * sequences


ENGINES: Catalog[Engine] = Catalog(
    "serving engine", normalize=lambda name: name.strip().lower(), how="one of bare, vllm, sglang, trtllm, mindie"
)


def engine_named(name: str) -> Engine:
    """The engine of that name; UnknownNameError with near names."""
    return ENGINES.get(name)


# Steps of 8,192 tokens: the documented default of trtllm-serve, and of vllm and sglang on machines of 80 GB and more.
for _engine in (
    Engine(BARE, source="the device alone, as `simulate` without an engine"),
    Engine(
        "vllm", 5.6e-4, 6e-6, 0.03, 0.0, waves=0.016, kv_cache="fp8", kernels=_VLLM, mx_activations=True, source=_FITTED
    ),
    Engine(
        "sglang",
        0.0,
        2e-5,
        0.03,
        7e-3,
        mixes=False,
        waves=0.72,
        kv_cache="fp8",
        kernels=_SGLANG,
        mx_activations=True,
        source=_FITTED,
    ),
    Engine(
        "trtllm",
        0.0,
        0.0,
        0.03,
        5.5e-3,
        waves=0.113,
        kv_cache="fp8",
        kernels=_TRTLLM,
        mx_activations=True,
        source=_FITTED,
    ),
    Engine("mindie", 2e-3, 5e-6, 10e-3, 1e-3, mixes=False, source=f"{ASSUMED}: no run of it was measured"),
):
    ENGINES.register(_engine.name, _engine, origin="builtin")
