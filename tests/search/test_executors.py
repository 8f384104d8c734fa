"""The same rows wherever the shards are computed, and what is said when a worker, a scheduler or an option fails."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest

import tensorcast as tc
from tensorcast.errors import InputError
from tensorcast.search.axes.space import Space
from tensorcast.search.execution import origin
from tensorcast.search.execution.executors import AHEAD, Here, check_sendable, executor_named
from tensorcast.search.execution.helper import Helper, LostHelper
from tensorcast.search.execution.processes import Processes
from tensorcast.search.frame import evaluate
from tests.verify.tiny import TINY

ROOT = Path(__file__).resolve().parents[2]


def space(count: int) -> Space:
    """So many shards of one configuration; tp tells them apart."""
    return Space.of(model="qwen3-32b", hw="h100-sxm", tp=list(range(1, count + 1)), batch=7)


def plain(shard) -> pa.Table:
    return pa.table({"tp": [shard.fixed["tp"]], "process": [os.getpid()]})


def killed_on(shard, tp: int, marker: Path, always: bool = False, parent: int = 0) -> pa.Table:
    """A worker that dies with one shard: the first time, or always."""
    if shard.fixed["tp"] == tp and os.getpid() != parent and (always or not marker.exists()):
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return plain(shard)


def broken(shard) -> pa.Table:
    if shard.fixed["tp"] == 3:
        raise KeyError("no such figure")
    return plain(shard)


def refused(shard) -> pa.Table:
    raise InputError("nothing of the kind")


def degrees(pairs) -> list[int]:
    return sorted(shard.fixed["tp"] for shard, table in pairs if table["tp"].to_pylist() == [shard.fixed["tp"]])


@pytest.mark.parametrize("jobs", [1, 2, 3])
def test_every_shard_is_computed_once(jobs) -> None:
    pairs = list(executor_named(None, jobs).run(space(20).shards(), plain))
    assert degrees(pairs) == list(range(1, 21))
    processes = {table["process"][0].as_py() for _, table in pairs}
    # How many of the processes take part is the system's affair where each shard is a moment's work.
    assert processes == {os.getpid()} if jobs == 1 else os.getpid() not in processes and len(processes) <= jobs


def test_no_more_shards_are_taken_than_workers_can_have_under_way() -> None:
    taken = []

    def shards():
        for shard in space(30).shards():
            taken.append(shard.index)
            yield shard

    for done, _ in enumerate(Processes(2).run(shards(), plain)):
        assert len(taken) <= done + AHEAD * 2 + 1
    assert len(taken) == 30


def test_an_executor_stops_when_nobody_wants_more() -> None:
    pairs = Processes(2).run(space(1000).shards(), plain)
    next(pairs)
    start = time.monotonic()
    pairs.close()
    assert time.monotonic() - start < 2


def test_a_shard_whose_worker_died_is_computed_again(tmp_path) -> None:
    work = partial(killed_on, tp=5, marker=tmp_path / "died")
    assert degrees(Processes(2).run(space(12).shards(), work)) == list(range(1, 13))
    assert (tmp_path / "died").exists()


def test_a_shard_that_kills_its_workers_is_named(tmp_path) -> None:
    work = partial(killed_on, tp=5, marker=tmp_path / "died", always=True, parent=os.getpid())
    with pytest.raises(InputError) as said:
        list(Processes(2).run(space(12).shards(), work))
    assert str(said.value) == (
        "a worker was lost 2 times with shard 4 (model=qwen3-32b, tp=5, hw=h100-sxm); has it enough memory?"
    )


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_bug_says_where_it_is_and_an_error_of_the_user_is_as_it_was(jobs) -> None:
    with pytest.raises(RuntimeError, match=r"KeyError in shard 2 \(model=qwen3-32b, tp=3, hw=h100-sxm\): 'no such"):
        list(executor_named("local", jobs).run(space(6).shards(), broken))
    with pytest.raises(InputError, match=r"^nothing of the kind$"):
        list(executor_named("local", jobs).run(space(6).shards(), refused))


def test_what_cannot_be_sent_is_named() -> None:
    class Model:
        pass

    shard = next(Space.of(model=Model, hw="h100-sxm").shards())
    with pytest.raises(InputError, match=r"^--model: type 'Model' cannot be sent to another process .* 1 job\)$"):
        check_sendable(shard)
    with pytest.raises(InputError, match="--model"):
        list(Processes(2).run([shard], plain))
    assert len(list(Here().run([shard], lambda shard: pa.table({})))) == 1


@pytest.mark.parametrize(
    ("text", "jobs", "said"),
    [
        ("spark", 1, "--executor 'spark': local, dask, dask://local:N or dask://HOST:PORT"),
        ("", 1, "--executor ''"),
        ("locale", 2, "--executor 'locale'"),
        ("dask://", 0, "--jobs 0"),
        (None, True, "--jobs True"),
        (None, 2.0, "--jobs 2.0"),
        (3, 1, "executor 3: a text or a distributed.Client"),
        ("dask://:8786", 1, "dask://HOST:PORT"),
        ("dask://host", 1, "dask://HOST:PORT"),
        ("dask://local:0", 1, "1 to 1024 workers"),
        ("dask://local:many", 1, "1 to 1024 workers"),
    ],
)
def test_there_is_no_such_executor(text, jobs, said) -> None:
    if "dask" in str(text) or text == 3:
        pytest.importorskip("distributed", reason="the extra `distributed` is not installed")
    with pytest.raises(InputError) as error:
        executor_named(text, jobs)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_dask_is_imported_when_it_is_asked_for_only(monkeypatch) -> None:
    script = (
        "import sys; from tensorcast.search.execution.executors import executor_named; executor_named('local', 2); "
        "assert not {'dask', 'distributed', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(InputError, match=r"Dask is not installed; pip install 'tensorcast\[distributed\]'"):
        executor_named("dask://somewhere:8786")


@pytest.fixture
def dask():
    return pytest.importorskip("distributed", reason="the extra `distributed` is not installed")


@pytest.mark.parametrize("what", ["nobody", "silent", "web"])
def test_no_scheduler_there(dask, what, capfd, monkeypatch) -> None:
    monkeypatch.setattr("tensorcast.search.execution.cluster.PATIENCE", 1.0)
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        place = f"127.0.0.1:{server.getsockname()[1]}"
        if what != "nobody":
            server.listen()
        if what == "web":
            answer = partial(_answer, server, b"HTTP/1.1 400 Bad Request\r\n\r\n")
            threading.Thread(target=answer, daemon=True).start()
        start = time.monotonic()
        with pytest.raises(InputError, match=f"^--executor dask://{place}: no scheduler answers there") as error:
            executor_named(f"dask://{place}")
        assert time.monotonic() - start < 10 and "\n" not in str(error.value)
    assert capfd.readouterr().err == ""


def _answer(server: socket.socket, text: bytes) -> None:
    line, _ = server.accept()
    line.sendall(text)


class FakeClient:
    """A client whose one worker has these packages."""

    asynchronous, status = False, "running"

    def __init__(self, **theirs: str) -> None:
        ours = {name: "1.0" for name in ("tensorcast", *origin.PACKAGES)}
        self.versions = {
            "client": {"packages": ours}, "workers": {"tcp://other:9": {"packages": {**ours, **theirs}}},
        }  # fmt: skip

    def wait_for_workers(self, count: int, timeout: float) -> None:
        pass

    def get_versions(self, packages) -> dict:
        return self.versions


def test_workers_with_other_versions_are_not_used(dask) -> None:
    from tensorcast.search.execution.cluster import Cluster

    Cluster(FakeClient())
    with pytest.raises(InputError) as error:
        Cluster(FakeClient(torch="0.9"))
    assert str(error.value) == (
        "the Dask worker tcp://other:9 has torch 0.9 in place of 1.0; install the same versions there"
    )
    with pytest.raises(InputError, match="has tensorcast None in place of"):
        Cluster(FakeClient(tensorcast=None))


def test_a_task_computes_only_what_its_client_would(own_folder) -> None:
    """As it runs in a worker: same code, same model, same machine, or nothing."""
    from tensorcast.search.execution.cluster import Task

    (own_folder / "own.yaml").write_text((ROOT / "hardware_profiles" / "h100-sxm.yaml").read_text())
    shard = next(Space.of(model="qwen3-32b", hw="./own.yaml", tp=2, batch=7).shards())
    inputs = origin.inputs_of([{"model": ("qwen3-32b",), "hw": ("./own.yaml",)}])
    task = Task(plain, origin.environment(), "one")
    assert task(shard, inputs)["tp"].to_pylist() == [2]
    with pytest.raises(InputError, match=r"has torch .* in place of 0\.1; install the same there"):
        Task(plain, {**origin.environment(), "torch": "0.1"}, "two")(shard, inputs)
    (own_folder / "own.yaml").unlink()
    with pytest.raises(InputError, match=r"own\.yaml: no such hardware file.* in place of .*; it needs the same files"):
        Task(plain, origin.environment(), "three")(shard, inputs)


def test_a_helper_computes_apart_and_ends_with_its_parent(own_folder) -> None:
    helper = Helper(str(own_folder))
    process, folder = helper.call(eval, "__import__('os').getpid(), __import__('os').getcwd()")
    assert process != os.getpid() and folder == str(own_folder) and helper.call(max, 1, 2) == 2
    with pytest.raises(InputError, match="nothing of the kind"):
        helper.call(refused, None)
    with pytest.raises(LostHelper):
        helper.call(os._exit, 1)
    with pytest.raises(LostHelper):
        helper.call(max, 1, 2)
    another = Helper("/no/such/folder")
    process = another.call(os.getpid)
    another._pipe.close()
    until = time.monotonic() + 5
    while Path(f"/proc/{process}").exists() and time.monotonic() < until:
        if Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            return
        time.sleep(0.01)
    assert not Path(f"/proc/{process}").exists()


def test_a_cluster_gives_what_this_process_gives_to_the_last_digit(dask, own_folder) -> None:
    """Real worker processes, one of them killed half-way; four local processes; this one."""
    for name in ("llama", "qwen3_moe"):
        (own_folder / name).mkdir()
        (own_folder / name / "config.json").write_text(json.dumps(TINY[name]))
    cases = Space.of(model=["./llama", "./qwen3_moe"], hw=["h100-sxm", "ascend-910b2"], tp=[1, 2, 4], batch="1:12",
                     input_len=[8, 40, 600], output_len=[1, 40])  # fmt: skip
    here = by_index(Here().run(cases.shards(), evaluate))
    assert len(here) == 12 and sum(map(len, here.values())) == len(cases) == 12 * 12 * 3 * 2
    reasons = {reason.as_py() for table in here.values() for reason in table["reason"].unique()}
    assert "" in reasons and len(reasons) > 1, "figures and refusals"
    assert same(here, by_index(Processes(2).run(cases.shards(), evaluate)))
    with (
        dask.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=50) as cluster,
        dask.Client(cluster, set_as_default=False) as client,
    ):
        address = cluster.scheduler_address.replace("tcp", "dask")
        assert same(here, by_index(executor_named(address).run(cases.shards(), evaluate)))
        workers, killed, found = client.run(os.getpid), 0, {}
        assert len(set(workers.values()) - {os.getpid()}) == 2
        for shard, table in executor_named(client).run(cases.shards(most=20), evaluate):
            killed = killed or next(iter(workers.values()))
            if not found:
                os.kill(killed, signal.SIGKILL)
            assert shard.index not in found
            found[shard.index] = table
        assert killed not in client.run(os.getpid).values()
    assert len(found) == 12 * 4 and same(found, by_index(Here().run(cases.shards(most=20), evaluate)))


def by_index(pairs) -> dict[int, pa.Table]:
    found = {}
    for shard, table in pairs:
        assert shard.index not in found
        found[shard.index] = table
    return found


def same(one: dict[int, pa.Table], two: dict[int, pa.Table]) -> bool:
    """To the last bit: NaN and null as well."""
    return one.keys() == two.keys() and all(one[index].equals(two[index]) for index in one)


def test_the_verb_takes_an_executor(own_folder) -> None:
    (own_folder / "llama").mkdir()
    (own_folder / "llama" / "config.json").write_text(json.dumps(TINY["llama"]))
    asked = {"model": "./llama", "hw": "h100-sxm", "tp": [1, 2, 4], "batch": "1:8"}
    assert tc.sweep(**asked).equals(tc.sweep(**asked, jobs=2, executor="local"))
