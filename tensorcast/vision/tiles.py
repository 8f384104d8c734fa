"""Cutting an image into square tiles."""

from __future__ import annotations

from fractions import Fraction


def least_enlarged(size: tuple[int, int], side: int, most: int) -> int:
    """Tiles of `side` pixels that an image of `size` pixels is cut into, at most `most`.

    The canvas is the one that the image is enlarged least to fill, else shrunk least, and the smallest of those. Where
    it has more than one tile, the whole image is one more.
    """
    grids = [(h, w) for h in range(1, most + 1) for w in range(1, most // h + 1)]
    scale = {(h, w): min(Fraction(h * side, size[0]), Fraction(w * side, size[1])) for h, w in grids}
    enlarging = [s for s in scale.values() if s >= 1]
    best = min(enlarging) if enlarging else max(scale.values())
    tiles = min(h * w for h, w in grids if scale[h, w] == best)
    return tiles + (tiles > 1)
