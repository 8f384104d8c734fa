"""The steady state on a made-up machine whose steps are straight lines, so that sums can be done by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tensorcast.serving.engines import Engine
from tensorcast.serving.steady import Load, SteadyState
from tensorcast.serving.steps import GRID

MIXES = Engine("mixes", 1e-3, 1e-6, 5e-3, 1e-3, step_tokens=4096)
APART = replace(MIXES, name="apart", mixes=False)
WAVES = replace(APART, name="waves", waves=1.0)


class Lines:
    """10 ms + 10 us a token; decode attention 20 us a sequence; prefill attention 1 us a token."""

    graph_s = host_s = 1e-5

    def __init__(self, drafts=0):
        self.drafts = drafts

    def shared(self, phase):
        return 10e-3 + 10e-6 * GRID

    def alone(self, phase, sequences, tokens=1, past=0):
        each = 20e-6 if phase == "decode" else 1e-6 * np.asarray(tokens, dtype=float)
        return np.broadcast_to(sequences * each, np.broadcast(sequences, tokens, past).shape).astype(float)


def solve(engine, clients, prompt=1000, out=101, drafts=0, per_step=1.0):
    load = Load(*(np.atleast_1d(v) for v in np.broadcast_arrays(clients, prompt, out)), per_step)
    return SteadyState(Lines(drafts), load, engine.step_tokens).solve(engine)


def test_drafts_share_a_step_out_over_the_tokens_that_it_yields():
    plain, drafted = solve(MIXES, 1), solve(MIXES, 1, drafts=1, per_step=1.8)
    assert drafted.tpot_s[0] == pytest.approx(plain.tpot_s[0] / 1.8)  # a step of `Lines` knows sequences only
    many = solve(MIXES, 64, drafts=1, per_step=1.0)  # drafts that are never accepted cost time and yield nothing
    assert many.tpot_s[0] > solve(MIXES, 64).tpot_s[0]


def test_one_client_by_hand():
    found = solve(MIXES, 1)
    assert found.tpot_s[0] == pytest.approx(10e-3 + 10e-6 + 20e-6 + 1e-3 + 1e-6)
    assert found.ttft_s[0] == pytest.approx(10e-3 + 1000 * 11e-6 + 5e-3 + 1e-3 + 1e-3 + 1e-6)
    assert found.running[0] == 1


def test_mixing_hides_the_weights_prompts_share():
    mixed, apart = solve(MIXES, 8), solve(APART, 8)
    assert mixed.tpot_s[0] < apart.tpot_s[0]
    step = 10e-3 + 30e-6 * mixed.running[0] + 1e-3 + 1e-6 * mixed.running[0]
    assert mixed.tpot_s[0] == pytest.approx(step + 7 * (1000 * 11e-6 + 1e-3) / 100, rel=0.01)


def test_waves_wait_for_half_of_all_prompts():
    one_by_one, waves = solve(APART, 32), solve(WAVES, 32)
    group = 10e-3 + 4000 * 11e-6 + 1e-3 + 4e-6 + 1e-3  # four prompts fit into a step of 4,096 tokens
    assert waves.ttft_s[0] == pytest.approx((8 + 1) / 2 * group + 5e-3, rel=1e-6)
    assert waves.ttft_s[0] > one_by_one.ttft_s[0]
    assert waves.tpot_s[0] < one_by_one.tpot_s[0]


def test_long_prompts_take_several_steps():
    found = solve(MIXES, 1, prompt=10_000)
    assert found.ttft_s[0] == pytest.approx(3 * (10e-3 + 2e-3 + 1e-6) + 10_000 * 11e-6 + 5e-3, rel=1e-6)


def test_prompts_that_need_more_steps_than_outputs_queue():
    short, long = solve(MIXES, 64, prompt=4096, out=9), solve(MIXES, 64, prompt=4096, out=1025)
    assert short.ttft_s[0] > 3 * long.ttft_s[0]
    busy = 10e-3 + 4096 * 11e-6
    assert short.tpot_s[0] >= busy  # every step is full of prompts


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([MIXES, APART, WAVES]),
    st.integers(1, 500),
    st.integers(2, 20_000),
    st.integers(1, 5_000),
)
def test_never_faster_than_the_device_and_never_better_with_more_clients(engine, clients, prompt, out):
    found, more = (solve(engine, c, prompt, out) for c in (clients, 2 * clients + 1))
    prefill = 10e-3 * np.ceil(prompt / engine.step_tokens) + prompt * 11e-6
    assert found.ttft_s[0] >= prefill
    assert found.tpot_s[0] >= 10e-3 + 30e-6
    assert 1 <= found.running[0] <= clients
    assert more.ttft_s[0] >= found.ttft_s[0] * 0.999
    assert more.tpot_s[0] >= found.tpot_s[0] * 0.999


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 300), min_size=2, max_size=6), st.sampled_from([MIXES, APART, WAVES]))
def test_cases_do_not_touch_each_other(clients, engine):
    together = solve(engine, np.array(clients))
    alone = [solve(engine, c) for c in clients]
    assert together.tpot_s == pytest.approx([a.tpot_s[0] for a in alone])
    assert together.ttft_s == pytest.approx([a.ttft_s[0] for a in alone])
    load = [Load(np.array([c]), np.array([1000]), np.array([101])) for c in clients]
    joined = SteadyState.joined([SteadyState(Lines(), one, engine.step_tokens) for one in load]).solve(engine)
    assert joined.tpot_s == pytest.approx(together.tpot_s)


@pytest.mark.parametrize("engine", [MIXES, APART, WAVES])
def test_throughput_stays_below_what_the_machine_can_do(engine):
    clients = np.array([1, 10, 100, 1000])
    found = solve(engine, clients)
    rate = clients / (found.ttft_s + 100 * found.tpot_s)  # requests a second
    work = 1000 * 11e-6 + 100 * 30e-6  # seconds of a request without the 10 ms of a step
    assert (rate * work < 1).all()
    assert (np.diff(rate) > 0).all()
