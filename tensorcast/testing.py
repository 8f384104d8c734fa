"""The contract of a model as a pytest class: one test for each check of `tensorcast check`.

from tensorcast.testing import ModelContract

class TestMine(ModelContract):
    spec = "custom_model/mine.py"
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, ClassVar

import pytest

from tensorcast.checking.code import subject_of
from tensorcast.checking.model import CHECKS, FIRST
from tensorcast.checking.result import Check, run_check
from tensorcast.checking.subject import Subject


class ModelContract:
    """Subclass it with `spec`: a known name, a folder, a config.json, a file of your own, or a model as an object.

    `hw` is the machine it is deployed for (None: any); `options` are further arguments of `tensorcast.simulate`.
    """

    spec: ClassVar[Any] = None
    hw: ClassVar[Any] = None
    options: ClassVar[Mapping[str, Any]] = {}

    @pytest.mark.parametrize("check", [FIRST, *CHECKS], ids=lambda check: check.name.replace(" ", "-"))
    def test_contract(self, check: Check) -> None:
        result = run_check(check, _subject(type(self)))
        if result.status == "skip":
            pytest.skip(result.detail)
        if result.status == "fail":
            pytest.fail(f"{check.name}: {result.detail}", pytrace=False)


@cache
def _subject(contract: type[ModelContract]) -> Subject:
    """The model of a class, deployed once for all its tests."""
    if contract.spec is None:
        pytest.fail(f"{contract.__name__} states no spec; name the model to check", pytrace=False)
    return subject_of(contract.spec, hw=contract.hw, **contract.options)
