"""Graphs: operators on named weights, recorded when the source was made and compiled to modules here."""

from __future__ import annotations

from types import SimpleNamespace

from tensorcast.graph import is_graph
from tensorcast.models.blueprint import normalise_type
from tensorcast.models.recipes import Recipe, Wanted
from tensorcast.models.reference import ModelSource


def recipe(source: ModelSource, wanted: Wanted) -> Recipe | None:
    if source.custom is None or not is_graph(source.custom.value):
        return None
    from tensorcast.graph.compiler import compiled
    from tensorcast.graph.weights import resolve
    from tensorcast.models.recipes.packed import packed_inputs

    graph, config = source.custom.value, SimpleNamespace(**source.config)
    config.max_position_embeddings = source.config["max_positions"]

    def make():
        module = compiled(graph, resolve(graph, source))
        table = module.get_input_embeddings()
        config.hidden_size = table.embedding_dim if table is not None else 0
        return module

    name = type(graph).__name__
    return Recipe(
        kind="graph",
        make=make,
        config=config,
        architecture=name,
        model_type=normalise_type(str(source.config.get("model_type") or name)),
        origin=source.custom.origin,
        inputs=packed_inputs,
    )
