"""The installed layers still compute the model: deployed and stock logits agree on real numbers.

Our operators only know shapes, so the tests give them arithmetic here, each the plain text of what it stands for. What
an operator does not carry (softmax scale, routing) comes from the model's configuration and from the call before it.
"""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from tensorcast.layers.cache import build_cache
from tensorcast.layers.experts import experts_weights
from tensorcast.layers.merge import _Merged
from tensorcast.layers.patching import patched, replacements
from tensorcast.models.recipes import Step
from tensorcast.trace.context import Context, entered
from tests.verify import stock
from tests.verify.deployed import deploy
from tests.verify.tiny import TINY, tiny

BATCH, TOKENS = 2, 24
EPS = 1e-6


class Arithmetic:
    """CPU implementations. `scale` multiplies scores; `routed` is what the last experts module was called with."""

    def __init__(self, scale: float) -> None:
        self.scale, self.routed, self.ran = scale, None, set()

    def linear(self, x, w, bias, *formats):
        return F.linear(x, w, bias)

    def embedding(self, ids, w):
        return w[ids]

    def rms_norm(self, x, w, adds):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + EPS) * w

    def swiglu(self, gate, up):
        return F.silu(gate) * up

    def activation(self, x, function):
        assert function == "SiLUActivation"
        return F.silu(x)

    def bmm(self, x, y, *formats):
        return torch.bmm(x, y)

    def kv_append(self, k, v, past, kv_format, window):
        assert past == 0
        return k.clone(), v.clone()

    def attention(self, q, k, v, causal, window, chunk, *rest):
        groups = q.shape[1] // k.shape[1]
        k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)
        scores = q @ k.transpose(-1, -2) * self.scale
        return (self._masked(scores, causal, window).softmax(-1) @ v).transpose(1, 2).contiguous()

    def mla_attention(self, q, q_rope, latent, rope, causal, window, *rest):
        scores = (q @ latent.transpose(-1, -2) + q_rope @ rope.transpose(-1, -2)) * self.scale
        return self._masked(scores, causal, window).softmax(-1) @ latent

    def _masked(self, scores, causal, window):
        distance = torch.arange(scores.shape[-2])[:, None] - torch.arange(scores.shape[-1])
        hidden = (distance < 0) & causal
        if window:
            hidden |= distance >= window
        return scores.masked_fill(hidden, float("-inf"))

    def moe_route(self, logits, top_k):
        return logits[:, :top_k].clone(), logits[:, :top_k].clone()  # read by nobody: the model's own router answers

    def moe_experts(self, x, w13, w2, *rest):
        indices, weights = self.routed
        out = torch.zeros_like(x)
        for token, (experts, shares) in enumerate(zip(indices.tolist(), weights, strict=True)):
            for expert, share in zip(experts, shares, strict=True):
                gate, up = (w13[expert] @ x[token]).chunk(2)
                out[token] += share * (w2[expert] @ (F.silu(gate) * up))
        return out


@pytest.fixture
def arithmetic(monkeypatch):
    """Give the operators their arithmetic, with a softmax scale, until the test is over."""
    library = torch.library.Library("tensorcast", "FRAGMENT")

    def give(scale: float) -> Arithmetic:
        found = Arithmetic(scale)
        for name in [n for n in vars(Arithmetic) if not n.startswith("_")]:

            def run(*args, _name=name):
                found.ran.add(_name)
                return getattr(found, _name)(*args)

            library.impl(name, run, "CPU")
        return found

    # A merged product has a weight of its own without contents; parts by themselves have the model's.
    monkeypatch.setattr(_Merged, "_mergeable", lambda self: False)
    yield give
    library._destroy()


def with_numbers_of(model, real):
    """The deployed module in memory, with the weights and buffers of `real`."""
    module = model.module.to_empty(device="cpu")
    module.load_state_dict(real.state_dict())
    for name, buffer in module.named_buffers():
        buffer.copy_(real.get_buffer(name))
    return module


def listen_for_routing(module, arithmetic):
    for part in module.modules():
        if experts_weights(part) is not None:

            def heard(hidden, *routing, _forward=part.forward, **kwargs):
                arithmetic.routed = routing
                return _forward(hidden, *routing, **kwargs)

            part.__dict__["forward"] = heard


def logits_of_deployed(model, module, ids, positions):
    context = Context(Step("prefill", 1, 1, 0), model=model)
    with torch.no_grad(), entered(context), patched(replacements(module, model.patches)):
        cache = build_cache(model.config, 0)
        return module(input_ids=ids, position_ids=positions, past_key_values=cache, use_cache=True).logits


CASES = {
    "llama": ("llama", {}, (), {"linear", "embedding", "rms_norm", "swiglu", "attention", "kv_append"}),
    "grouped experts": ("qwen3_moe", {}, (), {"moe_experts", "moe_route", "attention"}),
    "windows": ("windows", {}, (), {"attention"}),
    "latents expanded": ("deepseek_v3", {}, ("mla=expanded",), {"attention", "moe_experts"}),
    "latents absorbed": ("deepseek_v3", {}, ("mla=absorbed",), {"mla_attention", "bmm", "moe_experts"}),
    "biases": ("llama", {"attention_bias": True, "mlp_bias": True}, (), {"linear", "attention"}),
    "tied": ("llama", {"tie_word_embeddings": True}, (), {"linear", "embedding"}),
    "one by one": ("llama", {}, ("rms_norm=eager", "swiglu=eager"), {"linear", "activation"}),
}


@pytest.mark.parametrize("name, changes, kernels, expected", CASES.values(), ids=CASES)
def test_deployed_and_stock_logits_agree(tmp_path, arithmetic, name, changes, kernels, expected):
    source = tiny(name, tmp_path, **changes)
    real = stock.build_real(source)
    model = deploy(source, "rotary=eager", *kernels)
    module = with_numbers_of(model, real)
    text = TINY[name]
    width = text["qk_nope_head_dim"] + text["qk_rope_head_dim"] if "qk_rope_head_dim" in text else text["head_dim"]
    ran = arithmetic(width**-0.5)
    listen_for_routing(module, ran)
    ids = torch.randint(0, text["vocab_size"], (BATCH, TOKENS), generator=torch.Generator().manual_seed(1))
    positions = torch.arange(TOKENS).expand(BATCH, TOKENS)
    with torch.no_grad():
        theirs = real(input_ids=ids, position_ids=positions, use_cache=False).logits
    ours = logits_of_deployed(model, module, ids, positions)
    assert ran.ran >= expected
    assert theirs.std() > 0.01
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
