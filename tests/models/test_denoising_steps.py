"""Steps of a diffusion pipeline: guidance, on one device and on two, and steps that take kept results."""

from __future__ import annotations

import pytest

from tensorcast.diffusion.dit_cache import Schedule
from tensorcast.errors import DeploymentError, InputError
from tests.models.denoisers import FLUX_SMALL
from tests.models.pipelines import flops, made

# -- guidance ----------------------------------------------------------------------------------------------------------


def test_guidance_doubles_the_work_of_a_step():
    none, batch, passes = (made(FLUX_SMALL, guidance=how) for how in ("none", "batch", "passes"))
    assert flops(batch) == flops(passes) == 2 * flops(none)
    assert passes.phases["denoise"]["read_bytes"] == 2 * none.phases["denoise"]["read_bytes"]  # weights are read twice
    assert batch.phases["denoise"]["read_bytes"] < passes.phases["denoise"]["read_bytes"]


@pytest.mark.parametrize("how", ["batch", "passes"])
def test_cfg_parallel_halves_a_step_for_one_exchange(how):
    one, two = (made(FLUX_SMALL, guidance=how, cfg_parallel=n) for n in (1, 2))
    assert flops(one) == 2 * flops(two)
    assert two.to_dict()["hardware"]["devices"] == 2
    sent = [op for op in two.to_dict()["phases"]["denoise"]["ops"] if op["comm_bytes"]]
    assert [(op["op"], op["count"]) for op in sent] == [("all_gather", 1)]
    assert sent[0]["comm_bytes"] == (128 // 16) ** 2 * 64 * 2  # its own prediction in bf16: tokens x channels
    half = made(FLUX_SMALL).phases["denoise"]["step_time_s"]
    assert two.phases["denoise"]["step_time_s"] == pytest.approx(half + sent[0]["time_s"], rel=1e-6)


def test_ulysses_and_cfg_parallel_divide_the_same_step(flux):
    """The other components run whole on every device."""
    asked = {"guidance": "passes", "input_len": 64}
    one, four = made(flux, **asked), made(flux, **asked, sp=2, cfg_parallel=2)
    assert flops(one, "text_encoder") == flops(four, "text_encoder")
    assert flops(one, "vae") == flops(four, "vae")
    attention = [
        sum(op["matrix_flops"] for op in e.to_dict()["phases"]["denoise"]["ops"] if op["op"] == "attention")
        for e in (one, four)
    ]
    assert attention[0] == 4 * attention[1]
    assert four.to_dict()["plan"] == {"tp": 1, "ep": 1, "dp": 1, "pp": 1, "sp": 2, "cfg": 2}


# -- steps that take kept results --------------------------------------------------------------------------------------


@pytest.mark.parametrize("every", [2, 3, 5])
@pytest.mark.parametrize(("first", "last"), [(1, 0), (4, 1), (30, 2)])
def test_full_steps_are_those_of_the_schedule(every, first, last):
    """Counted another way: after `first` steps, every so many."""
    steps = 28
    full = {*range(min(first, steps)), *range(steps - last, steps), *range(first - 1, steps, every)}
    assert Schedule(every, first, last).full_steps(steps) == len(full)


def test_latency_with_a_dit_cache(flux):
    estimate = made(flux, dit_cache="every=3,first=2")
    seconds = {name: phase["step_time_s"] for name, phase in estimate.phases.items()}
    assert list(seconds) == ["text_encoder", "denoise", "denoise_cached", "vae"]
    # Full: 0, 1, 4, 7; kept results: 2, 3, 5, 6, 8, 9.
    steps = 4 * seconds["denoise"] + 6 * seconds["denoise_cached"]
    assert estimate.metrics["denoise_s"] == pytest.approx(steps)
    assert estimate.metrics["image_latency_s"] == pytest.approx(seconds["text_encoder"] + steps + seconds["vae"])


@pytest.mark.parametrize(
    ("skip", "layers", "single"), [("0:1", 2, 4), ("1:3", 1, 4), ("3:5", 3, 2), ("2:5", 2, 2)]
)  # fmt: skip
def test_a_cached_step_costs_what_a_model_without_those_blocks_does(skip, layers, single):
    """Blocks are counted through both lists: 3 of two streams, then 4 of one."""
    cached = made(FLUX_SMALL, dit_cache=f"every=2,skip={skip}").phases["denoise_cached"]
    smaller = made({**FLUX_SMALL, "num_layers": layers, "num_single_layers": single}).phases["denoise"]
    assert cached["matrix_flops"] == smaller["matrix_flops"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x", "every=N and, where wanted"),
        ("first=2", "every is missing"),
        ("every=1", "every must be a whole number of at least 2"),
        ("every=2,every=3", "every=N and"),
        ("every=2,first=0", "first must be a whole number of at least 1"),
        ("every=2,skip=3", "the first block left out and the one behind the last"),
        ("every=2,skip=3:2", "the first block left out"),
        ("every=2,skip=5:9", "skip=5:9: FluxTransformer2DModel has 7 blocks"),
        ("every=2,skip=7:", "skip=7:: FluxTransformer2DModel has 7 blocks"),
    ],
)
def test_schedules_that_cannot_be(text, message):
    with pytest.raises((InputError, DeploymentError), match=message):
        made(FLUX_SMALL, dit_cache=text)
