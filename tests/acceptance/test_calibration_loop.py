"""The whole loop as a user runs it: measure this computer, calibrate its profile, score the result."""

from __future__ import annotations

import json

from tests.cli.measured import MACHINE

# A processor is slower than the made-up accelerator; these bounds no computer of today reaches.
PROFILE = MACHINE.replace("1.0e+14", "2.0e+13").replace("bandwidth: 1.0e+12", "bandwidth: 4.0e+11")


def test_measure_calibrate_accuracy(tensorcast, process, tmp_path) -> None:
    (tmp_path / "here.yaml").write_text(PROFILE)
    families = ("--family", "gemm", "--family", "memory")
    asked = ("measure", "--hw", "here.yaml", "--out", "tables", "--device", "cpu", "--quick", *families)
    measured = process(*asked, OMP_NUM_THREADS="1")
    assert measured.code == 0, measured.err
    assert "gemm bfloat16 torch: 60 shapes measured" in measured.out

    calibrated = tensorcast(
        "calibrate", "--hw", "here.yaml", "--data", "tables", "--out", "mine.yaml", "--restarts", "0"
    )
    assert calibrated.code == 0, calibrated.err
    assert (tmp_path / "mine.yaml").is_file() and "kernels calibrated" in calibrated.out

    errors = {}
    for machine in ("here.yaml", "mine.yaml"):
        scored = tensorcast("accuracy", "tables", "--hw", machine, "--held-out", "--json", "-")
        assert scored.code == 0, scored.err
        errors[machine] = {name: row["median"] for name, row in json.loads(scored.out)["families"].items()}
    for family in ("gemm", "memory"):
        assert errors["mine.yaml"][family] < errors["here.yaml"][family], errors
    assert tensorcast("show", "hardware", "mine.yaml").code == 0
