"""A local folder's own model code, imported only when the user said `--trust-remote-code`."""

from __future__ import annotations

from tensorcast.errors import ModelError
from tensorcast.models.check import read_json
from tensorcast.models.reference import ModelSource

PREFERRED = ("AutoModelForCausalLM", "AutoModelForImageTextToText", "AutoModel")


def load_classes(source: ModelSource, described: dict) -> tuple[object, type, str]:
    """The config object, the model class and its origin, from the Python files `auto_map` names in `source.folder`."""
    if source.folder is None:
        raise ModelError(f"{source.name}: remote code is only run from a local folder; download it and give its path")
    named = read_json(source.folder / "config.json").get("auto_map") or {}
    auto = next((key for key in (*PREFERRED, *named) if key in named and key != "AutoConfig"), None)
    if "AutoConfig" not in named or auto is None:
        raise ModelError(f"{source.folder}: auto_map must name AutoConfig and a model class, it names {sorted(named)}")
    config_class, model_class = (_load(source, named[key]) for key in ("AutoConfig", auto))
    expected = getattr(model_class, "config_class", None)
    if expected is not None and expected.__name__ != config_class.__name__:
        what = f"{model_class.__name__}.config_class is {expected.__name__}, but auto_map names {config_class.__name__}"
        raise ModelError(f"{source.folder}: {what}; make the two agree")
    config = config_class.from_dict(dict(described))
    return config, model_class, f"remote code {source.folder} ({model_class.__name__})"


def _load(source: ModelSource, reference: str) -> type:
    from transformers.dynamic_module_utils import get_class_from_dynamic_module

    if "--" in reference:
        raise ModelError(f"{source.folder}: auto_map names another repository ({reference}); only local files are run")
    try:
        return get_class_from_dynamic_module(reference, str(source.folder), local_files_only=True)
    except Exception as reason:
        text = " ".join(str(reason).split())[:300]
        what = f"{reference} cannot be imported: {type(reason).__name__}: {text}"
        raise ModelError(f"{source.folder}: {what}") from reason
