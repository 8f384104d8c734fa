from __future__ import annotations

import os
import signal

import pytest

from tensorcast.errors import InputError
from tensorcast.search.execution.forks import Forks, LostChild

changed = {"by": None}


def change(number):
    changed["by"] = number
    return number * number, os.getpid()


def refuse():
    raise InputError("no such thing")


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def test_calls_do_not_see_each_other():
    forks, found = Forks(2), {}
    for number in range(5):
        if forks.full:
            found.update([forks.next()])
        forks.start(number, change, number)
    while len(forks):
        found.update([forks.next()])
    assert {key: square for key, (square, _) in found.items()} == {n: n * n for n in range(5)}
    assert changed["by"] is None and os.getpid() not in {pid for _, pid in found.values()}
    forks.stop()


def test_what_a_call_raises_is_raised_here():
    forks = Forks(1)
    forks.start("a", refuse)
    with pytest.raises(InputError, match="no such thing"):
        forks.next()


def test_a_lost_child_is_one_line():
    forks = Forks(1)
    forks.start("tp 4", die)
    with pytest.raises(LostChild, match="tp 4"):
        forks.next()
    forks.stop()
