"""Slices on the grid of nanoseconds, by hand."""

from tensorcast.cost.timeline import Call, Slice
from tensorcast.report.perfetto.tracks import Grid, in_view, path_of


def call(stream: str, seconds: float) -> Call:
    return Call("op", "model", stream, seconds, "matrix")


def test_rounding_never_makes_calls_of_a_stream_overlap() -> None:
    """1.6 ns end at 2 on the grid; what starts at 1.4 ns, as summing up in another order may say, would at 1."""
    placed = Grid(100).place([Slice(call("compute", 1.6e-9), 0.0), Slice(call("compute", 0.3e-9), 1.4e-9)])
    assert [(each.begin, each.end) for each in placed] == [(100, 102), (102, 102)]


def test_modules_follow_the_compute_stream_and_the_other_one_while_it_waits() -> None:
    pieces = [
        Slice(call("compute", 10e-9), 0.0), Slice(call("communication", 20e-9), 5e-9),
        Slice(call("compute", 10e-9), 20e-9), Slice(call("communication", 15e-9), 25e-9),
    ]  # fmt: skip
    shown = [(begin, end, piece.call.stream) for begin, end, piece in in_view(Grid(0).place(pieces))]
    assert shown == [
        (0, 10, "compute"), (10, 20, "communication"), (20, 30, "compute"), (30, 40, "communication"),
    ]  # fmt: skip


def test_numbers_belong_to_the_name_before_them() -> None:
    def path(module: str, layer: int | None) -> tuple[str, ...]:
        return path_of(Slice(call("compute", 1.0)._replace(module=module), 0.0, layer))

    assert path("encoder.block.*.layer.0.SelfAttention.q", 3) == ("encoder", "block.3", "layer.0", "SelfAttention", "q")
    assert path("", None) == () and path("0.conv", None) == ("0", "conv")
