"""User registrations of one test are undone when it ends, and nothing is read from or written to the user's folders."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from tensorcast.catalog import Catalog
from tensorcast.kernels import KERNELS, load_kernels
from tensorcast.ops import OPERATORS, list_ops
from tensorcast.ops.own import _DEFINED
from tensorcast.pipelines import PROFILES, load_builtin


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    load_kernels()
    load_builtin()
    list_ops()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TENSORCAST_CACHE", str(tmp_path / "cache"))
    catalogs: tuple[Catalog, ...] = (KERNELS._catalog, OPERATORS, _DEFINED, PROFILES)
    with ExitStack() as stack:
        for catalog in catalogs:
            stack.enter_context(catalog.isolated())
        yield
