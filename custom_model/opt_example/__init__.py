"""OPT as a packed model: importing the package registers it."""

from .modeling_opt import OPTForCausalLM

__all__ = ["OPTForCausalLM"]
