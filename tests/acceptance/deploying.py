"""What the tests of profiles, pipelines and steps share."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import tensorcast as tc
from tests.verify.tiny import TINY

HW = "h100-sxm"
NINE = [
    "wrap_model", "maybe_enable_mtp", "maybe_reuse_layers", "patch_rotary_emb", "patch_attention", "patch_mla",
    "patch_moe", "quantize_model", "shard_model",
]  # fmt: skip
DEEPSEEK = "transformers.models.deepseek_v3.modeling_deepseek_v3"
SHARED = {"shared_experts": "shared_expert"}


def folder(name: str, **changes) -> str:
    """A folder with the configuration of a tiny model, made in the current directory."""
    where = Path(name)
    where.mkdir(exist_ok=True)
    (where / "config.json").write_text(json.dumps(TINY[name] | changes))
    return f"./{name}"


def custom_file(text: str, name: str = "my.py") -> None:
    Path("custom_model").mkdir(exist_ok=True)
    (Path("custom_model") / name).write_text(text)


def profile(model_type: str, **fields) -> tc.ModelProfile:
    return tc.register_model_profile(tc.ModelProfile(model_type=model_type, **fields))


def toy_profile(**fields) -> tc.ModelProfile:
    known = {"moe_module_name": "ToyMoE", "moe_field_names_override": SHARED}
    return profile("toy_moe", **known | fields)


def calls(model, phase: str = "prefill", batch: int = 1, tokens: int = 64, past: int = 0) -> Counter:
    """Operator → how many times it runs, all layers together."""
    from tensorcast.trace.run import trace_step

    found = Counter()
    for call in trace_step(model, phase, batch, tokens, past).calls:
        found[call.op] += len(call.layers or [0])
    return found


def names(model) -> list[str]:
    return [step.name for step in model.steps]


# -- pipelines ---------------------------------------------------------------------------------------------------------

PIPELINE = """import tensorcast as tc

@tc.register_custom_model("{key}")
def deploy(model):
{body}
"""


def pipeline_file(key: str, *lines: str) -> None:
    custom_file(PIPELINE.format(key=key, body="\n".join(f"    {line}" for line in lines)))
