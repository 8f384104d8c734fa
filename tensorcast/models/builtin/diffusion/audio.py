"""Denoisers of sound: their latents have one side, and --frames counts latents along it."""

from __future__ import annotations

from tensorcast.diffusion.families import register_denoiser

_FIXED = "a denoiser of sound: --frames counts the latents along time, and --image says nothing"

register_denoiser(
    "AceStepTransformer1DModel",
    axes="blc",
    space=1,
    time=1,
    frames=1500,  # one minute at 25 latents a second
    fixed=_FIXED,
    arguments={
        "hidden_states": lambda s: s.latents(s.field("audio_acoustic_hidden_dim")),
        "timestep_r": lambda s: s.sized(),
        "encoder_hidden_states": lambda s: s.sized(s.text, s.width("condition_embedder")),
        "context_latents": lambda s: s.latents(s.field("in_channels") - s.field("audio_acoustic_hidden_dim")),
    },
)
register_denoiser(
    "StableAudioDiTModel",
    axes="bcl",
    space=1,
    time=1,
    frames=1024,  # sample_size of the published model: 47 seconds
    fixed=_FIXED,
    arguments={
        "global_hidden_states": lambda s: s.sized(1, s.field("global_states_input_dim")),
        "rotary_embedding": lambda s: _rotary(s, s.canvas.frames + 1, s.field("attention_head_dim") // 2),
    },
)


def _rotary(s, tokens, width):
    import torch

    return torch.empty((tokens, width)), torch.empty((tokens, width))


register_denoiser(
    "StableAudio3DiTModel",
    axes="bcl",
    space=1,
    time=1,
    frames=1024,
    fixed=_FIXED,
    arguments={"global_hidden_states": lambda s: s.sized(s.field("global_cond_dim"))},
)
register_denoiser(
    "LongCatAudioDiTTransformer",
    axes="blc",
    space=1,
    time=1,
    frames=1024,
    fixed=_FIXED,
    arguments={"latent_cond": lambda s: s.latents(s.field("latent_dim")) if s.config["use_latent_condition"] else None},
)
register_denoiser(
    "MiniMaxMusic3Transformer1DModel",
    axes="bcl",
    space=1,
    time=1,
    frames=1024,
    fixed=_FIXED,
    arguments={
        "timestep": lambda s: s.sized(),
        "encoder_hidden_states": lambda s: s.sized(s.canvas.frames, s.field("condition_dim")),
    },
)
register_denoiser(
    "UNet1DModel",
    axes="bcl",
    space=1,
    time=1,
    frames=65536,
    fixed=_FIXED,
    defaults={
        "extra_in_channels": 16,
        "time_embedding_dim": 16,
    },  # the width of the time's Fourier features, which join the latents
)
register_denoiser(
    "T5FilmDecoder",
    axes="blc",
    space=1,
    time=1,
    fixed="spectrograms of the length that the model is made for; --frames and --image say nothing",
    arguments={
        "encodings_and_masks": lambda s: [(s.sized(s.text, s.field("d_model")), s.sized(s.text))],
        "decoder_input_tokens": lambda s: s.sized(s.field("targets_length"), s.field("input_dims")),
        "decoder_noise_time": lambda s: s.sized(),
    },
)
