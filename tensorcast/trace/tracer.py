"""The dispatch mode: one record per operator call, with sizes, attributes, place in the model and memory in use."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from torch.nn.modules import module as _torch_module
from torch.utils._python_dispatch import TorchDispatchMode

from tensorcast.ops import operator_named
from tensorcast.ops.aten import foreign_operator
from tensorcast.ops.base import OpCall, dtype_name
from tensorcast.trace import library  # noqa: F401  (defines the operators)
from tensorcast.trace.dataflow import OUTSIDE, Dataflow
from tensorcast.trace.liveness import Liveness, storages, tensors_in
from tensorcast.trace.spread import Spread

_CACHES = ("kv_append", "index_append")
_PRODUCTS = ("gemm", "bmm")  # families of matrix products
TRAINING_SIZES = ("kept", "entered")  # what trace.kept adds to the sizes of a row


@dataclass
class Call:
    """One operator call as seen by the tracer. `layers`: indices in `stack` that this call stands for.

    `number`, `run` and `after`, the numbers of the calls whose results it reads: see `trace.dataflow`.
    """

    op: str
    module: str
    dims: dict[str, int]
    attrs: dict[str, Any]
    live: int  # bytes in use when it has run
    before: int  # most bytes in use between the call before and this one
    stack: str = ""
    layers: list[int] | None = None
    number: int = 0
    run: int = OUTSIDE
    after: frozenset[int] = frozenset()


@dataclass
class CacheNote:
    """What one layer keeps between steps: bytes a token (within `window` tokens, 0 = all) and bytes a sequence.

    Tokens take whole blocks of `block`.
    """

    kind: str
    token_bytes: float
    sequence_bytes: float
    window: int
    stack: str
    layers: list[int] | None
    block: int = 1
    shards: int = 1  # ranks that the tokens are dealt out to


@dataclass
class Tracer(TorchDispatchMode):
    """Records what runs inside it. `paths` maps id(module) to the module's path."""

    paths: dict[int, str] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)
    uncosted: dict[str, int] = field(default_factory=dict)
    memory: Liveness = field(default_factory=Liveness)
    flow: Dataflow = field(default_factory=Dataflow)
    kept: Any = None  # trace.kept.Kept in a training step
    spread: Spread | None = None  # tensors whose tokens lie on several ranks, where the plan is such

    def __post_init__(self) -> None:
        super().__init__()
        self._scope: list[str] = []
        self.ran: set[str] = set()  # paths of the modules that ran
        self._silent = 0
        self._fused = 0
        self.stack = ""
        self.layer: list[int] | None = None  # indices the running layer stands for; None outside of stacks
        self.blocks: dict[Any, Any] = {}
        self.caches: list[CacheNote] = []
        # The call just recorded, if it added two whole tensors: it, their storages, and the layer that ended with it.
        self._sum: tuple[Call, frozenset[int], int | None] | None = None
        self._absorbed: dict[int, tuple[Call, str, set[int]]] = {}  # sums of layers' ends that the norm behind adds up

    # -- where we are --------------------------------------------------------------------------------------------------

    def __enter__(self):
        self._hooks = [
            _torch_module.register_module_forward_pre_hook(self._enter_module),
            _torch_module.register_module_forward_hook(self._leave_module, always_call=True),
        ]
        return super().__enter__()

    def __exit__(self, *exc):
        for hook in self._hooks:
            hook.remove()
        self._settle_sums()
        return super().__exit__(*exc)

    def _enter_module(self, module, args):
        path = self.paths.get(id(module), self._scope[-1] if self._scope else "")
        self._scope.append(path)
        self.ran.add(path)

    def _leave_module(self, module, args, result):
        if self._scope:
            self._scope.pop()

    @property
    def here(self) -> str:
        """Path of the running module."""
        return self._scope[-1] if self._scope else ""

    @contextmanager
    def scope(self, path: str):
        """Operators inside are recorded under `path`."""
        self._scope.append(path)
        try:
            yield
        finally:
            self._scope.pop()

    @contextmanager
    def suspended(self):
        """Operators inside run, but leave no record."""
        self._silent += 1
        try:
            yield
        finally:
            self._silent -= 1

    @contextmanager
    def fused(self):
        """torch's own operators inside leave no call, but their results take memory: steps inside of larger kernels.

        Matrix products are no such steps: they are recorded.
        """
        self._fused += 1
        try:
            yield
        finally:
            self._fused -= 1

    @contextmanager
    def block(self, key, stack: str, index: int):
        """A representative layer runs inside; calls are recorded for every layer it will stand for."""
        from tensorcast.layers.reuse import Seen

        seen = self.blocks[key] = Seen(index)
        self.stack, self.layer = stack, seen.layers
        first, seen.live = len(self.calls), self.memory.live
        self.flow.layer_begins()
        try:
            yield seen
        finally:
            self.flow.layer_ends()
            self.stack, self.layer = "", None
            seen.calls = self.calls[first:]
            if self._sum is not None:
                self._sum = (*self._sum[:2], index)
                seen.sum = self._sum[0]

    def stands_for(self, seen, index: int) -> None:
        """Layer `index` is not run: the calls of its representative stand for it too.

        Their memory is that of the layer that starts with the most in use: the model may hold tensors then that it did
        not hold, or that were the same tensor, before the first layer of the kind.
        """
        if self._sum is not None and seen.calls and seen.calls[0].attrs.get("adds"):  # it begins with a norm
            call, _, ended = self._sum
            if call.dims["elements"] == seen.calls[0].dims["elements"]:
                self._absorb(call, ended, seen.calls[0].attrs["format"])
        self._sum = (seen.sum, frozenset(), index) if seen.sum is not None else None
        seen.layers.append(index)
        more = self.memory.live - seen.live
        if more > 0:
            seen.live = self.memory.live
            for call in seen.calls:
                call.live += more
                call.before += more

    def passed_on(self, result) -> None:
        """A layer that was not run returned `result`: the sum its representative ended with, if it ended with one."""
        if self._sum is not None:
            self._sum = (self._sum[0], storages(tensors_in(result)), self._sum[2])

    def note_cache(self, kind: str, *, token_bytes: float, sequence_bytes: float, window: int, **more: int) -> None:
        """A layer says what it keeps between steps; `more`: block and shards, where not 1."""
        self.caches.append(CacheNote(kind, token_bytes, sequence_bytes, window, self.stack, self.layer, **more))

    # -- what runs -----------------------------------------------------------------------------------------------------

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        inputs, outputs = tensors_in(args) + tensors_in(kwargs), tensors_in(result)
        call = None if self._silent else self._record(func, args, kwargs, result, inputs, outputs)
        if call is None:
            self.flow.handed_on(inputs, outputs)
        else:
            self.flow.recorded(call, inputs, outputs)
        return result

    def _record(self, func, args, kwargs, result, inputs, outputs) -> Call | None:
        """The call that an operator is recorded as; None for one that leaves none."""
        namespace, _, name = func._schema.name.partition("::")
        tokens = self.spread.follow(name, args, inputs, outputs, self.here) if self.spread is not None else 0
        share = self.spread.share(outputs) if self.spread is not None else 1.0
        if namespace == "tensorcast":
            op = operator_named(name)
            label = op.name
            dims, attrs = op.describe(args, kwargs)
            if name in _CACHES:
                self.memory.cache(outputs)
        else:
            op, known = foreign_operator(func._schema.name)
            if op.family == "none" or (self._fused and op.family not in _PRODUCTS):
                self.memory.allocated(outputs, share)
                return None
            dims = op.dims(OpCall(args, kwargs, result, inputs, outputs))
            attrs = dims.pop("attrs", {})
            label = op.name if known else func._schema.name
            if not known:
                self.uncosted[label] = self.uncosted.get(label, 0) + 1
        if tokens:
            dims |= self.spread.sizes(tokens, dims, inputs)
            attrs["spread"] = self.spread.ranks
        if self.kept is not None:
            named = dict(zip(op.arguments, args, strict=False)) | dict(kwargs) if namespace == "tensorcast" else None
            dims |= self.kept.sizes(label, named, inputs, outputs, dims, attrs)
        memory, scope = self.memory, self._scope[-1] if self._scope else ""
        before = memory.peak
        memory.allocated(outputs, share)
        memory.peak = memory.live
        if attrs.get("adds"):
            self._absorb_sum(args[0])
        call = Call(label, scope, dims, attrs, memory.live, before, self.stack, self.layer)
        self.calls.append(call)
        whole = label == "aten::add" and len(inputs) == 2 and all(t.shape == outputs[0].shape for t in inputs)
        self._sum = (call, storages(outputs), None) if whole else None
        return call

    def _absorb_sum(self, x) -> None:
        """The running norm adds up its own input where that is the sum just recorded, all of it."""
        if self._sum is None or x.numel() != self._sum[0].dims["elements"]:
            return
        if storages([x]) <= self._sum[1]:
            self._absorb(self._sum[0], self._sum[2], dtype_name(x))

    def _absorb(self, call: Call, ended: int | None, fmt: str) -> None:
        """`call` is done by the norm behind it; only that of layer `ended`, where it is the last of a layer.

        The layers that a representative stands for may be followed by different things: see `_settle_sums`.
        """
        if ended is None or call.layers is None:
            _become_part(call, fmt)
        else:
            self._absorbed.setdefault(id(call), (call, fmt, set()))[2].add(ended)

    def _settle_sums(self) -> None:
        """Sums at the end of layers, of which the norm behind does all or some."""
        for call, fmt, ended in self._absorbed.values():
            rest = [layer for layer in call.layers if layer not in ended]
            if rest:
                part = replace(call, dims=dict(call.dims), layers=sorted(ended))
                self.calls.insert(next(i for i, c in enumerate(self.calls) if c is call) + 1, part)
                call.layers, call = rest, part
            _become_part(call, fmt)
        self._absorbed.clear()


def _become_part(call: Call, fmt: str) -> None:
    """An addition becomes a part of the norm that reads its result."""
    more = {name: size for name, size in call.dims.items() if name in (*TRAINING_SIZES, "tokens")}
    spread = {name: value for name, value in call.attrs.items() if name == "spread"}
    call.op, call.dims = "residual_add", {"elements": call.dims["elements"], **more}
    call.attrs = {"format": fmt, **spread}
