"""Autoencoders whose latents no general rule tells; `latents` makes what decode reads."""

from __future__ import annotations

from tensorcast.diffusion.families import register_denoiser

register_denoiser("AutoencoderKLQwenImage21", axes="bcfhw", frames=1)  # single pictures on an axis of frames
register_denoiser(  # HunyuanImage 2.1
    "AutoencoderKLHunyuanImage",
    defaults={
        "in_channels": 3,
        "out_channels": 3,
        "latent_channels": 64,
        "block_out_channels": [128, 256, 512, 512, 1024, 1024],
        "layers_per_block": 2,
        "spatial_compression_ratio": 32,
        "sample_size": 384,
    },
)


def _whole_tiles(s):
    from tensorcast.diffusion.canvas import Ratios, grid_for
    from tensorcast.errors import InputError

    frames, height, width = s.module.kernel
    if s.canvas.frames < frames or s.canvas.height < height or s.canvas.width < width:
        what = f"decodes tiles of {frames} frames of {height}x{width} pixels; give no less"
        raise InputError(f"--image {s.canvas.height}x{s.canvas.width}, --frames {s.canvas.frames}: {s.name} {what}")
    grid = grid_for(s.canvas, Ratios(8, 4), (1, 1), s.name, whole_groups=True)
    return s.sized(s.field("latent_channels"), grid.frames, grid.height, grid.width)


def _in_tiles(module):
    module.enable_tiling()  # the only way it knows
    module.enable_slicing()  # a tile is one of one video


register_denoiser("AutoencoderKLAllegro", frames=88, prepare=_in_tiles, arguments={"latents": _whole_tiles})
register_denoiser(
    "AutoencoderRAE",
    fixed="pictures of the size that the autoencoder is made for; --image says nothing",
    arguments={
        "latents": lambda s: s.sized(
            s.field("encoder_hidden_size"), *[s.field("encoder_input_size") // s.field("encoder_patch_size")] * 2
        )
    },
)

# -- sound: --frames counts latents along time -------------------------------------------------------------------------

register_denoiser(  # spectra, of which a latent covers four bands
    "AutoencoderKLLTX2Audio",
    arguments={"latents": lambda s: s.sized(s.field("latent_channels"), s.canvas.frames, s.field("mel_bins") // 4)},
)
register_denoiser(
    "AutoencoderKLKVAEAudio", arguments={"latents": lambda s: s.sized(s.field("codebook_dim"), s.canvas.frames)}
)
register_denoiser("MMAudioVocoder", arguments={"latents": lambda s: s.sized(s.field("num_mels"), s.canvas.frames)})
