"""Work that a kernel takes over from its neighbour: pinned, since a match that silently fails changes the answer."""

from __future__ import annotations

import pytest

import tensorcast as tc


def ops_of(**changes):
    return tc.simulate("llama-3.1-8b", "h100", input_len=64, output_len=2, cache=False, **changes).phases["decode"].ops


def counts(ops) -> dict[str, int]:
    return ops.groupby("op")["count"].sum().to_dict()


@pytest.mark.parametrize("reuse", [True, False])
@pytest.mark.parametrize("tp", [1, 4])
def test_every_residual_sum_is_done_by_the_norm_behind_it(reuse, tp):
    found = counts(ops_of(tp=tp, reuse=reuse))
    assert found["residual_add"] == 2 * 32
    assert "aten::add" not in found


def test_sums_that_no_norm_reads_stay_kernels_of_their_own():
    # Gemma 3 normalises the branch before it is added, and again behind: only the sums that reach a norm are fused.
    ops = tc.simulate("gemma-3-4b", "h100", input_len=64, output_len=2, cache=False).phases["decode"].ops
    assert counts(ops)["residual_add"] == 2 * 34


def test_without_the_fusion_the_sum_is_a_launch():
    fused, alone = ops_of(), ops_of(kernel=["rms_norm=fused"])
    assert counts(alone)["aten::add"] == 64 and "residual_add" not in counts(alone)
    assert alone["time_s"].sum() > fused["time_s"].sum()
    for work in ("matrix_flops", "vector_flops", "write_bytes"):
        assert alone[work].sum() == pytest.approx(fused[work].sum(), rel=1e-12)
    assert alone["read_bytes"].sum() > fused["read_bytes"].sum()
