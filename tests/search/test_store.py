"""A sweep's folder: whole after any kind of end, its own sweep's only, and of one process at a time."""

from __future__ import annotations

import errno
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tensorcast.errors import InputError
from tensorcast.search.axes.space import Space
from tensorcast.search.execution import origin, store
from tensorcast.search.execution.store import LOCK, MANIFEST, Store
from tests.verify.tiny import TINY

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def space(own_folder) -> Space:
    """Three shards: 1, 2 and 4 devices with 5 batches each."""
    (own_folder / "own.yaml").write_text((ROOT / "hardware_profiles" / "h100-sxm.yaml").read_text())
    return Space.of(model="qwen3-32b", hw="./own.yaml", tp=[1, 2, 4], batch=[1, 2, 3, 4, 5])


def rows(shard) -> pa.Table:
    """Some table of the shard's length that tells its rows from all others."""
    count = len(shard)
    return pa.table({
        "tp": pa.array([str(shard.fixed["tp"])] * count).dictionary_encode(),
        "number": np.arange(shard.start, shard.stop), "figure": np.random.default_rng(shard.index).random(count),
    })  # fmt: skip


def filled(folder, space: Space, count: int | None = None, resume: bool = False) -> Store:
    """A closed store with the first `count` shards that were missing."""
    with Store(folder, space, resume) as kept:
        for shard in [s for s in space.shards() if not kept.done(s)][:count]:
            kept.write(shard, rows(shard))
    return kept


def contents(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()} if Path(folder).is_dir() else {}


def refusal(folder, space: Space, resume: bool = False) -> str:
    """Why the store cannot be opened, in one line; nothing has changed by it."""
    before = contents(folder)
    with pytest.raises(InputError) as refused:
        Store(folder, space, resume)
    assert contents(folder) == before and "\n" not in str(refused.value)
    return str(refused.value)


def test_what_is_written_comes_back_in_the_order_of_the_shards(space, own_folder) -> None:
    shards = list(space.shards())
    with Store("out/deep", space) as kept:
        for shard in reversed(shards):
            assert not kept.done(shard)
            kept.write(shard, rows(shard))
            assert kept.done(shard)
        assert kept.rows == len(space) == 15
        found = kept.table()
    expected = pa.concat_tables([rows(shard) for shard in shards]).unify_dictionaries()
    assert found.replace_schema_metadata(None).combine_chunks().equals(expected.combine_chunks())
    # Other programs read the folder as it is; only the parts and the manifest stay in it.
    assert pd.read_parquet("out/deep").figure.tolist() == expected["figure"].to_pylist()
    assert sorted(os.listdir("out/deep")) == [MANIFEST, *(f"part-00000{n}.parquet" for n in range(3))]


def test_a_sweep_goes_on_where_it_ended_and_computes_nothing_twice(space) -> None:
    assert filled("out", space, 2).rows == 10
    first = contents("out")
    with Store("out", space, resume=True) as kept:
        assert [kept.done(shard) for shard in space.shards()] == [True, True, False] and kept.rows == 10
    assert filled("out", space, resume=True).rows == 15
    later = contents("out")
    assert all(later[name] == content for name, content in first.items())
    assert filled("new", space, resume=True).rows == 15, "with nothing there yet, a sweep that goes on begins"


def test_other_folders_are_left_alone(space) -> None:
    Path("file").write_text("mine")
    assert "is a file" in refusal("file", space)
    Path("mine").mkdir()
    Path("mine/notes.txt").write_text("mine")
    assert "holds notes.txt and no sweep" in refusal("mine", space)
    assert "holds notes.txt and no sweep" in refusal("mine", space, resume=True)
    filled("out", space, 1)
    assert "1 of 3 shards" in refusal("out", space) and "--resume" in refusal("out", space)


def test_another_sweep_is_not_gone_on_with(space) -> None:
    filled("out", space, 1)
    other = Space.of(model="qwen3-32b", hw="./own.yaml", tp=[1, 2, 4], batch=[1, 2, 3, 4, 6])
    assert "holds another sweep" in refusal("out", other, resume=True)
    manifest = json.loads(Path("out", MANIFEST).read_text())
    Path("out", MANIFEST).write_text(json.dumps({**manifest, "shards": 30}))
    assert "holds another sweep" in refusal("out", space, resume=True)
    Path("out", MANIFEST).write_text("{")
    assert f"{MANIFEST} is damaged" in refusal("out", space, resume=True)


def test_rows_of_another_machine_file_or_other_code_are_not_mixed(space, monkeypatch) -> None:
    filled("out", space, 1)
    with monkeypatch.context() as changed:
        changed.setattr(store, "environment", lambda: {**origin.environment(), "torch": "1.0"})
        assert "torch 1.0 in place of" in refusal("out", space, resume=True)
    text = Path("own.yaml").read_text()
    Path("own.yaml").write_text(text.replace("bandwidth: 3.35e+12", "bandwidth: 3.36e+12"))
    assert "hw ./own.yaml" in refusal("out", space, resume=True)
    Path("own.yaml").write_text(text)
    Path("custom_model").mkdir()
    Path("custom_model/mine.py").write_text("import tensorcast\n")
    assert "custom_model/mine.py" in refusal("out", space, resume=True)
    Path("custom_model/mine.py").unlink()
    Path("own.yaml").write_text(text + "\n# the same machine\n")
    assert filled("out", space, resume=True).rows == 15


def test_a_machine_is_compared_by_what_it_says(own_folder) -> None:
    """A catalogue name, whose file may change between two runs without any option changing."""
    assert "unknown model" in origin.inputs_of([{"model": ("qwen3-32b", "no-such-model")}])["model no-such-model"]
    one = origin.inputs_of([{"hw": ("h100-sxm",)}])
    Path("hardware_profiles").mkdir()
    text = (ROOT / "hardware_profiles" / "h100-sxm.yaml").read_text()
    Path("hardware_profiles/h100-sxm.yaml").write_text(text)
    assert origin.difference(origin.inputs_of([{"hw": ("h100-sxm",)}]), one) == ""
    Path("hardware_profiles/h100-sxm.yaml").write_text(text.replace("bandwidth: 3.35e+12", "bandwidth: 3.36e+12"))
    found = origin.inputs_of([{"hw": ("h100-sxm",)}])
    assert origin.difference(found, one).startswith("hw h100-sxm ")


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "foreign", "short"])
def test_a_damaged_part_is_computed_again(space, damage) -> None:
    whole = filled("out", space).folder / "part-000001.parquet"
    good = whole.read_bytes()
    if damage == "cut":
        whole.write_bytes(good[: len(good) // 2])
    elif damage == "empty":
        whole.write_bytes(b"")
    elif damage == "flipped":  # a byte of the data, which the footer does not show
        column = pq.read_metadata(whole).row_group(0).column(2)
        at = (column.dictionary_page_offset or column.data_page_offset) + column.total_compressed_size - 3
        whole.write_bytes(good[:at] + bytes([good[at] ^ 0xFF]) + good[at + 1 :])
    elif damage == "foreign":
        pq.write_table(rows(next(space.shards())), whole)
    else:
        pq.write_table(pq.read_table(whole).slice(0, 3), whole)
    with Store("out", space, resume=True) as kept:
        assert [kept.done(shard) for shard in space.shards()] == [True, False, True]
        assert damage == "short" or "part-000001.parquet is damaged" in kept.notes[0]
        kept.write(list(space.shards())[1], rows(list(space.shards())[1]))
        assert kept.rows == 15
    assert whole.read_bytes() == good


def test_a_full_disk_loses_nothing_that_is_finished(space) -> None:
    first, second, third = space.shards()
    with Store("out", space) as kept:
        kept.write(first, rows(first))
        before = contents("out")
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (700, limit[1]))  # a file may not grow beyond: a real error of write
        try:
            with pytest.raises(InputError) as full:
                kept.write(second, rows(second))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        assert str(full.value) == (
            "--out out: part-000001.parquet could not be written (File too large); 1 shards are kept: make room and go "
            "on with --resume"
        )
        assert contents("out") == before and not kept.done(second)
        kept.write(third, rows(third))
    assert filled("out", space, resume=True).rows == 15


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_disk_that_is_full_at_the_last_moment(space, monkeypatch, call) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as broken:
        broken.setattr(os, call, full)
        with pytest.raises(InputError, match="No space left on device"):
            Store("out", space)
    assert contents("out") == {}, "no half of a manifest, no lock"
    with Store("out", space) as kept:
        first = next(space.shards())
        with monkeypatch.context() as broken:
            broken.setattr(os, call, full)
            with pytest.raises(InputError, match="No space left on device"):
                kept.write(first, rows(first))
        assert sorted(contents("out")) == sorted([MANIFEST, LOCK])


def test_a_table_that_is_not_the_shards_is_a_bug(space) -> None:
    first, second, _ = space.shards()
    with Store("out", space) as kept, pytest.raises(ValueError, match="shard 0 has 5 configurations, not 4"):
        kept.write(replace(first, index=0), rows(second).slice(1))


def test_a_folder_that_cannot_be_made(space) -> None:
    Path("file").write_text("")
    assert "cannot be written" in refusal("file/below", space) or "is a file" in refusal("file/below", space)


HOLD = """
import sys, time
from tensorcast.search.axes.space import Space
from tensorcast.search.execution.store import Store
s = Space.of(model="qwen3-32b", hw="./own.yaml", tp=[1, 2, 4], batch=[1, 2, 3, 4, 5])
with Store("out", s, resume=True):
    print("mine", flush=True)
    time.sleep(60)
"""


def test_two_processes_do_not_share_a_folder(space) -> None:
    filled("out", space, 1)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", HOLD], stdout=subprocess.PIPE, env=environment) as other:
        try:
            assert other.stdout.readline() == b"mine\n"
            assert f"process {other.pid} works in it" in refusal("out", space, resume=True)
        finally:
            other.kill()  # with no chance to give the lock back
        other.wait()
    assert Path("out", LOCK).exists()
    assert filled("out", space, resume=True).rows == 15


def test_no_row_is_lost_or_doubled_however_often_a_sweep_is_killed(own_folder) -> None:
    """The real command, killed at random moments by a signal that cannot be caught, and gone on with until it ends."""
    Path("llama").mkdir()
    Path("llama/config.json").write_text(json.dumps(TINY["llama"]))
    options = [
        "--model", "./llama", "--hw", "h100-sxm,h200-sxm,a100-sxm-80g", "--tp", "1,2", "--runtime", "graph,eager",
        "--batch", "1:40", "--input-len", "16:320:16", "--output-len", "64", "--quiet", "--jobs", "2",
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}

    def begin(folder: str, *more: str) -> subprocess.Popen:
        command = [sys.executable, str(ROOT / "cli.py"), "sweep", *options, "--out", folder, *more]
        return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, start_new_session=True)

    assert begin("whole").wait() == 0
    draw, kills = random.Random(6), 0
    while True:
        there = len(list(Path("killed").glob("part-*")))
        process = begin("killed", "--resume")
        aim = there + draw.randint(1, 4)
        while process.poll() is None and (len(list(Path("killed").glob("part-*"))) < aim or kills == 3):
            time.sleep(0.002)
        time.sleep(draw.random() * 0.05)
        if process.poll() is not None:
            break
        os.kill(process.pid, signal.SIGKILL)  # its workers see that it is gone
        process.wait()
        kills += 1
    assert process.returncode == 0, process.stderr.read().decode()
    assert kills >= 2
    one, two = (pq.read_table(folder) for folder in ("whole", "killed"))
    assert len(one) == 12 * 40 * 20
    order = [(name, "ascending") for name in ("hw", "tp", "runtime", "batch", "input_len")]
    plain = pa.schema([pa.field(f.name, pa.string() if pa.types.is_dictionary(f.type) else f.type) for f in one.schema])
    one, two = (table.cast(plain).sort_by(order).combine_chunks() for table in (one, two))
    assert one.equals(two) and one.group_by([name for name, _ in order]).aggregate([]).num_rows == len(one)
    assert sorted(p.name for p in Path("killed").iterdir()) == sorted(p.name for p in Path("whole").iterdir())
