import pytest

from tensorcast.errors import InputError, UnknownNameError
from tensorcast.formats import FORMATS, Format, bytes_of, format_named, machine_computes, scale_bytes_of


@pytest.mark.parametrize(
    "name, known",
    [
        ("bf16", "bf16"),
        ("torch.bfloat16", "bf16"),
        ("float16", "fp16"),
        ("half", "fp16"),
        ("Float32", "fp32"),
        ("float8_e4m3fn", "fp8"),
        ("F8_E4M3", "fp8"),
        ("fp8-e4m3", "fp8"),
        ("torch.float8_e5m2", "fp8_e5m2"),
        ("INT8", "int8"),
        ("mxfp4", "mxfp4"),
        ("NVFP4", "nvfp4"),
    ],
)
def test_a_format_goes_by_many_names(name, known):
    assert format_named(name).name == known


def test_an_unknown_format_names_its_neighbours():
    with pytest.raises(UnknownNameError, match=r"unknown number format 'mxpf4'; nearest: mxfp4"):
        format_named("mxpf4")


def test_fp4_elements_alone_do_not_say_which_scales_they_have():
    with pytest.raises(UnknownNameError):
        format_named("float4_e2m1fn_x2")


def test_bytes_are_packed_and_without_scales():
    assert [bytes_of(1000, f) for f in ("fp32", "tf32", "bf16", "fp8", "int8", "int4", "nvfp4")] == [
        4000,
        4000,
        2000,
        1000,
        1000,
        500,
        500,
    ]
    assert bytes_of(3, "int4") == 2


def test_scales_of_block_formats():
    assert scale_bytes_of(4096 * 64, "mxfp4", rows=64) == 64 * 128
    assert scale_bytes_of(4096 * 64, "nvfp4", rows=64) == 64 * 256 + 4
    assert scale_bytes_of(40, "mxfp8") == 2, "a part-filled block has its scale"
    assert scale_bytes_of(4096, "int8") == 0


def test_a_format_validates_itself():
    with pytest.raises(InputError, match="unknown math 'fp4'"):
        Format("fp4", 4, "fp4")
    with pytest.raises(InputError, match="go together"):
        Format("x", 4, "mxfp4", scale_bits=8)


def test_mxfp8_needs_matrix_units_with_block_scales():
    hopper, blackwell = {"bf16", "fp8"}, {"bf16", "fp8", "nvfp4"}
    assert not machine_computes("mxfp8", hopper.__contains__)
    assert machine_computes("mxfp8", blackwell.__contains__)
    assert machine_computes("fp8", hopper.__contains__)


def test_every_format_is_found_by_its_own_name():
    assert all(format_named(name) is fmt for name, fmt in FORMATS.items())
