"""DeepSeek-V3 as published: its parameters, what one of eight devices holds, its cache and its draft layer."""

from __future__ import annotations

from functools import cache

import pytest

from tensorcast.answer import Answer
from tensorcast.request import Request

PARAMETERS = 671_026_404_352
DRAFT = 11_610_067_968  # two norms, the projection 14336 → 7168, one MoE layer with its norms, one norm
# One of eight ranks: an eighth of everything but the norms, the routers and the projections to the latents.
PER_RANK = 84_780_342_272


@cache
def answer(**options) -> Answer:
    work = dict(batch=4, input_len=1000, output_len=30)
    return Answer(Request.of(model="deepseek-v3", hw="ascend-910b", quant="none", **work, **options))


def held(facts) -> int:
    """Parameters of one rank."""
    return sum(group.parameters * (len(group.layers) or 1) for group in facts.weights)


def head_calls(found: Answer, phase: str) -> int:
    table = found.deployed.tables[phase]
    return sum(row.count for row in table.pieces[-1].rows if row.op == "linear" and row.module == "lm_head")


def test_parameters():
    facts = answer().facts
    assert facts.parameters == held(facts) == PARAMETERS


@pytest.mark.parametrize("ep", [1, 8])
def test_parameters_of_one_rank(ep):
    facts = answer(tp=8, ep=ep).facts
    assert (facts.parameters, held(facts)) == (PARAMETERS, PER_RANK)
    hidden, query, latent, rope = 7168, 1536, 512, 64
    norms = query + latent + 2 * hidden
    everywhere = 61 * (hidden * (query + latent + rope) + norms) + hidden + 58 * 256 * hidden
    assert (PARAMETERS - everywhere) / 8 + everywhere == PER_RANK


@pytest.mark.parametrize("tp", [1, 8])
def test_cache_of_a_token(tp):
    assert sum(group.nbytes(1) for group in answer(tp=tp).facts.caches) == 70_272


@pytest.mark.parametrize("mtp", [1, 3])
def test_draft_layer_shares_embedding_and_head(mtp):
    whole, drafting = answer(phase="decode"), answer(phase="decode", mtp=mtp)
    assert held(drafting.facts) - held(whole.facts) == DRAFT
    assert head_calls(drafting, "decode") - head_calls(whole, "decode") == mtp
    assert sum(group.nbytes(1) for group in drafting.facts.caches) == 70_272 + 1152


def test_drafts_run_one_after_another():
    piece = answer(phase="decode", mtp=3).deployed.tables["decode"].pieces[-1]
    drafts = [r for r in piece.rows if r.op == "mla_attention" and r.module.startswith("mtp.")]
    basis = piece.basis(4, 4, 1000)
    tokens = [sum(c * b for c, b in zip(r.dims["q"], basis, strict=True)) for r in drafts]
    assert [float(t[0]) for t in tokens] == [4, 1, 1]  # the first sees the tokens just verified, the others one each


def test_prompt_passes_the_draft_layer_once():
    whole, drafting = answer(phase="prefill"), answer(phase="prefill", mtp=3)
    assert head_calls(drafting, "prefill") - head_calls(whole, "prefill") == 1
    more = drafting.phases["prefill"].totals["matrix_flops"] / whole.phases["prefill"].totals["matrix_flops"] - 1
    assert 0.01 < more < 0.03  # one layer and a projection on top of 61


def test_drafts_take_time_and_give_tokens():
    plain, drafting = answer(tp=8, ep=8).metrics(), answer(tp=8, ep=8, mtp=1, acceptance_rate=0.0).metrics()
    certain = answer(tp=8, ep=8, mtp=1, acceptance_rate=1.0).metrics()
    assert drafting["tpot_s"] > plain["tpot_s"]
    assert certain["tpot_s"] == pytest.approx(drafting["tpot_s"] / 2)
