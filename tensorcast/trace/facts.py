"""Facts of a deployed model: what its rank stores, by layer and kind."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from torch import nn

from tensorcast.deployed import CacheGroup, ModelFacts, WeightGroup
from tensorcast.layers.context_parallel import require_shared
from tensorcast.layers.experts import ExpertSizes, experts_weights, quantised_bytes
from tensorcast.layers.moe import is_router
from tensorcast.layers.state import has_state, state_of
from tensorcast.trace.idle import idle_note
from tensorcast.trace.tracer import Tracer
from tensorcast.transformer_model import TransformerModel
from tensorcast.vision.rules import all_together


def facts_of(model: TransformerModel, prefill: Tracer, seen: Iterable[str] = ()) -> ModelFacts:
    """The facts, with caches as the prefill trace saw them; `seen`: paths of the modules that images run."""
    main = model.main_stack
    text = model.text_config
    require_shared(model, prefill.caches)
    return ModelFacts(
        name=model.blueprint.source.name,
        architecture=model.architecture,
        model_type=model.blueprint.model_type,
        origin=f"{model.blueprint.source.origin}; {model.blueprint.origin}",
        dtype=model.dtype_name,
        parameters=model.parameters,
        active_parameters=model.active_parameters,
        layers=len(main.layers) if main else 0,
        hidden=int(getattr(text, "hidden_size", 0) or 0),
        max_positions=getattr(text, "max_position_embeddings", None),
        weights=_weights(model, main.path if main else ""),
        caches=_caches(prefill, main.path if main else ""),
        steps=tuple(s.to_dict() for s in model.steps),
        kernels=tuple(model.kernels.summary()),
        quantised=_quantised(model),
        notes=(*model.blueprint.notes, *model.notes, *idle_note(model, {*prefill.ran, *seen})),
        tp_values=model.tp_values,
        unmatched=model.unmatched,
        image_tokens=model.image_tokens,
        together=all_together(model),
        one_length="" if model.profile.packed else model.profile_origin,
        experts=max((state_of(m).exchange.experts for m in _experts(model)), default=0),
    )


def _experts(model: TransformerModel) -> list[nn.Module]:
    return [m for m in model.module.modules() if has_state(m) and state_of(m).exchange is not None]


def _weights(model: TransformerModel, main: str) -> tuple[WeightGroup, ...]:
    """Every distinct parameter once, grouped."""
    groups: dict[tuple, list[int]] = defaultdict(lambda: [0, 0])
    seen: dict[int, tuple[tuple, tuple[int, int]]] = {}
    began = False
    for path, module in model.module.named_modules():
        layer = _layer_of(path, main)
        began = began or layer is not None
        for name, parameter in module._parameters.items():
            if parameter is None:
                continue
            place = "" if layer is not None else ("post" if began else "pre")
            if id(parameter) in seen:
                key, sizes = seen[id(parameter)]
                if (key[2], place) == ("pre", "post"):  # tied: what the first stage and the last one both keep
                    seen[id(parameter)] = (*key[:2], "ends", key[3]), sizes
                continue
            key = (_split(module), (layer,) if layer is not None else (), place, _quantisable(model, module, name))
            seen[id(parameter)] = key, (parameter.numel(), _bytes(module, name, parameter))
    for key, (parameters, nbytes) in seen.values():
        groups[key][0] += parameters
        groups[key][1] += nbytes
    return _joined(groups)


def _joined(groups) -> tuple[WeightGroup, ...]:
    """Layers with equal figures become one group."""
    merged: dict[tuple, list[int]] = defaultdict(list)
    for (split, layers, place, quantisable), (parameters, nbytes) in groups.items():
        merged[(split, place, quantisable, parameters, nbytes, bool(layers))] += layers
    return tuple(
        WeightGroup(parameters, nbytes, split, tuple(layers), place, quantisable)
        for (split, place, quantisable, parameters, nbytes, _), layers in merged.items()
    )


def _layer_of(path: str, main: str) -> int | None:
    if not main or not path.startswith(f"{main}."):
        return None
    return int(path.removeprefix(f"{main}.").partition(".")[0])


def _split(module: nn.Module) -> str:
    if not has_state(module):
        return "whole"
    if state_of(module).exchange is not None:
        return "experts"
    return "whole" if state_of(module).shard.style == "replicated" else "tp"


def _quantisable(model: TransformerModel, module: nn.Module, name: str) -> bool:
    if not has_state(module) or is_router(module):
        return False
    if state_of(module).exchange is not None:
        return "bias" not in name
    return isinstance(module, nn.Linear) and name == "weight" and module is not model.output_head


def _bytes(module: nn.Module, name: str, parameter: nn.Parameter) -> int:
    spec = state_of(module).quant if has_state(module) else None
    if spec is not None and parameter.dim() == 2 and name == "weight":
        return spec.weight_bytes(*parameter.shape)
    if spec is not None and parameter.dim() == 3 and experts_weights(module) is not None:
        return quantised_bytes(spec, parameter, ExpertSizes.of(module).transposed)
    return parameter.numel() * parameter.element_size()


def _caches(tracer: Tracer, main: str) -> tuple[CacheGroup, ...]:
    return tuple(
        CacheGroup(
            kind=note.kind,
            token_bytes=note.token_bytes,
            sequence_bytes=note.sequence_bytes,
            window=note.window,
            block=note.block,
            shards=note.shards,
            layers=tuple(note.layers) if note.layers and note.stack == main else (),
        )
        for note in tracer.caches
    )


def _quantised(model: TransformerModel) -> dict:
    """Scheme → how many modules, and the formats of KV cache and attention."""
    schemes: dict[str, int] = defaultdict(int)
    for spec in model.quantised.values():
        schemes[spec.label] += 1
    return {
        "source": model.quant.source if model.quant is not None else "none",
        "modules": dict(schemes),
        "kv_cache": model.kv_format,
        "attention": model.attention_format or model.dtype_name,
    }
