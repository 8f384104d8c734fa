"""A recorded graph as JSON, and back.

    {"name": "Qwen2Model", "config": {…}, "edits": ["max_positions"], "shapes": {…},
     "graph": [{"type": "Linear", "nodes": {"input": {"name": "x", "type": "data"}, …}}, …]}

A node is {"name", "type"} for data and weights, {"name": "", "type": "constant.int" or "constant.float", "value"} for a
number, {"name", "type": "config.int" or "config.float"} for a field of the configuration. `config` is complete; `edits`
are the fields that `build` set itself. All but "graph" may be left out, and so may the object around its list.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tensorcast.errors import CustomModelError, near_names
from tensorcast.graph.operators import OPERATORS, OTHER_NAMES
from tensorcast.graph.recording import ComputeGraph, Names

FIELDS = ("name", "config", "edits", "shapes", "graph")


class WrittenGraph(ComputeGraph):
    """A graph that was read from JSON: building it replays what was written."""

    content: Mapping[str, Any] = {}
    where: str = ""

    @property
    def fields_read(self) -> set[str]:
        """Fields of the configuration that nodes name."""
        nodes = (node for entry in self.content["graph"] for node in entry["nodes"].values())
        return {node["name"] for node in nodes if str(node.get("type")).startswith("config.")}

    def build(self) -> None:
        """Add the operators, with the changes that were made to the configuration."""
        own = self.content.get("config", {})
        for field in own:
            if field in self.edits or field not in self.config:
                self.config[field] = own[field]
        replay(self, self.content["graph"], self.where)


def written(graph: ComputeGraph) -> str:
    """JSON text of a recorded graph, with the shapes that it declares itself."""
    content = {
        "name": type(graph).__name__,
        "config": graph.config,
        "edits": list(graph.edits),
        "shapes": {name: list(shape) for name, shape in graph.shapes.items()},
        "graph": graph.graph,
    }
    return json.dumps({k: v for k, v in content.items() if v}, indent=1, ensure_ascii=False) + "\n"


def read(path: Path) -> ComputeGraph:
    """The graph in a file; CustomModelError when it has none."""
    from tensorcast.custom.loading import shown

    where = shown(path)
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as reason:
        raise CustomModelError(f"{where}: no readable JSON: {' '.join(str(reason).split())}") from None
    if isinstance(content, list):
        content = {"graph": content}
    if not isinstance(content, dict) or not isinstance(content.get("graph"), list):
        raise CustomModelError(f'{where}: no graph; write {{"graph": [{{"type": …, "nodes": …}}, …]}}')
    for field, kind in (("config", dict), ("edits", list), ("shapes", dict), ("name", str)):
        if not isinstance(content.get(field, kind()), kind):
            raise CustomModelError(f"{where}: {field} is no {'object' if kind is dict else kind.__name__}")
    unknown = [f for f in content if f not in (*FIELDS, "tokenizer_config", "generation_config")]
    if unknown:
        raise CustomModelError(f"{where}: unknown field {unknown[0]!r}; the fields are {', '.join(FIELDS)}")
    name = content.get("name", "")
    graph = type(name if name.isidentifier() else "WrittenGraph", (WrittenGraph,), {})()
    graph.content, graph.where, graph.edits = content, where, tuple(content.get("edits", ()))
    graph.config = dict(content.get("config", {}))
    graph.shapes = content.get("shapes", {})
    return graph


def replay(graph: ComputeGraph, entries: Sequence[Any], where: str) -> None:
    """Call the operators that `entries` name; nodes are dicts, or objects with `to_json`."""
    for number, entry in enumerate(entries, 1):
        place = f"{where}: operator {number}" if where else f"operator {number}"
        if not isinstance(entry, Mapping) or not isinstance(entry.get("nodes"), Mapping):
            raise CustomModelError(f'{place}: write {{"type": …, "nodes": {{…}}}}')
        name = OTHER_NAMES.get(entry.get("type"), entry.get("type"))
        if name not in OPERATORS:
            near = near_names(str(name), OPERATORS, 1)
            hint = f"; nearest: {near[0]}" if near else ""
            raise CustomModelError(f"{place}: no operator {name!r}{hint}; the operators are {', '.join(OPERATORS)}")
        arguments = {key: _argument(node, f"{place} ({name}): {key}") for key, node in entry["nodes"].items()}
        graph._record().add(OPERATORS[name], (), arguments, where, graph.config)


def _argument(node: Any, place: str) -> Any:
    """What a call would have been given for a node."""
    if not isinstance(node, Mapping) and hasattr(node, "to_json"):
        node = node.to_json()
    kind = node.get("type") if isinstance(node, Mapping) else None
    if kind in ("data", "weight"):
        return Names(kind, str(node.get("name", "")))
    if kind in ("constant.int", "constant.float"):
        return node.get("value", 0)  # writers that leave a zero out
    if kind in ("config.int", "config.float"):
        return {"name": node.get("name"), "type": kind}
    kinds = "data, weight, constant.int, constant.float, config.int, config.float"
    raise CustomModelError(f"{place} is {node!r:.80}; a node has a name and a type: {kinds}")
