"""A diffusion pipeline as one request for its denoiser and one for every component that runs before or after it.

Text encoders read the prompt once (and the negative one where a step is guided), the denoiser takes the steps, the VAE
decodes the latents. A component is a `ModelSource` and its work at the pipeline's geometry. What is split over devices
is the denoiser: text encoders and VAE run whole on every device, on its share of the batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import sqrt
from typing import TYPE_CHECKING, Any

from tensorcast.diffusion.canvas import pipeline_facts
from tensorcast.diffusion.pipelines import CLIP_TOKENS
from tensorcast.diffusion.published import Use, use_of
from tensorcast.errors import DeploymentError, InputError, ModelError
from tensorcast.models.parts import Part
from tensorcast.models.reference import DROPPED, TEXT_ENCODER, VAE, VAE_ENCODER, ModelSource, resolve_model
from tensorcast.plan import ParallelPlan, Workload
from tensorcast.quantization.plan import QuantPlan

if TYPE_CHECKING:
    from tensorcast.request import Request


@dataclass(frozen=True)
class Stage:
    """A component that runs before the denoiser (`phase` text_encoder, vae_encoder) or after it (vae), and the request
    for it. `resident`: its weights are its own, not those of a component that runs twice."""

    name: str
    phase: str
    request: Request
    resident: bool = True


def pictures_given(source: ModelSource, work: Workload) -> tuple[tuple[int, int], ...]:
    """(height, width) of the pictures whose latents the denoiser reads beside its own: one of an editing pipeline,
    scaled as the pipeline does it, of the shape of the result."""
    use = _use(source)
    return (_scaled(use.coded_area, work.image_size),) if use.coded_area else ()


def _use(source: ModelSource) -> Use:
    """What the code of the pipeline around a denoiser says; nothing where there is no pipeline."""
    name = source.beside.get("_class_name")
    return (use_of(str(name)) if name is not None else None) or Use()


def _scaled(area: int, size: tuple[int, int]) -> tuple[int, int]:
    """(height, width) of about `area` pixels in the shape of `size`, in multiples of 32."""
    height, width = size
    return tuple(round(side * sqrt(area / (height * width)) / 32) * 32 for side in (height, width))


def usual_work(options: Mapping[str, Any], source: ModelSource) -> tuple[dict[str, Any], tuple[str, ...]]:
    """`options` with what the pipeline around a denoiser says of work that was not asked for, and notes on it."""
    name = source.beside.get("_class_name")
    if name is None:
        return dict(options), ()
    usual, use = source.beside.get("usual", {}), _use(source)
    stated = {"frames": usual.get("frames"), "input_len": usual.get("prompt_tokens"), "image": usual.get("image")}
    if use.height and use.width:
        stated["image"] = stated["image"] or f"{use.height}x{use.width}"
    notes: list[str] = []
    if source.parts:
        stated["steps"] = usual.get("steps") or pipeline_facts(source.config, source.beside).steps
        stated["guidance"] = use.guidance
        if stated["steps"] is None and "steps" not in options:
            raise InputError(f"--steps is missing: {name} states no number of denoising steps")
        notes += [f"{stated['steps']} denoising steps, as usual for it; --steps changes it"] * ("steps" not in options)
        if "guidance" not in options and use.guidance in _GUIDED:
            notes.append(_GUIDED[use.guidance].format(name))
        if use.takes_image and not use.coded_area:
            notes.append(f"{name} takes pictures: encoding them is not in these figures")
    if use.coded_area:
        notes.append("one picture is given and changed, of the shape of the result; --image is that of the result")
        if not source.parts and "input_len" not in options:
            notes.append("what a text encoder makes of the picture is not among the tokens of the prompt")
    given = {key: value for key, value in stated.items() if value is not None and key not in options}
    return {**options, **given}, tuple(notes)


_GUIDED = {
    "batch": "{} guides every step: both predictions in one pass of twice the batch; --guidance changes it",
    "passes": "{} guides every step: two passes, with a negative prompt given; --guidance changes it",
}


def check_guidance(work: Workload, plan: ParallelPlan, source: ModelSource) -> None:
    """DeploymentError for two groups of devices with one prediction to share."""
    if plan.cfg > 1 and work.guidance == "none":
        what = "one prediction a step (guidance none), so there is nothing to divide"
        raise DeploymentError(f"--cfg-parallel {plan.cfg}: {source.name} makes {what}; give --guidance passes, or --sp")


def stages_of(request: Request) -> tuple[Stage, ...]:
    """The stages besides denoising; ModelError for a component that is missing or says too little."""
    stages = []
    for part in request.source.parts:
        if part.stage == VAE[0]:
            sizes = pictures_given(request.source, request.work)
            stages += [
                Stage(part.name, VAE_ENCODER[0], _request(request, part, VAE_ENCODER, size), resident=False)
                for size in sizes
            ]
            stages.append(Stage(part.name, VAE[0], _request(request, part, VAE)))
        elif part.stage:
            stages.append(Stage(part.name, part.stage, _request(request, part, TEXT_ENCODER)))
    return tuple(stages)


def experts_of(source: ModelSource) -> tuple[str, ...]:
    """Names of the denoisers that share the steps with the first one: as large, in memory together.

    ModelError for one of another shape: how many steps it would take is decided by the scheduler.
    """
    others = [part for part in source.parts if not part.stage]
    for part in others:
        stated = {key: value for key, value in _complete(part, source).items() if key not in DROPPED}
        plain = {key: value for key, value in stated.items() if key in source.config or value}
        if {**plain, "dtype": None} != {**source.config, "dtype": None}:
            what = f"{part.name} is not shaped as the first denoiser, and how many steps each takes is not stated"
            raise ModelError(f"{source.name}: {what}; give the folder of the one to cost")
    return tuple(part.name for part in others)


def _request(request: Request, part: Part, phase: tuple[str, ...], size: tuple[int, int] | None = None) -> Request:
    """The request for one component; `size` in pixels of what it works on where that is not the result."""
    source, work = request.source, request.work
    config = _complete(part, source)
    found = resolve_model(config)
    found = replace(
        found, name=f"{source.name} {part.name}", origin=part.where, phases=phase, expected_parameters=part.parameters
    )
    tokens = _prompt_tokens(config, source, work.input_len) if phase == TEXT_ENCODER else 1
    images = _pictures_seen(config, source, work) if phase == TEXT_ENCODER else ()
    dtype, notes = _dtype(request, part)
    return replace(
        request,
        source=found,
        plan=ParallelPlan(dp=request.plan.dp),
        work=Workload(
            phase=phase[0], batch=work.batch, input_len=tokens, output_len=1,
            image="x".join(map(str, size)) if size else work.image, frames=work.frames, guidance=work.guidance,
            images=images,
        ),
        quant=QuantPlan(dtype=dtype, kv_cache=dtype),
        dtype=dtype,
        kernels=(),
        notes=(*notes, *filter(None, [part.note])),
    )  # fmt: skip


def _complete(part: Part, source: ModelSource) -> dict[str, Any]:
    alone = "give the denoiser's own folder, or --phase denoise, for the denoiser alone"
    if part.config is None:
        raise ModelError(f"{part.where}: missing, and the pipeline names {part.name} ({part.class_name}); {alone}")
    if part.stub:
        raise ModelError(f"{part.where}: states its class and no sizes; download it again, or {alone}")
    config = dict(part.config)
    if part.stage == TEXT_ENCODER[0]:
        config["architectures"] = [part.class_name]
    return config


def _prompt_tokens(config: Mapping[str, Any], source: ModelSource, asked: int) -> int:
    """Tokens that a text encoder reads: CLIP always all its positions; another what the denoiser reads of it, and the
    template in front of the prompt."""
    positions = (config.get("text_config") or config).get("max_position_embeddings")
    if positions == CLIP_TOKENS:
        return positions
    use = _use(source)
    tokens = asked - use.clip_tokens
    if tokens < 1:
        raise InputError(f"--input-len {asked}: {use.clip_tokens} tokens of the prompt are CLIP's; give more")
    return tokens + use.template_tokens


def _pictures_seen(config: Mapping[str, Any], source: ModelSource, work: Workload) -> tuple[str, ...]:
    """Pictures that a text encoder with a vision tower reads with the prompt."""
    use = _use(source)
    if not use.seen_area or "vision_config" not in config:
        return ()
    return ("x".join(map(str, _scaled(use.seen_area, work.image_size))),)


def _dtype(request: Request, part: Part) -> tuple[str, tuple[str, ...]]:
    """The format a component runs in: the pipeline's own, or what it is published for."""
    if part.dtype is None or part.dtype == request.dtype:
        return request.dtype, ()
    if not request.hw.has(part.dtype):
        return request.dtype, (f"{part.name} runs in {request.dtype}: {request.hw.name} does not compute {part.dtype}",)
    return part.dtype, (f"{part.name} runs in {part.dtype}, as published",)
