"""Classes whose step is put together by a pipeline from data that no size stands for."""

from __future__ import annotations

from tensorcast.diffusion.families import register_denoiser

for _name, _reason in {
    "RFD4ProteinaTransformer": "it denoises proteins, whose features only its pipeline makes",
    "MiniMaxH3Transformer3DModel": "a step packs video, sound and text into one row that only its pipeline lays out",
    "SanaWMLTX2RefinerTransformer3DModel": "a step reads sinks and history that its pipeline keeps between chunks",
    "Kandinsky6SRTransformer3DModel": "which blocks its sparse attention computes depends on the data; compiled flex "
    "attention runs on no meta device",
    "Kandinsky6SRLatentUpscalerBank": "it enlarges latents once, between the stages of a pipeline",
    "AnimaTextConditioner": "it turns a prompt into conditions once, before the first step",
    "MiniMaxMusic3ConditionEncoder": "it turns codes into conditions once, before the first step",
    "RFD4ProteinaAutoencoder": "it codes proteins, whose features only its pipeline makes",
    "ConsistencyDecoderVAE": "it decodes in denoising steps, whose sizes its own scheduler reads from values",
    "LTX2VideoDiffusionDecoderModel": "its blocks attend through compiled flex attention, which runs on no meta device",
    "MiniMaxMusic3RVQDepthDecoder": "it makes the codes of one frame of sound after another, and denoises nothing",
}.items():
    register_denoiser(_name, alone=_reason)
