"""What a test registers or loads is gone when it ends: the files of ./custom_model, user files, plugins."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tensorcast import catalog
from tensorcast.cli.main import cli
from tensorcast.custom import loading, plugins
from tensorcast.custom.sources import NONE


@pytest.fixture(scope="session")
def cache_folder(tmp_path_factory) -> Path:
    """The cache of a session, empty at its start: what one test traced, all others find, in every worker."""
    own = tmp_path_factory.getbasetemp()
    return (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "cache"


@pytest.fixture(autouse=True, scope="session")
def one_cache(cache_folder) -> Iterator[None]:
    """Unless a test asks for one of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TENSORCAST_CACHE", str(cache_folder))
        yield


@contextmanager
def registrations_undone() -> Iterator[None]:
    """Catalogs, loaded files and plugins are at the end what they were at the start."""
    NONE.load()  # what ships with TensorCast is there first
    saved = {each: each._entries for each in list(catalog._ALL)}
    files, points = dict(loading._loaded), set(plugins._loaded)
    try:
        yield
    finally:
        catalog.restore(saved)
        loading._loaded, plugins._loaded = files, points


@pytest.fixture(autouse=True, scope="module")
def nothing_of_a_module_stays_registered() -> Iterator[None]:
    """Nor what other modules' fixtures did."""
    with registrations_undone():
        yield


@pytest.fixture(autouse=True)
def nothing_stays_registered() -> Iterator[None]:
    """Tests do not see what other tests registered."""
    with registrations_undone():
        yield


@pytest.fixture
def undone():
    """The context manager, for a test that looks at several ways of registering."""
    return registrations_undone


@pytest.fixture
def own_folder(tmp_path, monkeypatch) -> Path:
    """An empty current directory and cache; no file and no plugin counts as loaded yet."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TENSORCAST_CACHE", str(tmp_path / ".cache"))
    monkeypatch.delenv("TENSORCAST_CUSTOM", raising=False)
    monkeypatch.setattr(loading, "_loaded", {})
    monkeypatch.setattr(plugins, "_loaded", set())
    return tmp_path


@pytest.fixture
def plain_folder(own_folder, cache_folder, monkeypatch) -> Path:
    """The same with the session's cache: for tests that register nothing of their own."""
    monkeypatch.setenv("TENSORCAST_CACHE", str(cache_folder))
    return own_folder


@pytest.fixture
def run(capsys) -> Callable[..., tuple[int, str, str]]:
    """Run one command line in this process: (exit code, stdout, stderr)."""

    def run(*args: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = cli.run(list(args), "tensorcast")
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run
