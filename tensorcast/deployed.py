"""What is known about one deployed model, without torch: its facts and its OpTables. This is what the cache keeps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from tensorcast.optable import OpTable

CROSS = "cross_kv"
"""Kind of cache: keys and values of what an encoder read; its tokens are the encoder's."""


@dataclass(frozen=True)
class WeightGroup:
    """Parameters of one rank that share a fate: same layers, same way of being split, same quantisation.

    `split`: tp (cut by tensor parallelism), experts (by all ranks that share experts) or whole (on every rank).
    `layers` of the main stack, or a `place` outside of it: pre, post, ends (tied: before and after it). `quantisable`:
    a scheme that quantises every linear would quantise these.
    """

    parameters: int
    nbytes: int
    split: str
    layers: tuple[int, ...] = ()
    place: str = ""
    quantisable: bool = False


@dataclass(frozen=True)
class CacheGroup:
    """What layers keep between steps, one rank: bytes a token (of at most `window`, 0 = all) and a sequence.

    Tokens take whole blocks of `block`; they are dealt out to `shards` ranks, of which this one has most.
    """

    kind: str
    token_bytes: float
    sequence_bytes: float
    window: int
    layers: tuple[int, ...]  # layers of the main stack; empty for one layer outside of it
    split: bool = True  # more tensor parallelism makes it smaller
    block: int = 1
    shards: int = 1

    def nbytes(self, tokens, layers: Iterable[int] | None = None):
        """Bytes for one sequence of `tokens` tokens, over `layers` (None = all of the group's)."""
        import numpy as np

        held = np.minimum(tokens, self.window) if self.window else tokens
        held = -(-held // (self.block * self.shards)) * self.block
        count = len(self.layers) or 1
        if layers is not None:
            count = len(set(self.layers) & set(layers)) if self.layers else 0
        return count * (self.token_bytes * held + self.sequence_bytes)


@dataclass(frozen=True)
class ModelFacts:
    """Everything of a deployed model that is no operator. Figures are of one rank unless they say otherwise."""

    name: str
    architecture: str
    model_type: str
    origin: str
    dtype: str
    parameters: int  # whole model, tied weights once
    active_parameters: int  # whole model, those one token uses
    layers: int  # of the main stack
    hidden: int
    max_positions: int | None
    weights: tuple[WeightGroup, ...]
    caches: tuple[CacheGroup, ...]
    steps: tuple[Mapping[str, Any], ...]
    kernels: tuple[Mapping[str, Any], ...]
    quantised: Mapping[str, Any]
    notes: tuple[str, ...]
    tp_values: tuple[int, ...]  # tensor-parallel degrees whose heads divide
    experts: int  # routed experts of a layer, 0 for a dense model
    unmatched: tuple[str, ...] = ()  # rules of the configuration's tensor-parallel plan that name nothing
    image_tokens: int = 0  # tokens that the images of a request become
    together: str = ""  # which tokens of a prompt with images see each other in both directions, if any
    one_length: str = ""  # where the profile comes from that says sequences must be of one length

    def to_dict(self) -> dict:
        out = {f.name: getattr(self, f.name) for f in fields(self)}
        out["weights"] = [vars(w) for w in self.weights]
        out["caches"] = [vars(c) for c in self.caches]
        return out

    @classmethod
    def from_dict(cls, d: Mapping) -> ModelFacts:
        tuples = {k: tuple(d[k]) for k in ("steps", "kernels", "notes", "tp_values", "unmatched")}
        weights = tuple(WeightGroup(**{**w, "layers": tuple(w["layers"])}) for w in d["weights"])
        caches = tuple(CacheGroup(**{**c, "layers": tuple(c["layers"])}) for c in d["caches"])
        return cls(**{**d, **tuples, "weights": weights, "caches": caches})


@dataclass(frozen=True)
class DeployedModel:
    """Facts and tables by phase. `own_operators`: some rows are operators that user code describes."""

    facts: ModelFacts
    tables: Mapping[str, OpTable] = field(default_factory=dict)
    own_operators: bool = False

    @property
    def polynomial(self) -> bool:
        """Whether the sizes in all tables are polynomials, each by one piece."""
        return all(table.polynomial for table in self.tables.values())

    def to_dict(self) -> dict:
        tables = {k: t.to_dict() for k, t in self.tables.items()}
        return {"facts": self.facts.to_dict(), "tables": tables, "own_operators": self.own_operators}

    @classmethod
    def from_dict(cls, d: Mapping) -> DeployedModel:
        tables = {k: OpTable.from_dict(t) for k, t in d["tables"].items()}
        return cls(ModelFacts.from_dict(d["facts"]), tables, d["own_operators"])
