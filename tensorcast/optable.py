"""The OpTable: every operator a deployed model runs in one phase, as polynomials of the workload. No torch.

A table is made of *pieces*: a piece holds for a range of the variables (batch, tokens, past) and lists rows whose sizes
are polynomials in them. Evaluating it for many configurations is one matrix product.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

VARIABLES = ("batch", "tokens", "past")
Monomial = tuple[int, int, int]  # exponents of batch, tokens, past


@dataclass(frozen=True)
class Row:
    """One distinct operator call.

    `dims`: size name → coefficients over the piece's monomials. `memory`: bytes in use when it has run, and the most
    bytes in use between the row before and this one, likewise. `stack` and `layers` say which layers it stands for
    (every call of all of them), `place` where in the step a row outside of the main stack belongs: before or after it.
    `number` names the row among those of its piece; `after` are those that it waits for in the same layer, or, outside
    of layers, in the same place (a layer waits for all of the one before it).
    """

    op: str
    module: str
    count: int
    dims: Mapping[str, tuple[float, ...]]
    attrs: Mapping[str, Any]
    memory: tuple[tuple[float, ...], tuple[float, ...]]
    stack: str = ""
    layers: tuple[int, ...] = ()
    place: str = ""  # pre | post | "" for rows of the main stack
    number: int = -1
    after: tuple[int, ...] = ()

    def to_dict(self) -> dict:
        out = {k: (dict(v) if isinstance(v, Mapping) else v) for k, v in vars(self).items()}
        return {k: v for k, v in out.items() if v or k not in ("stack", "layers", "place", "after")}

    @classmethod
    def from_dict(cls, d: Mapping) -> Row:
        dims = {k: tuple(v) for k, v in d["dims"].items()}
        memory, layers, after = tuple(map(tuple, d["memory"])), tuple(d.get("layers", ())), tuple(d.get("after", ()))
        return cls(**{**d, "dims": dims, "memory": memory, "layers": layers, "after": after})


@dataclass(frozen=True)
class Piece:
    """Rows valid where every variable lies in its range (inclusive; None = no upper end)."""

    ranges: tuple[tuple[int, int | None], ...]
    monomials: tuple[Monomial, ...]
    rows: tuple[Row, ...]

    def covers(self, point: tuple[int, int, int]) -> bool:
        return all(low <= x and (high is None or x <= high) for x, (low, high) in zip(point, self.ranges, strict=True))

    def covers_all(self, *point: np.ndarray) -> np.ndarray:
        """`covers` for arrays of batch, tokens and past."""
        inside = np.ones(len(point[0]), dtype=bool)
        for x, (low, high) in zip(point, self.ranges, strict=True):
            inside &= x >= low
            if high is not None:
                inside &= x <= high
        return inside

    def basis(self, batch, tokens, past) -> np.ndarray:
        """Value of every monomial: [monomials, configurations]."""
        values = np.broadcast_arrays(*(np.asarray(v, dtype=float) for v in (batch, tokens, past)))
        flat = [v.reshape(-1) for v in values]
        out = np.ones((len(self.monomials), flat[0].size))
        for row, exponents in zip(out, self.monomials, strict=True):
            for v, exponent in zip(flat, exponents, strict=True):
                for _ in range(exponent):
                    row *= v
        return out

    def to_dict(self) -> dict:
        return {
            "ranges": self.ranges,
            "monomials": self.monomials,
            "rows": [r.to_dict() for r in self.rows],
        }

    @classmethod
    def from_dict(cls, d: Mapping) -> Piece:
        return cls(
            tuple((a, b) for a, b in d["ranges"]),
            tuple(tuple(m) for m in d["monomials"]),
            tuple(Row.from_dict(r) for r in d["rows"]),
        )


@dataclass(frozen=True)
class OpTable:
    """One phase of one deployed model."""

    phase: str
    pieces: tuple[Piece, ...]
    uncosted: Mapping[str, int] = field(default_factory=dict)  # operators nobody described, with how often they run
    notes: tuple[str, ...] = ()

    def piece_for(self, batch: int, tokens: int, past: int) -> Piece | None:
        """The piece that holds at a point, or None: the table must be extended there."""
        return next((p for p in self.pieces if p.covers((batch, tokens, past))), None)

    @property
    def polynomial(self) -> bool:
        """Whether one piece of sizes that vary holds for every workload; not where single points were traced."""
        return len(self.pieces) == 1 and any(any(exponents) for exponents in self.pieces[0].monomials)

    def covers_between(self, low: tuple[int, int, int], high: tuple[int, int, int]) -> bool:
        """Whether one piece holds at both points, and so at every point between them."""
        return any(piece.covers(low) and piece.covers(high) for piece in self.pieces)

    def joined(self, other: OpTable) -> OpTable:
        """The table with the pieces of both; where both cover a point, this one's piece is used."""
        notes = tuple(dict.fromkeys((*self.notes, *other.notes)))
        return OpTable(self.phase, (*self.pieces, *other.pieces), {**other.uncosted, **self.uncosted}, notes)

    def to_dict(self) -> dict:
        return {
            "phase": self.phase,
            "pieces": [p.to_dict() for p in self.pieces],
            "uncosted": dict(self.uncosted),
            "notes": list(self.notes),
        }

    @classmethod
    def from_dict(cls, d: Mapping) -> OpTable:
        return cls(d["phase"], tuple(Piece.from_dict(p) for p in d["pieces"]), d["uncosted"], tuple(d["notes"]))


def sizes(piece: Piece, basis: np.ndarray) -> Iterator[tuple[Row, dict[str, np.ndarray]]]:
    """Each row with its sizes at the configurations of `basis`; sizes that no variable touches stay one number."""
    for row in piece.rows:
        yield row, {name: np.asarray(c) @ basis for name, c in row.dims.items()}
