"""From traces at a few points to an OpTable that is exact everywhere: every size is a polynomial of the workload.

The sizes are fitted exactly through as many points as there are monomials and checked at further points, near and far,
for batch 1 as well. Batch 1 is a piece of its own where the model runs other operators there. Where a check fails, or
the operators differ, the piece for the asked point alone is traced: slower, never wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np

from tensorcast.ops import own_operators
from tensorcast.optable import Monomial, OpTable, Piece, Row
from tensorcast.trace.dataflow import waits
from tensorcast.trace.tracer import Call, Tracer

Point = tuple[int, int, int]
EXTREME: Point = (4096, 1 << 20, 1 << 20)


@dataclass(frozen=True)
class Layout:
    """Which monomials a phase has, where it is traced for the fit, and where the fit is checked: near and far."""

    monomials: tuple[Monomial, ...]
    points: tuple[Point, ...]
    checks: tuple[Point, ...]
    ranges: tuple[tuple[int, int | None], ...]

    def extreme(self) -> Point:
        """A step larger than anybody's, where a user's `min(…)` or `max(…)` shows that ordinary sizes hide."""
        return tuple(most if high is None else high for most, (_, high) in zip(EXTREME, self.ranges, strict=True))

    def far(self) -> Layout:
        """The same with the far check alone: for a model whose sizes are known to be polynomials under another plan."""
        return replace(self, checks=self.checks[-1:])

    def at_batch_one(self) -> Layout:
        """The same without batch: for batch 1 alone."""
        keep = tuple(m for m in self.monomials if m[0] == 0)
        points = _unique((1, t, p) for _, t, p in self.points)
        checks = _unique((1, t, p) for _, t, p in self.checks)
        return Layout(keep, points[: len(keep)], checks, ((1, 1), *self.ranges[1:]))


def layout_for(phase: str, tokens: int) -> Layout:
    """prefill, forward, train: batch and tokens, no past. decode: batch and past, `tokens` fixed. chunked: all three.

    denoise and the stages around it: batch only; what a picture's tokens are is fixed when the model is deployed, and
    `tokens` are the prompt's.
    """
    if phase in ("denoise", "vision", "text_encoder", "vae_encoder", "vae"):
        points = tuple((b, tokens, 0) for b in (2, 3, 5))
        return Layout(((0, 0, 0), (1, 0, 0)), points[:2], points[2:], ((1, None), (tokens, tokens), (0, 0)))
    if phase in ("prefill", "forward", "train"):
        return Layout(
            monomials=tuple((b, s, 0) for b in (0, 1) for s in (0, 1, 2)),
            points=tuple((b, s, 0) for b in (2, 3) for s in (192, 256, 640)),
            checks=((2, 2, 0), (5, 4099, 0)),
            ranges=((1, None), (2, None), (0, 0)),
        )
    if phase == "decode":
        return Layout(
            monomials=tuple((b, 0, p) for b in (0, 1) for p in (0, 1)),
            points=tuple((b, tokens, p) for b in (2, 3) for p in (96, 704)),
            checks=((2, tokens, 1), (5, tokens, 40961)),
            ranges=((1, None), (tokens, tokens), (1, None)),
        )
    return Layout(
        monomials=tuple((b, s, p) for b in (0, 1) for s, p in ((0, 0), (1, 0), (2, 0), (0, 1), (1, 1))),
        points=tuple((b, s, p) for b in (2, 3) for s, p in ((192, 96), (256, 96), (640, 96), (192, 704), (256, 704))),
        checks=((2, 2, 1), (5, 4099, 8193)),
        ranges=((1, None), (2, None), (1, None)),
    )


def build_table(
    phase: str,
    trace: Callable[[Point], Tracer],
    asked: Point,
    *,
    step: int = 0,
    exact: bool = False,
    layout: Layout | None = None,
    polynomial: bool = False,
) -> OpTable:
    """The table of one phase; `asked` is a point it must cover. `trace(point)` runs the model there.

    `step`: tokens of a decode step when the point asked has another number. `exact`: only the point, where a table is
    known not to hold. `layout`: another than the phase's usual one. `polynomial`: tables of the same model under
    another plan have shown that its sizes are, so that one check far off is enough.
    """
    if exact:
        tracer = trace(asked)
        return OpTable(phase, (_exact_calls(_merged(tracer.calls), asked),), dict(tracer.uncosted))
    layout = layout or layout_for(phase, step or asked[1])
    layout = layout.far() if polynomial else layout
    traced: dict[Point, list[Call]] = {}
    uncosted: dict[str, int] = {}

    def calls(point: Point) -> list[Call]:
        if point not in traced:
            tracer = trace(point)
            traced[point] = _merged(tracer.calls)
            uncosted.update(tracer.uncosted)
        return traced[point]

    many, alone = _fit(layout, calls), layout.at_batch_one()
    if many is not None and not all(_agrees(many, calls(p), p) for p in alone.checks):
        many, one = replace(many, ranges=((2, None), *many.ranges[1:])), _fit(alone, calls)
    else:
        one = None
    pieces = tuple(piece for piece in (one, many) if piece is not None)
    notes = () if many is not None else ("sizes are not polynomial in the workload: traced at the asked points only",)
    if not any(piece.covers(asked) for piece in pieces):  # a prompt of one token runs the model's decode branch
        pieces = (*pieces, _exact_calls(calls(asked), asked))
    return OpTable(phase, pieces, uncosted, notes)


def _fit(layout: Layout, calls: Callable[[Point], list[Call]]) -> Piece | None:
    """The piece through the layout's points, or None when one of its checks disagrees."""
    samples = [calls(p) for p in layout.points]
    checks = layout.checks
    if not own_operators().isdisjoint(c.op for c in samples[0]):
        checks = (*checks, layout.extreme())
    shape = [_identity(c) for c in samples[0]]
    if any([_identity(c) for c in s] != shape for s in samples[1:]):
        return None
    terms = [[np.prod([x**e for x, e in zip(p, m, strict=True)]) for m in layout.monomials] for p in layout.points]
    inverse = np.linalg.inv(np.array(terms, float))
    main, rows, began = _main_stack(samples[0]), [], False
    for index, call in enumerate(samples[0]):
        began = began or bool(call.stack and call.stack == main)
        dims = {name: _coefficients(inverse, [s[index].dims[name] for s in samples]) for name in call.dims}
        memory = tuple(_coefficients(inverse, [getattr(s[index], m) for s in samples]) for m in ("live", "before"))
        rows.append(_row(index, call, dims, memory, main, began))
    piece = Piece(layout.ranges, layout.monomials, tuple(rows))
    return piece if all(_agrees(piece, calls(p), p) for p in checks) else None


def _agrees(piece: Piece, calls: list[Call], point: Point) -> bool:
    """Whether the piece's operators and sizes are those traced at `point`."""
    if len(calls) != len(piece.rows):
        return False
    basis = piece.basis(*point)
    for row, call in zip(piece.rows, calls, strict=True):
        if (row.op, row.module, row.after, dict(row.attrs)) != (call.op, call.module, call.after, call.attrs):
            return False
        values = {name: float((np.asarray(c) @ basis)[0]) for name, c in row.dims.items()}
        if any(abs(values[name] - size) > 1e-6 * max(1.0, abs(size)) for name, size in call.dims.items()):
            return False
        for coefficients, traced in zip(row.memory, (call.live, call.before), strict=True):
            if abs(float((np.asarray(coefficients) @ basis)[0]) - traced) > 0.5 + 1e-6 * traced:
                return False
    return True


def _exact_calls(calls: list[Call], point: Point) -> Piece:
    """A piece for one point: every size a constant."""
    main, rows, began = _main_stack(calls), [], False
    for index, call in enumerate(calls):
        began = began or bool(call.stack and call.stack == main)
        dims = {name: (float(size),) for name, size in call.dims.items()}
        rows.append(_row(index, call, dims, ((float(call.live),), (float(call.before),)), main, began))
    return Piece(tuple((x, x) for x in point), ((0, 0, 0),), tuple(rows))


def _row(number: int, call: Call, dims, memory, main: str, began: bool) -> Row:
    inside = bool(call.stack) and call.stack == main
    return Row(
        op=call.op,
        module=call.module,
        count=len(call.layers) if call.layers else 1,
        dims=dims,
        attrs=call.attrs,
        memory=memory,
        stack=call.stack,
        layers=tuple(sorted(call.layers or ())),
        place="" if inside else ("post" if began else "pre"),
        number=number,
        after=call.after,
    )


def _coefficients(inverse: np.ndarray, values: list[float]) -> tuple[float, ...]:
    """Solve for the coefficients; they are whole or simple fractions, so rounding removes the noise of the solver."""
    solved = np.round(inverse @ np.asarray(values, dtype=float), 6)
    return tuple(float(c) + 0.0 for c in solved)


def _main_stack(calls: Iterable[Call]) -> str:
    """The stack with the most layers: the decoder."""
    depth: dict[str, int] = {}
    for call in calls:
        if call.stack:
            depth[call.stack] = max(depth.get(call.stack, 0), max(call.layers) + 1)
    return max(depth, key=depth.get, default="")


def _merged(calls: list[Call]) -> list[Call]:
    """Equal calls of different layers become one, as if layers had been reused: the table is the same either way.

    The n-th call of a layer merges with the n-th of another layer of the same stack when everything else agrees.
    `after` then names places in the list: of all that any of the merged calls waits for.
    """
    out: dict[tuple, Call] = {}
    position: dict[tuple, int] = {}
    of_number: dict[int, set[tuple]] = {}
    for call in calls:
        module = _generic(call)
        layers = tuple(call.layers or ())
        order = position[(call.stack, layers)] = position.get((call.stack, layers), -1) + 1
        where = (call.stack, order) if call.stack else ("", len(out))
        key = (call.op, module, where, tuple(sorted(call.dims.items())), tuple(sorted(call.attrs.items(), key=str)))
        of_number.setdefault(call.number, set()).add(key)
        if key in out:
            first = out[key]
            first.layers = sorted({*(first.layers or ()), *layers})
            first.live, first.before = max(first.live, call.live), max(first.before, call.before)
        else:
            out[key] = replace(call, module=module, layers=list(layers) or None)
    place, after = {key: index for index, key in enumerate(out)}, {key: set() for key in out}
    for number, needed in waits(calls).items():
        places = {place[key] for other in needed for key in of_number[other]}
        for key in of_number[number]:
            after[key] |= places
    return [replace(call, after=tuple(sorted(after[key] - {place[key]}))) for key, call in out.items()]


def _generic(call: Call) -> str:
    """`model.layers.7.mlp` → `model.layers.*.mlp` for calls inside a stack."""
    prefix = f"{call.stack}."
    if call.stack and call.module.startswith(prefix):
        rest = call.module.removeprefix(prefix).partition(".")
        return f"{call.stack}.*{rest[1]}{rest[2]}"
    return call.module


def _identity(call: Call):
    return call.op, call.module, call.attrs, call.layers, call.after, sorted(call.dims)


def _unique(points: Iterable[Point]) -> tuple[Point, ...]:
    return tuple(dict.fromkeys(points))
