"""Random valid graphs."""

from __future__ import annotations

from typing import Any

import nir
import numpy as np
from hypothesis import strategies as st

from msg_deploy.deployment import Deployment, InputSpec, Shape, Timing
from msg_deploy.graph import plan
from msg_deploy.primitives import primitive_of

FLAT = ("Affine", "Linear")
IMAGES = ("Conv2d", "SumPool2d", "AvgPool2d")
SERIES = ("Conv1d",)
ANYWHERE = (
    "Scale",
    "Flatten",
    "Delay",
    "Threshold",
    "I",
    "IF",
    "LI",
    "LIF",
    "CubaLI",
    "CubaLIF",
)


def _node(kind: str, shape: Shape, random: np.random.Generator) -> nir.NIRNode:
    """A node of a type for an input of this shape, with random parameters."""
    normal = random.normal

    def each(low: float = -1.0, high: float = 1.0) -> np.ndarray:
        return random.uniform(low, high, shape)

    def tau() -> np.ndarray:
        return each(1e-3, 2e-2)

    two = np.array([2, 2])
    makers: dict[str, Any] = {
        "Affine": lambda: nir.Affine(normal(size=(3, *shape)), normal(size=3)),
        "Linear": lambda: nir.Linear(normal(size=(4, *shape))),
        "Conv1d": lambda: nir.Conv1d(
            None, normal(size=(2, shape[0], 2)), 1, "same", 1, 1, normal(size=2)
        ),
        "Conv2d": lambda: nir.Conv2d(
            None,
            normal(size=(shape[0] * 2, 1, 2, 3)),
            1,
            two,
            1,
            shape[0],
            normal(size=shape[0] * 2),
        ),
        "SumPool2d": lambda: nir.SumPool2d(two, two, two // 2),
        "AvgPool2d": lambda: nir.AvgPool2d(two, two, two // 2),
        "Scale": lambda: nir.Scale(each()),
        "Flatten": lambda: nir.Flatten({"input": np.array(shape)}, 0, -1),
        "Delay": lambda: nir.Delay(each(0, 4e-3)),
        "Threshold": lambda: nir.Threshold(each()),
        "I": lambda: nir.I(each()),
        "IF": lambda: nir.IF(each(0, 1), each(0.1, 1), each()),
        "LI": lambda: nir.LI(tau(), each(), each()),
        "LIF": lambda: nir.LIF(tau(), each(0, 5), each(), each(0.1, 1), each()),
        "CubaLI": lambda: nir.CubaLI(tau(), tau(), each(), each(), each()),
        "CubaLIF": lambda: nir.CubaLIF(
            tau(), tau(), each(0, 5), each(), each(0.1, 1), each(), each(0, 5)
        ),
    }
    node: nir.NIRNode = makers[kind]()
    return node


@st.composite
def deployments(draw: st.DrawFn) -> Deployment:
    """A row of random nodes with random connections forward and, through neurons, back.

    Some have a second Input and a second Output somewhere.
    """
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape: Shape = draw(st.sampled_from([(3,), (2, 5), (1, 4, 6)]))
    nodes: dict[str, nir.NIRNode] = {"input": nir.Input({"input": np.array(shape)})}
    arriving, leaving = {}, {"input": shape}
    edges: list[tuple[str, str]] = []
    last = "input"
    for i in range(draw(st.integers(1, 7))):
        special = {1: FLAT, 2: SERIES, 3: IMAGES}[len(shape)]
        name = f"n{i}"
        nodes[name] = _node(draw(st.sampled_from((*special, *ANYWHERE))), shape, random)
        edges.append((last, name))
        arriving[name] = shape
        leaving[name] = shape = primitive_of(nodes[name]).output_shape(nodes[name], shape)
        last = name
    row = list(arriving)
    for source, target in draw(st.lists(st.tuples(*[st.sampled_from(row)] * 2), max_size=3)):
        back = row.index(target) <= row.index(source)
        fits = leaving[source] == arriving[target] and (source, target) not in edges
        between = row[row.index(target) : row.index(source) + 1]
        if fits and (not back or all(primitive_of(nodes[n]).stateful for n in between)):
            edges.append((source, target))
    nodes["output"] = nir.Output({"output": np.array(shape)})
    edges.append((last, "output"))
    if draw(st.booleans()):
        target = draw(st.sampled_from(row))
        nodes["also"] = nir.Input({"input": np.array(arriving[target])})
        edges.append(("also", target))
    if draw(st.booleans()):
        source = draw(st.sampled_from(row))
        nodes["other"] = nir.Output({"output": np.array(leaving[source])})
        edges.append((source, "other"))
    timing = Timing(
        dt=1e-3, steps=draw(st.integers(1, 9)), reset=draw(st.sampled_from(["zero", "subtract"]))
    )
    graph = nir.NIRGraph(nodes, edges, metadata={}, type_check=False)
    return Deployment(graph, timing, InputSpec(plan(graph).input_shape, "frames", -1.0, 1.0))
