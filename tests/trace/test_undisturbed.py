"""Whoever watches the process, the figures are those of the model alone."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import deque
from contextlib import contextmanager

import pytest

import tensorcast as tc
from tensorcast.trace import undisturbed as subject
from tensorcast.trace.run import trace_step
from tensorcast.trace.undisturbed import Disturbed, settled, undisturbed

HELD = 0.05  # seconds
ASKED = {"model": "qwen3-30b-a3b", "hw": "h100", "layers": 2, "input_len": 64, "output_len": 4, "cache": False}
STEP = ("prefill", 2, 64, 0)


@contextmanager
def sampled():
    """A thread looks at this one's stack every 0.1 ms and holds what it saw for a while; gives the frames held."""
    over, held, watched = threading.Event(), deque(), threading.get_ident()

    def sample():
        while not over.is_set():
            held.append((time.monotonic(), sys._current_frames()[watched]))
            while held[0][0] < time.monotonic() - HELD:
                held.popleft()
            time.sleep(1e-4)

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@pytest.fixture
def model():
    return tc.build_model("qwen3-30b-a3b", layers=6, reuse=False)


def largest(tracer):
    return max(call.live for call in tracer.calls)


def test_figures_under_a_sampler_are_the_figures(monkeypatch):
    children = []
    monkeypatch.setattr(subject, "_in_a_child", lambda f, really=subject._in_a_child: children.append(f) or really(f))
    alone = tc.simulate(**ASKED).to_dict()
    assert not children
    with sampled():
        assert tc.simulate(**ASKED).to_dict() == alone
    assert len(children) == 1


def test_a_sampler_adds_to_the_memory_of_a_trace_and_that_is_seen(model):
    alone = trace_step(model, *STEP)
    assert settled(alone) is alone and alone.memory.alive == alone.memory.live == 0
    with sampled():
        traces = [trace_step(model, *STEP) for _ in range(5)]
        assert max(largest(each) for each in traces) > largest(alone)
        for each in traces:
            if largest(each) != largest(alone):
                assert each.memory.freed_by_others or each.memory.alive


def test_what_a_module_keeps_is_its_own(model):
    kept, sleeping = [], threading.Event()
    model.final_norm.register_forward_hook(lambda module, args, result: kept.append(result))
    first = trace_step(model, *STEP)
    assert first.memory.alive == 1
    thread = threading.Thread(target=sleeping.wait)  # it may be the one that holds the tensor
    thread.start()
    try:
        with pytest.raises(Disturbed):
            settled(first)
        assert undisturbed(lambda say: largest(settled(trace_step(model, *STEP))), print) == largest(first)
    finally:
        sleeping.set()
        thread.join()


def freed_by_a_thread(model):
    """The model's last norm gives its result to a thread, which keeps it for a while."""

    def give(module, args, result):
        box = [result]
        thread = threading.Thread(target=lambda: (time.sleep(0.005), box.clear()))
        thread.start()
        threads.append(thread)

    threads = []
    model.final_norm.register_forward_hook(give)
    tracer = trace_step(model, *STEP)
    for thread in threads:
        thread.join()
    return settled(tracer)


def test_a_model_whose_own_threads_hold_tensors_is_refused(model):
    with pytest.raises(Disturbed, match="another thread of this process"):
        undisturbed(lambda say: freed_by_a_thread(model), print)


def test_a_child_hands_on_what_it_was_told_and_what_it_raised():
    def once_disturbed(say):
        if os.getpid() == parent:
            raise Disturbed
        say("to nobody", None)
        return fails() if fails else [os.getppid()]

    def failing():
        raise tc.InputError("--tp 3: not here")

    parent, fails = os.getpid(), None
    assert undisturbed(once_disturbed, None) == [parent]
    fails = failing
    with pytest.raises(tc.InputError, match="--tp 3: not here"):
        undisturbed(once_disturbed, None)

    def failing():
        raise tc.UnknownNameError("model", "no such", ["some"])

    fails = failing
    with pytest.raises(tc.TensorcastError, match="unknown model 'no such'"):
        undisturbed(once_disturbed, None)
    fails = lambda: os._exit(1)  # noqa: E731
    with pytest.raises(Disturbed):
        undisturbed(once_disturbed, None)
