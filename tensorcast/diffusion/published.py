"""What a pipeline of diffusers does around its denoiser, read from the text of its code: guidance, sizes, prompts."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from tensorcast.diffusion.pipelines import CLIP_TOKENS, _classes, _default, _signature, _texts

_JOINED = re.compile(r"cat\(\[clip_\w+, t5_\w+\], dim=-2\)")
_TEMPLATE = re.compile(r"(?:\"crop_start\": |template_encode_start_idx = )(\d+)")
_JOINS_PICTURE = re.compile(r"cat\(\[latents, image_latents\], dim=1\)")
_CODED_AREA = re.compile(r"calculate_dimensions\((\d+) \* (\d+)")
_SEEN_AREA = re.compile(r"CONDITION_IMAGE_SIZE = (\d+) \* (\d+)")
_SCALE = r"^\s+{}: float[^\n=]*= ([\d.]+)"


@dataclass(frozen=True)
class Use:
    """How a pipeline runs its components.

    `guidance`: none, batch (guided and unguided prediction in one pass) or passes (one after the other). `height` and
    `width` in pixels, None where the pipeline states none. `clip_tokens` of what the denoiser reads come from CLIP, the
    rest from the encoder of long prompts, which also reads `template_tokens` in front of a prompt. A pipeline that
    changes a picture scales it to `coded_area` pixels, whose latents the denoiser reads beside its own, and to
    `seen_area`, which the text encoder sees; 0 where it takes none. `takes_image`: a picture may be given.
    """

    guidance: str = "none"
    height: int | None = None
    width: int | None = None
    clip_tokens: int = 0
    template_tokens: int = 0
    coded_area: int = 0
    seen_area: int = 0
    takes_image: bool = False


@lru_cache(maxsize=64)
def use_of(pipeline: str) -> Use | None:
    """What the code of the pipeline called `pipeline` says; None where diffusers has none of that name."""
    code = next((code for name, code in _classes(pipeline) if name == pipeline), None)
    if code is None:
        return None
    call = _signature(code, "__call__")
    whole = next(iter(_texts("pipelines/**/pipeline_*.py", f"class {pipeline}(")))  # templates stand beside the class
    template = _TEMPLATE.search(code) or _TEMPLATE.search(whole)
    coded = _area(_CODED_AREA.search(code)) if _JOINS_PICTURE.search(code) else 0
    return Use(
        guidance=_guidance(code, call),
        height=_default(call, "height"),
        width=_default(call, "width"),
        clip_tokens=CLIP_TOKENS if _JOINED.search(code) else 0,
        template_tokens=int(template.group(1)) if template else 0,
        coded_area=coded,
        seen_area=(_area(_SEEN_AREA.search(whole)) or coded) if coded else 0,
        takes_image=bool(re.search(r"^\s+image:", call, re.M)),
    )


def _area(found: re.Match | None) -> int:
    return int(found.group(1)) * int(found.group(2)) if found else 0


def _guidance(code: str, call: str) -> str:
    """A scale above 1 by default means two predictions; a scale that is an input of the denoiser means one."""
    true, plain = (re.search(_SCALE.format(name), call, re.M) for name in ("true_cfg_scale", "guidance_scale"))
    scale = true or (plain if "do_classifier_free_guidance" in code else None)
    if scale is None or float(scale.group(1)) <= 1:
        return "none"
    return "batch" if re.search(r"cat\(\[latents\] \* 2\)", code) else "passes"
