import pytest

from tensorcast.errors import DeploymentError, UnknownNameError
from tensorcast.quantization.schemes import SCHEMES, QuantSpec, nearest, scheme_named

A100 = {"fp32", "bf16", "fp16", "int8", "int4"}
H100 = {"fp32", "bf16", "fp16", "int8", "fp8"}
B200 = H100 | {"nvfp4", "mxfp4"}

ELEMENTS = 4096 * 14336


@pytest.mark.parametrize(
    "scheme, scales",
    [
        ("w8a8", 4 * 4096),
        ("w8a8-static", 4 * 4096 + 4),
        ("w8a16", 2 * 4096),
        ("fp8", 4),
        ("fp8-block", 4 * 32 * 112),
    ],
)
def test_bytes_of_8_bit_weights(scheme, scales):
    assert SCHEMES[scheme].weight_bytes(4096, 14336) == ELEMENTS + scales


@pytest.mark.parametrize(
    "scheme, scales",
    [
        ("w4a16", 2 * 4096 * 112),
        ("w4a8", 2 * 4096 * 112),
        ("mxfp4", 4096 * 448),
        ("nvfp4", 4096 * 896 + 4 + 4),
    ],
)
def test_bytes_of_4_bit_weights(scheme, scales):
    assert SCHEMES[scheme].weight_bytes(4096, 14336) == ELEMENTS // 2 + scales


def test_math_and_extra_kernels_of_every_scheme():
    assert {name: (spec.math, spec.extra) for name, spec in SCHEMES.items()} == {
        "w8a8": ("int8", ("quantize_dynamic", "scale_output")),
        "w8a8-static": ("int8", ("quantize_static", "scale_output")),
        "w8a16": ("bf16", ("dequantize_weight", "scale_output")),
        "w4a16": ("bf16", ("dequantize_weight",)),
        "w4a8": ("int8", ("quantize_dynamic", "dequantize_weight")),
        "fp8": ("fp8", ("quantize_dynamic", "scale_output")),
        "fp8-block": ("fp8", ("quantize_dynamic", "scale_groups")),
        "mxfp4": ("bf16", ("dequantize_weight",)),
        "nvfp4": ("nvfp4", ("quantize_dynamic",)),
    }


def test_no_two_schemes_are_priced_alike():
    seen = {(s.weight_bytes(4096, 14336), s.activation_bytes(7, 14336), s.math, s.extra) for s in SCHEMES.values()}
    assert len(seen) == len(SCHEMES)


def test_activation_bytes_include_the_scales_made_at_run_time():
    assert SCHEMES["w8a8"].activation_bytes(8, 4096) == 8 * 4096 + 8 * 4
    assert SCHEMES["w8a8-static"].activation_bytes(8, 4096) == 8 * 4096
    assert SCHEMES["fp8-block"].activation_bytes(8, 4096) == 8 * 4096 + 8 * 32 * 4
    assert SCHEMES["nvfp4"].activation_bytes(8, 4096) == 8 * 2048 + 8 * 256
    assert SCHEMES["w4a16"].activation_bytes(8, 4096) == 8 * 4096 * 2


def test_zero_points_and_part_filled_groups_count():
    awq = QuantSpec("int4", "fp16", weight_group=128, weight_zero_point=True, scale="fp16")
    assert awq.weight_bytes(4096, 14336) == ELEMENTS // 2 + 4096 * 112 * 2 + 4096 * 112 // 2
    assert SCHEMES["w4a16"].weight_bytes(1, 129) == 65 + 2 * 2
    assert SCHEMES["fp8-block"].weight_bytes(129, 128) == 129 * 128 + 4 * 2


def test_a_stack_of_experts_is_so_many_weights():
    assert SCHEMES["nvfp4"].weight_bytes(4096, 14336, 8) == 8 * SCHEMES["nvfp4"].weight_bytes(4096, 14336)


def test_fp16_models_compute_weight_only_schemes_in_fp16():
    spec = scheme_named("w4a16", "fp16")
    assert (spec.activation, spec.math, spec.scale, spec.label) == ("fp16", "fp16", "fp16", "w4a16")


@pytest.mark.parametrize(
    "scheme, machine, best",
    [
        ("fp8", A100, "w8a8"),
        ("fp8-block", A100, "w8a8"),
        ("nvfp4", H100, "w4a8"),
        ("w8a8", {"bf16", "fp8"}, "fp8"),
        ("nvfp4", B200, "nvfp4"),
        ("w8a8", {"bf16"}, "w8a16"),
        ("fp8", {"fp64"}, None),
    ],
)
def test_nearest_scheme_of_a_machine(scheme, machine, best):
    assert nearest(scheme, machine.__contains__) == best


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("bf16", "bf16"), "8 bits or fewer, not bf16"),
        (("int8", "int4"), "at least as wide"),
        (("int8", "fp8"), "no matrix unit multiplies them"),
        (("mxfp4", "int8"), "need floating-point activations"),
        (("nvfp4", "mxfp4"), "no matrix unit multiplies them"),
    ],
)
def test_pairs_no_kernel_has(arguments, message):
    with pytest.raises(DeploymentError, match=message):
        QuantSpec(*arguments)


def test_block_formats_bring_their_own_group():
    with pytest.raises(DeploymentError, match="nvfp4 has one scale per 16 inputs by definition"):
        QuantSpec("nvfp4", "nvfp4", weight_group=32)


def test_unknown_scheme():
    with pytest.raises(UnknownNameError, match=r"unknown quantisation scheme 'w8a9'; nearest: w8a8"):
        scheme_named("w8a9")
    assert scheme_named("FP8_block") == SCHEMES["fp8-block"]
