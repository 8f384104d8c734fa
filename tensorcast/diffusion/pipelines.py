"""What the pipelines of diffusers say about a denoiser: prompt length, steps, frames, and how pixels become latents.

Read from the text of the pipelines' code, so that nothing has to be imported: a cached answer needs these figures too.
A denoiser that several pipelines use gets the value most of them state.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from functools import lru_cache
from importlib.util import find_spec
from math import isqrt
from pathlib import Path

_CLASS = re.compile(r"^class (\w+)\(", re.M)
_RATIO = re.compile(r"self\.(vae_\w*(?:scale_factor|compression_ratio)\w*) = ([^\n]+(?:\n[ ]{12}[^\n]+)*)")
CLIP_TOKENS = 77
"""Prompts of a pipeline that states no length go through CLIP, whose positions are 77."""


@dataclass(frozen=True)
class PipelineFacts:
    """What pipelines state; None where they do not.

    `text_tokens` a prompt is padded to; `steps` of one image; `frames` of one video (0: makes videos, states no
    number); `space` and `time`: pixels a latent covers along one side, frames a latent frame covers. `merged`: latents
    joined into one token, for denoisers that take tokens.
    """

    names: tuple[str, ...] = ()
    text_tokens: int | None = None
    steps: int | None = None
    frames: int | None = None
    space: int | None = None
    time: int | None = None
    merged: int | None = None

    @property
    def name(self) -> str:
        """The pipelines in words."""
        return self.names[0] if len(self.names) == 1 else f"diffusers' {len(self.names)} pipelines that use it"


@lru_cache(maxsize=64)
def facts_for(denoiser: str, pipeline: str | None = None) -> PipelineFacts:
    """Facts from the pipeline called `pipeline`, or from all whose denoiser is of class `denoiser`."""
    own = [_read(name, code) for name, code in _classes(pipeline)] if pipeline else []
    found = own or [_read(name, code) for name, code in _classes(denoiser) if _takes(code, denoiser)]
    found = [facts for facts in found if facts is not None]
    if not found:
        return PipelineFacts()
    names = tuple(name for facts in found for name in facts.names)
    values = {f.name: _usual(getattr(facts, f.name) for facts in found) for f in fields(PipelineFacts)[1:]}
    if sum(facts.frames is None for facts in found) * 2 > len(found):
        values["frames"] = values["time"] = None
    return PipelineFacts(names, **values)


def _usual(values: Iterable[int | None]) -> int | None:
    """The value stated most often, the larger of two."""
    counts = Counter(value for value in values if value is not None)
    return max(counts, key=lambda value: (counts[value], value), default=None)


def _classes(word: str) -> Iterator[tuple[str, str]]:
    """(name, text of the class) of every pipeline in a file that mentions `word`; of `word` itself if it is one."""
    for text in _texts("pipelines/**/pipeline_*.py", word):
        starts = [*_CLASS.finditer(text)]
        ends = [*(m.start() for m in starts[1:]), len(text)] if starts else []
        for start, end in zip(starts, ends, strict=True):
            name = start.group(1)
            if name.endswith("Pipeline") and (name == word or not word.endswith("Pipeline")):
                yield name, text[start.start() : end]


def class_fields(name: str) -> frozenset[str]:
    """Names that the constructor of a model class of diffusers takes; none where it has no such class."""
    return frozenset(re.findall(r"^\s+(\w+)(?::|=)", _constructor(name), re.M))


def class_numbers(name: str) -> dict[str, int]:
    """Those of them that are whole numbers by default, with that number."""
    return {field: int(n) for field, n in re.findall(r"^\s+(\w+):[^\n=]*= (\d+),?$", _constructor(name), re.M)}


def _constructor(name: str) -> str:
    """The arguments of the constructor of a model class, as text."""
    for text in _texts("models/**/*.py", f"class {name}("):
        return _signature(text[text.index(f"class {name}(") :], "__init__")
    return ""


def _texts(pattern: str, word: str) -> Iterator[str]:
    """The texts of the files of diffusers that hold `word`."""
    spec = find_spec("diffusers")
    if spec is None or spec.origin is None:
        return
    for path in sorted(Path(spec.origin).parent.glob(pattern)):
        raw = path.read_bytes()
        if word.encode() in raw:
            yield raw.decode()


def _takes(code: str, denoiser: str) -> bool:
    """Whether the pipeline's constructor has a component of that class."""
    return bool(re.search(rf"^\s+\w+: [^\n=]*\b{denoiser}\b", _signature(code, "__init__"), re.M))


def _read(name: str, code: str) -> PipelineFacts | None:
    call = _signature(code, "__call__")
    if not call:
        return None
    space, time = _ratios(code)
    merged = _merged(code)
    if space and merged and "vae_scale_factor * 2" not in code:  # its ratio counts the joining of latents too
        space //= isqrt(merged)
    prompt = _default(call, "max_sequence_length")
    if prompt is None and "prompt" in call:
        prompt = CLIP_TOKENS
    elif prompt is not None and re.search(r"cat\(\[clip_\w+, t5_\w+\], dim=-2\)", code):
        prompt += CLIP_TOKENS
    frames = _default(call, "num_frames")
    if frames is None and re.search(r"^\s+(num_frames|video_length):", call, re.M):
        frames = 0
    return PipelineFacts(
        names=(name,),
        text_tokens=prompt,
        steps=_default(call, "num_inference_steps"),
        frames=frames,
        space=space,
        time=time,
        merged=merged,
    )


def _signature(code: str, function: str) -> str:
    """The text between the parentheses of a method's definition."""
    found = re.search(rf"    def {function}\(\n(.*?)\n    \)", code, re.S)
    return found.group(1) if found else ""


def _default(signature: str, name: str) -> int | None:
    found = re.search(rf"^\s+{name}:[^\n=]*= (\d+)", signature, re.M)
    return int(found.group(1)) if found else None


def _merged(code: str) -> int | None:
    """Latents of one token: the channels of a token over those of a latent, a square."""
    found = re.search(r"in_channels\s*//\s*(\d+)", code)
    count = int(found.group(1)) if found else 0
    return count if count and isqrt(count) ** 2 == count else None


def _ratios(code: str) -> tuple[int | None, int | None]:
    """(space, time) that the pipeline takes where it has no VAE at hand; 1 and 1 for a pipeline without one."""
    space = time = None
    for named, stated in _RATIO.findall(code):
        value = re.search(r"else (\d+)\b", stated) or re.fullmatch(r"(\d+)", stated.strip())
        if value is None:
            continue
        if "temporal" in named:
            time = time or int(value.group(1))
        else:
            space = space or int(value.group(1))
    if space is None and not re.search(r"^\s+(vae|vqvae|movq|vqgan): ", _signature(code, "__init__"), re.M):
        return 1, 1
    return space, time


_HALVINGS = ("temperal_downsample", "temporal_downsample", "temporal_downsample_blocks")
_LEVELS = ("dim_mult", "block_out_channels", "encoder_block_out_channels", "ch_mult")


def ratios_of(vae: dict) -> tuple[int | None, int | None]:
    """(pixels a latent covers along one side, frames a latent frame covers) of a VAE's configuration; None: unsaid."""
    halvings = next((vae[name] for name in _HALVINGS if vae.get(name)), None)
    levels = next((vae[name] for name in _LEVELS if vae.get(name)), None)
    space = vae.get("scale_factor_spatial") or vae.get("spatial_compression_ratio")
    time = (
        vae.get("scale_factor_temporal") or vae.get("temporal_compression_ratio") or vae.get("temporal_compress_times")
    )
    if space is None and vae.get("spatio_temporal_scaling"):
        space = vae.get("patch_size", 1) * 2 ** sum(map(bool, vae["spatio_temporal_scaling"]))
        time = time or vae.get("patch_size_t", 1) * 2 ** sum(map(bool, vae["spatio_temporal_scaling"]))
    if space is None and isinstance(levels, (list, tuple)):
        space = 2 ** (len(levels) - 1)
    if time is None and isinstance(halvings, (list, tuple)):
        time = 2 ** sum(map(bool, halvings))
    return space, time
