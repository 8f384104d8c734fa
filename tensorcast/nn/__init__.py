"""Building blocks of packed models: the tokens of all sequences lie behind each other in one dimension.

Modules are built whole; the deployment steps find them as they find those of transformers, and cut and quantise them.
"""

from tensorcast.nn.attention import Attention, RotaryEmbedding, attend
from tensorcast.nn.basic import Embedding, LMHead, RMSNorm
from tensorcast.nn.decoder import DecoderLayer, DecoderModel, DecoderModelForCausalLM
from tensorcast.nn.feedforward import GatedMLP, MoE, activation
from tensorcast.nn.linear import Linear
from tensorcast.nn.metadata import AttentionMetadata, Mapping, ModelConfig

__all__ = [
    "Attention",
    "AttentionMetadata",
    "DecoderLayer",
    "DecoderModel",
    "DecoderModelForCausalLM",
    "Embedding",
    "GatedMLP",
    "LMHead",
    "Linear",
    "Mapping",
    "MoE",
    "ModelConfig",
    "RMSNorm",
    "RotaryEmbedding",
    "activation",
    "attend",
]
