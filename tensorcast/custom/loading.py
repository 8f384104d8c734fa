"""Import one file or package of a user: whole or not at all, with file and line of whatever is wrong with it."""

from __future__ import annotations

import ast
import importlib.util
import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from tensorcast.catalog import forget, restored_on_error, snapshot
from tensorcast.errors import CustomModelError, TensorcastError, near_names

MODEL = "__model__"
INPUTS = "__inputs__"
GRAPH_PACKAGES = ("ftllm",)
"""Packages whose ComputeGraph ours stands in for, one changed import later."""


@dataclass(frozen=True)
class Custom:
    """A model that is given as Python: what `__model__` names, or an object passed as `model=`.

    `value` is a ComputeGraph class, an nn.Module class or instance, a function of the configuration, a PreTrainedModel
    class, a configuration or its class. `origin` says where it was defined. `inputs(workload, config)` makes the
    arguments of one forward of a module that is no language model. `stamp` identifies the value in cache keys; "" =
    nothing does.
    """

    value: Any
    origin: str
    inputs: Any = None
    stamp: str = ""


@dataclass(frozen=True)
class Loaded:
    """What loading one path gave."""

    path: Path
    custom: Custom | None = None


_loaded: dict[Path, tuple[tuple, Loaded]] = {}


def module_file(path: Path) -> Path:
    """The file to execute or read for `path`; CustomModelError when there is none."""
    if path.is_dir():
        if not (path / "__init__.py").is_file():
            raise CustomModelError(f"{shown(path)}: a folder without __init__.py; add one that imports the model")
        return path / "__init__.py"
    if not path.exists():
        near = near_names(path.name, [p.name for p in path.parent.glob("*.py")], 1) if path.parent.is_dir() else []
        raise CustomModelError(f"{shown(path)}: no such file or folder" + (f"; nearest: {near[0]}" if near else ""))
    if path.suffix not in (".py", ".json"):
        raise CustomModelError(f"{shown(path)}: not a .py file, a package folder or a graph's .json")
    return path


def stamps_of(path: Path) -> tuple[tuple[str, int, int], ...]:
    """Name, time and size of every file that `path` executes."""
    file = module_file(path)
    files = sorted(file.parent.rglob("*.py")) if file.name == "__init__.py" else [file]
    return tuple((str(f), s.st_mtime_ns, s.st_size) for f in files for s in [f.stat()])


def load(path: Path, skip: str = "") -> Loaded:
    """Execute `path` once a process and content. `skip` ends messages: how to do without it.

    Whatever it registered is taken back when it fails. CustomModelError, or the TensorcastError it raised itself.
    """
    path = path.absolute()
    stamp = stamps_of(path)
    if path in _loaded and _loaded[path][0] == stamp:
        return _loaded[path][1]
    file = module_file(path)
    result = Loaded(path, _graph(file) if file.suffix == ".json" else _python(file, stamp, skip))
    _loaded[path] = stamp, result
    return result


def _graph(file: Path) -> Custom:
    from tensorcast.graph import ComputeGraph

    return Custom(ComputeGraph.from_json(file), shown(file), stamp=str(file))


def _python(file: Path, stamp: tuple, skip: str) -> Custom | None:
    root = file.parent if file.name == "__init__.py" else file
    _check_source(file, skip)
    before = snapshot(), _transformers_types()
    with guarded(root, skip):
        forget([name for name, *_ in stamp])  # a file that changed since it ran
        module = _execute(file, root)
        if hasattr(module, MODEL):
            value = getattr(module, MODEL)
            if isinstance(value, (list, tuple, set, dict)):
                line = next(iter(_lines_of(ast.parse(file.read_text("utf-8")), MODEL)), 1)
                raise CustomModelError(
                    f"{shown(file)}:{line}: {MODEL} names {len(value)} models, not one{_ending(skip)}"
                )
            return Custom(value, defined_at(value, file), getattr(module, INPUTS, None), f"{file}:{stamp}")
        if (snapshot(), _transformers_types()) == before:
            raise CustomModelError(f"{shown(root)} defines no {MODEL} and registers nothing{_ending(skip)}")
    return None


def _execute(file: Path, root: Path) -> ModuleType:
    """The module of `file`, registered in sys.modules before it runs: dataclasses and annotations look it up there."""
    name = f"tensorcast_custom_{root.stem}_{abs(hash(str(file))):x}"
    spec = importlib.util.spec_from_file_location(
        name, file, submodule_search_locations=[str(root)] if root.is_dir() else None
    )
    module = importlib.util.module_from_spec(spec)
    _drop(name)  # modules of a package that ran before: they may have changed, and must register again
    sys.modules[name] = module
    sys.path.insert(0, str(root.parent))
    try:
        spec.loader.exec_module(module)
    except BaseException:
        _drop(name)
        raise
    finally:
        sys.path.remove(str(root.parent))
    return module


def _drop(name: str) -> None:
    for known in [n for n in sys.modules if n == name or n.startswith(f"{name}.")]:
        del sys.modules[known]


@contextmanager
def guarded(root: Path | None, skip: str, package: str = "") -> Iterator[None]:
    """Run a user's code: nothing to read on stdin, catalogs as before if it fails, one line why. What it prints is
    shown on stderr, unless it fails: the line then stands alone.

    `root` is the file or folder whose line is named, `package` the name and version of what it belongs to.
    """
    stdin, sys.stdin = sys.stdin, io.StringIO("")
    printed = io.StringIO()
    try:
        with restored_on_error(), redirect_stdout(printed):
            yield
        sys.stderr.write(printed.getvalue())
    except TensorcastError as fault:
        where = _place(fault, root)
        if where and where.partition(":")[0] not in str(fault):
            fault.args = (f"{where}: {fault}",)
            if isinstance(fault, ImportError):
                fault.msg = fault.args[0]  # what str() gives
        raise
    except (Exception, SystemExit) as fault:
        where = _place(fault, root) or package
        raise CustomModelError(f"{where}: {_what(fault)}{_ending(skip, package)}") from fault
    finally:
        sys.stdin = stdin


def _check_source(file: Path, skip: str) -> None:
    """Two definitions of the model would leave the choice to their order."""
    try:
        lines = _lines_of(ast.parse(file.read_bytes()), MODEL)
    except (SyntaxError, ValueError):
        return  # said with its line when the file is executed
    if len(lines) > 1:
        where = f"{shown(file)}:{lines[1]}"
        raise CustomModelError(f"{where}: {MODEL} is defined a second time (first in line {lines[0]}){_ending(skip)}")


def _lines_of(tree: ast.Module, name: str) -> list[int]:
    """Lines where `name` is defined at the top level."""
    lines = []
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        names = {t.id for t in targets if isinstance(t, ast.Name)} | {getattr(node, "name", None)}
        if name in names:
            lines.append(node.lineno)
    return lines


def _place(fault: BaseException, root: Path | None) -> str:
    """file:line below `root` that the fault went through last; for a syntax error, the line that has it."""
    if root is None:
        return ""
    if isinstance(fault, SyntaxError) and fault.filename and _below(fault.filename, root):
        return f"{shown(Path(fault.filename))}:{fault.lineno}"
    place, trace = shown(root), fault.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if _below(file, root):
            place = f"{shown(Path(file))}:{trace.tb_lineno}"
        trace = trace.tb_next
    return place


def _below(file: str, root: Path) -> bool:
    return Path(file) == root or root in Path(file).parents


def _what(fault: BaseException) -> str:
    if isinstance(fault, SyntaxError):
        return str(fault.msg)
    if isinstance(fault, ModuleNotFoundError) and (fault.name or "").partition(".")[0] in GRAPH_PACKAGES:
        return f"{fault.name} is not installed; write `from tensorcast import ComputeGraph` in place of this import"
    if isinstance(fault, EOFError):
        return "it waits for input; a model file must not prompt"
    if isinstance(fault, SystemExit):
        return "it ends the process (sys.exit); a model file must only define and register"
    text = " ".join(str(fault).split())[:300]
    return f"{type(fault).__name__}: {text}" if text else type(fault).__name__


def _ending(skip: str, package: str = "") -> str:
    return f"; mend {package or 'it'} or use {skip}" if skip else ""


def _transformers_types() -> frozenset[str]:
    """Model types registered with transformers' AutoConfig: a contribution as well."""
    auto = sys.modules.get("transformers.models.auto.configuration_auto")
    return frozenset(auto.CONFIG_MAPPING._extra_content) if auto is not None else frozenset()


def defined_at(value: Any, file: Path | None = None) -> str:
    """`MyNet from my.py:12`: name, file and line of a class, a function or an object's class."""
    import inspect

    named = value if inspect.isclass(value) or inspect.isfunction(value) else type(value)
    try:
        source, line = Path(inspect.getsourcefile(named)), inspect.getsourcelines(named)[1]
        return f"{named.__name__} from {shown(source)}:{line}"
    except (OSError, TypeError):
        return f"{named.__name__} from {shown(file)}" if file is not None else named.__name__


def shown(path: Path) -> str:
    """`path`, relative to the current directory where it lies below it."""
    try:
        return str(path.absolute().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
