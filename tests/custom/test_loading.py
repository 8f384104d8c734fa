"""What is wrong with a user's file is said in one line, with file and line, and nothing of it stays registered."""

from __future__ import annotations

import io
import sys

import pytest

from tensorcast.catalog import snapshot
from tensorcast.custom import loading
from tensorcast.custom.sources import Sources
from tensorcast.errors import CustomModelError, DuplicateError, InputError, KernelError
from tensorcast.pipelines import PIPELINES

REGISTERS = 'import tensorcast as tc\n@tc.register_custom_model("mine")\ndef deploy(model):\n    pass\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = 1\nraise ValueError('two\\nlines')\n", "mine.py:2: ValueError: two lines"),
        ("x = 1\ndef f(:\n", "mine.py:2: invalid syntax"),
        ("x = '\0'\n", "mine.py"),
        ("\n\nimport nothing_of_this_name\n", "mine.py:3: ModuleNotFoundError: No module named 'nothing_of_this_name'"),
        ("name = input('model? ')\n", "mine.py:1: it waits for input; a model file must not prompt"),
        ("import sys\nsys.exit()\n", "mine.py:2: it ends the process (sys.exit)"),
        ("x = 1\n", "mine.py defines no __model__ and registers nothing"),
        ("x = 1\n__model__ = int\ndef __model__():\n    pass\n", "mine.py:3: __model__ is defined a second time"),
        ("import torch.nn as nn\n\n__model__ = [nn.Linear, nn.GRU]\n", "mine.py:3: __model__ names 2 models, not one"),
        (f"{REGISTERS}\nraise RuntimeError\n", "mine.py:6: RuntimeError"),
    ],
)
def test_what_is_wrong_is_said_with_its_line_and_nothing_stays(write, text: str, said: str) -> None:
    write("custom_model/mine.py", text)
    before = snapshot()
    with pytest.raises(CustomModelError) as caught:
        Sources.of().load()
    assert said in str(caught.value) and "--no-custom-dir" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert snapshot() == before
    Sources.of(folder=False).load()


def test_errors_of_ours_name_the_line_too(write) -> None:
    write("custom_model/mine.py", "import tensorcast as tc\n\ntc.KernelSpec('', 'rms_norm', lambda: None)\n")
    with pytest.raises(KernelError, match=r"^custom_model/mine\.py:3: kernel spec: name must be a non-empty string"):
        Sources.of().load()


def test_two_files_with_one_name_are_a_duplicate_and_the_first_stays_out_too(write) -> None:
    write("custom_model/a.py", REGISTERS)
    write("custom_model/b.py", REGISTERS)
    with pytest.raises(DuplicateError, match=r"custom_model/a\.py:2 and at custom_model/b\.py:2"):
        Sources.of().load()
    assert PIPELINES.match("mine") == "mine"  # a.py was whole


def test_the_line_of_a_package_is_that_of_its_inner_file(write) -> None:
    write("pkg/__init__.py", "from .inner import model\n")
    write("pkg/inner/__init__.py", "x = 1\n")
    write("pkg/inner/model.py", "def f():\n    raise OSError('broken')\n\n\nf()\n")
    with pytest.raises(CustomModelError, match=r"^pkg/inner/model\.py:2: OSError: broken$"):
        Sources.of("pkg").load()
    assert not [name for name in sys.modules if name.startswith("tensorcast_custom_pkg")]


def test_files_that_are_none(write) -> None:
    write("notes.txt", "")
    (write("folder/x.py", "").parent / "sub").mkdir()
    for name, said in (
        ("nothing.py", "nothing.py: no such file or folder"),
        ("notes.txt", "notes.txt: not a .py file, a package folder or a graph's .json"),
        ("folder", r"folder: a folder without __init__\.py; add one"),
        ("folder/y.py", r"folder/y\.py: no such file or folder; nearest: x\.py"),
    ):
        with pytest.raises(CustomModelError, match=said):
            Sources.of(name).load()
    with pytest.raises(InputError, match="a path or a list of paths"):
        Sources.of(7)


def test_dataclasses_with_future_annotations_work(write) -> None:
    write(
        "custom_model/mine.py",
        f"from __future__ import annotations\nfrom dataclasses import dataclass\n{REGISTERS}\n"
        "@dataclass\nclass Sizes:\n    hidden: int = 3\n",
    )
    Sources.of().load()
    assert PIPELINES.match("mine") == "mine"


def test_what_is_left_alone(write) -> None:
    for name in ("_helper.py", ".hidden.py", "test_mine.py", "notes.md", "empty/readme.md"):
        write(f"custom_model/{name}", "raise RuntimeError\n")
    Sources.of().load()


def test_a_file_runs_once_until_it_changes(write) -> None:
    counted = "import tensorcast as tc\nn = getattr(tc, 'ran', 0)\ntc.ran = n + 1\n"
    path = write("mine.py", counted + REGISTERS)
    import tensorcast as tc

    try:
        for _ in range(3):
            Sources.of(path).load()
        assert tc.ran == 1
        path.write_text(counted + "\n" + REGISTERS)
        loading.load(path)
        assert tc.ran == 2
    finally:
        del tc.ran


def test_what_a_file_prints_does_not_reach_stdout(write, run) -> None:
    write("custom_model/mine.py", f"print('hello')\n{REGISTERS}")
    code, out, err = run("list", "pipelines")
    assert code == 0 and out.splitlines()[1].split() == ["mine", "custom_model/mine.py:3"]
    assert err == "hello\n"


def test_stdin_is_untouched_afterwards(write, monkeypatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("text"))
    write("custom_model/mine.py", REGISTERS)
    Sources.of().load()
    assert sys.stdin.read() == "text"


def test_two_models_named_at_once(write) -> None:
    for name in ("a.py", "b.py"):
        write(name, "import torch.nn as nn\n__model__ = nn.Linear\n")
    with pytest.raises(CustomModelError, match=r"a\.py and b\.py both define __model__; give one of them"):
        Sources.of(["a.py", "b.py"]).load()


def test_the_variable_names_paths_too(write, monkeypatch) -> None:
    monkeypatch.setenv("TENSORCAST_CUSTOM", str(write("mine.py", REGISTERS)))
    Sources.of().load()
    assert PIPELINES.match("mine") == "mine"


def test_what_a_changed_file_displaced_comes_back(write) -> None:
    write("a.py", REGISTERS)
    path = write("b.py", REGISTERS.replace('"mine"', '"mine", replace=True'))
    Sources.of(["a.py", "b.py"]).load()
    assert [(e.origin, e.replaces) for e in PIPELINES.entries()] == [("b.py:2", "a.py:2")]
    path.write_text(REGISTERS.replace("mine", "other"))
    Sources.of(["a.py", "b.py"]).load()
    assert [(e.key, e.origin) for e in PIPELINES.entries()] == [("mine", "a.py:2"), ("other", "b.py:2")]
