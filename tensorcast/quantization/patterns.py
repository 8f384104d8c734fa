"""Matching module paths against the patterns of quantisation lists.

A pattern is one of
- a full-path glob or path, `model.layers.*.self_attn`: that module and everything below it (`*` crosses dots);
- a whole-segment name, `gate`: any module with such a segment, so `…mlp.gate` but never `…mlp.gate_proj`;
- a regular expression, `re:.*shared_experts.*`: matched from the start of the path.

Lists in checkpoints use the checkpoint's own names. They differ from the module paths of a built model in four ways,
all handled on both sides by `canonical`: wrappers in front (`model.`, `language_model.`, `backbone.`), names of the
reference code (`ffn`, `w1`), one entry per expert where the model has one stack, and projections that only one side
has fused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from fnmatch import translate

from tensorcast.errors import DeploymentError, InputError

WRAPPERS = ("model", "language_model", "backbone", "text_model")

SEGMENTS = {
    "attn": "self_attn",
    "ffn": "mlp",
    "block_sparse_moe": "mlp",
    "head": "lm_head",
    "embed": "embed_tokens",
    "w1": "gate_proj",
    "w2": "down_proj",
    "w3": "up_proj",
}
"""Names in the reference code of DeepSeek, Mixtral and MiniMax -> names in transformers."""

FUSED = {
    "qkv_proj": ("q_proj", "k_proj", "v_proj"),
    "gate_up_proj": ("gate_proj", "up_proj"),
    "fused_qkv_a_proj_with_mqa": ("q_a_proj", "kv_a_proj_with_mqa"),
    "in_proj_qkvz": ("in_proj_qkv", "in_proj_z"),
    "in_proj_ba": ("in_proj_b", "in_proj_a"),
}
"""A fused projection -> the projections it is made of."""

LANGUAGE = ("", "layers", "mtp", "embed", "head", "ffn", "block_sparse_moe", "w1", "w2", "w3")
"""First segments of a language model's paths (and of patterns, "" being `*`), whose names `SEGMENTS` translates."""

PROJECTIONS = ("gate_proj", "up_proj", "down_proj", "gate_up_proj")
GLOB = re.compile(r"[*?\[]")


def canonical(path: str) -> str:
    """The path without wrappers, in transformers' names, cut at a stack of experts.

    >>> canonical("language_model.model.layers.3.ffn.experts.17.w1")
    'layers.3.mlp.experts'
    """
    bare, _ = _split_experts(path)
    return bare


def _split_experts(path: str) -> tuple[str, str]:
    """(canonical path, what followed a stack of experts: "" or ".17.w1")."""
    segments = path.split(".")
    while len(segments) > 1 and segments[0] in WRAPPERS:
        segments = segments[1:]
    if segments[0].rstrip("*") in LANGUAGE:  # other towers have their own `attn` and `head`
        for i, segment in enumerate(segments):
            stem = segment.rstrip("*")
            segments[i] = SEGMENTS.get(stem, stem) + segment[len(stem) :]
    for i, segment in enumerate(segments[:-1]):
        if segment == "experts" and (segments[i + 1].isdigit() or segments[i + 1] in ("*", *PROJECTIONS)):
            return ".".join(segments[: i + 1]), "." + ".".join(segments[i + 1 :])
    return ".".join(segments), ""


def spellings(path: str) -> list[str]:
    """The path as checkpoints may write it, for patterns that cannot be rewritten (regular expressions)."""
    bare, tail = _split_experts(path)
    old = ".".join({"self_attn": "attn", "mlp": "ffn"}.get(s, s) for s in bare.split("."))
    stems = (bare, old, bare.replace(".mlp.", ".block_sparse_moe.")) if bare.split(".")[0] in LANGUAGE else (bare,)
    prefixes = ("", "model.", "language_model.", "model.language_model.", "language_model.model.", "backbone.")
    return list(dict.fromkeys([path, *(prefix + stem + tail for stem in stems for prefix in prefixes)]))


@dataclass(frozen=True)
class Matcher:
    """A set of patterns, compiled once. Raises InputError for a regular expression that does not compile."""

    patterns: tuple[str, ...]
    paths: set[str] = field(init=False, repr=False)
    names: set[str] = field(init=False, repr=False)
    globs: re.Pattern | None = field(init=False, repr=False)
    regexes: tuple[re.Pattern, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        paths, names, globs, regexes = set(), set(), [], []
        for pattern in self.patterns:
            if pattern.startswith("re:"):
                try:
                    regexes.append(re.compile(pattern[3:]))
                except re.error as error:
                    raise InputError(f"pattern {pattern!r} is not a regular expression: {error}") from None
                continue
            bare = canonical(pattern)
            if GLOB.search(bare):
                globs += [bare, bare + ".*", pattern, pattern + ".*"]
            elif "." in bare:
                paths.update(split_fused(bare))
            else:
                names.update(split_fused(bare))
        object.__setattr__(self, "paths", paths)
        object.__setattr__(self, "names", names)
        object.__setattr__(self, "globs", re.compile("|".join(map(translate, globs))) if globs else None)
        object.__setattr__(self, "regexes", tuple(regexes))

    def __call__(self, path: str) -> bool:
        """Whether any pattern matches the module at `path`.

        Raises DeploymentError where the patterns cover a part of a fused module: half a matrix has no format of its
        own.
        """
        if self._matches(path):
            return True
        head, _, last = path.rpartition(".")
        parts = [f"{head}.{part}" for part in FUSED.get(last, ())]
        if last == "experts":  # patterns may name single projections of the stack
            parts = [f"{path}.0.{part}" for part in ("up_proj", "down_proj")]
        hits = [part for part in parts if self._matches(part)]
        if hits and len(hits) < len(parts):
            raise DeploymentError(
                f"{path} is one fused module, but the patterns cover only {', '.join(hits)}; "
                f"name all of {', '.join(parts)} or none"
            )
        return bool(hits)

    def _matches(self, path: str) -> bool:
        bare = canonical(path)
        segments = bare.split(".")
        if self.names and not self.names.isdisjoint(segments):
            return True
        if self.paths and any(".".join(segments[: n + 1]) in self.paths for n in range(len(segments))):
            return True
        if self.globs and (self.globs.match(bare) or self.globs.match(path)):
            return True
        return any(regex.match(name) for regex in self.regexes for name in spellings(path))


def split_fused(path: str) -> tuple[str, ...]:
    """The path itself and, where its last segment is a fused projection, the paths of its parts."""
    head, _, last = path.rpartition(".")
    return (path, *((f"{head}." if head else "") + part for part in FUSED.get(last, ())))


def refuse_partial_experts(patterns: Iterable[str], experts: int, what: str) -> None:
    """Raises DeploymentError where a list names some experts of a layer but not all `experts` of them (0: unknown), or
    some of their projections: a built model holds a layer's experts as one stack, which has one format.
    """
    indices: dict[str, set[int]] = {}
    projections: dict[str, set[str]] = {}
    for pattern in patterns:
        path, tail = ("", "") if pattern.startswith("re:") else _split_experts(pattern)
        number, _, projection = tail.removeprefix(".").rpartition(".")
        projection = SEGMENTS.get(projection, projection)
        if projection in PROJECTIONS:
            projections.setdefault(path, set()).add(projection)
        if (number or projection).isdigit():
            indices.setdefault(path, set()).add(int(number or projection))
    whole = "the experts of a layer run as one stack with one format"
    for path, seen in indices.items():
        if seen != set(range(experts or len(seen))) or (not experts and len(seen) == 1):
            raise DeploymentError(
                f"{what} names {len(seen)} of {experts or 'the'} experts of {path}; {whole}: name {path}"
            )
    for path, seen in projections.items():
        if not ({"up_proj", "down_proj"} <= seen or {"gate_up_proj", "down_proj"} <= seen):
            raise DeploymentError(f"{what} names only {', '.join(sorted(seen))} of {path}; {whole}: name {path}")


def layer_count(paths: Iterable[str]) -> int:
    """Decoder layers of a model, from its module paths."""
    found = (re.match(r"layers\.(\d+)\.", canonical(path)) for path in paths)
    return max((int(match.group(1)) + 1 for match in found if match), default=0)


def checkpoint_names(path: str, layers: int) -> tuple[str, ...]:
    """The module's path, and for one of a draft layer (`mtp.0.block.self_attn.q_proj`) what checkpoints call it.

    Three ways are published: another decoder layer behind the last (DeepSeek-V3, GLM), `mtp.layers.0.…` (Qwen3.5) and
    `mtp.0.…` (DeepSeek-V4).
    """
    match = re.match(r"mtp\.(\d+)\.(?:block\.)?(.+)", canonical(path))
    if not match:
        return (path,)
    draft, rest = int(match.group(1)), match.group(2)
    return path, f"layers.{layers + draft}.{rest}", f"mtp.layers.{draft}.{rest}", f"mtp.{draft}.{rest}"
