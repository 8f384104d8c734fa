"""What no start line is made of, and names that a shell could misread."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from tensorcast.emit.line import ENGINES, start_line
from tensorcast.errors import DeploymentError, InputError, TensorcastError, UnknownNameError
from tensorcast.request import Request
from tests.emit.reading import DOCUMENTED, deepseek, mapping, qwen, read

CONFIGS = Path(__file__).parents[3] / "shared/model_configs/llm"

# -- refusals ----------------------------------------------------------------------------------------------------------

REFUSED = {
    "a part of the experts": ("vllm", lambda: deepseek(tp=8, ep=4), "divided over 4 devices.*--ep 1 or --ep 8"),
    "context parallel": ("sglang", lambda: deepseek(tp=8, dcp=8), "no setting for --dcp 8; it can set tp, pp, dp, ep"),
    "sequence parallel": ("vllm", lambda: qwen(tp=8, sequence_parallel=True), "no setting for --sequence-parallel"),
    "pipeline": ("mindie", lambda: qwen(hw="ascend-910b", tp=2, pp=2), "no setting for --pp 2; it can set tp, dp, ep"),
    "tp with dp": ("trtllm", lambda: deepseek(tp=2, dp=4, ep=8, batch=8), "--tp 8 --dp 1 or --tp 1 --dp 8"),
    "copies": ("trtllm", lambda: qwen(tp=2, dp=2, batch=2), "2 of --tp 2; give --dp 1"),
    "draft and pipeline": ("sglang", lambda: deepseek(tp=8, pp=2, mtp=1), "speculates with --pp 1 only"),
    "three drafts": ("mindie", lambda: replace(qwen(hw="ascend-910b"), work=replace(qwen().work, mtp=3)), "1 or 2"),
    "w8a8": ("vllm", lambda: qwen(quant="w8a8"), "into w8a8: it quantises to fp8, fp8-block itself"),
    "fp8 by trtllm": ("trtllm", lambda: qwen(quant="fp8"), "into fp8: it quantises nothing itself"),
    "not as stored": ("vllm", lambda: deepseek(quant="none"), "stored in fp8-block and was simulated in 16 bit"),
    "machine without it": (
        "mindie", lambda: Request.of(model="deepseek-v3", hw="ascend-910b"), "stored in fp8-block",
    ),
    "int8 cache": ("vllm", lambda: qwen(kv_cache_dtype="int8"), "KV cache in int8.*own \\(bf16\\), fp8"),
    "attention": ("vllm", lambda: qwen(attention_quant="fp8"), "--attention-quant fp8"),
    "excluded": ("vllm", lambda: qwen(quant="fp8", exclude="lm_head"), "--exclude: servers take modules as"),
    "changed": ("vllm", lambda: qwen(layers=2), "--layers: the server would load the unchanged model"),
    "other machine": ("trtllm", lambda: qwen(hw="ascend-910b"), "runs on nvidia devices, not on ascend-910b2"),
    "training": ("vllm", lambda: qwen(phase="train"), "language model that generates"),
    "images": ("vllm", lambda: Request.of(model="flux.1-dev", hw="h200-sxm"), "language model that generates"),
    "eager": ("trtllm", lambda: qwen(runtime="eager"), "--runtime eager.*leave --runtime eager out"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_an_engine_cannot_have_is_one_line(case: str) -> None:
    engine, request, message = REFUSED[case]
    with pytest.raises((DeploymentError, InputError), match=message) as refusal:
        start_line(engine, request())
    assert "\n" not in str(refusal.value)


def test_unknown_engine() -> None:
    with pytest.raises(UnknownNameError, match="unknown server 'vlm'; nearest: vllm"):
        start_line("vlm", mapping())


@pytest.mark.parametrize("given", [None, "qwen3-32b", {}, {"model": {}, "plan": {}, "quant": {}}, 3])
def test_not_a_deployment(given) -> None:
    with pytest.raises(InputError, match="start line"):
        start_line("vllm", given)


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("plan", {"tp": "8"}, "--tp '8'"),
        ("plan", {"tp": 3, "ep": 2}, "--ep 2 must divide"),
        ("plan", {"tq": 3}, "its dimensions are tp, ep"),
        ("workload", {"batch": 1}, "`workload.input_len`"),
        ("quant", {}, "`quant.modules`"),
        ("max_num_seqs", -1, "max_num_seqs -1"),
        ("gpu_memory_utilization", 2, "a share above 0"),
        ("model", {"name": "mine", "origin": "a dict"}, "a model of the catalogue, a folder or a hub id"),
        ("model", {"name": "qwen3-32c", "origin": "catalogue"}, "unknown model 'qwen3-32c'"),
    ],
)
def test_a_mapping_is_checked(part: str, value, message: str) -> None:
    with pytest.raises(TensorcastError) as refusal:
        start_line("vllm", mapping() | {part: value})
    assert message in str(refusal.value)


# -- the model's name --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["plain", "my model", "it's", 'a"b', "$(touch x);`y`", "new\nline # x", "-rf", "模型"])
def test_names_survive_the_shell(name: str, tmp_path: Path) -> None:
    config = CONFIGS / "Qwen--Qwen3-0.6B_config.json"
    if not config.exists():
        pytest.skip("needs the shared model configurations")
    folder = tmp_path / name
    folder.mkdir()
    (folder / "config.json").write_text(config.read_text())
    for engine in DOCUMENTED:
        line = start_line(engine, Request.of(model=str(folder), hw="h200-sxm"))
        said = shlex.split(line, comments=True)
        assert str(folder) in said
    fields = read("mindie", start_line("mindie", Request.of(model=str(folder), hw="ascend-910b")))
    (model,) = fields["BackendConfig"]["ModelDeployConfig"]["ModelConfig"]
    assert model["modelWeightPath"] == str(folder)
    assert set(model["modelName"]) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._")


def test_a_file_is_no_folder_of_weights(tmp_path: Path) -> None:
    config = CONFIGS / "Qwen--Qwen3-0.6B_config.json"
    if not config.exists():
        pytest.skip("needs the shared model configurations")
    with pytest.raises(InputError, match=r"a folder with config\.json and weights"):
        start_line("vllm", Request.of(model=str(config), hw="h200-sxm"))


def test_errors_are_tensorcasts() -> None:
    for _, request, _ in REFUSED.values():
        for engine in ENGINES:
            try:
                start_line(engine, request())
            except TensorcastError as error:
                assert "\n" not in str(error)
