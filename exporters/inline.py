"""Nested graphs in place: a NIRGraph inside a graph is what its nodes are."""

from __future__ import annotations

from dataclasses import replace

import nir

from msg_deploy.errors import GraphError

Edge = tuple[str, str]
NAME_KEY = "msg_deploy_name"
"""Metadata of a node: what it was called before it was written in a form that wants other names."""
ORIGIN_KEY = "msg_deploy_origin"
"""Metadata of a node: under which name it was exported first, whatever others call it since."""


def inline(graph: nir.NIRGraph) -> nir.NIRGraph:
    """The same graph without nested ones; their nodes get the name of the graph as a prefix.

    An edge into a nested graph leads to what follows its Input node, an edge out of it comes from
    what leads to its Output node.

    Raises:
        GraphError: a nested graph has not exactly one Input and one Output, or a name is taken.
    """
    nodes: dict[str, nir.NIRNode] = {}
    edges: list[Edge] = []
    entries: dict[str, list[str]] = {}
    exits: dict[str, list[str]] = {}
    for name, node in graph.nodes.items():
        if isinstance(node, nir.NIRGraph):
            inner = inline(node)
            start, end = (_only(name, inner, kind) for kind in (nir.Input, nir.Output))
            kept = {n: child for n, child in inner.nodes.items() if n not in (start, end)}
            added = {f"{name}.{n}": child for n, child in kept.items()}
            if (start, end) in inner.edges:
                raise GraphError(
                    f"node {name!r} (NIRGraph): its Input leads straight to its Output, which has "
                    "no counterpart in a flat graph."
                )
            entries[name] = [f"{name}.{b}" for a, b in inner.edges if a == start]
            exits[name] = [f"{name}.{a}" for a, b in inner.edges if b == end]
            edges += [
                (f"{name}.{a}", f"{name}.{b}") for a, b in inner.edges if a != start and b != end
            ]
        else:
            added = {name: node}
        for new, child in added.items():
            if new in nodes or (new != name and new in graph.nodes):
                raise GraphError(f"node {new!r}: this name is taken twice once graphs are inlined.")
            nodes[new] = child
    outer = [
        (source, target)
        for a, b in graph.edges
        for source in exits.get(str(a), [str(a)])
        for target in entries.get(str(b), [str(b)])
    ]
    return nir.NIRGraph(nodes, outer + edges, metadata=dict(graph.metadata), type_check=False)


def renamed(graph: nir.NIRGraph) -> nir.NIRGraph:
    """A flat graph whose nodes are called again as their metadata say.

    Raises:
        GraphError: two nodes would have the same name.
    """
    names = {old: str(node.metadata.get(NAME_KEY, old)) for old, node in graph.nodes.items()}
    if len(set(names.values())) < len(names):
        raise GraphError(f"metadata {NAME_KEY!r}: two nodes have the same name.")
    nodes = {names[old]: _plainly(node) for old, node in graph.nodes.items()}
    edges = [(names.get(str(a), str(a)), names.get(str(b), str(b))) for a, b in graph.edges]
    return nir.NIRGraph(nodes, edges, metadata=dict(graph.metadata), type_check=False)


def origins(graph: nir.NIRGraph) -> dict[str, str]:
    """Under which name each node was exported first; where that is not recorded, its name."""
    return {name: str(node.metadata.get(ORIGIN_KEY, name)) for name, node in graph.nodes.items()}


def with_origins(graph: nir.NIRGraph) -> nir.NIRGraph:
    """A copy whose nodes say where they come from."""
    nodes = {
        name: replace(
            graph.nodes[name], metadata={**graph.nodes[name].metadata, ORIGIN_KEY: origin}
        )
        for name, origin in origins(graph).items()
    }
    return nir.NIRGraph(nodes, graph.edges, metadata=dict(graph.metadata), type_check=False)


def _plainly(node: nir.NIRNode) -> nir.NIRNode:
    return replace(node, metadata={k: v for k, v in node.metadata.items() if k != NAME_KEY})


def _only(name: str, graph: nir.NIRGraph, kind: type[nir.NIRNode]) -> str:
    found = [n for n, node in graph.nodes.items() if isinstance(node, kind)]
    if len(found) != 1:
        raise GraphError(
            f"node {name!r} (NIRGraph): has {len(found)} {kind.__name__} nodes; exactly one is "
            "supported."
        )
    return found[0]
