"""Small requests of every kind of work: what every format of a report has to take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.models.pipelines import FLUX, FLUX_PARTS, written
from tests.models.towers import TOWERS
from tests.verify.tiny import TINY

BERT = {
    "model_type": "bert", "architectures": ["BertForMaskedLM"], "hidden_size": 64, "intermediate_size": 96,
    "num_hidden_layers": 3, "num_attention_heads": 4, "vocab_size": 320, "max_position_embeddings": 128,
}  # fmt: skip
T5 = {
    "model_type": "t5", "architectures": ["T5ForConditionalGeneration"], "d_model": 64, "d_kv": 16, "d_ff": 96,
    "num_layers": 3, "num_decoder_layers": 3, "num_heads": 4, "vocab_size": 320, "feed_forward_proj": "gated-gelu",
}  # fmt: skip
LLAMA, MOE, MLA = (TINY[name] for name in ("llama", "qwen3_moe", "deepseek_v3"))
UNCOSTED = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(320, 64), nn.Linear(64, 320)

    def forward(self, input_ids):
        return self.head(torch.erfinv(self.embed(input_ids)))


__model__ = Net
"""
SHORT = {"input_len": 64, "output_len": 8}
KINDS: dict[str, dict[str, Any]] = {
    "language": {"model": LLAMA},
    "experts": {"model": MOE, "tp": 2, "ep": 2, "quant": "fp8"},
    "latent attention, drafts": {"model": {**MLA, "num_nextn_predict_layers": 1}, "tp": 2, "mtp": 1},
    "chunked": {"model": LLAMA, "phase": "chunked", "chunk": 32},
    "pipeline": {"model": LLAMA, "pp": 2, "batch": 4},
    "ragged": {"model": LLAMA, "seq_lens": [16, 64, 7], "input_len": None},
    "served": {"model": LLAMA, "engine": "vllm", "concurrency": 4},
    "streams": {"model": LLAMA, "tp": 2, "overlap": "streams", "runtime": "eager"},
    "halves": {"model": MOE, "dp": 2, "ep": 2, "batch": 8, "overlap": "dual-batch"},
    "training": {
        "model": LLAMA, "phase": "train", "batch": 8, "dp": 4, "zero": 3, "grad_checkpoint": "full", "output_len": None,
    },
    "training in stages": {"model": LLAMA, "phase": "train", "batch": 8, "pp": 2, "output_len": None},
    "encoder": {"model": BERT, "output_len": None},
    "encoder and decoder": {"model": T5},
    "vision": {"model": TOWERS["qwen2_5_vl"], "image": "112x112"},
    "uncosted": {"custom": "net.py", "output_len": None},
    "pipeline of models": {"model": "flux", "image": "64x64", "steps": 4, "dit_cache": "every=2", "output_len": None,
                           "input_len": None},
}  # fmt: skip


def asked(kind: str, folder: Path) -> dict[str, Any]:
    """The options of `tc.simulate`; what is a folder or file is written below `folder`."""
    options = {"hw": "h100-sxm", **SHORT, **KINDS[kind]}
    if options.get("model") == "flux":
        options["model"] = written(folder / "flux", FLUX, FLUX_PARTS)
    if "custom" in options:
        (folder / "net.py").write_text(UNCOSTED)
        options["custom"] = str(folder / "net.py")
    return {name: value for name, value in options.items() if value is not None}
