"""The figures of a sweep's rows: those of `simulate`'s JSON, metrics and memory, per device and in SI units."""

from __future__ import annotations

from typing import NamedTuple

SECONDS, BYTES, RATE, SHARE, NUMBER = "s", "bytes", "1/s", "share", "count"


class Figure(NamedTuple):
    """`less`: less is better. `asked`: what a space must name for the figure to be there; "" for any space."""

    unit: str
    meaning: str
    less: bool = False
    asked: str = ""

    @property
    def whole(self) -> bool:
        return self.unit in (BYTES, NUMBER)


def _seconds(meaning: str, asked: str = "") -> Figure:
    return Figure(SECONDS, meaning, True, asked)


def _bytes(meaning: str, asked: str = "") -> Figure:
    return Figure(BYTES, meaning, True, asked)


TRAINING, LOAD = "phase", "concurrency"
FIGURES: dict[str, Figure] = {
    "ttft_s": _seconds("time to the first token: all of the prompt"),
    "tpot_s": _seconds("time per output token, mean over all output positions"),
    "request_latency_s": _seconds("a whole request"),
    "tokens_per_s": Figure(RATE, "output tokens of all devices over the time of a request; in training: of input"),
    "tokens_per_s_per_device": Figure(RATE, "the same for one device"),
    "tokens_per_s_per_user": Figure(RATE, "output tokens of one sequence: 1 / TPOT"),
    "ttft_loaded_s": _seconds("time to the first token with --concurrency clients at all times", LOAD),
    "tpot_loaded_s": _seconds("time per output token with them, steps with prompts included", LOAD),
    "requests_per_s": Figure(RATE, "whole requests"),
    "text_encoder_s": _seconds("text encoders of a diffusion pipeline, once a request"),
    "vae_encoder_s": _seconds("pictures given to latents"),
    "denoise_step_s": _seconds("one denoising step, mean over all of them"),
    "denoise_s": _seconds("all denoising steps"),
    "vae_s": _seconds("latents to pixels"),
    "image_latency_s": _seconds("a whole request of a pipeline"),
    "images_per_s": Figure(RATE, "results of a pipeline"),
    "images_per_s_per_device": Figure(RATE, "the same for one device"),
    "step_time_s": _seconds("one training step", TRAINING),
    "model_flops_utilisation": Figure(SHARE, "6 x active parameters x tokens, of the peak in a step", False, TRAINING),
    "hardware_flops_utilisation": Figure(SHARE, "the products run, recomputed ones too, of the peak", False, TRAINING),
    **{
        f"{name}_time_s": _seconds(f"{meaning}, of a training step", TRAINING)
        for name, meaning in (
            ("forward", "forward pass"),
            ("recompute", "layers run again"),
            ("backward", "backward pass"),
            ("hand_over", "sending between stages"),
            ("pipeline_bubble", "waiting of the stages"),
            ("gradient_reduction", "adding up gradients"),
            ("weight_gathering", "gathering weights"),
            ("optimizer", "optimizer"),
        )
    },
    "weights_bytes": _bytes("weights"),
    "kv_cache_bytes": _bytes("KV cache and states"),
    "activation_peak_bytes": _bytes("activations, at most"),
    "workspace_bytes": _bytes("scratch of an operator, at most"),
    "gradients_bytes": _bytes("gradients", TRAINING),
    "optimizer_bytes": _bytes("optimizer states", TRAINING),
    "reserved_bytes": _bytes("driver and runtime"),
    "total_bytes": _bytes("the sum of these, on the fullest device"),
    "capacity_bytes": Figure(BYTES, "memory that may be used"),
    "max_batch": Figure(NUMBER, "the most sequences that fit, all else equal"),
    "max_context": Figure(NUMBER, "the most tokens of a sequence that fit, all else equal"),
}

COSTS: dict[str, Figure] = {
    "cost_per_million_tokens": Figure("currency", "of devices at their price per hour", True),
    "joules_per_token": Figure("J", "of devices at the power that the profile states", True),
}
"""Figures of `optimize` and `compare` beside these, of machines whose profile states a price, a power."""
METRICS = FIGURES | COSTS

BEST = ("tokens_per_s_per_device", "images_per_s_per_device", "requests_per_s", "tokens_per_s_per_user", "ttft_s")
"""What configurations are compared by where nobody says: the first that they have."""
SOME = ("requests_per_s", "text_encoder_s", "vae_encoder_s", "denoise_step_s", "denoise_s", "vae_s",
        "image_latency_s", "images_per_s", "images_per_s_per_device")  # fmt: skip
"""Figures of some kinds of models only: a DataFrame leaves out those that no row has."""
