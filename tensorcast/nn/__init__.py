"""Modules for packed models."""

from torch import nn


class DecoderModelForCausalLM(nn.Module):
    """Base of a packed language model."""
