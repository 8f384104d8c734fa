"""What one rank holds of a state-space, linear-attention or short-convolution layer: its heads, or its channels.

Every size of such a layer is a number of heads, a width that heads have together, or one that heads do not change
(ranks of small products, sizes of states). Parameters, convolutions and products are cut where they have one of the
first two; groups that share keys and are fewer than the ranks are kept whole on each.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil

from torch import nn

from tensorcast.errors import DeploymentError
from tensorcast.layers.parameters import smaller
from tensorcast.layers.scan import OUTPUTS
from tensorcast.layers.state import Group, Shard, has_state, install, state_of

HEADS = ("num_v_heads", "num_k_heads", "num_heads", "num_attention_heads", "n_mamba_heads")
GROUPS = "n_groups"
WIDTHS = ("key_dim", "value_dim", "qkv_dim", "intermediate_size", "lru_width")


def scan_heads(module: nn.Module) -> dict[str, int]:
    """What must divide, by name: heads and groups, or the channels of a layer that has none."""
    names = (*HEADS, GROUPS)
    counts = {name: part.__dict__[name] for part in _parts(module) for name in names if name in part.__dict__}
    return counts or {"channels": _output(module).in_features}


def _output(module: nn.Module) -> nn.Linear:
    return next(module._modules[name] for name in OUTPUTS if name in module._modules)


def _parts(module: nn.Module) -> Iterator[nn.Module]:
    """The layer and the parts of it that hold sizes of heads: gates, recurrences."""
    yield module
    for child in module.children():
        if not isinstance(child, (nn.Linear, nn.Conv1d)) and getattr(child, "weight", None) is None:
            yield child


@dataclass(frozen=True)
class _Sizes:
    """Sizes of a whole layer and of a rank's part: attributes by name, and dimensions of parameters."""

    names: dict[str, int]
    dims: dict[int, int]


def _sizes(module: nn.Module, tp: int) -> _Sizes:
    names, dims, inner = {}, {}, _output(module).in_features
    for part in _parts(module):
        for name in (*HEADS, *WIDTHS):
            if name in part.__dict__:
                whole = part.__dict__[name]
                names[name] = dims[whole] = whole // tp
    dims[inner] = inner // tp
    if GROUPS in module.__dict__:
        names[GROUPS] = max(1, module.__dict__[GROUPS] // tp)
    return _Sizes(names, dims)


class ScanCutter:
    """Cuts the layers of one model over `group`; `cut(linear, dim, size, style, rule)` cuts a product."""

    def __init__(self, rules, group: Group, cut) -> None:
        self.rules, self.group, self.cut = rules, group, cut

    def layer(self, path: str, module: nn.Module) -> None:
        """Cut one layer, whose heads divide."""
        sizes, before = _sizes(module, self.group.size), dict(module.__dict__)
        styles = {name: self._style(path, name, child, sizes, module) for name, child in _products(module)}
        channels, joined = self._channels(module, before, sizes)
        for part in _parts(module):
            self._attributes(part, sizes, channels, before)
            self._parameters(path, part, sizes, joined)
        for child in module.children():
            if isinstance(child, nn.Conv1d):
                cut_channels(child, f"{path}.conv", channels[child.in_channels], self.group)
            elif child._parameters.get("weight") is not None and child.weight.dim() == 1:
                self._norm(child, sizes)
        for name, child in _products(module):
            style, rule = styles[name]
            if style == "column":
                size = joined.get(child.out_features) if name == "in_proj" else None
                self.cut(child, 0, size or ceil(child.out_features / self.group.size), style, rule)
            elif style == "row":
                self.cut(child, 1, ceil(child.in_features / self.group.size), style, rule)

    def _style(self, path: str, name: str, child: nn.Linear, sizes: _Sizes, module: nn.Module) -> tuple[str, str]:
        """How the layer's own sizes split a product, and the rule that says the same; no other one is modelled."""
        inner = _output(module).in_features
        if name in OUTPUTS:
            style = "row"
        elif name.startswith("in_proj") or child.out_features in sizes.dims:
            style = "column"
        elif child.in_features == inner:
            style = "row"
        else:
            style = "replicated"
        rule = self.rules.of(f"{path}.{name}", child)
        if rule.style not in (None, style):
            raise DeploymentError(
                f"--tp {self.group.size}: {path}.{name} is part of a scan layer, whose heads are split; "
                f"{rule.style} ({rule.source}) is not modelled there"
            )
        return style, rule.source

    def _channels(self, module: nn.Module, before: dict, sizes: _Sizes) -> tuple[dict[int, int], dict[int, int]]:
        """Whole → local numbers of convolved channels, and of the outputs of one input projection that makes them
        together with gates and time steps."""
        tp = self.group.size
        convolutions = [child.in_channels for child in module.children() if isinstance(child, nn.Conv1d)]
        if GROUPS not in before:
            return {n: n // tp for n in convolutions}, {}
        inner = before["intermediate_size"]
        local = inner // tp + 2 * sizes.names[GROUPS] * before["ssm_state_size"]
        heads = before["num_heads"]
        whole = inner + convolutions[0] + heads
        return {convolutions[0]: local}, {whole: inner // tp + local + heads // tp}

    def _attributes(self, part: nn.Module, sizes: _Sizes, channels: dict[int, int], before: dict) -> None:
        for name, local in sizes.names.items():
            if name in part.__dict__:
                part.__dict__[name] = local
        if "conv_dim" in part.__dict__:
            part.__dict__["conv_dim"] = channels[part.__dict__["conv_dim"]]
        if "groups_time_state_size" in part.__dict__:
            part.__dict__["groups_time_state_size"] = sizes.names[GROUPS] * before["ssm_state_size"]

    def _parameters(self, path: str, part: nn.Module, sizes: _Sizes, joined: dict[int, int]) -> None:
        for kind in (part._parameters, part._buffers):
            for name, value in kind.items():
                sized = sizes.dims | (joined if kind is part._buffers else {})
                dim = next((i for i, n in enumerate(value.shape) if n in sized), None) if value is not None else None
                if dim is not None:
                    size = sized[value.shape[dim]]
                    kind[name] = smaller(value, dim, size) if kind is part._parameters else value.narrow(dim, 0, size)
                    install(part, path).shard = Shard("column", self.group, rule="heads")

    def _norm(self, norm: nn.Module, sizes: _Sizes) -> None:
        """A norm over all channels is cut with them; the ranks of a group of channels add up their statistics."""
        width, tp = norm.weight.shape[0], self.group.size
        if width not in sizes.dims or not has_state(norm):
            return
        groups = width // norm.group_size if hasattr(norm, "group_size") else getattr(norm, GROUPS, 1)
        norm._parameters["weight"] = smaller(norm.weight, 0, sizes.dims[width])
        if GROUPS in norm.__dict__:
            norm.__dict__[GROUPS] = max(1, groups // tp)
        state = state_of(norm)
        state.shard = Shard("norm", Group(max(1, tp // groups), 1), rule="norm over the channels of several ranks")


def cut_channels(conv: nn.Conv1d, path: str, local: int, group: Group) -> None:
    """Cut a convolution of every channel by itself to `local` channels."""
    conv.in_channels = conv.out_channels = conv.groups = local
    for name, value in conv._parameters.items():
        if value is not None:
            conv._parameters[name] = smaller(value, 0, local)
    install(conv, path).shard = Shard("column", group, rule="heads")


def _products(module: nn.Module) -> Iterator[tuple[str, nn.Linear]]:
    """(name, product) of every installed linear inside of the layer."""
    for name, child in module.named_modules():
        if isinstance(child, nn.Linear) and has_state(child):
            yield name, child
