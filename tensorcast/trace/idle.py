"""Parts of a model that are in memory and take no part in what was traced: towers of pictures or sound, codecs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from torch import nn

from tensorcast.vision.encode import feature_method


def idle_parts(model, ran: Iterable[str]) -> list[tuple[str, int]]:
    """(path, parameters) of every largest part with weights of its own of which nothing ran.

    `ran`: paths of the modules that did. Within a list of layers all are taken to have run where one has.
    """
    used = {path for ran_path in ran for path in _with_parents(ran_path)}
    shared = {id(p) for path in used if path for p in model.module.get_submodule(path)._parameters.values()}
    stacks = {stack.path for stack in model.stacks}
    return list(_idle(model.module, "", used, stacks, shared))


def _with_parents(path: str) -> Iterator[str]:
    while path:
        yield path
        path = path.rpartition(".")[0]


def _idle(module: nn.Module, path: str, used: set[str], stacks: set[str], shared: set[int]):
    for name, part in module.named_children():
        here = f"{path}.{name}" if path else name
        if here not in used:
            own = {id(p): p.numel() for p in part.parameters() if id(p) not in shared}
            if own:
                yield here, sum(own.values())
        elif here not in stacks:
            yield from _idle(part, here, used, stacks, shared)


def idle_note(model, ran: Iterable[str]) -> tuple[str, ...]:
    """What of the model is in memory but not in the time, and whether images would change that; () for nothing."""
    idle = idle_parts(model, ran)
    if not idle:
        return ()
    parts = ", ".join(f"{path} ({parameters:,} parameters)" for path, parameters in idle)
    asked = model.deployment.images
    how = "; --image HxW runs what images need" if not asked and feature_method(model.module) is not None else ""
    return (f"in memory but not in the time, as no pass over text runs it: {parts}{how}",)
