"""What a model profile names, found in the model: classes, parts of a module, paths. Nothing found is an error."""

from __future__ import annotations

import ast
import inspect
import re
import sys
import textwrap
from collections.abc import Callable
from types import MethodType
from typing import Any

from torch import nn

from tensorcast.errors import TransformationError, near_names
from tensorcast.layers.patching import GlobalPatch


def modules_named(model, class_name: str) -> list[tuple[str, nn.Module]]:
    """(path, module) of every module of a class, bare or dotted; TransformationError with the classes seen if none."""
    found = model.modules_of(class_name)
    if found:
        return found
    seen = {type(m).__name__ for m in model.module.modules() if not type(m).__module__.startswith("torch.")}
    near = near_names(class_name.rpartition(".")[2], seen)
    classes = ", ".join([*near, *sorted(seen - {*near})])
    raise fault(model, f"no module of class {class_name}; classes seen: {classes}")


def module_at(model, path: str, field: str) -> nn.Module:
    """The module at a path that the profile names; TransformationError with the nearest paths if there is none."""
    try:
        return model.module.get_submodule(path)
    except AttributeError:
        near = near_names(path, [name for name, _ in model.module.named_modules() if name])
        raise fault(model, f"{field} {path!r} is no module; nearest: {', '.join(near) or 'none'}") from None


def config_value(model, config: Any, path: tuple[str, ...], field: str) -> Any:
    """What the configuration has at a path; TransformationError with the nearest keys if it has nothing."""
    value, asked = config, ".".join(path)
    for key in path:
        entries = value if isinstance(value, dict) else _entries(value)
        found = entries.get(key) if isinstance(value, dict) else getattr(value, key, None)
        if found is None:
            near = near_names(key, entries, 3)
            hint = f"; nearest: {', '.join(near)}" if near else ""
            raise fault(model, f"{field} {asked!r}: the configuration has no {key!r}{hint}")
        value = found
    return value


def _entries(config: Any) -> dict:
    return {**getattr(config, "attribute_map", {}), **getattr(config, "__dict__", {})}


def returned_values(model, code: type) -> int:
    """How many values the class's forward returns, read from its source; 1 where there is none to read."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(code.forward)))
    except (OSError, TypeError, SyntaxError):
        return 1
    found = [node.value for node in ast.walk(tree) if isinstance(node, ast.Return)]
    sizes = {len(value.elts) if isinstance(value, ast.Tuple) else 1 for value in found} or {1}
    if len(sizes) > 1 or max(sizes) > 3:
        raise fault(model, f"{code.__name__} returns {' or '.join(map(str, sorted(sizes)))} values: not known which")
    return sizes.pop()


class Parts:
    """The parts of one module by the names a profile gives them; remembers which were asked for."""

    def __init__(self, model, path: str, module: nn.Module, names: Any, field: str) -> None:
        self._model, self._path, self._module, self.names, self._field = model, path, module, names, field
        self.taken: set[str] = set()

    def __call__(
        self, field: str, *, elsewhere: Callable[[str], Any] = lambda name: None, alternative: bool = False
    ) -> Any:
        """The part called `field`; None where an optional one is absent and nothing of the module looks like it.

        `elsewhere(name)` is asked when the module has none. `alternative`: others may stand in for it, whatever they
        are called.
        """
        name = getattr(self.names, field)
        if name is None:
            return None
        value = getattr(self._module, name, None)
        if value is not None:
            self.taken.add(name)
            return value
        value = elsewhere(name)
        if value is not None:
            return value
        alike = [] if alternative else near_names(name, [c for c in self._module._modules if c not in self.taken], 1)
        renamed = name != getattr(type(self.names)(), field)
        if alike or renamed or field in self.names.REQUIRED:
            self._missing(field, name, alike)
        return None

    def _missing(self, field: str, name: str, near: list[str]) -> None:
        attributes = [n for n in vars(self._module) if not n.startswith("_") and n != "training"]
        has = ", ".join(self._module._modules) or "no parts"
        near = near or near_names(name, {*attributes, *self._module._modules} - self.taken, 1)
        hint = f"; {self._field}={{{field!r}: {near[0]!r}}} would name it" if near else ""
        kind = type(self._module).__name__
        raise fault(self._model, f"{self._path} ({kind}) has no {name!r} for {field}; it has {has}{hint}")

    def left(self) -> list[str]:
        """Children with parameters that nobody asked for."""
        return [
            name
            for name, child in self._module.named_children()
            if name not in self.taken and any(True for _ in child.parameters())
        ]


def install_forwards(model) -> int:
    """Put the profile's own code in the place of methods and functions of the model's. Returns how many modules.

    TransformationError for a class or method that the model has not got.
    """
    count = 0
    for name, function in model.profile.forwards.items():
        class_name, _, method = name.rpartition(".")
        if not class_name:
            model.patches.append(GlobalPatch(re.compile(f"^{method}$"), lambda original, where, new=function: new))
            continue
        for _, module in () if _unused(model, class_name) else modules_named(model, class_name):
            if not callable(getattr(module, method, None)):
                raise fault(model, f"forwards {name!r}: {class_name} has no method {method!r}")
            module.__dict__[method] = MethodType(function, module)
            count += 1
    return count


def _unused(model, class_name: str) -> bool:
    """Whether the model's code has that class and this configuration makes none, as of a layer of another kind."""
    return not model.modules_of(class_name) and hasattr(sys.modules.get(type(model.module).__module__), class_name)


def fault(model, text: str) -> TransformationError:
    """An error of the model's profile."""
    return TransformationError(f"profile {model.profile.model_type!r}: {text}")
