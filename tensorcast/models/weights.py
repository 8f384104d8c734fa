"""Checkpoint headers against a built model: names and shapes only, no weight is read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from tensorcast.errors import ModelError
from tensorcast.models.headers import Header, read_headers


@dataclass(frozen=True)
class WeightReport:
    """What a checkpoint holds for a model.

    `tensors`: how many the checkpoint has; `parameters`: elements of the model's distinct parameters. `missing`: names
    of parameters that no tensor fills; `unexpected`: tensors that no parameter takes; `mismatched`: one line for every
    shape that does not fit, naming both tensors and shapes.
    """

    tensors: int
    parameters: int
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    mismatched: tuple[str, ...] = ()

    @property
    def fits(self) -> bool:
        """Whether every parameter has its tensor, every tensor its parameter, and all shapes agree."""
        return not (self.missing or self.unexpected or self.mismatched)

    def __str__(self) -> str:
        """`201 tensors → 125239296 parameters, 0 missing, 0 unexpected`"""
        counts = f"{len(self.missing)} missing, {len(self.unexpected)} unexpected"
        wrong = f", {len(self.mismatched)} of another shape" if self.mismatched else ""
        return f"{self.tensors} tensors → {self.parameters} parameters, {counts}{wrong}"


def check_weights(model, folder: Path) -> WeightReport:
    """Whether the safetensors checkpoint in `folder` fits `model`, a TransformerModel deployed on one device.

    Only headers are read: model.safetensors, the shards that model.safetensors.index.json names, or every *.safetensors
    of the folder. Parts of fused products (q, k, v; gate, up; experts) are looked for under their checkpoint names; a
    tied head needs no tensor. A packed model's own `load_weights` is called with shape-only (meta) tensors and decides.
    ModelError when the folder has no safetensors file, or one that is no safetensors file.
    """
    module, plan = model.module, model.plan
    if plan.tp * plan.dp * plan.ep > 1:
        raise ModelError("weights are checked against the whole model; leave --tp, --ep and --dp out")
    tensors = {name: _tensor(name, header) for name, header in read_headers(Path(folder)).items()}
    with _collecting(module) as ledger:
        if hasattr(module, "load_weights"):
            _load(module, tensors)
        else:
            match_weights(module, _as_transformers_names(module, tensors))
    return ledger.report(tensors)


def match_weights(module: nn.Module, weights: Mapping[str, torch.Tensor]) -> None:
    """Give every parameter of `module` its tensors, by name. ModelError where something is left over or does not fit,
    unless a check collects that."""
    if _LEDGER.get() is None:
        with _collecting(module) as ledger:
            match_weights(module, weights)
        report = ledger.report(weights)
        if not report.fits:
            first = [*report.mismatched, *(f"{n} is missing" for n in report.missing)]
            raise ModelError((first + [f"{n} is unexpected" for n in report.unexpected])[0] + f" ({report})")
        return
    for path, owner, parameter in _parameters(module):
        names = next((n for n in _names(path, owner, parameter) if all(name in weights for name in n)), None)
        if names is not None:
            fill(parameter, [weights[name] for name in names])


def fill(parameter: nn.Parameter, tensors: Sequence[torch.Tensor]) -> None:
    """`parameter` takes `tensors`: one of its shape, or several that make it up behind each other or, experts, stacked.

    ModelError when they do not, unless a check collects that.
    """
    ledger = _LEDGER.get()
    if not tensors:
        return
    if ledger is not None:
        ledger.filled.setdefault(id(parameter), []).extend(tensors)
    if _fits(parameter, tensors):
        return
    path = ledger.paths.get(id(parameter), "a parameter") if ledger is not None else "a parameter"
    line = f"{path} {list(parameter.shape)} does not take {_shown(tensors)}"
    if ledger is None:
        raise ModelError(line)
    ledger.mismatched.append(line)


def _shown(tensors: Sequence[torch.Tensor]) -> str:
    """Names and shapes; of many tensors of one shape, the first."""
    alike: dict[tuple[int, ...], list[str]] = {}
    for tensor in tensors:
        alike.setdefault(tuple(tensor.shape), []).extend(_sources(tensor) or ("a tensor",))
    parts = []
    for shape, (first, *others) in alike.items():
        parts.append(f"{first} {f'and {len(others)} more ' if others else ''}{list(shape)}")
    return ", ".join(parts)


def _fits(parameter: torch.Tensor, tensors: Sequence[torch.Tensor]) -> bool:
    if len(tensors) == 1:
        return tensors[0].shape == parameter.shape
    whole, shapes = tuple(parameter.shape), [tuple(t.shape) for t in tensors]
    if len(whole) == len(shapes[0]) + 1:  # one or two tensors an expert
        parts, rest = divmod(len(shapes), whole[0])
        experts = [shapes[n : n + parts] for n in range(0, len(shapes), parts or 1)]
        return not rest and all(_behind(one) == whole[1:] for one in experts)
    return _behind(shapes) == whole


def _behind(shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...] | None:
    """Shape of tensors put behind each other in their first dimension; None where the others differ."""
    if len({shape[1:] for shape in shapes}) != 1 or not shapes[0]:
        return None
    return (sum(shape[0] for shape in shapes), *shapes[0][1:])


# -- what a check collects ---------------------------------------------------------------------------------------------

# Beside a quantised weight; and tables that old checkpoints kept though they are computed.
_BESIDE = re.compile(
    r"(^|\.)((weight|input|k|v|q|output)_(scale|zero_point|scale_inv|scale_2)|g_idx|rotary_emb\.inv_freq)$"
)


@dataclass
class _Ledger:
    """One check: parameters by identity, the tensors each took, and what did not fit."""

    module: nn.Module
    paths: dict[int, str]
    filled: dict[int, list[torch.Tensor]] = field(default_factory=dict)
    mismatched: list[str] = field(default_factory=list)

    def report(self, tensors: Mapping[str, torch.Tensor]) -> WeightReport:
        parameters = {id(p): p for p in self.module.parameters()}
        used = {name for taken in self.filled.values() for tensor in taken for name in _sources(tensor)}
        known = {name for name, _ in self.module.named_buffers()}
        known |= {name for name, _ in self.module.named_parameters(remove_duplicate=False)}  # a tied head kept twice
        left = [n for n in tensors if n not in used and n not in known and not _BESIDE.search(n)]
        return WeightReport(
            tensors=len(tensors),
            parameters=sum(p.numel() for p in parameters.values()),
            missing=tuple(self.paths[key] for key in parameters if key not in self.filled),
            unexpected=tuple(left),
            mismatched=tuple(self.mismatched),
        )


_LEDGER: ContextVar[_Ledger | None] = ContextVar("tensorcast_weights", default=None)


@contextmanager
def _collecting(module: nn.Module) -> Iterator[_Ledger]:
    token = _LEDGER.set(_Ledger(module, {id(p): path for path, p in module.named_parameters()}))
    try:
        yield _LEDGER.get()
    finally:
        _LEDGER.reset(token)


def _load(module: nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
    """Call the model's own load_weights; whatever it raises is said in one line."""
    try:
        module.load_weights(tensors)
    except ModelError:
        raise
    except Exception as reason:
        text = " ".join(str(reason).split())[:300]
        raise ModelError(f"{type(module).__name__}.load_weights: {type(reason).__name__}: {text}") from reason


# -- names -------------------------------------------------------------------------------------------------------------


def _parameters(module: nn.Module) -> Iterable[tuple[str, nn.Module, nn.Parameter]]:
    """(path, owner, parameter) of every name of every parameter; a tied one has several."""
    for path, owner in module.named_modules():
        for name, parameter in owner._parameters.items():
            if parameter is not None:
                yield f"{path}.{name}" if path else name, owner, parameter


def _names(path: str, owner: nn.Module, parameter: nn.Parameter) -> Iterator[list[str]]:
    """The tensors that may make up a parameter: one of its own name, else one for each fused part or expert."""
    yield [path]
    module, _, leaf = path.rpartition(".")
    parent = module.rpartition(".")[0]
    if getattr(owner, "fused", ()):
        yield [f"{parent}.{part}_proj.{leaf}".lstrip(".") for part in owner.fused]
    if parameter.dim() == 3:
        parts = ("gate_proj", "up_proj") if leaf == "gate_up_proj" else (leaf,)
        yield [f"{module}.{n}.{part}.weight" for n in range(parameter.shape[0]) for part in parts]


def _as_transformers_names(module: nn.Module, tensors: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
    """The tensors under the names of a transformers module, split and merged as its own loader does."""
    from transformers import PreTrainedModel

    if not isinstance(module, PreTrainedModel):
        return tensors
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter, rename_source_key

    known = dict(module.named_parameters(remove_duplicate=False)) | dict(module.named_buffers())
    transforms = get_model_conversion_mapping(module)
    converters = [t for t in transforms if isinstance(t, WeightConverter)]
    renamings = [t for t in transforms if not isinstance(t, WeightConverter)]
    by_pattern = {pattern: converter for converter in converters for pattern in converter.source_patterns}
    out: dict[str, torch.Tensor] = {}
    groups: dict[str, WeightConverter] = {}
    for name, tensor in tensors.items():
        ours, pattern = rename_source_key(name, renamings, converters, module.base_model_prefix, known)
        if ours not in known and name in known:
            ours, pattern = name, None
        if pattern is None or ours not in known:
            out[ours] = tensor
            continue
        kind = by_pattern[pattern]
        group = groups.setdefault(
            ours, kind.copy(list(kind.source_patterns), list(kind.target_patterns), operations=kind.operations)
        )
        group.add_tensor(ours, name, pattern, tensor)
    for ours, group in groups.items():
        out |= _converted(module, ours, group)
    return out


def _converted(module: nn.Module, name: str, group) -> Mapping[str, torch.Tensor]:
    held = [t for tensors in group.collected_tensors.values() for t in tensors]
    try:
        return group.convert(name, model=module, config=module.config)
    except Exception as reason:
        wrong = _LEDGER.get().mismatched
        known = len(wrong)
        fill(module.get_parameter(name), held)  # says which shapes do not go together
        if len(wrong) == known:
            wrong.append(f"{name}: transformers cannot convert {_shown(held)}: {' '.join(str(reason).split())[:200]}")
        return {}


# -- shape-only tensors ------------------------------------------------------------------------------------------------

_TORCH = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
    "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
}  # fmt: skip


class HeaderTensor(torch.Tensor):
    """A tensor with a shape and no memory that knows the checkpoint's tensors it was made of."""

    names: tuple[str, ...] = ()

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if func is torch.Tensor.copy_ and not isinstance(args[0], cls):  # a model's own loader: parameter.copy_(tensor)
            fill(args[0], [args[1]])
            return args[0]
        result = super().__torch_function__(func, types, args, kwargs or {})
        names = tuple(dict.fromkeys(name for tensor in _inside(args) for name in tensor.names))
        for tensor in _inside((result,)):
            tensor.names = names
        return result


def _inside(values: Iterable) -> Iterator[HeaderTensor]:
    for value in values:
        if isinstance(value, HeaderTensor):
            yield value
        elif isinstance(value, (tuple, list)):
            yield from _inside(value)


def _sources(tensor: torch.Tensor) -> tuple[str, ...]:
    return tensor.names if isinstance(tensor, HeaderTensor) else ()


def _tensor(name: str, header: Header) -> HeaderTensor:
    dtype = _TORCH.get(header.dtype, torch.uint8)
    with torch._C.DisableTorchFunction():
        tensor = torch.empty(header.shape, dtype=dtype, device="meta").as_subclass(HeaderTensor)
        tensor.names = (name,)
    return tensor
