from __future__ import annotations

import itertools
from xml.etree import ElementTree

import nir
import numpy as np
from hypothesis import given, settings

from msg_deploy.deployment import Deployment
from msg_deploy.drawing import HEIGHT, WIDTH, draw, layout
from msg_deploy.exporters.fold import fold_two
from msg_deploy.exporters.trace import trace
from msg_deploy.graph import plan
from tests.helpers import chain, lif, random_network
from tests.strategies import deployments

SVG = "{http://www.w3.org/2000/svg}"


def count(deployment: Deployment) -> tuple[int, int]:
    """Boxes and edges of the drawing."""
    root = ElementTree.fromstring(draw(deployment))
    return len(root.findall(f"{SVG}g")), len(root.findall(f"{SVG}path"))


@settings(deadline=None, max_examples=30)
@given(deployment=deployments())
def test_every_node_and_edge_is_drawn(deployment: Deployment) -> None:
    graph = deployment.graph
    assert count(deployment) == (len(graph.nodes), len(graph.edges))


def test_boxes_do_not_overlap() -> None:
    deployment = fold_two(trace(random_network("convnet")), "delay")
    places = layout(plan(deployment.graph))
    for (ax, ay), (bx, by) in itertools.combinations(places.values(), 2):
        assert abs(ax - bx) >= WIDTH or abs(ay - by) >= HEIGHT


def test_names_are_escaped_and_recurrence_is_dashed() -> None:
    deployment = chain(lif(), nir.Linear(np.ones((1, 1))), inputs=[1], outputs=[1])
    nodes = {("a<&" if n == "n1" else n): v for n, v in deployment.graph.nodes.items()}
    edges = [("input", "n0"), ("n0", "a<&"), ("a<&", "output"), ("a<&", "n0")]
    graph = nir.NIRGraph(nodes, edges, metadata={}, type_check=False)
    root = ElementTree.fromstring(draw(deployment.with_graph(graph)))
    assert "a<&" in {title.text for title in root.iter(f"{SVG}title")}
    assert [p.get("class") for p in root.findall(f"{SVG}path")].count("previous") == 1
