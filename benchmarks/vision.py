"""Which image-text models of transformers run with an image: tokens, operators and reasons, a line for each type.

    python benchmarks/vision.py [--image HxW] [--tp N] [TYPE ...]

Every model type of transformers' image-text-to-text mapping, from its default configuration, through the same steps
and traces as `simulate`. Tokens are those of the language model that one image of the size becomes.
"""

from __future__ import annotations

import argparse
import logging
import time
import warnings
from typing import Any

import torch

from tensorcast.custom.loading import Custom
from tensorcast.errors import TensorcastError
from tensorcast.layers.attention import INTERFACE, register_interface
from tensorcast.models.build import build_blueprint
from tensorcast.models.default_config import default_config
from tensorcast.models.objects import source_of
from tensorcast.plan import ParallelPlan, size_of
from tensorcast.trace.run import trace_step
from tensorcast.transformer_model import Deployment, deployed_model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("types", nargs="*", metavar="TYPE")
    parser.add_argument("--image", default="1024x1024", metavar="HxW")
    parser.add_argument("--tp", type=int, default=1)
    asked = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    register_interface()
    from transformers.models.auto import modeling_auto

    known = modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
    rows = [(kind, *traced(kind, known[kind], size_of(asked.image), asked.tp)) for kind in asked.types or known]
    for kind, worked, text in rows:
        print(f"{kind:26} {'yes' if worked else 'no ':4} {text}", flush=True)
    print(
        f"{sum(worked for _, worked, _ in rows)} of {len(rows)} types run with an image of {asked.image}, tp {asked.tp}"
    )


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


def traced(kind: str, class_name: str, size: tuple[int, int], tp: int) -> tuple[bool, str]:
    """Whether the type's tower runs over an image of `size`, and what came out or why not."""
    try:
        from transformers import AutoConfig  # noqa: F401  (the mapping's classes are found through it)
        from transformers.models.auto.configuration_auto import CONFIG_MAPPING

        config = agreeing(default_config(CONFIG_MAPPING[kind]), class_name)
        source = source_of(Custom(config, "default configuration"), None, {}, None)
        blueprint = build_blueprint(source, attn_implementation=INTERFACE)
        model = deployed_model(blueprint, Deployment(images=(size,), plan=ParallelPlan(tp=tp)))
        start = time.perf_counter()
        tracer = trace_step(model, "vision", 1, 1, 0)
        seconds, one = time.perf_counter() - start, model.image_tokens
        trace_step(model, "vision", 3, 1, 0)
    except TensorcastError as reason:
        return False, str(reason)[:200]
    except Exception as reason:
        return False, f"{type(reason).__name__}: {' '.join(str(reason).split())[:200]}"
    if model.image_tokens != 3 * one:
        return False, f"3 sequences have {model.image_tokens} image tokens, one has {one}"
    pairs = sum(
        c.dims["b"] * c.dims["q"] * c.dims["kv"] * len(c.layers or "1") for c in tracer.calls if c.op == "attention"
    )
    causal = " CAUSAL" if any(c.op == "attention" and c.attrs.get("causal") for c in tracer.calls) else ""
    uncosted = f", not costed: {' '.join(tracer.uncosted)}" if tracer.uncosted else ""
    return True, f"{one:6} tokens, {len(tracer.calls):4} rows, {pairs:,} pairs{causal}, {seconds:.2f} s{uncosted}"


if __name__ == "__main__":
    with torch.no_grad():
        main()
