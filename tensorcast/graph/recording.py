"""Recording a graph: `build()` calls operators, and each call is checked and written down as plain data."""

from __future__ import annotations

import copy
import inspect
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from tensorcast.errors import CustomModelError, near_names
from tensorcast.graph.operators import OPERATORS, Op, Parameter, Signature

INPUTS = ("inputIds", "positionIds", "attentionMask", "sin", "cos", "atype", "seqLens")
"""What every graph may read; `pastKey.N` and `pastValue.N` are the cache of layer N."""
CACHES = ("pastKey.", "pastValue.")
POSITIONS = ("max_positions", "max_position_embeddings", "seq_length", "n_positions")
"""Fields that bound the context, the first that is set counts."""


class Names:
    """A name, or the beginning of one: `weight["model.layers."][3][".mlp.up_proj.weight"]`."""

    def __init__(self, kind: str, text: str = "") -> None:
        self.kind, self.text = kind, text

    def __getitem__(self, part: Any) -> Names:
        return Names(self.kind, f"{self.text}{part}")

    def __repr__(self) -> str:
        return f"{self.kind}[{self.text!r}]"

    def to_json(self) -> dict[str, Any]:
        return {"name": self.text, "type": self.kind}


class ComputeGraph:
    """Base of a model described by operators; subclasses override `build`.

    Inside `build`, `weight[name]` is a parameter by its name in the checkpoint, `data[name]` an input or a result and
    `config` the model's config.json, which `build` may change. Operators return nothing, they add to `graph`, a list of
    {"type", "nodes"}. `shapes` may give shapes of weights, by name or pattern: {"*.q_proj.weight": (896, 896)}.
    `config` may be set on the class: it is then used where no model folder is named.
    """

    weight: ClassVar[Names] = Names("weight")
    data: ClassVar[Names] = Names("data")
    config: dict[str, Any]
    shapes: Mapping[str, tuple[int, ...]] = {}
    edits: tuple[str, ...] = ()  # fields of the configuration that `build` set
    _recording: Recording | None = None

    def __new__(cls, *args: Any, **kwargs: Any) -> ComputeGraph:
        made = super().__new__(cls)
        made.config = copy.deepcopy(getattr(cls, "config", {}))
        return made

    def build(self) -> None:
        """Describe the model; must be overridden."""
        raise CustomModelError(f"{type(self).__name__} has no build(); describe the model there")

    @property
    def graph(self) -> list[dict[str, Any]]:
        """The operators recorded so far, as {"type", "nodes"}."""
        return self._record().nodes

    def _record(self) -> Recording:
        if self._recording is None:
            self._recording = Recording()
        return self._recording

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or not name[0].isupper():
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        raise _unknown_operator(name)

    @classmethod
    def from_json(cls, path: str | Path) -> ComputeGraph:
        """The graph that `to_json` wrote to a file."""
        from tensorcast.graph.text import read

        return read(Path(path))

    def to_json(self) -> str:
        """The recorded graph as JSON text."""
        from tensorcast.graph.text import written

        return written(self)


class Recording:
    """The operators of one build, checked one by one, and what has been written so far."""

    def __init__(self) -> None:
        self.nodes: list[dict[str, Any]] = []
        self.ops: list[Op] = []
        self._written: dict[str, None] = {}

    def add(self, signature: Signature, args: tuple, kwargs: Mapping[str, Any], where: str, config: Mapping) -> None:
        values = {}
        given = _located(where, signature.bind, args, kwargs)
        named = Op(len(self.ops) + 1, signature, {}, where)
        for parameter in signature.parameters:
            values[parameter.name] = _value(named, parameter, given[parameter.name], config)
        op = Op(named.index, signature, values, where)
        for name in op.reads:
            self._check_read(op, name)
        for name in op.writes:
            if is_input(name) and name not in op.reads:
                raise op.fault(f"writes {name!r}, which is an input of the model; give the result another name")
        self._written.update(dict.fromkeys(op.writes))
        self.ops.append(op)
        nodes = {parameter.name: _node(parameter, given[parameter.name]) for parameter in signature.parameters}
        self.nodes.append({"type": op.type, "nodes": nodes})

    def _check_read(self, op: Op, name: str) -> None:
        if name not in self._written and not is_input(name):
            near = near_names(name, (*self._written, *INPUTS), 1)
            hint = f"; nearest: {near[0]!r}" if near else ""
            raise op.fault(f"reads {name!r}, which no operator before it writes{hint}")


def is_input(name: str) -> bool:
    return name in INPUTS or any(name.startswith(c) and name[len(c) :].isdecimal() for c in CACHES)


def is_graph(value: Any) -> bool:
    """Whether `value` is a ComputeGraph class or object, or one of its make: `build()` and `graph`."""
    named = value if isinstance(value, type) else type(value)
    if issubclass(named, ComputeGraph):
        return True
    alike = any(base.__name__ == "ComputeGraph" for base in named.__mro__)
    return callable(getattr(named, "build", None)) and (alike or hasattr(value, "graph"))


class _Fields(dict):
    """A configuration while `build` reads it: a field it lacks is an error that says where it should come from."""

    def __missing__(self, field: str) -> Any:
        near = near_names(field, self, 1)
        hint = f"nearest: {near[0]!r}" if near else "give the folder or name of a model that has it with --model"
        raise CustomModelError(f"the configuration has no {field!r}; {hint}")


def record(value: Any, config: Mapping[str, Any], where: str = "") -> ComputeGraph:
    """A recorded graph of `value`, a class or object, built with a copy of `config`; `value` stays as it is.

    CustomModelError for a wrong call, or with file and line of whatever else goes wrong in `build`. `where`: the file.
    """
    from tensorcast.custom.loading import guarded

    named = value if isinstance(value, type) else type(value)
    source = inspect.getsourcefile(named) if named.__module__ in sys.modules else None
    with guarded(Path(source) if source else None, "", named.__name__):
        made = value() if isinstance(value, type) else copy.copy(value)
        made.config = _Fields(copy.deepcopy(dict(config)))
        if not isinstance(made, ComputeGraph):
            made = _adopted(made)
        else:
            made.__dict__.pop("_recording", None)
            made.build()
        if not isinstance(made.config, dict):
            raise CustomModelError(f"{named.__name__}: config is {type(made.config).__name__} after build, not a dict")
        changed = [field for field in made.config if field not in config or made.config[field] != config[field]]
        made.config = dict(made.config)
        made.edits = tuple(dict.fromkeys((*made.edits, *changed)))
        if not made._record().ops:
            raise CustomModelError(f"{named.__name__}: build() calls no operator")
    return made


def _adopted(made: Any) -> ComputeGraph:
    """Our recording of an object of the same make: what its `build` left in its `graph`."""
    from tensorcast.graph.text import replay

    made.graph = []
    made.build()
    graph = type(type(made).__name__, (ComputeGraph,), {"shapes": getattr(made, "shapes", {})})()
    graph.config = made.config
    replay(graph, made.graph, "")
    return graph


def position_limit(config: Mapping[str, Any], name: str) -> int:
    """Tokens of a context at most; CustomModelError when the configuration does not say."""
    for field in POSITIONS:
        value = config.get(field)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise CustomModelError(f"{name}: config[{field!r}] is {value!r}; give a whole number of tokens")
        return value
    known = ", ".join(POSITIONS[1:])
    raise CustomModelError(f"{name}: how long a context may be is not known (no {known}); set config['max_positions']")


def _value(op: Op, parameter: Parameter, given: Any, config: Mapping[str, Any]) -> Any:
    if not parameter.is_number:
        wanted = "weight" if parameter.kind in ("weight", "bias") else "data"
        if not isinstance(given, Names) or given.kind != wanted or not given.text:
            raise op.fault(f"{parameter.name} is {given!r}; write {wanted}[name]")
        if parameter.kind == "cache" and not (given.text.startswith(CACHES) and is_input(given.text)):
            raise op.fault(f"{parameter.name} is {given!r}; write data['pastKey.'][i] and data['pastValue.'][i]")
        return given.text
    number = config_value(op, given, config) if isinstance(given, Mapping) else given
    if isinstance(number, bool) or not isinstance(number, (int, float)):
        raise op.fault(f"{parameter.name} is {number!r}, not a number")
    if parameter.kind == "int" and int(number) != number:
        raise op.fault(f"{parameter.name} is {number!r}, not a whole number")
    return int(number) if parameter.kind == "int" else float(number)


def config_value(op: Op, node: Mapping[str, Any], config: Mapping[str, Any]) -> Any:
    """The field of the configuration that a config.int or config.float node names."""
    field = node.get("name")
    if field not in config:
        near = near_names(str(field), config, 1)
        raise op.fault(f"the configuration has no {field!r}" + (f"; nearest: {near[0]!r}" if near else ""))
    return config[field]


def _node(parameter: Parameter, given: Any) -> dict[str, Any]:
    if isinstance(given, Names):
        return given.to_json()
    if isinstance(given, Mapping):
        return dict(given)
    value = int(given) if parameter.kind == "int" else float(given)
    return {"name": "", "type": f"constant.{parameter.kind}", "value": value}


def _located(where: str, function, *args):
    try:
        return function(*args)
    except CustomModelError as fault:
        raise CustomModelError(f"{where}: {fault}" if where else str(fault)) from None


def _unknown_operator(name: str) -> CustomModelError:
    near = near_names(name, OPERATORS, 1)
    hint = f"; nearest: {near[0]}" if near else ""
    return CustomModelError(f"no operator {name!r}{hint}; the operators are {', '.join(sorted(OPERATORS))}")


def _calling_line() -> str:
    from tensorcast.custom.loading import shown

    frame = sys._getframe(2)
    return f"{shown(Path(frame.f_code.co_filename))}:{frame.f_lineno}"


def _operator(signature: Signature):
    def call(self: ComputeGraph, *args: Any, **kwargs: Any) -> None:
        self._record().add(signature, args, kwargs, _calling_line(), self.config)

    call.__name__ = call.__qualname__ = signature.name
    call.__doc__ = f"Add {signature} to the graph."
    return call


for _signature in OPERATORS.values():
    setattr(ComputeGraph, _signature.name, _operator(_signature))
