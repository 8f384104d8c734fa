"""Where content folders are looked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from tensorcast import content
from tensorcast.content import path_of
from tensorcast.errors import InputError, UnknownNameError

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


@pytest.mark.parametrize("text", ["x" * 5000, "a/" + "é" * 128, "a\0b", Path("y" * 256)])
def test_what_no_file_can_be_called_is_one_line(text) -> None:
    with pytest.raises(InputError, match=r"^model '.{1,40}'…: no file can have that name \([\d,]+ characters\)$"):
        path_of(text, "model")


def test_the_home_of_nobody_is_one_line() -> None:
    with pytest.raises(InputError, match="no such user's home folder"):
        path_of("~nobody-of-that-name/x", "model")


def test_a_long_path_of_short_names_is_a_path() -> None:
    assert path_of("x" * 255 + "/y", "model") == Path("x" * 255, "y")
