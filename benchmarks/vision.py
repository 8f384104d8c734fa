"""Which image-text models of transformers run with an image: tokens, operators and reasons, a line for each type.

    python benchmarks/vision.py [--image HxW] [--tp N] [--write] [TYPE ...]

Every model type of transformers' image-text-to-text mapping, from its default configuration, through the same steps
and traces as `simulate`. Tokens are those of the language model that one image of the size becomes. --write puts the
table into docs/coverage.md.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tensorcast.custom.loading import Custom
from tensorcast.errors import TensorcastError
from tensorcast.layers.attention import INTERFACE, register_interface
from tensorcast.models.build import build_blueprint
from tensorcast.models.default_config import default_config
from tensorcast.models.objects import source_of
from tensorcast.models.recipes import VISION
from tensorcast.models.reference import LANGUAGE
from tensorcast.plan import ParallelPlan, size_of
from tensorcast.trace.run import trace_images, trace_step
from tensorcast.transformer_model import Deployment, deployed_model

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.verify.deployed import matrix_flops

COLUMNS = ("type", "tokens", "operators", "pairs of attention", "FLOP of the tower", "trace, ms")


@dataclass(frozen=True)
class Seen:
    """What became of one type: figures of its tower with one image, or why there are none."""

    kind: str
    reason: str = ""
    tokens: int = 0
    rows: int = 0
    pairs: int = 0
    flops: int = 0
    seconds: float = 0.0

    @property
    def cells(self) -> tuple[str, ...]:
        figures = (f"{n:,}" for n in (self.tokens, self.rows, self.pairs, self.flops))
        return (self.kind, *figures, f"{self.seconds * 1e3:.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("types", nargs="*", metavar="TYPE")
    parser.add_argument("--image", default="1024x1024", metavar="HxW")
    parser.add_argument("--tp", type=int, default=1)
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args()
    found = []
    for kind in asked.types or image_text_types():
        found.append(seen(kind, size_of(asked.image), asked.tp))
        print((found[-1].reason and f"{kind}: {found[-1].reason}") or " · ".join(found[-1].cells), flush=True)
    text = summary(found, asked.image, asked.tp)
    print(text)
    if asked.write:
        write(found, text)


def summary(found: list[Seen], image: str, tp: int) -> str:
    ran = [each for each in found if not each.reason]
    return f"{len(ran)} of {len(found)} image-text types of transformers run with an image of {image}, tp {tp}."


def write(found: list[Seen], text: str) -> None:
    from page import put, table

    ran, not_run = ([each for each in found if bool(each.reason) == failed] for failed in (False, True))
    put("images", __file__, [
        "## Vision-language models",
        "",
        f"{text} Tokens are those of the language model that the image becomes; the rest is of tower and projector, "
        "made from the default configuration.",
        "",
        *table(COLUMNS, [each.cells for each in ran]),
        "",
        "Not run:",
        "",
        *table(("type", "reason"), [(each.kind, each.reason) for each in not_run]),
    ])  # fmt: skip


def image_text_types() -> list[str]:
    from transformers.models.auto import modeling_auto

    return [*modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES]


def agreeing(config: Any, class_name: str) -> Any:
    """The configuration with a tower, whose output is as wide as the decoder: defaults of the two were set apart."""
    parts = getattr(type(config), "sub_configs", None) or {}
    if "vision_config" in parts and getattr(config, "vision_config", None) is None:
        config.vision_config = parts["vision_config"]()
    if in_mapping_of(config, class_name):
        config.architectures = [class_name]
    vision = getattr(config, "vision_config", None)
    text = config.get_text_config()
    field = next((f for f in ("out_hidden_size", "text_hidden_size", "projection_dim") if hasattr(vision, f)), None)
    if field is None and hasattr(vision, "embed_dim") and hasattr(vision, "hidden_size"):
        field = "hidden_size"  # of what merges patches; embed_dim is the tower's own
    if field is not None and getattr(vision, field):
        setattr(vision, field, text.hidden_size)
    return config


def in_mapping_of(config: Any, class_name: str) -> bool:
    """Whether the class says it is made from this kind of configuration; some types borrow another's class."""
    import transformers

    wanted = getattr(getattr(transformers, class_name), "config_class", None)
    return wanted is not None and isinstance(config, wanted)


def seen(kind: str, size: tuple[int, int], tp: int = 1) -> Seen:
    """Whether the type takes an image of `size`, tower and language model both, and what came out or why not."""
    try:
        return _seen(kind, size, tp)
    except TensorcastError as reason:
        return Seen(kind, str(reason)[:200])
    except Exception as reason:
        return Seen(kind, f"{type(reason).__name__}: {' '.join(str(reason).split())[:200]}")


def _seen(kind: str, size: tuple[int, int], tp: int) -> Seen:
    model = deployed(kind, size, tp)
    if model.blueprint.source.phases != LANGUAGE:
        return Seen(kind, "keeps no cache: run as one forward pass, which takes no images")
    start = time.perf_counter()
    tracer = trace_images(model)
    seconds, one = time.perf_counter() - start, model.image_tokens
    trace_step(model, "prefill", 2, one + 8, 0)
    trace_step(model, VISION, 3, 1, 0)
    if model.image_tokens != 3 * one:
        return Seen(kind, f"3 sequences have {model.image_tokens} image tokens, one has {one}")
    attention = [c for c in tracer.calls if c.op == "attention"]
    if any(c.attrs["causal"] for c in attention):
        return Seen(kind, "its tower reads from left to right")
    if tracer.uncosted:
        return Seen(kind, f"not costed: {' '.join(tracer.uncosted)}")
    pairs = sum(c.dims["b"] * c.dims["q"] * c.dims["kv"] * len(c.layers or "1") for c in attention)
    return Seen(kind, "", one, len(tracer.calls), pairs, int(matrix_flops(tracer.calls)), seconds)


def deployed(kind: str, size: tuple[int, int], tp: int) -> Any:
    """The type's default configuration, deployed with one image of `size`."""
    from transformers import AutoConfig  # noqa: F401  (the mapping's classes are found through it)
    from transformers.models.auto import modeling_auto
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    register_interface()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = default_config(CONFIG_MAPPING[kind])
        config = agreeing(config, modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES[kind])
        source = source_of(Custom(config, "default configuration"), None, {}, None)
        blueprint = build_blueprint(source, attn_implementation=INTERFACE)
        return deployed_model(blueprint, Deployment(images=(size,), plan=ParallelPlan(tp=tp)))


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    with torch.no_grad():
        main()
