"""What programs read: the JSON's and the CSV's fields are those of the interface, and exit codes tell the verdict."""

from __future__ import annotations

import csv
import io
import json

import pytest

OP = [
    "op", "module", "count", "time_s", "bound", "matrix_flops", "vector_flops", "read_bytes", "write_bytes",
    "comm_bytes",
]  # fmt: skip
ALSO = ["math", "collective", "ranks", "tier"]  # of operators that have them
FIELDS = {
    "model": ["name", "architecture", "model_type", "origin", "parameters", "active_parameters"],
    "hardware": [
        "name", "devices", "asked", "description", "peak_flops", "vector_flops", "memory_bytes", "memory_bandwidth",
        "tiers",
    ],
    "plan": ["tp", "ep", "dp", "pp", "sp"],
    "quant": ["source", "modules", "kv_cache", "attention"],
    "metrics": [
        "ttft_s", "tpot_s", "request_latency_s", "tokens_per_s", "tokens_per_s_per_device", "tokens_per_s_per_user",
    ],
    "memory": [
        "weights_bytes", "kv_cache_bytes", "activation_peak_bytes", "workspace_bytes", "reserved_bytes", "total_bytes",
        "capacity_bytes", "fits", "max_batch", "max_context",
    ],
}  # fmt: skip
PHASE = [
    "step_time_s", "host_time_s", "matrix_flops", "vector_flops", "read_bytes", "write_bytes", "comm_bytes", "mfu",
    "mbu", "time_by_bound_s", "ops", "timeline",
]  # fmt: skip
BOUNDS = ["matrix", "vector", "memory", "communication", "overhead"]
SMALL = ("simulate", "--model", "qwen3-0.6b", "--hw", "h100", "--input-len", "256", "--output-len", "8")


def test_json_has_the_fields_of_the_interface_and_is_alone_on_stdout(tensorcast) -> None:
    done = tensorcast(*SMALL, "--tp", "2", "--json", "-")
    assert (done.code, done.err) == (0, "")
    found = json.loads(done.out)
    assert list(found) == [
        "schema", "model", "hardware", "plan", "quant", "workload", "phases", "metrics", "memory", "steps", "kernels",
        "uncosted_ops", "warnings", "provenance", "assumptions", "command",
    ]  # fmt: skip
    assert found["schema"] == 1
    for part, names in FIELDS.items():
        assert list(found[part]) == names, part
    assert list(found["phases"]) == ["prefill", "decode"]
    for phase in found["phases"].values():
        assert list(phase) == PHASE and list(phase["time_by_bound_s"]) == BOUNDS
        assert phase["ops"] and all(
            [n for n in op if n not in ALSO] == OP and type(op["count"]) is int for op in phase["ops"]
        )
        assert {op["bound"] for op in phase["ops"]} <= set(BOUNDS)
    assert [step["name"] for step in found["steps"]] == [
        "wrap_model", "maybe_enable_mtp", "maybe_reuse_layers", "patch_rotary_emb", "patch_attention", "patch_mla",
        "patch_moe", "quantize_model", "shard_model",
    ]  # fmt: skip
    assert all(list(step) == ["name", "status", "reason", "matched"] for step in found["steps"])
    assert {step["status"] for step in found["steps"]} == {"applied", "skipped"}
    assert all(step["reason"] for step in found["steps"] if step["status"] == "skipped")


def test_csv_is_the_json_row_by_row(tensorcast, tmp_path) -> None:
    done = tensorcast(*SMALL, "--json", "r.json", "--csv", "r.csv", "-q")
    assert (done.code, done.out, done.err) == (0, "", "")
    found = json.loads((tmp_path / "r.json").read_text())
    rows = list(csv.DictReader(io.StringIO((tmp_path / "r.csv").read_text())))
    ops = [{"phase": name, **op} for name, phase in found["phases"].items() for op in phase["ops"]]
    fixed = ["phase", *OP]
    assert list(rows[0])[: len(fixed)] == fixed and {*rows[0]} == {name for op in ops for name in op} <= {*fixed, *ALSO}
    assert [{k: type(op[k])(row[k]) for k in op} for row, op in zip(rows, ops, strict=True)] == ops
    assert not any(row[name] for row, op in zip(rows, ops, strict=True) for name in row.keys() - op.keys())


def test_a_process_of_its_own_says_the_same_each_time(tensorcast, process) -> None:
    asked = (*SMALL, "--tp", "2", "--json", "-")
    assert tensorcast(*asked) == process(*asked) == process(*asked)


@pytest.mark.parametrize(("device", "code"), [("h100", 0), ("l4", 3)])
def test_the_exit_code_tells_whether_it_must_fit(tensorcast, device: str, code: int) -> None:
    done = tensorcast("simulate", "--model", "qwen3-14b", "--hw", device, "-q", "--require-fit")
    assert done.code == code and done.out == ""
    assert done.err.count("\n") == (1 if code else 0)
    assert code == 0 or done.err.startswith("does not fit: needs ")
    assert tensorcast("simulate", "--model", "qwen3-14b", "--hw", device, "-q").code == 0


def test_the_report_fits_a_narrow_terminal(tensorcast) -> None:
    done = tensorcast("simulate", "--model", "deepseek-v3", "--hw", "ascend-910b", "--tp", "8")
    lines = done.out.splitlines()
    assert done.code == 0 and max(map(len, lines)) <= 80
    assert lines[0] == "deepseek-v3 on 8 x ascend-910b2 (asked for as ascend-910b)"
    assert "work        phase auto · batch 1 · input len 4,096 · output len 1,024" in lines
    assert any("DOES NOT FIT" in line for line in lines) and "  plans that fit:" in lines
    assert any("671,026,404,352 parameters" in line for line in lines)
    assert any(line.startswith("figures     ") for line in lines)
