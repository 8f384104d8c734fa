"""Installed packages: found by their entry point, shown with their version, left out by name."""

from __future__ import annotations

import sys

import pytest

from tensorcast.custom import plugins
from tensorcast.custom.sources import Sources
from tensorcast.errors import CustomModelError, InputError
from tensorcast.pipelines import PIPELINES

FUNCTION = """
import tensorcast as tc


def register():
    @tc.register_custom_model("from_a_package")
    def deploy(model):
        pass
"""


@pytest.fixture
def package(write, monkeypatch, tmp_path):
    """Install `my_pkg` 0.1 with the entry point `my`, as pip leaves it in site-packages."""

    def package(code: str, target: str = "my_pkg.plugin:register") -> None:
        write("site/my_pkg/__init__.py", "")
        write("site/my_pkg/plugin.py", code)
        write("site/my_pkg-0.1.dist-info/METADATA", "Metadata-Version: 2.1\nName: my_pkg\nVersion: 0.1\n")
        write("site/my_pkg-0.1.dist-info/entry_points.txt", f"[tensorcast.plugins]\nmy = {target}\n")
        monkeypatch.syspath_prepend(str(tmp_path / "site"))
        plugins.found.cache_clear()

    yield package
    for name in [n for n in sys.modules if n.partition(".")[0] == "my_pkg"]:
        del sys.modules[name]


def test_a4_14_a_plugin_is_found_and_shown_with_its_version(package, run) -> None:
    package(FUNCTION)
    code, out, err = run("list", "pipelines")
    assert (code, err) == (0, "")
    assert [line.split("  ")[0] for line in out.splitlines()[1:]] == ["from_a_package"]
    assert "my_pkg 0.1" in out


def test_a4_14_a_module_to_import_is_enough(package, run) -> None:
    package('import tensorcast as tc\ntc.register_custom_model("imported")(lambda model: None)\n', "my_pkg.plugin")
    Sources.of().load()
    assert [e.origin for e in PIPELINES.entries() if e.key == "imported"] == ["my_pkg 0.1"]


def test_a4_14_a_broken_plugin_is_named_and_can_be_left_out(package, run) -> None:
    package("\nraise ImportError('no such thing')\n")
    code, out, err = run("list", "pipelines")
    assert code == 2 and out == ""
    assert err == "error: site/my_pkg/plugin.py:2: ImportError: no such thing; mend my_pkg 0.1 or use --no-plugin my\n"
    assert run("list", "pipelines", "--no-plugin", "my")[:2] == (0, "no pipelines\n")


def test_a4_14_an_entry_point_that_names_nothing(package) -> None:
    package("", "my_pkg.absent")
    with pytest.raises(CustomModelError, match=r"named 'my_pkg\.absent'; mend my_pkg 0\.1 or use --no-plugin my$"):
        Sources.of().load()


def test_a_plugin_that_is_not_there_cannot_be_left_out(package) -> None:
    package(FUNCTION)
    with pytest.raises(InputError, match=r"--no-plugin mx: no such plugin; nearest: my"):
        Sources.of(no_plugin=["mx"])


def test_stamps_change_with_the_plugins_files(package, write) -> None:
    package(FUNCTION)
    before = Sources.of().stamps()
    assert before == Sources.of().stamps() != Sources.of(no_plugin=["my"]).stamps()
    write("site/my_pkg/plugin.py", FUNCTION + "\n")
    assert Sources.of().stamps() != before
