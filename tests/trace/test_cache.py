"""Deployed models on disk: found again exactly, never trusted when damaged, never in the way of an answer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tensorcast.estimate import simulate
from tensorcast.request import Request
from tensorcast.trace import cache
from tensorcast.trace.cache import key_of

ROOT = Path(__file__).resolve().parents[2]
WORK = {"model": "qwen3-30b-a3b", "hw": "h200-sxm", "layers": 3, "tp": 2, "input_len": 300, "output_len": 4, "batch": 2}


def answered(**options):
    """What the estimate says, but for the command that asks for it."""
    return {**simulate(**options).to_dict(), "command": None}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("TENSORCAST_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def entry(folder):
    """The one entry, freshly written."""
    simulate(**WORK)
    (path,) = folder.glob("*")
    return path


@pytest.fixture
def traced(monkeypatch):
    """How often a model was traced."""
    from tensorcast.trace import deploy as module

    count, original = [], module.deploy
    monkeypatch.setattr(module, "deploy", lambda *args, **kwargs: count.append(1) or original(*args, **kwargs))
    return count


def test_a_cached_answer_is_the_fresh_one(folder, traced):
    fresh = answered(**WORK)
    assert answered(**WORK) == fresh
    assert len(traced) == 1
    assert answered(**WORK, cache=False) == fresh
    assert len(traced) == 2


def test_another_amount_of_work_needs_no_new_trace(folder, traced):
    simulate(**WORK)
    other = WORK | {"input_len": 5000, "output_len": 33, "batch": 17}
    cached = answered(**other)
    assert len(traced) == 1
    assert cached == answered(**other, cache=False)


def test_a_point_the_table_does_not_cover_is_added_to_it(folder, traced):
    simulate(**WORK)
    one_token = WORK | {"input_len": 1}
    fresh = answered(**one_token, cache=False)
    assert answered(**one_token) == answered(**one_token) == fresh
    assert len(traced) == 3  # the first, the one without cache, and one to add the point
    simulate(**WORK)
    assert len(traced) == 3


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path):
    path.write_bytes(b"")


def binary(path):
    path.write_bytes(os.urandom(4000))


def flip_a_digit(path):
    """Damage that still is valid JSON: one size of one operator."""
    head, _, body = path.read_bytes().partition(b"\n")
    at = body.index(b'"elements":[') + len(b'"elements":[')
    digit = b"7" if body[at : at + 1] != b"7" else b"8"
    path.write_bytes(head + b"\n" + body[:at] + digit + body[at + 1 :])


def other_format(path):
    head, _, body = path.read_bytes().partition(b"\n")
    path.write_bytes(json.dumps({**json.loads(head), "format": 99}).encode() + b"\n" + body)


def other_key(path):
    head, _, body = path.read_bytes().partition(b"\n")
    path.write_bytes(json.dumps({**json.loads(head), "key": "0" * 32}).encode() + b"\n" + body)


def a_list(path):
    path.write_bytes(b"[]\n[]")


@pytest.mark.parametrize("damage", [truncate, empty, binary, flip_a_digit, other_format, other_key, a_list])
def test_a_damaged_entry_is_rebuilt_with_a_note(folder, entry, traced, damage):
    whole, expected = entry.read_bytes(), answered(**WORK)
    damage(entry)
    answer = answered(**WORK)
    (note,) = [w for w in answer["warnings"] if w not in expected["warnings"]]
    assert entry.name in note and "rebuilt" in note and "\n" not in note
    assert {**answer, "warnings": expected["warnings"]} == expected
    assert len(traced) == 1
    assert entry.read_bytes() == whole
    assert answered(**WORK) == expected


def test_a_folder_that_cannot_be_written_costs_nothing_but_a_note(tmp_path, monkeypatch):
    expected = answered(**WORK, cache=False)
    in_the_way = tmp_path / "file"
    in_the_way.write_text("mine")
    for place in (in_the_way, in_the_way / "below"):
        monkeypatch.setenv("TENSORCAST_CACHE", str(place))
        answer = answered(**WORK)
        (note,) = [w for w in answer["warnings"] if w not in expected["warnings"]]
        assert str(place) in note and "TENSORCAST_CACHE" in note
        assert {**answer, "warnings": expected["warnings"]} == expected
    assert in_the_way.read_text() == "mine"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_leaves_nothing_behind(folder, monkeypatch):
    def fdopen(handle, mode):
        os.close(handle)
        return open("/dev/full", mode, buffering=0)

    monkeypatch.setattr(cache.os, "fdopen", fdopen)
    answer = answered(**WORK)
    assert any("No space left" in warning for warning in answer["warnings"])
    assert list(folder.iterdir()) == []


def test_two_at_once(folder, entry):
    """Both answer, and what stays is one whole entry."""
    expected, whole = answered(**WORK), entry.read_bytes()
    entry.unlink()
    flags = [f"--{k.replace('_', '-')}={v}" for k, v in WORK.items()]
    command = [sys.executable, str(ROOT / "cli.py"), "simulate", *flags, "--json", "-", "--quiet"]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for process in running:
        out, err = process.communicate(timeout=200)
        assert process.returncode == 0, err
        assert json.loads(out)["phases"] == json.loads(json.dumps(expected["phases"]))
    assert [p.name for p in folder.iterdir()] == [entry.name]
    assert entry.read_bytes() == whole


MOE = {"model": "deepseek-v3", "hw": "h200-sxm", "tp": 8, "layers": 5}


def key(**changes) -> str:
    return key_of(Request.of(**MOE | changes).cache_key())


@pytest.mark.parametrize(
    "change",
    [
        {"tp": 4}, {"ep": 8}, {"dp": 2, "batch": 2}, {"quant": "none"}, {"quant": "w8a8"},
        {"kernel": ("mla=absorbed",)},
        {"kernel": ("mla@model.layers.1.*=absorbed",)}, {"dtype": "fp16"}, {"layers": 6}, {"mtp": 1}, {"reuse": False},
        {"overrides": {"rms_norm_eps": 1e-5}}, {"overrides": {"q_lora_rank": 1024}}, {"model": "deepseek-r1"},
        {"kv_cache_dtype": "fp8"}, {"attention_quant": "fp8"}, {"quant": "w8a8", "exclude": ("*down_proj",)},
        {"quant": "w8a8", "quant_lm_head": True},
    ],
    ids=str,
)  # fmt: skip
def test_what_the_model_depends_on_changes_the_key(change):
    assert key(**change) != key()


def test_every_such_change_is_another_key():
    changes = [{}, {"exclude": ("*down_proj",)}, {"quant_lm_head": True}]
    assert len({key(quant="w8a8", **change) for change in changes}) == len(changes)


@pytest.mark.parametrize(
    "change", [{"batch": 9}, {"input_len": 99}, {"output_len": 99}, {"runtime": "eager"}, {"pp": 2}], ids=str
)
def test_what_it_does_not_depend_on_keeps_the_key(change):
    assert key(**change) == key()


@pytest.mark.parametrize("package", ["torch", "transformers", "diffusers"])
def test_another_version_of_a_library_is_another_key(monkeypatch, package):
    import importlib.metadata

    before, real = key(), importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "9.9.9" if name == package else real(name))
    cache._environment.cache_clear()
    try:
        assert key() != before
    finally:
        monkeypatch.undo()
        cache._environment.cache_clear()
    assert key() == before


def test_clear_and_info(folder, entry):
    assert cache.info() == {"folder": str(folder), "entries": 1, "bytes": entry.stat().st_size}
    (folder / "notes.txt").write_text("not ours")
    assert cache.clear() == 1
    assert [p.name for p in folder.iterdir()] == ["notes.txt"]


def test_code_a_user_registers_is_part_of_the_key(monkeypatch):
    """A profile, a pipeline or a kernel of the user's changes what is traced."""
    from tensorcast.catalog import Catalog
    from tensorcast.pipelines import ModelProfile, register_custom_model, register_model_profile

    for name in ("PROFILES", "PIPELINES"):
        monkeypatch.setattr(f"tensorcast.pipelines.{name}", Catalog(name, patterns=True))
    before = key()
    assert key() == before
    register_model_profile(ModelProfile(model_type="mine", tp_plan={"*.q_proj": "replicated"}))
    with_profile = key()
    register_custom_model("mine")(lambda model: model)
    assert len({before, with_profile, key()}) == 3


def test_a_changed_source_file_is_another_key(tmp_path, monkeypatch):
    from tensorcast.catalog import Catalog

    monkeypatch.setattr("tensorcast.pipelines.PIPELINES", Catalog("pipeline", patterns=True))
    source = tmp_path / "mine.py"
    source.write_text(
        "from tensorcast.pipelines import register_custom_model\nregister_custom_model('mine')(lambda model: model)\n"
    )
    exec(compile(source.read_text(), str(source), "exec"), {"__name__": "mine", "__file__": str(source)})
    before = key()
    assert key() == before
    os.utime(source, ns=(1, 1))
    assert key() != before
