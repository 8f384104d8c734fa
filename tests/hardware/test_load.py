from __future__ import annotations

from pathlib import Path

import pytest

from tensorcast.errors import DuplicateError, HardwareError, UnknownNameError
from tensorcast.hardware.load import aliases, hardware, load_file, names, normalize

SMALL = """
name: box
aliases: [Box_1]
kind: gpu
vendor: acme
peaks: {bf16: 1.0e+14, source: s}
vector: {fp32: 1.0e+13, source: s}
memory: {bytes: 1000000000, bandwidth: 1.0e+12, source: s}
reserved: {bytes: 0, source: s}
host: {op_time_s: 1.0e-5, graph_launch_s: 1.0e-5, source: s}
topology:
  tiers:
    - {name: link, kind: switch, devices: 8, bandwidth: 1.0e+11, source: s}
sources: {s: a data sheet}
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "hardware_profiles").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path / "hardware_profiles"


def failing(folder: Path, text: str) -> str:
    (folder / "box.yaml").write_text(text)
    with pytest.raises(HardwareError) as caught:
        hardware("box")
    message = str(caught.value)
    assert message.startswith("box.yaml: ") and "\n" not in message
    return message


@pytest.mark.parametrize("name", sorted(names()))
def test_every_shipped_profile_loads(name):
    hw = hardware(name)
    assert hw.name == name
    assert hw.usable_bytes > 0.8 * hw.memory_bytes
    for field, source in hw.sources.items():
        assert source.text, field
    for rows in hw.coefficients.values():
        assert all(r.provenance and r.values for r in rows)


def test_shipped_aliases_do_not_hide_a_profile():
    assert not set(aliases()) & set(names())


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("ascend-910b", "ascend-910b2"), ("910b", "ascend-910b2"), ("ascend_910b", "ascend-910b2"),
        ("ASCEND_910C_DIE", "ascend-910c-die"), ("ascend-910b4-32g", "ascend-910b4"),
        ("h100", "h100-sxm"), ("a100", "a100-sxm-80g"), ("a100_sxm", "a100-sxm-80g"), ("h100_sxm", "h100-sxm"),
        ("h200", "h200-sxm"), ("b200_sxm", "b200-sxm"), ("b300_sxm", "b300-sxm"), ("GB200", "gb200"),
        ("rtx_pro_6000_server", "rtx-pro-6000"),
    ],
)  # fmt: skip
def test_aliases_and_spellings(alias, name):
    assert hardware(alias).name == name


def test_unknown_name():
    with pytest.raises(UnknownNameError, match=r"nearest: .*h100-sxm"):
        hardware("h100-sxn")
    with pytest.raises(UnknownNameError):
        hardware("universal")


def test_own_folder_wins_and_paths_work(folder):
    (folder / "h100-sxm.yaml").write_text(SMALL.replace("name: box", "name: h100-sxm").replace("Box_1", "h100"))
    assert hardware("h100-sxm").vendor == "acme"
    assert hardware("h100").vendor == "acme"
    assert hardware(folder / "h100-sxm.yaml").vendor == "acme"
    assert hardware("a100").vendor == "nvidia"


def test_a_small_file_is_enough(folder):
    (folder / "box.yaml").write_text(SMALL)
    hw = hardware("BOX-1")
    assert (hw.peak("bf16"), hw.memory_bytes, hw.topology.devices) == (1e14, 10**9, 8)
    assert hw.coefficient("gemm", "bf16").kind == "universal"
    assert hw.coefficient("gemm", "bf16").provenance.startswith("universal set")
    assert hw.sources["memory.bytes"].status == "specified"
    with pytest.raises(HardwareError, match="box does not compute fp8; it has bf16"):
        hw.peak("fp8")


def test_an_edited_file_is_read_again(folder):
    import os

    (folder / "box.yaml").write_text(SMALL)
    assert hardware("box").memory_bw == 1e12
    (folder / "box.yaml").write_text(SMALL.replace("bandwidth: 1.0e+12", "bandwidth: 2.0e+12"))
    os.utime(folder / "box.yaml", ns=(1, 1))
    assert hardware("box").memory_bw == 2e12


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("bandwidth: 1.0e+12", "bandwidth: 1e12", "must be a number, not '1e12' (YAML reads 1e12 as text"),
        ("bandwidth: 1.0e+12", "bandwidth: fast", "memory.bandwidth must be a number, not 'fast'"),
        ("bandwidth: 1.0e+12", "bandwidth: -1.0", "memory.bandwidth must be a finite number > 0, not -1.0"),
        ("bandwidth: 1.0e+12", "bandwidth: .nan", "memory.bandwidth must be a finite number > 0, not nan"),
        ("bytes: 1000000000", "bytes: 0", "memory.bytes must be a finite number > 0, not 0"),
        ("bytes: 1000000000", "bytes: true", "memory.bytes must be a number, not True"),
        ("bytes: 1000000000", "bytes: 0.5", "memory.bytes must be a whole number"),
        ("bytes: 1000000000", "byte: 1", "unknown field memory.byte; nearest: bytes"),
        ("bytes: 1000000000, ", "", "missing field memory.bytes"),
        ("vendor: acme", "vendr: acme", "unknown field vendr; nearest: vendor"),
        ("vendor: acme", "", "missing field vendor"),
        ("reserved: {bytes: 0, source: s}", "", "missing field reserved"),
        ("host: {op_time_s: 1.0e-5, graph_launch_s: 1.0e-5, source: s}", "", "missing field host"),
        ("kind: gpu", "kind: cpu", "kind must be one of npu, gpu, not 'cpu'"),
        ("bf16: 1.0e+14", "bf17: 1.0e+14", "nearest: bf16"),
        ("bf16: 1.0e+14", "int8: 1.0e+14", "peaks needs bf16 or fp16"),
        ("vector: {fp32: 1.0e+13, source: s}", "vector: {fp32: 1.0e+13}", "missing field vector.source"),
        ("vector: {fp32: 1.0e+13, source: s}", "vector: {fp32: 1.0e+13, source: t}", "'t' is not in sources: (s)"),
        ("devices: 8", "devices: eight", "tier link: devices must be a number"),
        ("kind: switch", "kind: mesh", "full_mesh, switch, ring"),
        ("sources:", "assumed: [memory.size]\nsources:", "'memory.size' is no field of this file"),
        ("sources:", "coefficients: {gem: []}\nsources:", "unknown field coefficients.gem"),
        (
            "sources:",
            "coefficients: {gemm: [{format: bf16, t0: 0.0, compute: 1.2, bandwidth: 0.8, source: s}]}\nsources:",
            "coefficients.gemm[0].compute must be at most 1, not 1.2",
        ),
        ("sources:", "coefficients_from: {device: box, source: s}\nsources:", "inherits from itself"),
    ],
)  # fmt: skip
def test_a_bad_field_is_named(folder, old, new, message):
    assert SMALL.count(old) == 1 or old in ("kind: gpu", "sources:")
    assert message in failing(folder, SMALL.replace(old, new, 1))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("- a\n- b\n", "holds a list"),
        ("a: [1, 2\nb: 3", "is not YAML (line 2)"),
        ("just words", "holds a str"),
    ],
)
def test_a_file_that_is_no_profile(folder, text, message):
    assert message in failing(folder, text)


def test_absent_file():
    with pytest.raises(HardwareError, match="no such hardware file"):
        hardware("nowhere/x.yaml")


def test_one_alias_for_two_devices(folder):
    (folder / "box.yaml").write_text(SMALL)
    (folder / "crate.yaml").write_text(SMALL.replace("name: box", "name: crate"))
    with pytest.raises(DuplicateError, match="'box-1' is claimed by box and crate"):
        hardware("box-1")


def test_normalize():
    assert normalize(" H100_SXM ") == "h100-sxm"


def test_load_file_equals_hardware():
    assert load_file(names()["h100-sxm"]).peaks == hardware("h100").peaks
