"""Products, embeddings, norms, gated feed-forwards and activations of a module tree as one operator each."""

from __future__ import annotations

from typing import NamedTuple

from torch import nn

from tensorcast.layers.linear import install_linears, own_products_to_linear
from tensorcast.layers.mlp import install_activations, install_gated_mlps
from tensorcast.layers.norm import install_norms


class Wrapped(NamedTuple):
    """How many of each kind."""

    linears: int
    norms: int
    gated: int


def wrap(model, within: str = "") -> Wrapped:
    """Install them on every module below the path `within`."""
    own_products_to_linear(model, within)
    found = Wrapped(install_linears(model, within), install_norms(model, within), install_gated_mlps(model, within))
    install_activations(model, within)
    return found


def replace(model, path: str, new_class: type[nn.Module]) -> nn.Module:
    """Put `new_class(old)` where the module `old` at `path` is. It may keep any part of the old module as its own."""
    from tensorcast.pipelines import call_own

    new = call_own(f"{new_class.__name__}({path})", new_class, model.module.get_submodule(path))
    model.replace_module(path, new)
    wrap(model, path)
    return new
