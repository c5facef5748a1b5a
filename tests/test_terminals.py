"""Graphs with several inputs and outputs."""

from __future__ import annotations

from pathlib import Path

import nir
import numpy as np
import pytest

from msg_deploy import api
from msg_deploy.deployment import Deployment, InputSpec, Readout, Timing
from msg_deploy.errors import FileError, GraphError, UsageError
from msg_deploy.exporters import nir as nir_file
from msg_deploy.exporters.dialects import in_dialect
from msg_deploy.graph import plan
from msg_deploy.sim.norse import Norse
from msg_deploy.sim.reference import Reference
from msg_deploy.terminals import columns, join_inputs, split_outputs
from tests.helpers import lif


def two_of_each(weight: float = 2.0) -> Deployment:
    """left (2,) -> Linear -> IF -> spikes; right (1, 3) -> sum -> Linear -> IF, and -> level."""
    one, zero = np.ones(1), np.zeros(1)
    nodes = {
        "right": nir.Input({"input": np.array([1, 3])}),
        "left": nir.Input({"input": np.array([2])}),
        "sum": nir.Flatten({"input": np.array([1, 3])}, 0, -1),
        "count": nir.Linear(np.ones((1, 3))),
        "weigh": nir.Linear(np.array([[1.0, weight]])),
        "neuron": nir.IF(one, 3 * one, zero),
        "spikes": nir.Output({"output": np.array([1])}),
        "level": nir.Output({"output": np.array([3])}),
    }
    edges = [
        ("right", "sum"),
        ("sum", "count"),
        ("sum", "level"),
        ("count", "neuron"),
        ("left", "weigh"),
        ("weigh", "neuron"),
        ("neuron", "spikes"),
    ]
    graph = nir.NIRGraph(nodes, edges, metadata={}, type_check=False)
    return Deployment(graph, Timing(steps=3), InputSpec((5,), "frames"))


LEFT = np.array([[1, 0], [1, 1], [0, 1]])[:, None]
RIGHT = np.array([[0, 0, 1], [0, 1, 0], [1, 1, 1]])[:, None, None]
# Drive 1 + 1, then 3 + 1, then 2 + 3: v = 2, 6 > 3 -> spike, 0 + 5 > 3 -> spike.
SPIKES = np.array([0, 1, 1])[:, None, None]


@pytest.mark.parametrize("simulator", [Reference(), Norse()], ids=lambda s: s.name)
def test_a_hand_worked_table(simulator: Reference | Norse) -> None:
    deployment = two_of_each()
    known = plan(deployment.graph)
    assert (known.inputs, known.outputs) == (("left", "right"), ("level", "spikes"))
    assert known.input_shape == (5,)
    inputs = join_inputs(deployment.graph, {"right": RIGHT, "left": LEFT})
    assert inputs.shape == (3, 1, 5)
    trace = simulator.run(deployment, inputs)
    found = split_outputs(deployment.graph, trace.outputs)
    assert np.array_equal(found["spikes"], SPIKES)
    assert np.array_equal(found["level"], RIGHT[:, :, 0])
    assert np.array_equal(trace.spikes["neuron"], SPIKES)


def test_the_file_and_the_check(tmp_path: Path) -> None:
    deployment = two_of_each()
    nir_file.write(deployment, tmp_path / "a.nir")
    assert nir_file.read(tmp_path / "a.nir").input == deployment.input
    assert api.check(deployment, tmp_path / "a.nir", random=16)


def test_another_frameworks_file(tmp_path: Path) -> None:
    graph = two_of_each().graph
    nir.write(tmp_path / "a.nir", nir.NIRGraph(graph.nodes, graph.edges, type_check=False))
    assert nir_file.read(tmp_path / "a.nir").input.shape == (5,)


def test_where_outputs_differ() -> None:
    """The first difference is named by its Output node, not by its place in the joined array."""
    right = two_of_each()
    right.graph.nodes["level"] = nir.Output({"output": np.array([3])})
    right.graph.nodes["twice"] = nir.Scale(np.array([1.0, 2.0, 1.0]))
    right.graph.edges[:] = [e for e in right.graph.edges if e != ("sum", "level")]
    right.graph.edges += [("sum", "twice"), ("twice", "level")]
    verdict = api.check(two_of_each(), right, random=4, simulators=["reference"])
    first = verdict.comparisons[0].first
    assert first is not None
    assert (first.node, first.quantity, first.neuron) == ("level", "current", (1,))


def test_columns() -> None:
    assert columns({"a": (2, 3), "b": (1,)}) == {"a": slice(0, 6), "b": slice(6, 7)}
    assert columns({"a": (2, 3)}) == {"a": slice(None)}


@pytest.mark.parametrize(
    ("inputs", "problem"),
    [
        ({"left": LEFT}, "arrays are given for left; the Input nodes are left, right"),
        ({"left": LEFT, "right": RIGHT[..., :2]}, r"'right' must be \(T, B, \*\(1, 3\)\)"),
    ],
)
def test_inputs_that_do_not_fit(inputs: dict[str, np.ndarray], problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        join_inputs(two_of_each().graph, inputs)


def test_two_needs_one_output(tmp_path: Path) -> None:
    deployment = two_of_each()
    readout = Readout(weights=(0.1, 0.2, 0.3), source="count")
    nir_file.write(deployment.with_graph(deployment.graph, readout=readout), tmp_path / "a.nir")
    with pytest.raises(FileError, match="needs one Output node, not level, spikes"):
        nir_file.read(tmp_path / "a.nir")


def test_other_importers_take_one() -> None:
    with pytest.raises(GraphError, match="several Input nodes"):
        in_dialect(two_of_each(), "portable")


def test_recurrence_that_two_inputs_reach() -> None:
    """The cycle is closed at one edge, whichever input is followed first."""
    nodes = {
        "a": nir.Input({"input": np.array([1])}),
        "b": nir.Input({"input": np.array([1])}),
        "n": lif(),
        "m": lif(),
        "output": nir.Output({"output": np.array([1])}),
    }
    edges = [("a", "n"), ("b", "m"), ("n", "m"), ("m", "n"), ("m", "output")]
    known = plan(nir.NIRGraph(nodes, edges, metadata={}, type_check=False))
    closing = [(e.source, n) for n in known.order for e in known.incoming[n] if e.previous]
    assert closing == [("m", "n")]
