"""A0.4–A0.6, A0.7's spelling, and the catalog's own rules."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tensorcast.catalog import Catalog, normalize_model_type
from tensorcast.errors import AmbiguousMatchError, DuplicateError, InputError, UnknownNameError


def pipelines(*keys: str) -> Catalog[str]:
    catalog: Catalog[str] = Catalog("pipeline", patterns=True, normalize=normalize_model_type)
    for key in keys:
        catalog.register(key, f"value of {key}")
    return catalog


@given(st.permutations(["*", "deepseek_*", "deepseek_v3", "deepseek_v?", "qwen[23]", "qwen?"]))
def test_exact_then_most_specific_whatever_the_order(keys: list[str]) -> None:
    catalog = pipelines(*keys)
    assert catalog.match("deepseek_v3") == "deepseek_v3"
    assert catalog.match("deepseek_v4") == "deepseek_v?"
    assert catalog.match("deepseek_v32") == "deepseek_*"
    assert catalog.match("qwen3") == "qwen[23]"
    assert catalog.match("llama") == "*"


def test_fewer_stars_win_between_equal_literals() -> None:
    assert pipelines("deepseek_v*", "deepseek_v?").match("deepseek_v3") == "deepseek_v?"


@given(st.permutations(["a*c", "ab*"]))
def test_equally_specific_patterns_are_an_error_naming_both(keys: list[str]) -> None:
    with pytest.raises(AmbiguousMatchError) as caught:
        pipelines(*keys).match("abc")
    assert all(text in str(caught.value) for text in ("'a*c'", "'ab*'", "test_catalog.py:"))


def test_an_exact_key_settles_an_ambiguity() -> None:
    assert pipelines("a*c", "ab*", "abc").match("abc") == "abc"


def test_a_duplicate_names_both_lines() -> None:
    catalog = pipelines()
    catalog.register("bailing_moe", 1)
    with pytest.raises(DuplicateError, match=r"test_catalog\.py:\d+ and at .*test_catalog\.py:\d+") as caught:
        catalog.register("bailing-moe", 2)
    assert isinstance(caught.value, ValueError)
    assert catalog.get("bailing_moe") == 1


def test_replace_wins_and_remembers() -> None:
    catalog = pipelines()
    catalog.register("bailing_moe", 1)
    first = catalog.entries()[0].origin
    catalog.register("bailing_moe", 2, replace=True)
    assert catalog.get("bailing_moe") == 2
    assert catalog.entries()[0].replaces == first


def test_the_same_line_may_run_again() -> None:
    catalog = pipelines()
    for value in (1, 2):
        catalog.register("mine", value)
    assert catalog.get("mine") == 2
    assert catalog.entries()[0].replaces is None


def test_a_notebook_cell_replaces_with_a_note(capsys: pytest.CaptureFixture[str]) -> None:
    catalog = pipelines()
    for cell in ("cell-1", "cell-2"):
        exec(compile("catalog.register('mine', 1)", f"<{cell}>", "exec"), {"__name__": "__main__", "catalog": catalog})
    assert capsys.readouterr().err == "note: pipeline 'mine' registered again, replaces <cell-1>:1\n"
    assert catalog.entries()[0].replaces == "<cell-1>:1"


def test_origin_is_file_and_line_below_the_current_directory(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    catalog = pipelines()
    source = "\n\ncatalog.register('qwen3', 1)"
    exec(compile(source, str(tmp_path / "custom_model" / "my.py"), "exec"), {"__name__": "my", "catalog": catalog})
    catalog.register("plugged", 1, origin="my_package 0.1")
    assert [entry.origin for entry in catalog.entries()] == ["my_package 0.1", "custom_model/my.py:3"]


def test_our_own_files_are_builtin() -> None:
    import tensorcast.catalog as module

    catalog = pipelines()
    own = module.__file__.replace("catalog.py", "pipelines_of_ours.py")
    for line in (1, 2):
        code = compile("\n" * line + f"catalog.register('own{line}', 1)", own, "exec")
        exec(code, {"__name__": "tensorcast.own", "catalog": catalog})
    assert [entry.origin for entry in catalog.entries()] == ["builtin", "builtin"]
    assert catalog.entries()[0].location.endswith("pipelines_of_ours.py:2")


@pytest.mark.parametrize("spelling", ["deepseek-v3", "DeepSeek_V3", "deepseek_v3", "DeepSeek V3"])
def test_spellings_meet(spelling: str) -> None:
    assert pipelines("DeepSeek-V3").match(spelling) == "deepseek_v3"


def test_a_range_in_brackets_keeps_its_dash() -> None:
    catalog = pipelines("Qwen-[2-4]")
    assert catalog.match("qwen-3") == "qwen_[2-4]"
    assert catalog.match("qwen-5") is None


def test_unknown_names_say_what_is_near_and_how_to_list() -> None:
    with pytest.raises(UnknownNameError) as caught:
        pipelines("deepseek_v3", "qwen3").get("deepseek-v9")
    assert str(caught.value) == (
        "unknown pipeline 'deepseek-v9'; nearest: deepseek_v3; list them with `tensorcast list pipelines`"
    )


def test_find_says_none() -> None:
    assert pipelines("qwen3").find("llama") is None


@pytest.mark.parametrize("key", ["", "  ", None, 3])
def test_a_key_must_be_a_name(key: object) -> None:
    with pytest.raises(InputError, match="non-empty string"):
        pipelines().register(key, 1)


def test_patterns_only_where_allowed() -> None:
    with pytest.raises(ValueError, match="patterns are not allowed"):
        Catalog("kernel").register("flash*", 1)


def test_isolated_undoes_changes() -> None:
    catalog = pipelines("qwen3")
    with catalog.isolated():
        catalog.register("llama", 1)
        catalog.register("qwen3", 2, replace=True)
        assert catalog.get("qwen3") == 2
    assert [(entry.key, entry.value) for entry in catalog.entries()] == [("qwen3", "value of qwen3")]
