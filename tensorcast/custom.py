"""User code: the files of ./custom_model are loaded before anything is resolved.

A file contributes by registering: `@register_custom_model("my_type")`, `register_model_profile(…)`, a kernel or an
operator. Files and packages load in alphabetical order, once a process; names that start with `_` are left alone.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from tensorcast.errors import CustomModelError, TensorcastError

FOLDER = "custom_model"
_loaded: dict[Path, float] = {}


def custom_files(root: Path | None = None) -> list[Path]:
    """The Python files and packages of `custom_model` in the current directory (or `root`)."""
    folder = (root or Path.cwd()) / FOLDER
    if not folder.is_dir():
        return []
    entries = [p for p in sorted(folder.iterdir()) if not p.name.startswith(("_", "."))]
    packages = [p / "__init__.py" for p in entries if (p / "__init__.py").is_file()]
    return sorted([p for p in entries if p.suffix == ".py"] + packages)


def load_custom_folder() -> None:
    """Load what is there and was not loaded yet; CustomModelError names file and line of what fails."""
    for path in custom_files():
        stamp = path.stat().st_mtime
        if _loaded.get(path) != stamp:
            _load(path)
            _loaded[path] = stamp


def stamps() -> list[tuple[str, float, int]]:
    """Name, time and size of every file of the folder, for cache keys."""
    out = []
    for path in custom_files():
        parts = sorted(path.parent.rglob("*.py")) if path.name == "__init__.py" else [path]
        out += [(str(p), p.stat().st_mtime, p.stat().st_size) for p in parts]
    return out


def _load(path: Path) -> None:
    name = f"tensorcast_custom_{path.parent.name if path.name == '__init__.py' else path.stem}"
    package = [str(path.parent)] if path.name == "__init__.py" else None
    spec = importlib.util.spec_from_file_location(name, path, submodule_search_locations=package)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # before execution: dataclasses and annotations look their module up
    try:
        spec.loader.exec_module(module)
    except TensorcastError:
        del sys.modules[name]
        raise
    except SyntaxError as fault:
        del sys.modules[name]
        raise CustomModelError(f"{_shown(path)}:{fault.lineno}: {fault.msg}; mend it or use --no-custom-dir") from fault
    except Exception as fault:
        del sys.modules[name]
        where, what = f"{_shown(path)}:{_line(fault, path)}", f"{type(fault).__name__}: {_one_line(fault)}"
        raise CustomModelError(f"{where}: {what}; mend it or use --no-custom-dir") from fault


def _line(fault: BaseException, path: Path) -> int:
    """The line of `path` that the fault went through last."""
    line, trace = 0, fault.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(path):
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


def _shown(path: Path) -> str:
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def _one_line(fault: BaseException) -> str:
    return " ".join(str(fault).split())
