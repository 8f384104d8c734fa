"""The process beside the server: what is asked comes first, and a lost process is one line."""

import threading

import pytest

from tensorcast.errors import InputError
from tensorcast.search.execution.helper import LostHelper
from tensorcast.ui import tracer


class Fake:
    """In place of the process: keeps what it is called with, and waits where a call is held up."""

    made = 0

    def __init__(self, folder):
        Fake.made += 1

    def call(self, function, *args):
        if function is tracer.prepared:
            return None
        (options,) = args
        CALLS.append(options["n"])
        started.set()
        if options["n"] == "slow":
            assert gate.wait(10)
        if options["n"] == "lost":
            raise LostHelper("a process was lost; is there memory enough?")
        return "no such thing" if options["n"] == "wrong" else ""


@pytest.fixture
def traces(monkeypatch):
    global CALLS, gate, started
    CALLS, gate, started, Fake.made = [], threading.Event(), threading.Event(), 0
    monkeypatch.setattr(tracer, "Helper", Fake)
    return tracer.Tracer()


def test_what_is_refused_there_is_refused_here(traces):
    with pytest.raises(InputError, match=r"^no such thing$"):
        traces.trace({"n": "wrong"})
    traces.trace({"n": 1})
    assert (CALLS, Fake.made) == (["wrong", 1], 1)


def test_a_lost_process_is_said_and_replaced(traces):
    with pytest.raises(InputError, match=r"^tracing the model: a process was lost"):
        traces.trace({"n": "lost"})
    traces.trace({"n": 2})
    assert (CALLS, Fake.made) == (["lost", 2], 2)


def test_what_is_asked_comes_before_what_is_expected(traces):
    traces.start()
    traces.expect({"1": {"n": "slow"}, "2": {"n": "later"}})
    assert started.wait(10)
    asking = threading.Thread(target=traces.trace, args=({"n": "now"},))
    asking.start()
    while traces._next:  # asking has put aside what was expected
        pass
    gate.set()
    asking.join(10)
    started.clear()
    traces.expect({"3": {"n": "last"}})
    assert started.wait(10)
    assert CALLS == ["slow", "now", "last"]


def test_what_nobody_waits_for_is_not_traced(traces):
    with pytest.raises(InputError, match="nobody waits"):
        traces.trace({"n": 1}, wanted=lambda: False)
    assert CALLS == []


def test_the_same_expectations_are_traced_once(traces):
    traces.start()
    for _ in range(3):
        traces.expect({"1": {"n": 1}})
    assert started.wait(10)
    started.clear()
    traces.expect({"2": {"n": 2}})
    assert started.wait(10)
    assert CALLS == [1, 2]


def test_in_the_process_an_error_is_a_line_and_an_answer_nothing():
    assert tracer.traced({"model": "qwen3-0.6b", "hw": "h100-sxm"}) == ""
    assert tracer.traced({"model": "qwen3-0.6b", "hw": "h100-sxm", "tp": 7}).startswith("--tp 7: ")
