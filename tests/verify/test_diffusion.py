"""Denoisers of diffusers against torch's counter, their published sizes, and what splitting them must keep."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import tensorcast as tc
from tensorcast.diffusion import survey
from tensorcast.errors import DeploymentError, KernelError
from tests.later import later
from tests.models.denoisers import FLUX_SMALL, SMALL, UNET, WAN_TINY
from tests.verify.deployed import matrix_flops, record

FLUX_DEV = {"_class_name": "FluxTransformer2DModel", "guidance_embeds": True}
WAN_14B = {
    "_class_name": "WanTransformer3DModel", "patch_size": [1, 2, 2], "num_attention_heads": 40,
    "attention_head_dim": 128, "in_channels": 16, "out_channels": 16, "text_dim": 4096, "freq_dim": 256,
    "ffn_dim": 13824, "num_layers": 40, "cross_attn_norm": True, "qk_norm": "rms_norm_across_heads",
}  # fmt: skip
SAMPLE = (
    "AllegroTransformer3DModel", "CosmosTransformer3DModel", "LatteTransformer3DModel", "Lumina2Transformer2DModel",
    "StableAudioDiTModel", "ControlNetUnionModel", "Kandinsky5Transformer3DModel", "ZImageTransformer2DModel",
    "PriorTransformer", "QwenImage21Transformer2DModel", "AceStepTransformer1DModel", "WanVACETransformer3DModel",
)  # fmt: skip
"""One class of every way of taking arguments: masks with values, lists, sound, pictures to follow, rotary tables …"""


def denoise(config, **options):
    video = "3D" in config["_class_name"]
    asked = {"hw": "h100-sxm", "image": "128x128", "input_len": 32, **options}
    return tc.simulate(model=config, **({"frames": 9} if video else {}), **asked).phases["denoise"]


@pytest.mark.parametrize(("config", "parameters"), [(FLUX_DEV, 11_901_408_320), (WAN_14B, 14_288_491_584)])
def test_published_parameters(config, parameters):
    assert tc.build_model(config).parameters == parameters


@pytest.mark.parametrize("name", later(SAMPLE, SAMPLE[::2]))
def test_default_configurations_count_what_torch_counts(name):
    """Full depth, default sizes, on meta: equal as whole numbers; and a trace takes less than a second."""
    found = survey.look_at(name, kinds=())
    assert found.reason == ""
    assert found.flops == found.counted > 0
    assert found.unknown == ()


@pytest.mark.nightly
def test_every_class_traces_or_says_why():
    found = [survey.look_at(name, kinds=()) for name in survey.model_classes()]
    traced = [f for f in found if not f.reason]
    assert len(traced) >= 126
    assert all(f.reason.startswith("not run by itself: ") for f in found if f.reason)
    assert {f.name for f in traced if f.counted not in (None, f.flops)} <= {"OmniGenTransformer2DModel"}
    assert max(f.seconds for f in traced) < 2
    assert {f.name for f in found if f.reason and f.room == "transformers"} == {
        "AnyFlowFARTransformer3DModel", "Cosmos3OmniTransformer", "Kandinsky6SRTransformer3DModel",
        "MiniMaxH3Transformer3DModel", "MiniMaxMusic3RVQDepthDecoder", "RFD4ProteinaTransformer",
        "SanaWMLTX2RefinerTransformer3DModel", "WanAnimate2Transformer3DModel",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("module", "sizes"),
    [
        (nn.Conv2d(8, 12, 3, padding=1), (2, 8, 10, 14)),
        (nn.Conv2d(8, 16, 3, stride=2, groups=4), (2, 8, 11, 15)),
        (nn.Conv3d(4, 6, 3, padding=1), (2, 4, 5, 6, 7)),
        (nn.ConvTranspose2d(8, 12, 4, stride=2, padding=1), (2, 8, 10, 14)),
        (nn.ConvTranspose1d(8, 12, 4, stride=2), (2, 8, 10)),
    ],
)
def test_convolutions_are_products(module, sizes):
    module, x = module.eval().requires_grad_(False), torch.zeros(sizes)
    with FlopCounterMode(display=False) as counter:
        module(x)
    assert matrix_flops(record(module, input=x).calls) == counter.get_total_flops() > 0


@pytest.mark.parametrize(
    "kind",
    later(["wan", "sd3", "pixart", "hunyuan-video", "cogvideox", "ltx", "cogview4"], ["pixart", "ltx", "cogview4"]),
)
def test_tensor_parallel_halves_attention_and_feed_forward(kind):
    whole, half = (denoise(SMALL[kind], tp=tp).ops for tp in (1, 2))
    pattern = r"\.(?:attn\w*|ff\w*|proj_mlp|ffn)(?:\.|$)|blocks\.\*\.proj_out$"
    inside = [ops[ops.module.str.contains(pattern) & (ops.matrix_flops > 0)] for ops in (whole, half)]
    assert inside[1].matrix_flops.sum() * 2 == inside[0].matrix_flops.sum() > 0
    assert half[half.op == "all_reduce"].comm_bytes.sum() > 0
    plain, split = tc.build_model(SMALL[kind]), tc.build_model(SMALL[kind], tp=2)
    assert plain.weight_params > split.weight_params >= plain.weight_params / 2


def test_tensor_parallel_is_refused_where_the_code_cannot_be_cut():
    with pytest.raises(DeploymentError, match="mostly convolutions"):
        denoise(UNET, tp=2)


@pytest.mark.parametrize("kind", ["flux", "wan", "qwen-image", "ltx"])
@pytest.mark.parametrize("ranks", [2, 4])
def test_ulysses_conserves_work(kind, ranks):
    one, ops = (denoise(SMALL[kind], image="256x256", input_len=64, sp=sp).ops for sp in (1, ranks))
    blocks = [
        frame[frame.module.str.contains("blocks") & frame.op.isin(["attention", "linear"])] for frame in (one, ops)
    ]
    split = [frame[~frame.module.str.contains(r"norm|_mod|attn2\.to_[kv]")] for frame in blocks]
    assert split[1].matrix_flops.sum() * ranks == split[0].matrix_flops.sum() > 0


@pytest.mark.parametrize(("percent", "share"), [(50, 0.5), (75, 0.25), (90, 0.125)])
def test_block_sparse_attention_computes_its_share_of_the_pairs(percent, share):
    """8 blocks of 128 keys; of ten percent one block is left. The prompt's keys all count."""
    asked = {"image": "512x512", "frames": 1}
    dense, sparse = (denoise_wan(**asked, **k) for k in ({}, {"kernel": f"attention=block_sparse_{percent}"}))
    own = [ops[ops.module.str.endswith("attn1") & ops.op.str.contains("attention")] for ops in (dense, sparse)]
    assert own[1].matrix_flops.sum() == share * own[0].matrix_flops.sum()
    assert own[1].read_bytes.sum() >= own[0].read_bytes.sum()  # every key is seen by some query
    prompt = [ops[ops.module.str.endswith("attn2") & ops.op.str.contains("attention")] for ops in (dense, sparse)]
    assert prompt[1].matrix_flops.sum() == prompt[0].matrix_flops.sum() > 0


def denoise_wan(**options):
    asked = {"hw": "h100-sxm", "input_len": 32, **options}
    return tc.simulate(model=WAN_TINY, **asked).phases["denoise"].ops


def test_block_sparse_attention_is_not_for_language_models():
    with pytest.raises((KernelError, tc.errors.TensorcastError), match="attention in both directions"):
        tc.simulate(model="qwen3-0.6b", layers=1, hw="h100-sxm", kernel="attention=block_sparse_50", cache=False)


@pytest.mark.parametrize(
    "kind",
    later(["sd3", "hunyuan-video", "cogvideox", "pixart", "unet with sizes", "ltx", "sana"], ["pixart", "ltx", "sana"]),
)
def test_reuse_changes_nothing(kind):
    one, every = (denoise(SMALL[kind], reuse=reuse) for reuse in (True, False))
    for figure in ("matrix_flops", "vector_flops", "read_bytes", "write_bytes", "step_time_s"):
        assert one[figure] == pytest.approx(every[figure], rel=1e-12)


@pytest.mark.parametrize("kind", ["flux", "wan", "qwen-image", "cogvideox", "pixart", "sana", "ltx"])
def test_quantisation_reaches_every_block(kind):
    """Every product inside a list of blocks has the format; what the class keeps in fp32 stays."""
    model = tc.build_model(SMALL[kind], quant="w8a8")
    assert model.stacks
    for stack in model.stacks:
        for path, part in model.module.get_submodule(stack.path).named_modules():
            if isinstance(part, nn.Linear):
                assert f"{stack.path}.{path}" in model.quantised, (stack.path, path)
    kept = {name for name in getattr(type(model.module), "_keep_in_fp32_modules", None) or ()}
    for path, parameter in model.module.named_parameters():
        if kept & {*path.split(".")}:
            assert parameter.dtype is torch.float32, path


def test_every_block_list_is_grouped():
    lists = {kind: [s.path for s in tc.build_model(SMALL[kind]).stacks] for kind in ("flux", "hunyuan-video", "wan")}
    assert lists["flux"] == ["transformer_blocks", "single_transformer_blocks"]
    assert lists["wan"] == ["blocks"]
    assert FLUX_SMALL["num_layers"] == 3
