"""Qwen2 as a graph: every operator by name, every weight by its name in the checkpoint. An example to start from.

    tensorcast simulate --model ./qwen2-0.5b --custom custom_model/qwen2_graph.py --hw h100-sxm

The folder holds the model's config.json. Shapes come from its safetensors files if there are any, else from the model
that transformers builds of the same configuration; a class may also state them in `shapes`.
"""

from tensorcast import ComputeGraph


class Qwen2Graph(ComputeGraph):
    """Decoder of Qwen2: biased projections, grouped queries, gated feed-forward."""

    def build(self) -> None:
        data, config = self.data, self.config
        config["max_positions"] = config["max_position_embeddings"]

        self.Embedding(data["inputIds"], self.weight["model.embed_tokens.weight"], data["x"])
        self.DataTypeAs(data["x"], data["atype"])
        for i in range(config["num_hidden_layers"]):
            self.attention(i)
            self.feed_forward(i)
        self.SplitLastTokenStates(data["x"], data["seqLens"], data["last"])
        self.RMSNorm(data["last"], self.weight["model.norm.weight"], config["rms_norm_eps"], data["last"])
        self.Linear(data["last"], self.weight["lm_head.weight"], self.weight["lm_head.bias"], data["logits"])

    def attention(self, i: int) -> None:
        """x += o_proj(attention(q, k, v)) of layer `i`."""
        data, layer = self.data, self.weight["model.layers."][i]
        head_dim = self.config["hidden_size"] // self.config["num_attention_heads"]
        self.RMSNorm(data["x"], layer[".input_layernorm.weight"], self.config["rms_norm_eps"], data["normed"])
        for name in ("q", "k", "v"):
            self.product("normed", layer[".self_attn."][name]["_proj"], name)
        for name in ("q", "k", "v"):
            self.ExpandHead(data[name], head_dim)
        for name in ("q", "k"):
            self.LlamaRotatePosition2D(data[name], data["positionIds"], data["sin"], data["cos"], head_dim // 2)
        self.FusedAttention(
            data["q"],
            data["pastKey."][i],
            data["pastValue."][i],
            data["k"],
            data["v"],
            data["normed"],
            data["attentionMask"],
            data["mixed"],
            data["seqLens"],
            head_dim**-0.5,
        )
        self.product("mixed", layer[".self_attn.o_proj"], "update")
        self.AddTo(data["x"], data["update"])

    def feed_forward(self, i: int) -> None:
        """x += down(silu(gate) · up) of layer `i`."""
        data, layer = self.data, self.weight["model.layers."][i]
        self.RMSNorm(data["x"], layer[".post_attention_layernorm.weight"], self.config["rms_norm_eps"], data["normed"])
        self.product("normed", layer[".mlp.gate_proj"], "gate")
        self.product("normed", layer[".mlp.up_proj"], "up")
        self.Silu(data["gate"], data["gate"])
        self.MulTo(data["gate"], data["up"])
        self.product("gate", layer[".mlp.down_proj"], "update")
        self.AddTo(data["x"], data["update"])

    def product(self, source: str, weight, result: str) -> None:
        """A Linear; a bias that the checkpoint does not have is left out."""
        self.Linear(self.data[source], weight[".weight"], weight[".bias"], self.data[result])


__model__ = Qwen2Graph
