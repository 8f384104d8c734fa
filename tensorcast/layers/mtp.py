"""Multi-token prediction: draft layers behind the model, run one after another in every step.

A draft layer normalises the embedding of the next token and the model's hidden state, joins them (2H → H), and runs one
decoder layer and a norm; embedding and head are the model's own. A step with more draft tokens than draft layers runs
the layers again.
"""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.utils import _pytree as pytree

from tensorcast.errors import DeploymentError, TransformationError, near_names
from tensorcast.layers.named import fault, modules_named
from tensorcast.layers.sequence_parallel import whole_tokens
from tensorcast.layers.wrap import wrap
from tensorcast.pipelines import call_own
from tensorcast.trace.context import current

# Where published configurations say how many draft layers the checkpoint has.
_KEYS = ("num_nextn_predict_layers", "num_mtp_layers", "mtp_num_hidden_layers", "num_mtp_modules")


def draft_layers(model) -> int:
    """Draft layers that the published checkpoint has."""
    described = model.blueprint.source.config
    described = {**described, **(described.get("text_config") or {})}
    keys, own = _KEYS, model.profile.mtp_layers_key
    if own is not None:
        if own not in described:
            near = near_names(own, described)
            hint = f"; nearest: {', '.join(near)}" if near else ""
            raise fault(model, f"mtp_layers_key {own!r}: the configuration has no such key{hint}")
        keys = (own,)
    return max((int(described.get(k) or 0) for k in keys), default=0)


# Where configurations list the decoder blocks of one draft layer; without it a draft layer has one, like the last.
_BLOCKS = "mtp_layers_block_type"


def block_kinds(config) -> list[str | None]:
    """Kind of every decoder block in one draft layer; None stands for a block like the model's last."""
    return list(getattr(config, _BLOCKS, None) or [None])


class DraftLayer(nn.Module):
    """One draft layer: norms of embedding and hidden state, projection, decoder blocks, norm before the shared head."""

    def __init__(self, blocks: list[nn.Module], norm: nn.Module, hidden: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.enorm = copy.deepcopy(norm)
        self.hnorm = copy.deepcopy(norm)
        self.eh_proj = nn.Linear(2 * hidden, hidden, bias=False, dtype=dtype)
        self.blocks = nn.ModuleList(blocks)
        self.norm = copy.deepcopy(norm)

    def forward(self, embedding, hidden, **kwargs):
        x = self.eh_proj(torch.cat((whole_tokens(self.enorm(embedding)), self.hnorm(hidden)), dim=-1))
        for block in self.blocks:
            x = block(x, **kwargs)
            x = x[0] if isinstance(x, tuple) else x
        return self.norm(x)


def install_drafts(model, wanted: int) -> int:
    """Add the checkpoint's draft layers (at most `wanted`). Returns how many."""
    available = draft_layers(model)
    if not available:
        name = model.blueprint.source.name
        raise DeploymentError(f"--mtp {wanted}: {name} has no multi-token-prediction layers; leave it out")
    if model.blueprint.kind == "packed":
        raise DeploymentError(f"--mtp {wanted}: draft layers are not made for packed models; leave it out")
    layers, norm = model.layers, model.final_norm
    if not layers:
        raise DeploymentError(f"--mtp {wanted}: {model.architecture} has no list of decoder layers; set layers_path")
    hidden = model.text_config.hidden_size
    drafts = nn.ModuleList()
    dtype, index = model.blueprint.dtype, len(layers)
    for _ in range(min(wanted, available)):
        blocks = []
        for kind in block_kinds(model.text_config):
            blocks.append(_block(model, layers[-1], index, kind).to(dtype))
            index += 1
        drafts.append(DraftLayer(blocks, norm, hidden, dtype))
    model.module.add_module("mtp", drafts.eval().requires_grad_(False))
    model.drafts = drafts
    wrap(model, "mtp")
    return len(drafts)


def _block(model, last: nn.Module, index: int, kind: str | None) -> nn.Module:
    """The decoder block of a draft layer: of the class that the profile names, else one like the last layer."""
    name = model.profile.mtp_block_module_name
    made = type(modules_named(model, name)[0][1]) if name is not None else type(last)
    block = call_own(f"{made.__name__}(config, layer_idx)", _fresh_block, made, model.text_config, index, kind)
    if kind is None and name is None and _sizes(block) != _sizes(last):
        raise TransformationError(
            f"--mtp: a fresh {made.__name__} is not like the last layer of {model.architecture}, whose code changes "
            "its layers; name the class of the draft's block in a ModelProfile: mtp_block_module_name"
        )
    return block


def _sizes(module: nn.Module) -> list:
    return [(name, tuple(parameter.shape)) for name, parameter in module.named_parameters()]


def _fresh_block(block_class: type, config, index: int, kind: str | None) -> nn.Module:
    """A decoder block of layer `index`, like the last layer or of `kind`; per-layer lists are made long enough."""
    longer = copy.copy(config)
    # the list that says each layer's kind, by the name the configuration stores it under
    types = getattr(config, "attribute_map", {}).get("layer_types", "layer_types")
    for name, value in list(vars(config).items()):
        if isinstance(value, list) and len(value) == config.num_hidden_layers:
            filler = kind if kind is not None and name == types else value[-1]
            longer.__dict__[name] = [*value, *[filler] * (index + 1 - len(value))]
    return block_class(longer, layer_idx=index)


def run_drafts(model, hidden, ids, options) -> None:
    """Run the draft tokens of one step behind the main forward; every draft asks the shared head once.

    `options` are the keyword arguments of the last decoder layer. In prefill every draft layer reads the prompt once,
    to fill its cache. In decode the first draft sees the tokens just verified, every later one a single token.
    """
    decode = current().phase == "decode"
    tokens = ids.shape[1]
    for i in range(model.deployment.mtp if decode else len(model.drafts)):
        if decode and i == 1 and tokens > 1:
            hidden, ids = hidden[:, -1:], ids[:, -1:]
            options = pytree.tree_map(lambda t: _last(t, tokens), options)
        layer = model.drafts[i % len(model.drafts)]
        hidden = layer(model.token_embedding(ids), hidden, **options)
        model.output_head(hidden[:, -1:])


def _last(value, tokens: int):
    """The last token of a tensor that has the tokens in dimension 1."""
    if isinstance(value, torch.Tensor) and value.dim() > 1 and value.shape[1] == tokens:
        return value[:, -1:]
    return value
