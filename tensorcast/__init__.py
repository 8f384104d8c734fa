"""TensorCast: how fast a model runs on a machine, whether it fits, and how best to deploy it, without running it."""

__version__ = "0.1.0"
