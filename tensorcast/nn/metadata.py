"""What packed models are told: their configuration when they are built, the sequences of a step when they run."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from tensorcast.errors import ModelError

if TYPE_CHECKING:
    import torch

C = TypeVar("C")


@dataclass(frozen=True)
class Mapping:
    """The ranks a module is built for: always one, because modules are built whole and cut by `shard_model`."""

    world_size: int = 1
    rank: int = 0
    tp_size: int = 1
    tp_rank: int = 0
    pp_size: int = 1
    pp_rank: int = 0


@dataclass(frozen=True)
class ModelConfig(Generic[C]):
    """What every constructor of a packed model is given.

    `pretrained_config` is the model's own configuration, `dtype` the floating-point type parameters are made in.
    `mapping` says one rank and `quant` nothing, whatever is asked: both are applied to the finished module.
    """

    pretrained_config: C
    mapping: Mapping = field(default_factory=Mapping)
    dtype: torch.dtype | None = None
    quant: Any = None

    @property
    def torch_dtype(self) -> torch.dtype | None:
        return self.dtype

    def first(self, *names: str) -> Any:
        """The first of the configuration's fields `names` that is set; ModelError when none is."""
        for name in names:
            value = getattr(self.pretrained_config, name, None)
            if value is not None:
                return value
        raise ModelError(f"the configuration states no {' or '.join(names)}; state {names[0]}, or pass it on")


@dataclass(frozen=True)
class AttentionMetadata:
    """The sequences of one step, in the order their tokens are packed.

    `seq_lens`: new tokens of each sequence. `kv_lens`: keys and values each attends to, the new ones included.
    `num_contexts`: how many sequences, the first ones, are in prefill; the others decode.
    """

    seq_lens: tuple[int, ...]
    kv_lens: tuple[int, ...]
    num_contexts: int

    def __post_init__(self) -> None:
        if len(self.seq_lens) != len(self.kv_lens):
            raise ModelError(f"attention metadata: {len(self.seq_lens)} seq_lens but {len(self.kv_lens)} kv_lens")
        if any(new < 1 or new > kv for new, kv in zip(self.seq_lens, self.kv_lens, strict=True)):
            raise ModelError("attention metadata: a sequence has 1 new token or more, and no more than its kv_lens")
        if not 0 <= self.num_contexts <= self.num_seqs:
            raise ModelError(f"attention metadata: num_contexts {self.num_contexts} of {self.num_seqs} sequences")

    @property
    def num_seqs(self) -> int:
        return len(self.seq_lens)

    @property
    def num_generations(self) -> int:
        """Sequences that decode."""
        return self.num_seqs - self.num_contexts

    @cached_property
    def num_tokens(self) -> int:
        """New tokens of all sequences: the first dimension of every packed tensor."""
        return sum(self.seq_lens)

    @property
    def num_ctx_tokens(self) -> int:
        """New tokens of the sequences in prefill."""
        return sum(self.seq_lens[: self.num_contexts])

    @property
    def context_lens(self) -> tuple[int, ...]:
        """New tokens of each sequence in prefill."""
        return self.seq_lens[: self.num_contexts]

    @cached_property
    def groups(self) -> tuple[tuple[int, int, int, bool], ...]:
        """(sequences, new tokens, keys, in prefill?) of every group of sequences that are alike."""
        counts: dict[tuple[int, int, bool], int] = {}
        for index, (new, kv) in enumerate(zip(self.seq_lens, self.kv_lens, strict=True)):
            key = new, kv, index < self.num_contexts
            counts[key] = counts.get(key, 0) + 1
        return tuple((count, *key) for key, count in counts.items())
