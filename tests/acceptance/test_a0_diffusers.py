"""Diffusers through the same nine steps: acceptance tests A0.22 to A0.26."""

from __future__ import annotations

import json

import pytest
import torch

import tensorcast as tc
from tensorcast.cli.main import cli
from tensorcast.errors import DeploymentError, TensorcastError
from tensorcast.formats import bytes_of
from tensorcast.layers.state import state_of
from tests.models.denoisers import FLUX_SMALL, UNET, WAN_1B, WAN_TINY

FLUX = {"_class_name": "FluxTransformer2DModel"}
NINE = (
    "wrap_model", "maybe_enable_mtp", "maybe_reuse_layers", "patch_rotary_emb", "patch_attention", "patch_mla",
    "patch_moe", "quantize_model", "shard_model",
)  # fmt: skip


@pytest.fixture
def refused(tmp_path, monkeypatch, capsys):
    """The one line on stderr of a command that must end with exit code 2."""
    monkeypatch.chdir(tmp_path)

    def refused(*args: str) -> str:
        capsys.readouterr()
        code = cli.run(["simulate", "--hw", "h100-sxm", "--quiet", *args], "tensorcast")
        err = capsys.readouterr().err
        assert code == 2, err
        assert len(err.strip().splitlines()) == 1, err
        return err

    return refused


def written(folder, config: dict, name: str = "config.json") -> str:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(config))
    return str(folder)


def linear_bytes(model, stack: str) -> float:
    """Bytes of the weights of all linears below `stack`, scales left out."""
    total = 0.0
    for path, module in model.module.named_modules():
        if path.startswith(f"{stack}.") and isinstance(module, torch.nn.Linear):
            spec = state_of(module).quant
            total += bytes_of(module.weight.numel(), spec.weight if spec is not None else "bf16")
    return total


@pytest.mark.parametrize(
    ("config", "parameters"), [(FLUX, 11_891_178_560), (WAN_1B, 1_418_996_800)], ids=["flux", "wan"]
)
def test_a0_22_same_nine_steps(config, parameters):
    model = tc.build_model(config)
    assert type(model).__name__ == "DiffusersTransformerModel"
    assert model.parameters == parameters
    steps = {step.name: step for step in model.steps}
    assert tuple(steps) == NINE
    assert steps["wrap_model"].status == steps["patch_attention"].status == "applied"
    for name in ("maybe_enable_mtp", "patch_rotary_emb", "patch_mla", "patch_moe"):
        assert steps[name].status == "skipped"
        assert steps[name].reason


def test_a0_22_quantize_and_shard_are_applied():
    steps = {s.name: s.status for s in tc.build_model(FLUX_SMALL, quant="w8a8", tp=2).steps}
    assert steps["quantize_model"] == steps["shard_model"] == "applied"
    steps = {s.name: s.status for s in tc.build_model(WAN_TINY, quant="w8a8", sp=2).steps}
    assert steps["quantize_model"] == steps["shard_model"] == "applied"


def test_a0_22_w8a8_halves_both_block_lists():
    plain, quantised = tc.build_model(FLUX), tc.build_model(FLUX, quant="w8a8")
    for stack, parameters in (("transformer_blocks", 6.457e9), ("single_transformer_blocks", 5.380e9)):
        inside = plain.module.get_submodule(stack).parameters()
        assert sum(p.numel() for p in inside) == pytest.approx(parameters, rel=1e-4)
        assert linear_bytes(plain, stack) > 0.99 * 2 * parameters
        assert linear_bytes(quantised, stack) == linear_bytes(plain, stack) / 2


def test_a0_23_tensor_parallel_is_a_plan_or_an_error(refused, tmp_path):
    whole, half = tc.build_model(FLUX), tc.build_model(FLUX, tp=2)
    step = half.steps[-1]
    assert step.status == "applied"
    assert "transformer_blocks.*.attn.to_q" in step.reason
    assert half.module.transformer_blocks[0].attn.to_q.weight.shape == (1536, 3072)
    assert half.module.transformer_blocks[0].attn.heads == 12
    assert half.module.single_transformer_blocks[0].proj_out.weight.shape == (3072, (3072 + 12288) // 2)
    held = sum(group.nbytes for group in half.facts.weights) / sum(group.nbytes for group in whole.facts.weights)
    assert 0.5 < held < 0.67  # modulation stays whole on every rank
    wan = tc.build_model(WAN_1B, tp=2)  # the class has no plan of its own: the table by names has
    assert "default to_out.0 (60)" in wan.steps[-1].reason and "default net.2 (30)" in wan.steps[-1].reason
    block = wan.module.blocks[0]
    assert (block.attn1.heads, tuple(block.attn1.norm_q.weight.shape), block.ffn.net[2].in_features) == (
        6,
        (768,),
        4480,
    )
    with pytest.raises(DeploymentError, match="no tensor-parallel plan for UNet2DConditionModel"):
        tc.build_model(UNET, tp=2)
    assert "no tensor-parallel plan for UNet2DConditionModel, which is mostly convolutions" in refused(
        "--model", written(tmp_path / "unet", UNET), "--tp", "2", "--image", "32x32"
    )


def test_a0_23_ulysses_heads_must_divide(refused, tmp_path):
    six = {**FLUX_SMALL, "num_attention_heads": 6}
    err = refused("--model", written(tmp_path / "six", six), "--sp", "4", "--image", "64x64")
    assert "--sp 4" in err and "6 heads" in err and "values that divide: 1, 2, 3, 6" in err
    with pytest.raises(DeploymentError, match="no sequence-parallel plan for UNet2DConditionModel"):
        tc.build_model(UNET, sp=2)


def test_a0_23_ulysses_sends_its_share_and_divides_the_work():
    """q, k, v and the result of every attention: (p-1)/p of the local bytes; the work of attention by p."""
    asked = {"model": FLUX_SMALL, "hw": "h100-sxm", "image": "128x128", "input_len": 64, "cache": False}
    alone = tc.simulate(**asked).phases["denoise"].ops
    whole = alone[alone.op == "attention"].matrix_flops.sum()
    for ranks in (2, 4):
        ops = tc.simulate(**asked, sp=ranks).phases["denoise"].ops
        sent = ops[ops.op == "all_to_all"]
        layers = FLUX_SMALL["num_layers"] + FLUX_SMALL["num_single_layers"]
        local = (64 + 64) / ranks * 256 * 2  # [tokens, width] bf16: 64 text and 64 picture tokens
        assert sent["count"].sum() == 4 * layers
        assert sent.comm_bytes.sum() == pytest.approx(4 * layers * local * (ranks - 1) / ranks)
        assert ops[ops.op == "attention"].matrix_flops.sum() * ranks == whole
        gathered = ops[ops.op == "all_gather"]
        assert gathered.comm_bytes.sum() == pytest.approx(64 * 64 * 2 * (ranks - 1) / ranks)


def test_a0_24_bad_folders(refused, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "transformer/config.json" in refused("--model", str(empty))
    written(empty, {"_class_name": "FluxPipeline"}, "model_index.json")
    err = refused("--model", str(empty))
    assert "transformer/config.json" in err and "unet/config.json" in err
    err = refused("--model", written(tmp_path / "no", {"_class_name": "FluxTransformer2DModle"}))
    assert "FluxTransformer2DModle" in err and "FluxTransformer2DModel" in err
    assert "NoSuch" in refused("--model", written(tmp_path / "no", {"_class_name": "NoSuch"}))


def test_a0_25_modules_kept_in_fp32():
    model = tc.build_model(WAN_1B)
    parameters = list(model.module.parameters())
    assert sum(p.numel() for p in parameters if p.dtype is torch.float32) == 3_127_296
    assert sum(p.numel() * p.element_size() for p in parameters) == 2_844_248_192
    assert model.weight_bytes == 2_844_248_192


def test_a0_26_nothing_leaks():
    import diffusers
    from diffusers.models import attention_dispatch

    def state():
        active = attention_dispatch._AttentionBackendRegistry.get_active_backend()
        functions = [vars(m)["dispatch_attention_fn"] for m in _users()]
        return active, functions, torch.get_default_dtype(), torch.nn.functional.scaled_dot_product_attention

    def _users():
        from diffusers.models.transformers import transformer_flux, transformer_wan

        return attention_dispatch, transformer_flux, transformer_wan

    def ordinary():
        torch.manual_seed(0)
        fields = {k: v for k, v in FLUX_SMALL.items() if not k.startswith("_")}
        module = diffusers.FluxTransformer2DModel(**fields).eval()
        with torch.no_grad():
            return module(
                hidden_states=torch.ones(1, 16, 64), encoder_hidden_states=torch.ones(1, 8, 48),
                pooled_projections=torch.ones(1, 32), timestep=torch.ones(1), img_ids=torch.zeros(16, 3),
                txt_ids=torch.zeros(8, 3), return_dict=False,
            )[0]  # fmt: skip

    before, result = state(), ordinary()
    for options in ({}, {"sp": 2}, {"tp": 2}):
        tc.simulate(model=FLUX_SMALL, hw="h100-sxm", image="128x128", input_len=64, cache=False, **options)
    assert state() == before
    assert torch.equal(ordinary(), result)


def test_a0_26_default_dtype_is_restored_when_a_step_raises():
    from tensorcast.pipelines import PIPELINES, register_custom_model

    with PIPELINES.isolated():

        @register_custom_model("wantransformer3dmodel")
        def broken(model):
            raise ValueError("no")

        before = torch.get_default_dtype()
        with pytest.raises(TensorcastError):
            tc.build_model(WAN_TINY)
    assert torch.get_default_dtype() is before
    with pytest.raises(TensorcastError):
        tc.build_model(UNET, tp=2)  # shard_model refuses
    assert torch.get_default_dtype() is before
