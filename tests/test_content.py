"""Where content folders are looked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from tensorcast import content
from tensorcast.errors import UnknownNameError

ROOT = Path(__file__).resolve().parent.parent


def test_the_current_directory_comes_first(tmp_path, monkeypatch) -> None:
    shipped = tmp_path / "shipped"
    own = tmp_path / "work"
    for root in (shipped, own):
        (root / "reports").mkdir(parents=True)
    monkeypatch.chdir(own)
    monkeypatch.setattr(content, "shipped_root", lambda: shipped)
    assert content.folder("reports") == [own / "reports", shipped / "reports"]


def test_no_duplicate_in_the_checkout_itself(tmp_path, monkeypatch) -> None:
    (tmp_path / "reports").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(content, "shipped_root", lambda: tmp_path)
    assert content.folder("reports") == [tmp_path / "reports"]


def test_an_absent_folder_is_left_out(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(content, "shipped_root", lambda: tmp_path)
    assert content.folder("custom_model") == []


def test_a_development_install_ships_the_checkout() -> None:
    assert content.shipped_root() == ROOT


def test_an_unknown_kind_names_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match="hardware_profiles, custom_model, reports"):
        content.folder("report")
