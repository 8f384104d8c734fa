"""Build, deploy and trace a model: the slow way to a DeployedModel, taken when the cache has none."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from tensorcast.custom.sources import NONE, Sources
from tensorcast.deployed import DeployedModel, ModelFacts
from tensorcast.models.reference import LANGUAGE, STAGES, ModelSource
from tensorcast.ops import own_operators
from tensorcast.plan import ParallelPlan
from tensorcast.trace.undisturbed import Progress, settled, undisturbed

if TYPE_CHECKING:
    from tensorcast.transformer_model import TransformerModel

Asked = tuple[str, tuple[int, int, int]]  # (phase, (batch, tokens, past))


def deploy(
    source: ModelSource,
    deployment: Mapping,
    points: Iterable[Asked] | Callable[[ModelFacts], Iterable[Asked]],
    known: DeployedModel | None = None,
    *,
    sources: Sources = NONE,
    dtype: str | None = None,
    trust_remote_code: bool = False,
    progress: Progress | None = None,
    whole: TransformerModel | None = None,
) -> DeployedModel:
    """The deployed model whose tables cover every (phase, point) asked, and what `known` covers already.

    `points` may be a function of the model's facts, where only they say how long prompts are.

    `deployment` holds the fields of a `Deployment`; `sources` are loaded first. `whole`: a model of `whole_model` with
    the same deployment but for the plan; it is used up.
    """
    say = progress or (lambda text, share: None)
    say("loading torch and the model's code", 0.0)
    with _uncollected():
        from tensorcast.transformer_model import Deployment, deployed_model

        if whole is not None:
            model = whole.cut_for(deployment["plan"])
        else:
            blueprint = _blueprint(source, sources, dtype, trust_remote_code, say)
            say("deploying", 0.7)
            model = deployed_model(blueprint, Deployment(**deployment))
        polynomial = whole is not None and model.polynomial
        points = points if callable(points) else tuple(points)
        return undisturbed(partial(_traced, model, source, points, known, polynomial), say)


def _traced(
    model: TransformerModel,
    source: ModelSource,
    points: Iterable[Asked] | Callable[[ModelFacts], Iterable[Asked]],
    known: DeployedModel | None,
    polynomial: bool,
    say: Progress,
) -> DeployedModel:
    """Facts and tables of a deployed model: see `deploy`."""
    from tensorcast.trace.facts import facts_of
    from tensorcast.trace.readings import layout_of
    from tensorcast.trace.run import trace_images, trace_step
    from tensorcast.trace.table import build_table

    first = "prefill" if source.phases == LANGUAGE else source.phases[0]
    fixed = source.phases in STAGES and not callable(points)  # a step of another length would be another model's
    seen = trace_images(model).ran if model.deployment.images else ()
    probe = (2, *points[0][1][1:]) if fixed else model.probe
    facts = facts_of(model, trace_step(model, first, *probe), seen)
    tables = dict(known.tables) if known is not None else {}
    for phase, point in points(facts) if callable(points) else points:
        if phase in tables and tables[phase].piece_for(*point) is not None:
            continue
        say(f"tracing {phase}", 0.8)
        here = tables.get(phase)
        table = build_table(
            phase,
            lambda at, phase=phase: settled(trace_step(model, phase, *at)),
            point,
            step=model.deployment.mtp + 1 if phase == "decode" else 0,
            exact=here is not None and not (source.reading.encoder and phase == "decode"),
            layout=layout_of(phase, point, source.reading, model.most_positions),
            polynomial=polynomial,
        )
        tables[phase] = here.joined(table) if here is not None else table
    own = own_operators()
    used = {row.op for table in tables.values() for piece in table.pieces for row in piece.rows}
    return DeployedModel(facts, tables, own_operators=not own.isdisjoint(used))


def whole_model(
    source: ModelSource, deployment: Mapping, *, sources: Sources = NONE, dtype: str | None, trust_remote_code: bool
) -> TransformerModel | None:
    """The model with every step but the last done, for any plan; None where the steps are another's.

    A kernel that was asked for may depend on the plan, and a pipeline of the user's own knows no such stop.
    """
    if deployment["kernels"]:
        return None
    with _uncollected():
        from tensorcast.pipelines import get_model_profile, pipeline_of
        from tensorcast.transformer_model import Deployment, TransformerModel

        blueprint = _blueprint(source, sources, dtype, trust_remote_code, lambda text, share: None)
        kind = blueprint.model_type
        if blueprint.kind == "diffusers" or pipeline_of(kind) is not None or get_model_profile(kind).kernels:
            return None
        return TransformerModel(blueprint, Deployment(**{**deployment, "plan": ParallelPlan()}), whole=True)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Imports make millions of objects that live on; looking through them again and again costs a fifth."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def _blueprint(source: ModelSource, sources: Sources, dtype: str | None, trust_remote_code: bool, say: Progress):
    from tensorcast.layers.attention import INTERFACE, register_interface
    from tensorcast.models.build import build_blueprint

    sources.load()
    register_interface()
    say(f"building {source.name} on the meta device", 0.5)
    return build_blueprint(source, dtype=dtype, trust_remote_code=trust_remote_code, attn_implementation=INTERFACE)
