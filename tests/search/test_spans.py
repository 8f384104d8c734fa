from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tensorcast.search.evaluation.spans import blocks, joined_spans

stretches = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 60), st.integers(1, 20)), min_size=1, max_size=30)


@given(stretches, st.integers(1, 200))
@settings(deadline=None)
def test_every_stretch_lies_in_its_span_and_no_number_is_priced_twice(asked, most):
    head, start, count = (np.array(column) for column in zip(*asked, strict=True))
    seen, cases = [], []
    for spans in joined_spans(head, start, start + count, most):
        numbers, where = spans.numbers, spans.where
        assert len(numbers) <= most or len(spans.start) == 1
        for case, span in zip(spans.cases, spans.span, strict=True):
            begin = start[case] - spans.start[span] + spans.offset[span]
            found = numbers[begin : begin + count[case]]
            assert found.tolist() == list(range(start[case], start[case] + count[case]))
            assert (spans.head[where[begin : begin + count[case]]] == head[case]).all()
        seen += list(zip(spans.head[where].tolist(), numbers.tolist(), strict=True))
        cases += spans.cases.tolist()
    wanted = {(h, n) for h, s, c in asked for n in range(s, s + c)}
    assert len(seen) == len(set(seen)) and set(seen) == wanted
    assert sorted(cases) == list(range(len(asked)))


@given(st.lists(st.integers(0, 50), max_size=40), st.integers(1, 80))
def test_blocks_cover_everything_once(sizes, most):
    found = list(blocks(np.array(sizes, dtype=int), most))
    assert [n for block in found for n in range(block.start, block.stop)] == list(range(len(sizes)))
    assert all(sum(sizes[block]) <= most or block.stop - block.start == 1 for block in found)
