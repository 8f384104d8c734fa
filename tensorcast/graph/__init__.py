"""ComputeGraph: a model described in one file by named operators on named weights. No torch before it is compiled."""

from tensorcast.graph.recording import ComputeGraph, is_graph

__all__ = ["ComputeGraph", "is_graph"]
