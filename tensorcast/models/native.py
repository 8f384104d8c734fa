"""What the installed transformers knows, read from its files: importing it costs seconds and pulls in torch."""

from __future__ import annotations

import ast
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from tensorcast.errors import ModelError


@cache
def library_root() -> Path:
    """The folder transformers is installed in; `ModelError` when it is not installed."""
    spec = find_spec("transformers")
    if spec is None or not spec.submodule_search_locations:
        raise ModelError("transformers is not installed; install it with `pip install transformers`")
    return Path(next(iter(spec.submodule_search_locations)))


@cache
def config_class_names() -> dict[str, str]:
    """Every model type of the installed transformers, with the name of its config class."""
    return _tables()["CONFIG_MAPPING_NAMES"]


def is_native(model_type: str) -> bool:
    """Whether the installed transformers has `model_type`."""
    return model_type in config_class_names()


def module_of(model_type: str) -> str:
    """The folder below `transformers.models` that holds `model_type`."""
    special = _tables()["SPECIAL_MODEL_TYPE_TO_MODULE_NAME"]
    return special.get(model_type, model_type.replace("-", "_"))


@cache
def config_fields(model_type: str) -> frozenset[str]:
    """The fields of a model type's config class, without importing it; empty for a type that is not native."""
    wanted = config_class_names().get(model_type)
    if wanted is None:
        return frozenset()
    common = _class_fields(library_root() / "configuration_utils.py", "PreTrainedConfig")
    folder = library_root() / "models" / module_of(model_type)
    own = (_class_fields(path, wanted) for path in sorted(folder.glob("configuration_*.py")))
    return frozenset(common).union(*own)


def _class_fields(path: Path, name: str) -> set[str]:
    """Annotated fields of class `name` in `path`, those of its bases in the same file, and its `attribute_map`."""
    classes = {node.name: node for node in ast.parse(path.read_text("utf-8")).body if isinstance(node, ast.ClassDef)}
    found: set[str] = set()
    waiting = [name]
    while waiting:
        node = classes.get(waiting.pop())
        if node is None:
            continue
        waiting += [base.id for base in node.bases if isinstance(base, ast.Name)]
        for line in node.body:
            if isinstance(line, ast.AnnAssign) and "ClassVar" not in ast.unparse(line.annotation):
                found.add(line.target.id)
            elif isinstance(line, ast.Assign) and getattr(line.targets[0], "id", "") == "attribute_map":
                found.update(ast.literal_eval(line.value))
    return {field for field in found if not field.startswith("_")}


@cache
def _tables() -> dict[str, dict[str, str]]:
    path = library_root() / "models" / "auto" / "auto_mappings.py"
    tables = {}
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) and node.value.args:
            tables[node.targets[0].id] = dict(ast.literal_eval(node.value.args[0]))
    return tables
