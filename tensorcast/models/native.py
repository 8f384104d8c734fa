"""What the installed transformers knows, read from its files: importing it costs seconds and pulls in torch."""

from __future__ import annotations

import ast
from collections.abc import Iterator
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


def _lineage(path: Path, name: str) -> Iterator[ast.ClassDef]:
    """Class `name` in `path` and its bases in the same file, as syntax."""
    classes = {node.name: node for node in ast.parse(path.read_text("utf-8")).body if isinstance(node, ast.ClassDef)}
    waiting = [name]
    while waiting:
        node = classes.get(waiting.pop(0))
        if node is not None:
            yield node
            waiting += [base.id for base in node.bases if isinstance(base, ast.Name)]


def _class_fields(path: Path, name: str) -> set[str]:
    """Annotated fields of class `name` in `path`, those of its bases in the same file, and its `attribute_map`."""
    found: set[str] = set()
    for node in _lineage(path, name):
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


@cache
def classes_of(table: str) -> dict[str, tuple[str, ...]]:
    """One of transformers' tables of model classes (CAUSAL_LM, MASKED_LM; "" for base models): model type → classes.

    Empty for a table that it has not, or puts together from others when it is imported.
    """
    text = (library_root() / "models" / "auto" / "modeling_auto.py").read_text("utf-8")
    name = f"MODEL_FOR_{table}_MAPPING_NAMES" if table else "MODEL_MAPPING_NAMES"
    _, _, rest = text.partition(f"\n{name} = OrderedDict(\n")
    try:
        rows = dict(ast.literal_eval(rest.partition("\n)\n")[0].strip()))
    except (SyntaxError, ValueError):
        return {}
    return {kind: (own,) if isinstance(own, str) else tuple(own) for kind, own in rows.items()}


@cache
def forward_arguments(model_type: str, class_name: str) -> tuple[str, ...]:
    """What forward of a class takes that the files of `model_type` define, itself left out; () where it is unknown."""
    for path in sorted((library_root() / "models" / module_of(model_type)).glob("modeling_*.py")):
        for node in _lineage(path, class_name):
            own = next((f for f in node.body if isinstance(f, ast.FunctionDef) and f.name == "forward"), None)
            if own is not None:
                taken = (*own.args.posonlyargs, *own.args.args, *own.args.kwonlyargs)
                return tuple(a.arg for a in taken if a.arg != "self")
    return ()


@cache
def field_default(model_type: str, field: str) -> object:
    """The plain value that the config class of `model_type` gives a field nobody states; None where there is none."""
    folder = library_root() / "models" / module_of(model_type)
    for path in sorted(folder.glob("configuration_*.py")) if is_native(model_type) else ():
        for node in _lineage(path, config_class_names()[model_type]):
            for line in node.body:
                target = getattr(line, "target", None) or next(iter(getattr(line, "targets", ())), None)
                if getattr(target, "id", "") == field and isinstance(getattr(line, "value", None), ast.Constant):
                    return line.value.value
    return None
