"""xLSTM: the matrix memory of a head is a scan over chunks; one step of decoding updates it in place.

State of a head: the memory [d_qk, d_v], a normaliser [d_qk] and a maximum, in the format that the configuration states.
"""

from __future__ import annotations

from tensorcast.pipelines import ModelProfile, register_model_profile


def mlstm(module, query, key, value, igate, fgate, c_initial=None, n_initial=None, m_initial=None, **kwargs):
    """forward of the backend: query, key [b, heads, s, d_qk], value [b, heads, s, d_v] → value's shape, and None."""
    from tensorcast.formats import format_named
    from tensorcast.ops.base import dtype_name, item_bytes
    from tensorcast.trace.context import current
    from tensorcast.trace.library import call

    context, (_, heads, _, dv), dk = current(), value.shape, query.shape[-1]
    fmt = format_named(module.config.inference_state_dtype).name
    recurrent = context.phase == "decode"
    rows = (t.transpose(1, 2) for t in (query, key, value))
    out = call.decay_attention(*rows, 2, 1, module.config.chunk_size, recurrent, fmt, dtype_name(value))
    kept = heads * (dk * dv + dk + 1) * item_bytes(fmt)
    context.tracer.note_cache("state", token_bytes=0, sequence_bytes=kept, window=0)
    return out.transpose(1, 2), None


def inputs(model, step):
    """No cache object: the scan reads and writes its states where they lie, and the model's copies never happen."""
    return {"cache_params": None, "use_cache": False}


def whole_prompts(config) -> None:
    """A prompt runs whole; cutting it is up to the server (--chunk)."""
    config.max_inference_chunksize = 1 << 40


register_model_profile(
    ModelProfile(
        model_type="xlstm",
        forwards={"xLSTMBackend.forward": mlstm},
        inputs=inputs,
        config_patch=whole_prompts,
    )
)
