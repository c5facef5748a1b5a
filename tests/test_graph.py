from __future__ import annotations

import nir
import numpy as np
import pytest

from msg_deploy.errors import GraphError
from msg_deploy.graph import plan
from tests.helpers import chain, lif


def linear(value: float = 1.0) -> nir.Linear:
    return nir.Linear(np.full((1, 1), value))


def test_order_and_shapes() -> None:
    graph = chain(nir.Linear(np.ones((3, 2))), lif((3,)), inputs=[2], outputs=[3]).graph
    found = plan(graph)
    assert found.order == ("input", "n0", "n1", "output")
    assert found.shapes == {"input": (2,), "n0": (3,), "n1": (3,), "output": (3,)}


def test_order_does_not_depend_on_names_or_listing() -> None:
    graph = chain(linear(), lif(), linear(), inputs=[1], outputs=[1]).graph
    nodes = dict(reversed(graph.nodes.items()))
    shuffled = nir.NIRGraph(nodes, graph.edges[::-1], metadata={}, type_check=False)
    assert plan(shuffled).order == plan(graph).order


def test_recurrent_edge_carries_the_previous_step() -> None:
    graph = chain(linear(), lif(), linear(), inputs=[1], outputs=[1], edges=[("n2", "n1")]).graph
    incoming = {(e.source, e.previous) for e in plan(graph).incoming["n1"]}
    assert incoming == {("n0", False), ("n2", True)}


@pytest.mark.parametrize(
    ("edges", "problem"),
    [
        ([("n0", "nowhere")], "there is no node 'nowhere'"),
        ([("n0", "n1")], "is given 2 times"),
        ([("n2", "n2")], "cycle through n2 has no node with state"),
        ([("n3", "n2")], "cycle through n2, n3.* has no node with state"),
    ],
)
def test_bad_edges(edges: list[tuple[str, str]], problem: str) -> None:
    graph = chain(linear(), lif(), linear(), linear(), inputs=[1], outputs=[1], edges=edges).graph
    with pytest.raises(GraphError, match=problem):
        plan(graph)


def test_node_that_nothing_feeds() -> None:
    graph = chain(linear(), inputs=[1], outputs=[1]).graph
    graph.nodes["loose"] = linear()
    with pytest.raises(GraphError, match="'loose': nothing leads into it"):
        plan(graph)


def test_cycle_apart_from_the_input() -> None:
    graph = chain(linear(), inputs=[1], outputs=[1]).graph
    graph.nodes |= {"a": lif(), "b": linear()}
    graph.edges += [("a", "b"), ("b", "a")]
    with pytest.raises(GraphError, match="cycle through a, b is not fed by the input"):
        plan(graph)


@pytest.mark.parametrize("kind", ["input", "output"])
def test_terminals_are_needed(kind: str) -> None:
    graph = chain(linear(), inputs=[1], outputs=[1]).graph
    del graph.nodes[kind]
    graph.edges[:] = [e for e in graph.edges if kind not in e]
    with pytest.raises(GraphError, match=f"no {kind.capitalize()} node"):
        plan(graph)


def test_an_edge_into_an_input() -> None:
    graph = chain(linear(), inputs=[1], outputs=[1]).graph
    graph.nodes["second"] = nir.Input({"input": np.array([1])})
    graph.edges += [("n0", "second")]
    with pytest.raises(GraphError, match=r"'second' \(Input\): an edge leads into it"):
        plan(graph)


def test_shapes_that_do_not_meet() -> None:
    graph = chain(lif((2,)), inputs=[3], outputs=[3]).graph
    with pytest.raises(GraphError, match=r"node 'n0' \(LIF\): tau has shape \(2,\)"):
        plan(graph)
    graph = chain(lif((3,)), inputs=[3], outputs=[4]).graph
    with pytest.raises(GraphError, match=r"node 'output' \(Output\): declares the shape \(4,\)"):
        plan(graph)


def test_branches_of_different_shape() -> None:
    graph = chain(
        nir.Linear(np.ones((2, 3))), lif((2,)), inputs=[3], outputs=[2], edges=[("input", "n1")]
    ).graph
    with pytest.raises(GraphError, match=r"edge 'input' -> 'n1': 'input' gives shape \(3,\)"):
        plan(graph)


def test_recurrent_branch_of_different_shape() -> None:
    graph = chain(
        lif((2,)), nir.Linear(np.ones((3, 2))), inputs=[2], outputs=[3], edges=[("n1", "n0")]
    ).graph
    with pytest.raises(GraphError, match="edge 'n1' -> 'n0'"):
        plan(graph)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_every_number_is_finite(value: float) -> None:
    weight = np.ones((2, 3))
    weight[1, 2] = value
    graph = chain(nir.Linear(weight), inputs=[3], outputs=[2]).graph
    with pytest.raises(GraphError, match=r"node 'n0' \(Linear\): weight\[1, 2\] is .*1 of 6"):
        plan(graph)
