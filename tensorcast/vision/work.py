"""What `--image` asks of a language model: sizes of the images of every request. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tensorcast.errors import InputError
from tensorcast.models.reference import DENOISE, LANGUAGE, ModelSource
from tensorcast.plan import size_of

MOST_SIDE = 8192
"""Pixels: black images of the sizes are made and resized as the model's processor does it."""
MOST_IMAGES = 256
UNFIT = ("seq_lens", "prefix_len", "concurrency")


def image_options(given: Mapping[str, Any], source: ModelSource) -> dict[str, Any]:
    """The options with `image` as the source's kind has it: one size of a denoiser, `images` of a language model."""
    options = dict(given)
    if "image" not in options:
        return options
    asked = options.pop("image")
    sizes = [asked] if isinstance(asked, str) or not isinstance(asked, Iterable) else list(asked)
    sizes = ["x".join(map(str, size_of(size))) for size in sizes]
    if not sizes:
        raise InputError("--image names no size; give height x width in pixels, such as 1024x1024")
    if source.phases == DENOISE:
        if len({*sizes}) > 1:
            raise InputError(f"--image: {source.name} makes images of one size, not {' and '.join(sizes)}; give one")
        return {**options, "image": sizes[0]}
    _check(options, sizes, source)
    return {**options, "images": tuple(sizes)}


def _check(options: Mapping[str, Any], sizes: list[str], source: ModelSource) -> None:
    what = f"--image does not go with {source.name}"
    if source.phases != LANGUAGE or source.reading.encoder:
        raise InputError(f"{what}: it is for denoisers and for vision-language models")
    if source.custom is None and not any("vision" in key or "visual" in key for key in source.config):
        raise InputError(f"{what}: its configuration has no vision part")
    if unfit := next((name for name in UNFIT if options.get(name)), None):
        raise InputError(f"--image does not go with --{unfit.replace('_', '-')}; leave one of them out")
    if options.get("phase") == "train":
        raise InputError("--image does not go with --phase train: the training step is that of the language model")
    if len(sizes) > MOST_IMAGES:
        raise InputError(f"--image: {len(sizes)} images a request; give at most {MOST_IMAGES}")
    if large := next((size for size in sizes if max(size_of(size)) > MOST_SIDE), None):
        raise InputError(f"--image {large}: give at most {MOST_SIDE} pixels a side to a vision-language model")


def check_together(name: str, together: str, chunk: int, work: Any) -> None:
    """InputError where chunks cut tokens apart that see each other in both directions."""
    needed = work.input_len if together == "prompt" else work.image_tokens
    if together and chunk and chunk < needed:
        what = f"--chunk {chunk} cuts {needed} tokens of {name} apart that see each other in both directions"
        raise InputError(f"{what}; give at least {needed}, or leave it out")
