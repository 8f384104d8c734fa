"""The nine steps that turn a foreign model into a deployed one, in the order they run.

Each step is a plain function: it takes the model, changes it in place, records what it did and returns it. The order
carries meaning: drafts are added before layers are grouped, structure is patched before it is quantised (experts become
products), and quantisation comes before sharding (scales shard with weights).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from tensorcast.errors import TransformationError
from tensorcast.layers import (
    attention,
    linear,
    local,
    merge,
    mla,
    mlp,
    moe,
    mtp,
    norm,
    quantise,
    reuse,
    rotary,
    scan,
    sharding,
)
from tensorcast.transformer_model import TransformerModel

Step = Callable[[TransformerModel], TransformerModel]


def wrap_model(model: TransformerModel) -> TransformerModel:
    """Products, embeddings, norms and gated feed-forwards become one operator each."""
    linears = linear.install_linears(model)
    norms = norm.install_norms(model)
    gated = mlp.install_gated_mlps(model)
    mlp.install_activations(model)
    return model.report("wrap_model", linears, f"{linears} products and embeddings, {norms} norms, {gated} gated MLPs")


def maybe_enable_mtp(model: TransformerModel) -> TransformerModel:
    """Multi-token prediction: draft layers that share embedding and head with the model."""
    wanted = model.deployment.mtp
    if not wanted:
        return model.report("maybe_enable_mtp", 0, "no draft tokens asked (--mtp)")
    layers = mtp.install_drafts(model, wanted)
    return model.report("maybe_enable_mtp", layers, f"{layers} draft layers, {wanted} draft tokens a step")


def maybe_reuse_layers(model: TransformerModel) -> TransformerModel:
    """Equal layers: one representative is traced, the rest are counted."""
    stacks = reuse.find_stacks(model)
    if not stacks:
        return model.report("maybe_reuse_layers", 0, "no list of three or more layers")
    if not model.deployment.reuse:
        return model.report("maybe_reuse_layers", 0, "switched off (--no-reuse)")
    sizes = ", ".join(f"{s.path} ({len(s.layers)})" for s in stacks)
    return model.report("maybe_reuse_layers", sum(len(s.layers) for s in stacks), f"stacks: {sizes}")


def patch_rotary_emb(model: TransformerModel) -> TransformerModel:
    """cos and sin come from a cached table: one lookup a forward; rotating is one operator."""
    found = rotary.install_rotary(model)
    return model.report("patch_rotary_emb", found, f"{found} rotary tables" if found else "no rotary embedding")


def patch_attention(model: TransformerModel) -> TransformerModel:
    """Attention slots, and the scans of linear-attention and state-space layers."""
    slots = attention.install_attention(model)
    merge.install_merged_qkv(model)
    scans = scan.install_scans(model)
    return model.report("patch_attention", slots + scans, f"{slots} attention slots, {scans} scan layers")


def patch_mla(model: TransformerModel) -> TransformerModel:
    """Latent attention: the cache keeps latents; sparse attention's indexer becomes a few operators."""
    layers = mla.install_mla(model)
    indexers = mla.install_indexers(model)
    if not layers:
        return model.report("patch_mla", 0, "no latent attention modules")
    return model.report("patch_mla", layers, f"{layers} latent attention modules, {indexers} indexers")


def patch_moe(model: TransformerModel) -> TransformerModel:
    """Router, dispatch, experts, combine; routing is uniform over the experts."""
    blocks = moe.install_moe(model)
    return model.report("patch_moe", blocks, f"{blocks} expert modules" if blocks else "dense model: no MoE modules")


def quantize_model(model: TransformerModel) -> TransformerModel:
    """Formats of weights and activations (quantize_linear), of the KV cache and the attention products."""
    if model.quant is None or not model.quant.quantises:
        return model.report("quantize_model", 0, "not quantised")
    linears = quantize_linear(model)
    attention_quant = quantise.describe_attention(model)
    return model.report("quantize_model", linears or bool(attention_quant), f"{linears} modules{attention_quant}")


def quantize_linear(model: TransformerModel) -> int:
    """Give every linear and experts module that the plan names its formats. Running it twice changes nothing."""
    return quantise.quantise_linears(model)


def shard_model(model: TransformerModel) -> TransformerModel:
    """Cut parameters for tensor and expert parallelism; collectives become operators of the trace."""
    plan = model.plan
    model.tp_values = local.tp_values(model)
    if plan.tp * plan.dp == 1:
        return model.report("shard_model", 0, "one device holds every layer whole")
    count, notes = sharding.shard(model)
    model.notes += notes
    return model.report("shard_model", count, f"{count} modules cut for tp {plan.tp}, ep {plan.ep}, dp {plan.dp}")


STANDARD: tuple[Step, ...] = (
    wrap_model,
    maybe_enable_mtp,
    maybe_reuse_layers,
    patch_rotary_emb,
    patch_attention,
    patch_mla,
    patch_moe,
    quantize_model,
    shard_model,
)


def run_standard(
    model: TransformerModel,
    *,
    skip: Collection[str] = (),
    replace: Mapping[str, Step] = {},
    after: Mapping[str, Step] = {},
) -> TransformerModel:
    """Run the nine steps; `skip` leaves some out, `replace` and `after` put other code in place of or behind one."""
    names = [step.__name__ for step in STANDARD]
    for name in (*skip, *replace, *after):
        if name not in names:
            raise TransformationError(f"unknown step {name!r}; the steps are {', '.join(names)}")
    for step in STANDARD:
        if step.__name__ in skip:
            continue
        for function in (replace.get(step.__name__, step), after.get(step.__name__)):
            if function is not None:
                result = function(model)
                if result is not None and result is not model:
                    raise TransformationError(f"step {step.__name__} returned {type(result).__name__}, not the model")
    return model
