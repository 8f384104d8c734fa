"""The nine steps that turn a foreign model into a deployed one, in the order they run.

Each step is a plain function: it takes the model, changes it in place, records what it did and returns it. The order
carries meaning: drafts are added before layers are grouped, structure is patched before it is quantised (experts become
products), and quantisation comes before sharding (scales shard with weights).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from fnmatch import fnmatchcase

from torch import nn

from tensorcast.errors import TransformationError, near_names
from tensorcast.layers import attention as attentions
from tensorcast.layers import (
    checks,
    linear,
    local,
    masks,
    merge,
    mla_foreign,
    moe,
    mtp,
    packed,
    quantise,
    reuse,
    rotary,
    scan,
    sharding,
)
from tensorcast.layers import mla as latent
from tensorcast.layers.named import fault, install_forwards
from tensorcast.layers.wrap import replace as replace_parts
from tensorcast.layers.wrap import wrap
from tensorcast.pipelines import call_own
from tensorcast.recording import require_model, step
from tensorcast.transformer_model import TransformerModel

Step = Callable[[TransformerModel], TransformerModel | None]
Parts = Callable[[nn.Module], nn.Module]
"""A class (or function) that makes the module to put in the place of the one it is given."""


@step
def wrap_model(model: TransformerModel) -> TransformerModel:
    """Products, embeddings, norms and gated feed-forwards become one operator each, after `vl_patch_method`."""
    patch = model.profile.vl_patch_method
    if patch is not None:
        call_own(f"profile {model.profile.model_type!r}: vl_patch_method", patch, model)
    install_forwards(model)
    checks.skip_value_checks(model)
    linears, norms, gated = wrap(model)
    return model.report("wrap_model", linears, f"{linears} products and embeddings, {norms} norms, {gated} gated MLPs")


@step
def maybe_enable_mtp(model: TransformerModel) -> TransformerModel:
    """Multi-token prediction: draft layers that share embedding and head with the model."""
    wanted = model.deployment.mtp
    if not wanted:
        return model.report("maybe_enable_mtp", 0, "no draft tokens asked (--mtp)")
    layers = mtp.install_drafts(model, wanted)
    return model.report("maybe_enable_mtp", layers, f"{layers} draft layers, {wanted} draft tokens a step")


@step
def maybe_reuse_layers(model: TransformerModel) -> TransformerModel:
    """Equal layers: one representative is traced, the rest are counted."""
    stacks = reuse.find_stacks(model)
    if not stacks:
        return model.report("maybe_reuse_layers", 0, "no list of three or more layers")
    if not model.deployment.reuse:
        return model.report("maybe_reuse_layers", 0, "switched off (--no-reuse)")
    sizes = ", ".join(f"{s.path} ({len(s.layers)})" for s in stacks)
    return model.report("maybe_reuse_layers", sum(len(s.layers) for s in stacks), f"stacks: {sizes}")


@step
def patch_rotary_emb(model: TransformerModel) -> TransformerModel:
    """cos and sin come from a cached table: one lookup a forward; rotating is one operator."""
    found = rotary.install_rotary(model)
    return model.report("patch_rotary_emb", found, f"{found} rotary tables" if found else "no rotary embedding")


@step
def patch_attention(model: TransformerModel, *, attention: Parts | None = None) -> TransformerModel:
    """Attention slots, and the scans of linear-attention and state-space layers.

    `attention`: every attention module is first replaced by `attention(module)`.
    """
    if attention is not None:
        _replace_each(model, "attention", [path for path, _ in attentions.attention_modules(model)], attention)
    slots = attentions.install_attention(model)
    masks.install_masks(model)
    packed.install_packed_attention(model)
    merge.install_merged_qkv(model)
    scans = scan.install_scans(model)
    return model.report("patch_attention", slots + scans, f"{slots} attention slots, {scans} scan layers")


@step
def patch_mla(model: TransformerModel, *, mla: Parts | None = None) -> TransformerModel:
    """Latent attention: the cache keeps latents; sparse attention's indexer becomes a few operators.

    `mla`: every latent attention module is first replaced by `mla(module)`.
    """
    named = mla_foreign.named_modules(model)
    if mla is not None:
        paths = dict.fromkeys([*named, *(path for path, m in model.module.named_modules() if latent.is_mla(m))])
        _replace_each(model, "mla", list(paths), mla)
    else:
        mla_foreign.adapt(model, named)
    layers = latent.install_mla(model)
    indexers = latent.install_indexers(model)
    if not layers:
        return model.report("patch_mla", 0, "no latent attention modules")
    return model.report("patch_mla", layers, f"{layers} latent attention modules, {indexers} indexers")


@step
def patch_moe(model: TransformerModel, *, moe_layer: Parts | None = None) -> TransformerModel:
    """Router, dispatch, experts, combine; routing is uniform over the experts.

    `moe_layer`: every MoE block is first replaced by `moe_layer(block)`.
    """
    blocks = moe.install_moe(model, moe_layer)
    model.count_active()
    return model.report("patch_moe", blocks, f"{blocks} expert modules" if blocks else "dense model: no MoE modules")


def _replace_each(model: TransformerModel, what: str, paths: list[str], new: Parts) -> None:
    if not paths:
        raise TransformationError(f"{model.blueprint.source.name}: no {what} modules to replace by {new.__name__}")
    for path in paths:
        replace_parts(model, path, new)


@step
def quantize_model(model: TransformerModel) -> TransformerModel:
    """Formats of weights and activations (quantize_linear), of the KV cache and the attention products."""
    if model.quant is None or not model.quant.quantises:
        return model.report("quantize_model", 0, "not quantised")
    linears = quantise.quantise_linears(model)
    attention_quant = quantise.describe_attention(model)
    return model.report("quantize_model", linears or bool(attention_quant), f"{linears} modules{attention_quant}")


@step
def quantize_linear(model: TransformerModel) -> TransformerModel:
    """The part of quantize_model that gives weights their formats. Running it again changes nothing."""
    if model.quant is None or not model.quant.quantises:
        return model.report("quantize_linear", 0, "not quantised")
    linears = quantise.quantise_linears(model)
    return model.report("quantize_linear", linears, f"{linears} modules")


@step
def shard_model(model: TransformerModel) -> TransformerModel:
    """Cut parameters for tensor and expert parallelism; collectives become operators of the trace."""
    plan = model.plan
    _require_matches(model)
    model.tp_values = local.tp_values(model)
    if plan.tp * plan.dp * plan.sp * plan.cfg == 1:
        return model.report("shard_model", 0, "one device holds every layer whole")
    count, notes = sharding.shard(model)
    linear.install_row_linears(model)
    model.notes += notes
    done = f"{count} modules cut for tp {plan.tp}, ep {plan.ep}, dp {plan.dp}" + f", sp {plan.sp}" * (plan.sp > 1)
    done += f", cfg {plan.cfg}" * (plan.cfg > 1) + f", dcp {plan.dcp}" * (plan.dcp > 1)
    done += ", tokens of the residual stream spread over tp" * plan.sequence_parallel
    rules = sharding.rules_applied(model)
    return model.report("shard_model", count, f"{done}; by {rules}" if rules else done)


def _require_matches(model: TransformerModel) -> None:
    """Every pattern of a user's profile is about some module; ours are written for families of models."""
    if model.profile_origin in ("", "builtin"):
        return
    paths = [path for path, _ in model.module.named_modules()]
    idle = [pattern for pattern in model.tp_rules if not any(fnmatchcase(path, pattern) for path in paths)]
    if idle:
        near = near_names(idle[0], paths)
        hint = f"; nearest: {', '.join(near)}" if near else ""
        raise fault(model, f"tp_plan {', '.join(map(repr, idle))} matches no module{hint}")


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
    for standard in STANDARD:
        name = standard.__name__
        if name in skip:
            continue
        for function in (replace.get(name, standard), after.get(name)):
            if function is not None:
                own = getattr(function, "__name__", name)
                require_model(model, function(model), f"step {name if own == '<lambda>' else own}")
    return model
