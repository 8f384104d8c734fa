"""Diffusion models: what their pipelines say, the sizes of their latents, and the arguments of one denoising step."""
