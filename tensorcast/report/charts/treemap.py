"""Where the time of a phase goes: modules in modules, operators in them, as areas."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import unescape
from math import fsum
from typing import Any

from tensorcast.report.charts import Chart, shown
from tensorcast.report.charts.palette import BOUND, NEUTRAL, ink
from tensorcast.units import bytes_, count, flop, percent, seconds

EVERY = "*"
Path = tuple[str, ...]


@dataclass
class Node:
    """A module: those in it by name, and its own operators, rows that differ in nothing but work added up."""

    modules: dict[str, Node] = field(default_factory=dict)
    ops: dict[tuple[str, str], list[Mapping[str, Any]]] = field(default_factory=lambda: defaultdict(list))

    @property
    def rows(self) -> list[Mapping[str, Any]]:
        own = [row for rows in self.ops.values() for row in rows]
        return own + [row for module in self.modules.values() for row in module.rows]

    @property
    def shape(self) -> tuple:
        """The same of two that hold the same modules with the same operators."""
        return frozenset(self.ops), tuple((name, module.shape) for name, module in self.modules.items())

    def add(self, other: Node) -> None:
        """Also the operators of another of the same shape."""
        for key, rows in other.ops.items():
            self.ops[key] += rows
        for name, module in other.modules.items():
            self.modules[name].add(module)

    def fold(self) -> None:
        """Make one of the modules of a list that have the same shape: the blocks 0 to 9 become `0 … 9 × 10`."""
        alike: dict[tuple, list[str]] = defaultdict(list)
        for name, module in self.modules.items():
            module.fold()
            alike[module.shape if name.isdigit() else (name,)].append(name)
        for first, *others in alike.values():
            for name in others:
                self.modules[first].add(self.modules[name])
        self.modules = {_numbered(names): self.modules[names[0]] for names in alike.values()}


def treemap_chart(estimate: Mapping[str, Any], phase: str) -> Chart:
    """Operators of `phase` within their modules; size: time of all their calls, colour: what bounds it."""
    ops = estimate["phases"][phase]["ops"]
    layers = _layers(estimate["phases"][phase])
    total = fsum(op["time_s"] for op in ops)
    tiles = Tiles(layers, total)
    tiles.add_module(_tree(ops), (shown(phase),))
    data = {
        "type": "treemap",
        "branchvalues": "remainder",
        **{name: [tile[name] for tile in tiles.all] for name in ("ids", "parents", "labels", "values", "customdata")},
        "marker": {"colors": [tile["colour"] for tile in tiles.all], "line": {"width": 1, "color": "#8b949e"}},
        "textfont": {"color": [ink(tile["colour"]) for tile in tiles.all]},
        "texttemplate": "%{label}<br>%{percentRoot}",
        "hovertemplate": "%{customdata}<extra></extra>",
        "tiling": {"pad": 2},
        "maxdepth": -1,
    }
    layout = {
        "height": 520,
        "uniformtext": {"minsize": 12, "mode": "hide"},
        "margin": {"l": 0, "r": 0, "t": 30, "b": 0},
    }
    return {"data": [data], "layout": {**layout, "meta": _said(phase, tiles)}}


def _tree(ops: list[Mapping[str, Any]]) -> Node:
    """Modules by the segments of their paths, folded; the parts of a training step are outermost."""
    root = Node()
    for op in ops:
        node = root
        for segment in (*filter(None, [op.get("part")]), *filter(None, op["module"].split("."))):
            node = node.modules.setdefault(segment, Node())
        node.ops[op["op"], op["bound"]].append(op)
    root.fold()
    return root


def _numbered(names: list[str]) -> str:
    """What modules that became one are called.

    >>> _numbered(["mlp"]), _numbered(["0", "2"]), _numbered(["0", "1", "2", "3"])
    ('mlp', '0, 2 × 2', '0 … 3 × 4')
    """
    which = ", ".join(names) if len(names) < 4 else f"{names[0]} … {names[-1]}"
    return which if len(names) == 1 else f"{which} × {len(names)}"


class Tiles:
    """`all`: a tile a module and a tile an operator, outer ones first. `total`: seconds of all operators."""

    def __init__(self, layers: Mapping[str, int], total: float) -> None:
        self.all: list[dict[str, Any]] = []
        self._layers, self.total = layers, total

    def add_module(self, node: Node, place: Path, module: Path = (), parent: str = "") -> None:
        """A module, `place` being its labels from outside in, and all that it holds."""
        own = self._add(place, node.rows, parent)
        for (op, bound), rows in node.ops.items():
            self._add((*place, shown(op)), rows, own, bound)
        for name, inner in node.modules.items():
            path, label = (*module, name), self._label((*module, name))
            while not inner.ops and len(inner.modules) == 1:  # nothing but one module: both are one tile
                ((name, inner),) = inner.modules.items()
                path = (*path, name)
                label = f"{label}.{self._label(path)}"
            self.add_module(inner, (*place, label), path, own)

    def _add(self, place: Path, rows: list[Mapping[str, Any]], parent: str, bound: str = "") -> str:
        """One tile, of an operator where it is said what bounds it; a module is as large as what it holds."""
        time = fsum(row["time_s"] for row in rows)
        tile = {"ids": str(len(self.all)), "parents": parent, "labels": place[-1], "values": time if bound else 0.0}
        tile["customdata"] = _hover(place, rows, time / self.total if self.total else None, bound)
        tile["colour"] = BOUND[bound] if bound else NEUTRAL
        self.all.append(tile)
        return tile["ids"]

    def _label(self, path: Path) -> str:
        n = self._layers.get(".".join(path[:-1])) if path[-1] == EVERY else None
        return shown(path[-1]) if n is None else f"{EVERY} × {n}"


def _hover(place: Path, rows: list[Mapping[str, Any]], share: float | None, bound: str) -> str:
    def of(*names: str) -> float:
        return fsum(row[name] for row in rows for name in names)

    modules = place[1:-1] if bound else place[1:]
    lines = [
        *([place[-1]] if bound else []),
        ".".join(modules) or place[0],
        f"{seconds(of('time_s'))}, {percent(share)} of all operators",
        f"{count(of('count'))} calls{f', bound by {bound}' if bound else ''}",
        f"{flop(of('matrix_flops', 'vector_flops'))}, {bytes_(of('read_bytes', 'write_bytes'))} of memory traffic",
    ]
    return "<br>".join([*lines, *([f"{bytes_(of('comm_bytes'))} sent"] if of("comm_bytes") else [])])


def _layers(phase: Mapping[str, Any]) -> dict[str, int]:
    """Stack of layers, with the component or part in front → how many layers the timeline shows of it."""
    drawn = phase.get("timeline", {})
    stacks: dict[str, set[str]] = defaultdict(set)
    for run in drawn.get("runs", ()):
        stack, _, index = run["name"].rpartition(".")
        if index.isdigit():
            stacks[stack].add(index)
    for op in (op for kind in drawn.get("kinds", ()) for op in kind["ops"] if op.get("layer") is not None):
        stacks[op["module"].partition(f".{EVERY}")[0]].add(str(op["layer"]))
    within = {drawn["shown"]["component"]} if stacks else set()
    within |= {op["part"] for op in phase["ops"] if "part" in op}
    return {".".join(filter(None, (name, stack))): len(found) for stack, found in stacks.items() for name in within}


def _said(phase: str, tiles: Tiles) -> str:
    most = max(tiles.all, key=lambda tile: tile["values"])
    if not most["values"]:
        return f"No operator of {phase} takes time."
    op, where = map(unescape, most["customdata"].split("<br>")[:2])
    total, share = seconds(tiles.total), percent(most["values"] / tiles.total)
    return f"Of the {total} that all operators of {phase} take, {op} in {where} takes most: {share}."
