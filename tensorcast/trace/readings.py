"""Where encoders and encoder-decoders are traced for their tables: lengths that they fix, limit, or have two of."""

from __future__ import annotations

from tensorcast.models.roles import TOKENS, Reading
from tensorcast.trace.table import Layout, Point, layout_for

FAR = 4099
"""The longest input that a usual layout looks at."""


def layout_of(phase: str, asked: Point, reading: Reading, most: int | None) -> Layout | None:
    """The layout for a phase of a model that reads in another way than a decoder, which takes at most `most` tokens.

    None: the phase's usual one.
    """
    if phase == "decode":
        return _decode(asked[1], reading) if reading.encoder else None
    if phase == "forward" or (phase == "prefill" and reading.encoder):
        if reading.unit != TOKENS or reading.fixed:  # what convolutions make of sound is no multiple of its length
            return _pairs(layout_for("denoise", asked[1]))
        usual = _pairs(layout_for(phase, asked[1]))
        return _below(usual, most) if most is not None and most < FAR else usual
    return None


def _pairs(layout: Layout) -> Layout:
    """The layout with the square of the batch, too: two towers compare every text with every picture."""
    largest = max(b for b, _, _ in (*layout.points, *layout.checks)) + 1
    more = (largest, *layout.points[0][1:])
    return Layout((*layout.monomials, (2, 0, 0)), (*layout.points, more), layout.checks, layout.ranges)


def _decode(tokens: int, reading: Reading) -> Layout:
    """`tokens` is what the encoder has read: fixed where its result is no multiple of it."""
    if reading.unit != TOKENS or reading.fixed:
        return layout_for("decode", tokens)
    return Layout(
        monomials=tuple((b, *m) for b in (0, 1) for m in ((0, 0), (1, 0), (0, 1))),
        points=tuple((b, t, p) for b in (2, 3) for t, p in ((192, 96), (640, 96), (192, 704))),
        checks=((2, 2, 1), (5, 4099, 40961)),
        ranges=((1, None), (1, None), (1, None)),
    )


def _below(layout: Layout, most: int) -> Layout:
    """The layout with no sequence longer than `most` tokens, below which model code may make tables of positions."""
    longest = max(t for _, t, _ in layout.points)
    near = {t: t if longest <= most else max(2, t * most // longest) for _, t, _ in layout.points}
    batch, _, past = layout.ranges
    return Layout(
        monomials=layout.monomials,
        points=tuple((b, near[t], p) for b, t, p in layout.points),
        checks=tuple((b, min(t, most), p) for b, t, p in layout.checks),
        ranges=(batch, (2, most), past),
    )
