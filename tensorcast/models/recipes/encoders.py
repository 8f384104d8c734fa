"""The inputs of encoders (token ids, pictures, sound; both towers of a pair) and of encoder-decoders.

An encoder-decoder's prefill is its encoder over the whole input and the decoder over its first token; a decode step is
one token of the decoder, whose cross-attention reads keys and values that were made once. `Step.tokens` counts the
encoder's input in both, `Step.past` the decoder's tokens.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from tensorcast.errors import ModelError
from tensorcast.models.recipes import Step
from tensorcast.models.roles import FRAMES, IMAGES, SAMPLES, UNITS, Role

SIDE, CHANNELS = 224, 3
"""Pixels a side and channels of a picture where the configuration states none; the usual ones, and said so."""
SIZES = ("image_size", "input_size", "img_size")
COLOURS = ("num_channels", "in_channels", "in_chans", "n_channels")
PARTS = ("vision_config", "encoder", "audio_config", "encoder_config", "backbone_config")
MADE = (*UNITS, "decoder_input_ids", "attention_mask")


def encoder_inputs(model, step: Step) -> dict[str, Any]:
    """Every main input that forward takes. Nothing is padded, so that no mask is given unless forward insists."""
    takes = inspect.signature(type(model.module).forward).parameters
    plain = [n for n, p in takes.items() if n != "self" and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    own = model.profile.inputs(model, step) if model.profile.inputs is not None else {}
    needed = [n for n in plain if takes[n].default is inspect.Parameter.empty]
    given = [n for n in plain if (n in _main(plain) or n in needed) and n not in own]
    if (unknown := [n for n in given if n not in MADE]) or not _main(plain):
        what, names = type(model.module).__name__, ", ".join(unknown or plain) or "no named argument"
        raise ModelError(
            f"{what}.forward takes {names}, and token ids, pixels or sound alone do not run it; give the model in a "
            "--custom FILE that defines __inputs__(workload, config)"
        )
    return {name: made(model, name, step) for name in given} | own


def _main(plain: list[str]) -> list[str]:
    """The inputs to give: token ids and pixels side by side where both are taken, else the first of UNITS."""
    pair = [n for n in ("input_ids", "pixel_values") if n in plain]
    return pair or [n for n in UNITS if n in plain][:1]


def sequence_inputs(model, step: Step) -> dict[str, Any]:
    """The arguments of an encoder-decoder's forward, caches included."""
    from torch.utils._pytree import tree_map_only

    from tensorcast.layers.cross_cache import SequenceCache

    config = getattr(model.decoder, "config", model.config)
    if step.phase != "decode":
        return {**sequence_start(model, step), "past_key_values": SequenceCache(config, 0)}
    read, kept = _encoded(model, step.batch, step.tokens)
    read = tree_map_only(torch.Tensor, torch.empty_like, read)
    return {"encoder_outputs": read, **_first(step), "past_key_values": SequenceCache(config, step.past, kept)}


def _first(step: Step) -> dict[str, Any]:
    return {"decoder_input_ids": torch.empty((step.batch, 1), dtype=torch.long)}


def sequence_start(model, step: Step) -> dict[str, Any]:
    """What an encoder-decoder reads in a prefill, without caches: the encoder's input and the decoder's first token."""
    plain = inspect.signature(type(model.module).forward).parameters
    name = next((n for n in UNITS if n in plain and UNITS[n] == model.blueprint.source.reading.unit), None)
    name = name or next(n for n in UNITS if n in plain)
    return {name: made(model, name, step), **_first(step)}


def _encoded(model, batch: int, tokens: int):
    """(the encoder's result, shapes that the cross-attentions keep of it), from an unrecorded prefill."""
    from tensorcast.layers.attention import InterceptAttention
    from tensorcast.trace.context import Context, current, entered
    from tensorcast.trace.run import frame_of
    from tensorcast.trace.tracer import Tracer

    known = model.__dict__.setdefault("_encoded", {})
    if (batch, tokens) not in known:
        step = Step("prefill", batch, tokens, 0)
        context = Context(step=step, model=current().model, tracer=Tracer(paths=frame_of(model).paths))
        with entered(context):
            inputs, results = sequence_inputs(model, step), []
            hook = model.module.get_encoder().register_forward_hook(lambda part, given, result: results.append(result))
            try:
                with InterceptAttention(), context.tracer:
                    model.module(**inputs)
            finally:
                hook.remove()
        known[batch, tokens] = results[0], inputs["past_key_values"].shapes
    return known[batch, tokens]


def made(model, name: str, step: Step) -> torch.Tensor:
    """One input of forward, on meta, for `step.batch` requests of `step.tokens`."""
    if name in ("input_ids", "inputs", "decoder_input_ids"):
        return torch.empty((step.batch, step.tokens), dtype=torch.long)
    if name == "attention_mask":
        return torch.ones((step.batch, step.tokens), dtype=torch.long)
    shape = _picture(model.config, name) if UNITS[name] == IMAGES else _sound(model, name, step.tokens)
    return torch.empty((step.batch, *shape), dtype=model.blueprint.dtype)


def reading_notes(config: Any, model_class: type, role: Role) -> tuple[str, ...]:
    """What is worth saying of how a model reads."""
    taken, unit = inspect.signature(model_class.forward).parameters, role.reading.unit
    notes = []
    pictures = unit == IMAGES or "pixel_values" in _main([*taken])
    if pictures and role.reading.encoder and unit != IMAGES:
        notes.append("its encoder reads pictures too: none is in the time; what would encode them is in memory")
    elif pictures:
        shape = _picture(config, "pixel_values")
        assumed = len(shape) > 2 and _stated(config, *SIZES) is None
        size = f"{shape[-2]}x{shape[-1]} pixels" + f", {shape[0]} frames" * (len(shape) == 4)
        size = f"{shape[0]} patches" if len(shape) == 2 else size
        notes.append(f"every request has a picture of {size}" + ": assumed, no size is stated" * assumed)
    if unit == FRAMES and role.reading.fixed:
        notes.append(f"sound is padded or cut to one length: {role.reading.fixed} positions, whatever was said")
    elif unit in (FRAMES, SAMPLES):
        notes.append(f"--input-len counts {unit} of sound")
    if role.reading.encoder:
        notes.append("the encoder reads --input-len, the decoder starts from one token; each has a cache of its own")
    return tuple(notes)


def _picture(config: Any, name: str) -> tuple[int, ...]:
    """[channels, height, width] of a picture; frames first for a video; [patches, values] of a flattened one, and where
    the configuration counts patches and states no size."""
    if name == "flattened_patches":
        vision = config.vision_config
        return 2048, vision.patch_embed_hidden_size if hasattr(vision, "patch_embed_hidden_size") else 770
    size, patches, patch = (_stated(config, *names) for names in (SIZES, ("num_patches",), ("patch_size",)))
    if size is None and isinstance(patches, int) and isinstance(patch, int):
        return patches, (_stated(config, *COLOURS) or CHANNELS) * patch**2
    size = size or SIDE
    if isinstance(size, Mapping):
        size = (size["height"], size["width"]) if "height" in size else size["shortest_edge"]
    height, width = size if isinstance(size, (list, tuple)) else (size, size)
    channels = _stated(config, *COLOURS) or CHANNELS
    frames = _stated(config, "num_frames", "frames_per_clip")
    return ((int(frames),) if frames else ()) + (int(channels), int(height), int(width))


def _sound(model, name: str, length: int) -> tuple[int, ...]:
    """The shape of one request's sound: samples, or frames of a spectrogram."""
    config, reading = model.config, model.blueprint.source.reading
    bins = _stated(config, "num_mel_bins")
    if name == "input_features" and reading.fixed:  # positions behind the convolutions; they stride over the frames
        strides = [m.stride[0] for m in model.module.modules() if isinstance(m, nn.Conv1d)]
        frames = length
        for stride in strides:
            frames *= stride
        return int(bins), frames
    if name == "input_values":
        return (length, int(bins)) if reading.fixed else (length,)
    return length, _bins(model)


def _bins(model) -> int:
    """Values of one frame: what the first layer with weights takes."""
    for module in model.module.modules():
        if isinstance(module, nn.LayerNorm):
            return module.normalized_shape[0]
        if isinstance(module, nn.Linear):
            return module.in_features
        if isinstance(module, nn.Conv1d):
            return module.in_channels
        if isinstance(module, nn.Conv2d) and (bins := _stated(model.config, "num_mel_bins")):
            return bins  # convolved as a picture: no layer states its height
    raise ModelError(f"{type(model.module).__name__}: no layer says how many values a frame of sound has")


def _stated(config: Any, *names: str) -> Any:
    """The first of the fields that the configuration, or the part of it about vision or the encoder, has."""
    for part in (config, *(getattr(config, name, None) for name in PARTS)):
        for name in names:
            value = getattr(part, name, None)
            if value is not None:
                return value
    return None
