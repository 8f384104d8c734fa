"""Published model types that transformers holds under another name, and those it cannot hold.

A fix-up is a statement that two types are the same architecture. Where that depends on the configuration, `unfaithful`
says why a given one would come out as a different model, and the request is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tensorcast.errors import ModelError
from tensorcast.models.check import parts


@dataclass(frozen=True)
class Fixup:
    """`model_type` is built as the native type `becomes` because of `reason`."""

    model_type: str
    becomes: str
    reason: str
    unfaithful: Callable[[Mapping], str | None] = lambda config: None


def _not_qwen2(config: Mapping) -> str | None:
    """Qwen2 attention has biases on q, k and v, none on o, and heads of hidden_size / num_attention_heads."""
    if config.get("attention_bias") is not True:
        return f"attention_bias is {config.get('attention_bias')!r}, and Qwen2 attention always has q, k and v biases"
    heads, width = config.get("num_attention_heads"), config.get("hidden_size")
    if config.get("head_dim") not in (None, width // heads):
        return f"head_dim {config['head_dim']} is not hidden_size {width} / num_attention_heads {heads}"
    return None


def _not_deepseek_v4(config: Mapping) -> str | None:
    architecture = (config.get("architectures") or ["none"])[0]
    return None if architecture == "DeepseekV4ForCausalLM" else f"its architecture is {architecture}"


FIXUPS: dict[str, Fixup] = {
    fixup.model_type: fixup
    for fixup in (
        Fixup("kimi_k2", "deepseek_v3", "Kimi-K2 is published with the DeepSeek-V3 architecture"),
        Fixup("deepseek_ref", "deepseek_v4", "the reference code's form of DeepSeek-V4's config", _not_deepseek_v4),
        Fixup("mimo", "qwen2", "MiMo-7B is Qwen2 with a draft layer, which is not part of the main model", _not_qwen2),
        Fixup("minimax_m3", "minimax_m3_vl_text", "the language model of MiniMax-M3, without its vision tower"),
    )
}

REFUSED: dict[str, str] = {
    "kimi_k3": (
        "no model code for kimi_k3: transformers' kimi_linear lacks its latent experts (routed_expert_hidden_size) and "
        "its 'situ' activation, and would count 5489 B parameters; describe the model with --custom FILE"
    ),
}
"""Types that look like a native one and are not: building them as such would be a wrong number."""


def _latent_experts(config: Mapping) -> str | None:
    """Kimi-K3's text part names the type of Kimi-Linear, whose class has neither of the two."""
    if config.get("routed_expert_hidden_size"):
        return f"its class lacks latent experts (routed_expert_hidden_size {config['routed_expert_hidden_size']})"
    return "its class lacks the activation 'situ'" if config.get("hidden_act") == "situ" else None


def _other_minimax(config: Mapping) -> str | None:
    if config.get("shared_intermediate_size"):
        return f"its class lacks a shared expert (shared_intermediate_size {config['shared_intermediate_size']})"
    other = any(kind != 1 for kind in config.get("attn_type_list") or ())
    return "its class lacks linear attention (attn_type_list has other entries than 1)" if other else None


UNHELD: dict[str, Callable[[Mapping], str | None]] = {"kimi_linear": _latent_experts, "minimax_m2": _other_minimax}
"""Native types, and why their class would build another model from a configuration (None where it would not)."""


def _require_held(config: Mapping, name: str) -> None:
    for _, part in parts(config, name):
        kind = part.get("model_type")
        if kind in UNHELD and (problem := UNHELD[kind](part)):
            raise ModelError(f"{name}: {kind} cannot hold this model: {problem}; describe it with --custom FILE")


def apply_fixup(config: Mapping, name: str) -> tuple[dict, str]:
    """`config` under the type transformers knows, and a note about the change ("" when none was needed)."""
    kind = config.get("model_type")
    if kind in REFUSED:
        raise ModelError(f"{name}: {REFUSED[kind]}")
    _require_held(config, name)
    fixup = FIXUPS.get(kind)
    if fixup is None:
        return dict(config), ""
    problem = fixup.unfaithful(config)
    if problem:
        raise ModelError(f"{name}: {kind} cannot be built as {fixup.becomes}: {problem}")
    return {**config, "model_type": fixup.becomes}, f"built as {fixup.becomes}: {fixup.reason}"
