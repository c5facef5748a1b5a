"""Comparisons of traces and parameters that fit on a page, worked by hand."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Sequence
from typing import Any

import nir
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from msg_deploy.deployment import Deployment, InputSpec, Readout, Timing
from msg_deploy.exporters.fold import fold_two
from msg_deploy.exporters.trace import trace
from msg_deploy.graph import Incoming, Plan
from msg_deploy.parts import PARTS_KEY
from msg_deploy.sim.certificate import Certificate
from msg_deploy.sim.compare import Layout, as_written, compare, folded_away, layout
from msg_deploy.sim.explanation import Past, Rounding, _ancestors, rounding
from msg_deploy.sim.parameters import compare_metadata, compare_parameters, same_law
from msg_deploy.sim.simulator import Trace
from msg_deploy.sim.verdict import (
    MARGIN_EDGES,
    Comparison,
    Difference,
    Kind,
    Layer,
    ParameterDifference,
    Verdict,
    merge,
    merge_all,
)
from tests.helpers import lif, random_network


def make_trace(spikes: np.ndarray, membranes: np.ndarray) -> Trace:
    zeros = np.zeros((2, 1, 3))
    return Trace("x", {"lif1": spikes}, {"lif1": membranes}, zeros, zeros, zeros[0])


def test_the_earliest_step_comes_first() -> None:
    known = layout(trace(random_network(hidden=(3,), steps=2)))
    spikes = np.zeros((2, 1, 3), np.uint8)
    other = spikes.copy()
    other[1, 0, 0] = other[0, 0, 2] = 1
    membranes = np.full((2, 1, 3), 0.25)
    found = compare(make_trace(spikes, membranes), make_trace(other, membranes), known, 1e-10, 5)
    assert found.first == Difference("lif1", 2 + 1, "spike", 0, 5, (2,), 0, 1, 0.25, 0.25, 0.5)
    assert found.first.margin == 0.25
    assert found.mismatches == 2


def test_membranes_that_differ_beyond_rounding() -> None:
    known = layout(trace(random_network(hidden=(3,), steps=2)))
    spikes, membranes = np.zeros((2, 1, 3), np.uint8), np.zeros((2, 1, 3))
    a = make_trace(spikes, membranes)
    assert compare(a, make_trace(spikes, membranes + 1e-12), known, 1e-10).first is None
    found = compare(a, make_trace(spikes, membranes + 1e-8), known, 1e-10).first
    assert found is not None
    assert found.quantity == "membrane"
    nan = compare(a, make_trace(spikes, membranes * np.nan), known, 1e-10).first
    assert nan is not None


def test_margins_are_counted_by_decades() -> None:
    known = layout(trace(random_network(hidden=(3,), steps=2)))  # thresholds 0.5
    spikes = np.zeros((2, 1, 3), np.uint8)
    membranes = np.array([0.5, 0.5 + 1e-13, 0.4, 1.5, -99, np.nan]).reshape(2, 1, 3)
    trace_ = make_trace(spikes, membranes)
    (layer,) = compare(trace_, trace_, known, 1e-10).layers
    assert layer.margins is not None
    assert len(layer.margins) == len(MARGIN_EDGES) + 2 == 16
    assert sum(layer.margins) == layer.spikes == 6
    counted = {i: n for i, n in enumerate(layer.margins) if n}
    # 0; up to 1e-12; 0.2, up to 1; 2, up to 10; 199 and what is no number.
    assert counted == {0: 1, 1: 1, 13: 1, 14: 1, 15: 2}
    assert layer.smallest_margin == 0


def test_a_flipped_class_of_equal_scores_is_told() -> None:
    known = layout(trace(random_network(hidden=(3,), steps=2)))
    spikes, membranes = np.zeros((2, 1, 3), np.uint8), np.zeros((2, 1, 3))
    a, b = (
        dataclasses.replace(make_trace(spikes, membranes), scores=np.array([scores]))
        for scores in ([0.5, 0.5 + 1e-12, 0.0], [0.5 + 1e-12, 0.5, 0.0])
    )
    verdict = Verdict((compare(a, b, known, 1e-10),))
    assert verdict.kind is Kind.IDENTICAL
    assert "1 of 1 samples are put into another class" in str(verdict)


def test_what_the_certificate_allows_one_sample_it_allows_beside_others() -> None:
    """Sample 0 is a tie; the membranes of sample 1 differ by less than the bounds of both sides."""

    def of(spikes: list[int], membranes: list[float]) -> Trace:
        zeros = np.zeros((1, 2, 1))
        found = np.array(spikes, np.uint8).reshape(1, 2, 1), np.array(membranes).reshape(1, 2, 1)
        return Trace("x", {"l": found[0]}, {"l": found[1]}, zeros, zeros, zeros[0])

    each = (1, 2, 1)
    certificate = Certificate(
        "float32",
        {"l": np.array([False, True]).reshape(each)},
        {"l": np.array([1e-3, -0.5], np.float32).reshape(each)},
        {"l": np.full(each, 1e-2, np.float32)},
    )
    rounding = Rounding(certificate, {"l": Past(frozenset(), frozenset())})
    known = Layout(("l",), {"l": np.ones(1)}, {})
    a, b = of([1, 0], [1.001, 0.5]), of([0, 0], [0.999, 0.505])
    assert compare(a, b, known, 1e-4, rounding=rounding).kind is Kind.TIES
    c = of([0, 0], [0.999, 0.55])
    assert compare(a, c, known, 1e-4, rounding=rounding).kind is Kind.DIVERGENT


def made(
    name: str = "x",
    spikes: np.ndarray | None = None,
    membranes: np.ndarray | None = None,
    currents: np.ndarray | None = None,
    scores: np.ndarray | None = None,
    layer: str = "l",
) -> Trace:
    """Two steps, two samples, two neurons, two classes."""
    nothing = np.zeros((2, 2, 2))
    currents = nothing if currents is None else currents
    return Trace(
        name,
        {layer: np.zeros((2, 2, 2), np.uint8) if spikes is None else spikes},
        {layer: nothing if membranes is None else membranes},
        currents,
        currents,
        np.zeros((2, 2)) if scores is None else scores,
    )


TWO_BY_TWO = Layout(("l", "out"), {"l": np.array([0.5, 2.0])}, {"out": slice(0, 2)})


def test_a_class_that_a_folding_changes_by_hand() -> None:
    a = made("a", scores=np.array([[0.1, 0.2], [0.4, 0.3]]))
    b = made("b", scores=np.array([[0.1, 0.2], [0.25, 0.3]]))
    currents = np.full((2, 2, 2), 0.5)
    a, b = (dataclasses.replace(x, currents=currents, outputs=currents) for x in (a, b))
    found = compare(a, b, TWO_BY_TWO, 1e-10, first_sample=7, fold_error=0.15)
    # 0.15 is what 0.15 (0.5 + 0.5) explains; the decision is not.
    assert found.first == Difference("readout", 2, "decision", 0, 8, (0,), 0.4, 0.25)
    assert (found.flips, found.samples, found.kind) == (1, 2, Kind.DIVERGENT)
    assert found.score_difference == pytest.approx(0.15)
    less = compare(a, b, TWO_BY_TWO, 1e-10, fold_error=0.1499)
    assert less.first == Difference("readout", 2, "score", 0, 1, (0,), 0.4, 0.25)


def test_a_current_by_hand() -> None:
    currents = np.zeros((2, 2, 2))
    other = currents.copy()
    other[1, 0, 1] = 0.25
    found = compare(made(), made(currents=other), TWO_BY_TWO, 0.1).first
    assert found == Difference("out", 1, "current", 1, 0, (1,), 0.0, 0.25)
    # The tolerance is a share of the largest magnitude, which is at least 1.
    assert compare(made(), made(currents=other), TWO_BY_TWO, 0.25).first is None
    assert compare(made(), made(currents=other), TWO_BY_TWO, 0.2499).first is not None
    large = np.full((2, 2, 2), 10.0)
    assert compare(made(currents=large), made(currents=large + 1), TWO_BY_TWO, 0.1).first is None


def test_the_other_dialects_layers_are_read_in_shapes_and_units_of_the_left_side() -> None:
    image = np.arange(4.0).reshape(1, 1, 2, 2)
    thresholds = {"l": np.array([[1.0, 2.0], [3.0, np.nan]]), "m": np.zeros((2, 2))}
    known = Layout(("l", "m"), thresholds, {})
    other = Layout(("l", "m"), {"l": np.array([2.0, 2.0, 1.0, 1.0]), "m": np.ones(4)}, {})
    nothing = np.zeros((1, 1, 1))
    a = Trace("a", {"l": image, "m": image}, {"l": image, "m": image}, nothing, nothing, nothing[0])
    flat = image.reshape(1, 1, 4)
    b = dataclasses.replace(a, spikes={"l": flat, "m": flat}, membranes={"l": flat, "m": flat})
    found = as_written(a, b, known, other)
    assert all(x.shape == image.shape for x in (*found.spikes.values(), *found.membranes.values()))
    # Times 1/2, 1 and 3; as they are where a threshold is not known, or 0.
    assert found.membranes["l"].tolist() == [[[[0.0, 1.0], [6.0, 3.0]]]]
    assert found.membranes["m"].tolist() == image.tolist()
    assert compare(a, b, known, 1e-10, other=other).layers[0].membrane_difference == 4.0


def test_why_nothing_can_be_compared() -> None:
    a, b = made("a"), made("b", layer="k")
    found = compare(a, b, TWO_BY_TWO, 0.0)
    assert (found.a, found.b, found.kind) == ("a", "b", Kind.INCOMPARABLE)
    assert found.missing == (
        "spiking layer 'l' is only on the side of a",
        "spiking layer 'k' is only on the side of b",
        "perhaps --map l=k",
    )
    # A recording may lack layers, but these are called otherwise.
    partial = dataclasses.replace(b, partial=True)
    assert compare(a, partial, TWO_BY_TWO, 0.0).missing == found.missing
    more = {"k": b.spikes["k"], "j": np.zeros((2, 2, 3))}
    suggestion = compare(a, dataclasses.replace(b, spikes=more), TWO_BY_TWO, 0.0).missing[-1]
    assert suggestion == "perhaps --map l=k"
    wide = made("b", spikes=np.zeros((2, 2, 3)), membranes=np.zeros((2, 2, 3)))
    assert compare(a, wide, TWO_BY_TWO, 0.0).missing == (
        "layer 'l' has shape (2, 2, 2) against (2, 2, 3)",
    )
    more = made("b", scores=np.zeros((2, 3)))
    assert compare(a, more, TWO_BY_TWO, 0.0).missing == ("scores have shape (2, 2) against (2, 3)",)


def test_timing_and_two_that_differ() -> None:
    one = trace(random_network(steps=4))
    assert one.readout is not None
    other = dataclasses.replace(
        one,
        timing=dataclasses.replace(one.timing, dt=2e-3, reset="subtract"),
        readout=dataclasses.replace(one.readout, weights=(*one.readout.weights[:3], 9.0)),
    )
    found = [(p.node, p.field, p.detail) for p in compare_metadata(one, other)]
    last = one.readout.weights[3]
    assert found == [
        ("timing", "dt", "0.001 against 0.002"),
        ("timing", "reset", "'zero' against 'subtract'"),
        ("readout", "weights", f"1 of 4 entries differ, first at [3]: {last} against 9.0"),
    ]
    rewritten = dataclasses.replace(
        other, provenance=dataclasses.replace(other.provenance, dialect="sinabs")
    )
    assert [p.field for p in compare_metadata(one, rewritten)] == ["reset"]


def test_the_kind_of_several_comparisons() -> None:
    layer = Layer("l", 4, 2, 0, 0.0, uncertified=0)
    proven = Comparison("a", "b", 1, (layer,), unexplained=0)
    identical = dataclasses.replace(proven, layers=(dataclasses.replace(layer, uncertified=1),))
    first = Difference("l", 0, "spike", 0, 0, (0,), 0.0, 1.0)
    tied = dataclasses.replace(
        identical, first=first, layers=(dataclasses.replace(layer, mismatches=1, uncertified=1),)
    )
    divergent = dataclasses.replace(tied, unexplained=1)
    missing = Comparison("a", "c", missing=("no",))
    ranks = [proven, identical, tied, missing, divergent]
    kinds = [Kind.PROVEN, Kind.IDENTICAL, Kind.TIES, Kind.INCOMPARABLE, Kind.DIVERGENT]
    assert [c.kind for c in ranks] == kinds
    for i in range(len(ranks)):
        verdict = Verdict(tuple(ranks[: i + 1]))
        assert verdict.kind is kinds[i]
        assert bool(verdict) == (i < 2)
    assert Verdict(()).kind is Kind.INCOMPARABLE
    assert Verdict((proven,), (ParameterDifference("l", "tau", "x"),)).kind is Kind.DIVERGENT
    assert Verdict((proven,), problems=("no",)).kind is Kind.INCOMPARABLE
    both = Verdict((proven, identical))
    assert (both.uncertified, both.spikes, both.mismatches) == (1, 8, 0)
    assert both.certified_share == 1 - 1 / 8
    assert Verdict((proven, Comparison("a", "b"))).certified_share is None


def test_a_layer_by_hand() -> None:
    spikes = np.zeros((2, 2, 2), np.uint8)
    spikes[0, 0, 0] = spikes[1, 1, 1] = 1
    other = spikes.copy()
    other[0, 1, 1] = other[1, 0, 0] = other[1, 0, 1] = 1
    other[0, 0, 0] = 0
    membranes = np.full((2, 2, 2), 0.25)
    membranes[1, 1, 1] = 4.0
    theirs = membranes.copy()
    theirs[0, 1, 1] = 2.25
    a, b = made("a", spikes, membranes), made("b", other, theirs)
    found = compare(a, b, TWO_BY_TWO, 1e-3)
    (layer,) = found.layers
    # Distances: 0.25 four times; 1.75 three times and 2 once, as shares of 2.
    margins = dict.fromkeys(range(len(MARGIN_EDGES) + 2), 0)
    margins[MARGIN_EDGES.index(1.0) + 1] = 8
    assert layer == Layer(
        "l",
        spikes=8,
        fired=2,
        mismatches=4,
        membrane_difference=2.0,
        margins=tuple(margins.values()),
        smallest_margin=0.25,
        tolerance=1e-3,
        needed=2.0 / 4.0,
        fired_b=4,
    )
    assert found.first == Difference("l", 0, "spike", 0, 0, (0,), 1, 0, 0.25, 0.25, 0.5)
    assert (found.spikes, found.mismatches, found.uncertified) == (8, 4, None)
    other_first = compare(
        made(membranes=membranes), made(membranes=theirs), TWO_BY_TWO, 1e-3, first_sample=3
    )
    assert other_first.first == Difference(
        "l", 0, "membrane", 0, 4, (1,), 0.25, 2.25, 0.25, 2.25, 2.0
    )
    # 2 is half of the largest magnitude, 4.
    assert compare(made(membranes=membranes), made(membranes=theirs), TWO_BY_TWO, 0.5).first is None


def test_thresholds_and_membranes_that_are_not_known() -> None:
    spikes = np.zeros((2, 2, 2), np.uint8)
    spikes[1, 0, 1] = 1
    unknown = Layout(("l",), {"l": np.full(2, np.nan)}, {})
    found = compare(made(), made(spikes=spikes), unknown, 1e-3)
    assert found.first == Difference("l", 0, "spike", 1, 0, (1,), 0, 1, 0.0, 0.0, None)
    assert found.first.margin is None
    assert (found.layers[0].margins, found.layers[0].smallest_margin) == (None, None)
    bare = dataclasses.replace(made(spikes=spikes), membranes={})
    found = compare(made(), bare, TWO_BY_TWO, 1e-3)
    assert found.first == Difference("l", 0, "spike", 1, 0, (1,), 0, 1, 0.0, None, 2.0)
    assert found.first.margin == 2.0
    (layer,) = found.layers
    assert (layer.membrane_difference, layer.needed, layer.smallest_margin) == (None, None, 0.5)


def test_merging_by_hand() -> None:
    one = Layer("l", 8, 1, 2, 0.25, 3, (1, 0, 7), 0.5, 1e-3, 0.125, 0.01, 4)
    two = Layer("l", 16, 2, 5, 0.125, 4, (0, 6, 10), 0.25, 1e-3, 0.5, 0.02, 8)
    first = Difference("l", 0, "spike", 1, 3, (0,), 0.0, 1.0)
    later = dataclasses.replace(first, step=2, sample=1)
    x = Comparison("a", "b", 2, (one,), 0.5, 1, later, unexplained=1, unrecorded=("m",))
    y = Comparison("a", "b", 4, (two,), 0.25, 2, first, unexplained=2, unrecorded=("m",))
    layer = Layer("l", 24, 3, 7, 0.25, 7, (1, 6, 17), 0.25, 1e-3, 0.5, 0.02, 12)
    expected = Comparison("a", "b", 6, (layer,), 0.5, 3, first, unexplained=3, unrecorded=("m",))
    assert merge(x, y) == merge(y, x) == expected
    unknown = dataclasses.replace(
        two, uncertified=None, margins=None, smallest_margin=None, needed=None, bound=None,
        membrane_difference=None, fired_b=None,
    )  # fmt: skip
    found = merge(x, dataclasses.replace(y, layers=(unknown,), unexplained=None))
    assert found.unexplained is None
    assert found.layers == (Layer("l", 24, 3, 7, None, None, None, None, 1e-3, None, None, None),)
    assert np.isnan(merge(x, dataclasses.replace(y, score_difference=np.nan)).score_difference)
    assert np.isnan(merge(dataclasses.replace(x, score_difference=np.nan), y).score_difference)
    missing = Comparison("a", "b", missing=("no",))
    assert merge(x, missing) == merge(missing, x) == missing


def test_shapes_of_other_sizes_stay() -> None:
    a = made("a")
    b = dataclasses.replace(
        a, spikes={"l": np.zeros((2, 2, 3)), "m": np.zeros((2, 2, 2))}, membranes={}
    )
    other = Layout(("l", "m"), {"l": np.ones(3), "m": np.ones(2)}, {})
    assert {n: x.shape for n, x in as_written(a, b, TWO_BY_TWO, other).spikes.items()} == {
        "l": (2, 2, 3),
        "m": (2, 2, 2),
    }


def test_graphs_of_the_same_law() -> None:
    one = trace(random_network(steps=4))
    assert same_law(one, one)
    assert same_law(one, fold_two(one, "delay"))
    assert same_law(fold_two(one, "leak"), fold_two(one, "delay"))
    assert not same_law(one, trace(random_network(steps=5)))
    assert not same_law(one, trace(random_network(steps=4, seed=1)))
    assert not same_law(one, trace(random_network(steps=4, hidden=(8,))))
    edges = [e for e in one.graph.edges if e != ("fc1", "lif1")]
    fewer = nir.NIRGraph(one.graph.nodes, edges, metadata={}, type_check=False)
    assert not same_law(one, one.with_graph(fewer))
    (found,) = compare_parameters(one, one.with_graph(fewer))
    assert found == ParameterDifference("lif1", "edges", "only on one side: fc1 -> lif1")


def test_a_verdict_in_words() -> None:
    layer = Layer("l", 4, 2, 0, 0.0)
    verdict = Verdict((Comparison("a", "b", 1, (layer,)),), problems=("first", "second"))
    lines = str(verdict).splitlines()
    assert [line for line in lines if line.startswith("cannot")] == [
        "cannot be compared: first",
        "cannot be compared: second",
    ]
    assert repr(verdict).startswith("<INCOMPARABLE: 0 of 4 spikes differ; first; second")


def of_layers(*nodes: nir.NIRNode, fold: Any = None, names: Sequence[str] = ()) -> Deployment:
    """input -> nodes -> output, one neuron each; TWO's readout, if it is folded somehow."""
    one = np.array([1])
    called = list(names) or [f"n{i}" for i in range(len(nodes))]
    known = {"input": nir.Input({"input": one}), **dict(zip(called, nodes, strict=True))}
    known["output"] = nir.Output({"output": one})
    graph = nir.NIRGraph(known, list(itertools.pairwise(known)), metadata={}, type_check=False)
    readout = fold and Readout((1.0, 1.0), called[-1], fold)
    return Deployment(graph, Timing(1e-3, 2), InputSpec((1,), "frames"), readout)


def differences(a: Deployment, b: Deployment) -> list[tuple[str, str, str]]:
    return [(p.node, p.field, p.detail) for p in compare_parameters(a, b)]


def scaled(weight: float) -> nir.Linear:
    return nir.Linear(np.full((1, 1), weight))


def test_layouts() -> None:
    threshold = nir.Threshold(np.full(1, 0.7))
    deployment = of_layers(scaled(1), lif(), scaled(2), threshold, scaled(3))
    found = layout(deployment)
    assert found.order == ("input", "n0", "n1", "n2", "n3", "n4", "output")
    assert {n: t.tolist() for n, t in found.thresholds.items()} == {"n1": [0.5], "n3": [0.7]}
    assert found.sources == {"output": slice(None)}
    two = layout(of_layers(scaled(1), lif(), scaled(2), fold="delay"))
    assert two.sources == {"n2": slice(None)}


def test_layouts_of_fused_layers() -> None:
    """Each is what it was; where in the fused layer says the graph's metadata."""
    three = np.array([3])
    nodes = {
        "input": nir.Input({"input": three}),
        "both": nir.IF(np.ones(3), np.array([1.0, 2.0, 3.0]), np.zeros(3)),
        "output": nir.Output({"output": three}),
    }
    parts = json.dumps({"both": {"a": [0, 1], "b": [1, 3]}})
    graph = nir.NIRGraph(
        nodes, list(itertools.pairwise(nodes)), metadata={PARTS_KEY: parts}, type_check=False
    )
    found = layout(Deployment(graph, Timing(1e-3, 2), InputSpec((3,), "frames")))
    assert found.order == ("input", "a", "b", "output")
    assert {n: t.tolist() for n, t in found.thresholds.items()} == {"a": [1.0], "b": [2.0, 3.0]}


def test_what_a_folding_explains() -> None:
    """Its error times the largest sum of the magnitudes of a class's currents."""
    currents = np.array([[[1.0, -4.0]], [[2.0, 0.5]]])
    assert folded_away(0.5, currents) == 0.5 * 4.5
    assert folded_away(0.5, currents * 0.01) == 0.5 * 0.045
    assert folded_away(0.5, np.empty((2, 0, 2))) == 0


def with_certificate(bounds: float | np.ndarray, margins: float = 0.25) -> Rounding:
    each = (2, 2, 2)
    certificate = Certificate(
        "float32",
        {"l": np.zeros(each, bool)},
        {"l": np.full(each, -margins, np.float32)},
        {"l": np.broadcast_to(np.asarray(bounds, np.float32), each)},
    )
    return Rounding(certificate, {"l": Past(frozenset(), frozenset())})


def test_what_a_certificate_tells_of_a_layer() -> None:
    bounds = np.full((2, 2, 2), 0.25)
    bounds[0, 1, 0] = 0.5
    (layer,) = compare(made(), made(), TWO_BY_TWO, 0.0, rounding=with_certificate(bounds)).layers
    assert (layer.bound, layer.uncertified) == (0.5, 8)
    infinite = with_certificate(np.inf)
    assert compare(made(), made(), TWO_BY_TWO, 0.0, rounding=infinite).layers[0].bound is None
    assert compare(made(), made(), TWO_BY_TWO, 0.0).layers[0].bound is None


def test_whose_membranes_the_margins_are_of() -> None:
    """The left side's, else the right side's, else those of exact arithmetic, else none."""
    bare = dataclasses.replace(made(), membranes={})
    other = made(membranes=np.full((2, 2, 2), 0.375))
    rounding = with_certificate(0.0)

    def smallest(a: Trace, b: Trace, rounding: Rounding | None = None) -> float | None:
        return compare(a, b, TWO_BY_TWO, 9.0, rounding=rounding).layers[0].smallest_margin

    assert smallest(made(), other) == 0.5
    assert smallest(bare, other) == 0.125
    assert smallest(bare, other, rounding) == 0.125
    assert smallest(bare, bare, rounding) == 0.25
    assert smallest(bare, bare) is None


def test_needed_tolerances_are_shares_of_the_left_sides_largest_membrane() -> None:
    a, b = made(membranes=np.full((2, 2, 2), 2.0)), made(membranes=np.full((2, 2, 2), 8.0))
    assert compare(a, b, TWO_BY_TWO, 0.0).layers[0].needed == 3.0
    assert compare(b, a, TWO_BY_TWO, 0.0).layers[0].needed == 0.75


def test_extreme_membranes() -> None:
    """No warning where they overflow; where all thresholds are 0, margins are in units of 1."""
    low = Layout(("l",), {"l": np.full(2, -1e308)}, {})
    huge = made(membranes=np.full((2, 2, 2), 1.7e308))
    (layer,) = compare(huge, huge, low, 0.0).layers
    assert layer.margins is not None
    assert (layer.margins[MARGIN_EDGES.index(10.0) + 1], layer.smallest_margin) == (8, None)
    zero = Layout(("l",), {"l": np.zeros(2)}, {})
    (layer,) = compare(*[made(membranes=np.full((2, 2, 2), 1.5))] * 2, zero, 0.0).layers
    assert layer.margins is not None
    assert layer.margins[MARGIN_EDGES.index(10.0) + 1] == 8


def test_units_of_thresholds_that_are_0() -> None:
    """0/0 and x/0 say nothing; such membranes stay as they are."""
    known = Layout(("l",), {"l": np.array([0.0, 2.0])}, {})
    other = Layout(("l",), {"l": np.array([0.0, 0.0])}, {})
    b = made(membranes=np.full((2, 2, 2), 3.0))
    assert (as_written(made(), b, known, other).membranes["l"] == 3.0).all()


def test_differing_fields_by_hand() -> None:
    a = of_layers(scaled(1.0), lif(), scaled(2.0))
    b = of_layers(scaled(1.5), lif(tau=3e-3), scaled(2.0))
    expected = [
        ("n0", "weight", "1 of 1 entries differ, first at [0, 0]: 1.0 against 1.5"),
        ("n1", "tau", "1 of 1 entries differ, first at [0]: 0.002 against 0.003"),
    ]
    assert differences(a, b) == expected
    assert not same_law(a, b)
    kernel = np.ones((1, 1, 1, 1))
    grouped = [nir.Conv2d((2, 2), kernel, 1, 0, 1, groups, np.zeros(1)) for groups in (1, 2)]
    assert differences(*(of_layers(node) for node in grouped)) == [
        ("n0", "groups", "1 of 1 entries differ, first: 1 against 2")
    ]
    shapes = [nir.Linear(np.ones((1, n))) for n in (1, 2)]
    assert differences(*(of_layers(node) for node in shapes)) == [
        ("n0", "weight", "shape (1, 1) against (1, 2)")
    ]


def test_what_is_no_parameter() -> None:
    """Types and what is noted beside a node; nodes of other types are told by their spikes."""
    noted = scaled(1.0)
    noted.metadata = {"of": "somebody"}
    assert differences(of_layers(scaled(1.0)), of_layers(noted)) == []
    assert same_law(of_layers(scaled(1.0)), of_layers(noted))
    other = nir.Affine(np.ones((1, 1)), np.zeros(1))
    assert differences(of_layers(scaled(1.0), lif()), of_layers(other, lif(tau=9.0)))[0][0] == "n1"
    assert len(differences(of_layers(scaled(1.0), lif()), of_layers(other, lif(tau=9.0)))) == 1
    assert not same_law(of_layers(scaled(1.0)), of_layers(other))


def test_what_a_dialect_rewrites_is_no_difference() -> None:
    a, b = of_layers(scaled(1.0)), of_layers(scaled(2.0))
    b = dataclasses.replace(b, provenance=dataclasses.replace(b.provenance, dialect="sinabs"))
    assert differences(a, b) == []
    later = dataclasses.replace(b, timing=Timing(1e-3, 3))
    assert differences(a, later) == [("timing", "steps", "2 against 3")]


def test_nodes_of_a_folding_are_left_to_the_scores() -> None:
    """Those called so that lead to no spikes, where TWO is folded in."""

    def of(weight: float, after: float, fold: Any) -> Deployment:
        names = ("readout.fc", "readout.lif", "fc", "readout.scale")
        nodes = scaled(weight), lif(), scaled(1.0), scaled(after)
        return of_layers(*nodes, fold=fold, names=names)

    assert differences(of(1.0, 1.0, "delay"), of(1.0, 2.0, "delay")) == []
    assert same_law(of(1.0, 1.0, "delay"), of(1.0, 2.0, "delay"))
    for fold, names in (
        ("delay", ["readout.fc"]),
        ("host", ["readout.fc", "readout.scale"]),
        (None, ["readout.fc", "readout.scale"]),
    ):
        assert [d[0] for d in differences(of(1.0, 1.0, fold), of(2.0, 2.0, fold))] == names
    # One side's folding is enough to leave a node out of the edges, not out of the parameters.
    assert [d[0] for d in differences(of(1.0, 1.0, "delay"), of(1.0, 2.0, "host"))] == [
        "readout.scale"
    ]


def test_all_that_leads_to_spikes_is_compared() -> None:
    """Two branches, each with weights that are called as those of a folding."""
    one = np.array([1])

    def of(first: float, second: float) -> Deployment:
        nodes = {
            "input": nir.Input({"input": one}), "readout.a": scaled(first), "lif1": lif(),
            "readout.b": scaled(second), "lif2": lif(), "output": nir.Output({"output": one}),
        }  # fmt: skip
        edges = [("input", "readout.a"), ("readout.a", "lif1"), ("lif1", "output")]
        edges += [("input", "readout.b"), ("readout.b", "lif2"), ("lif2", "output")]
        graph = nir.NIRGraph(nodes, edges, metadata={}, type_check=False)
        readout = Readout((1.0, 1.0), "output", "delay")
        return Deployment(graph, Timing(1e-3, 2), InputSpec((1,), "frames"), readout)

    assert [d[0] for d in differences(of(1, 1), of(2, 3))] == ["readout.a", "readout.b"]


def test_edges_by_hand() -> None:
    a = of_layers(scaled(1.0), lif(), scaled(2.0))
    edges = [("input", "n0"), ("n0", "n1"), ("n1", "output"), ("n0", "n2"), ("n2", "n1")]
    b = a.with_graph(nir.NIRGraph(a.graph.nodes, edges, metadata={}, type_check=False))
    assert differences(a, b) == [
        ("n2", "edges", "only on one side: n0 -> n2, n1 -> n2, n2 -> n1"),
    ]


def test_the_order_of_differences() -> None:
    """By layer; there spikes, then by step, then by sample."""

    def at(rank: int, quantity: Any, step: int, sample: int) -> Comparison:
        return Comparison("a", "b", first=Difference("n", rank, quantity, step, sample, (), 0, 1))

    ordered = [
        at(0, "spike", 5, 0), at(0, "spike", 6, 0), at(0, "membrane", 1, 4), at(0, "current", 2, 1),
        at(0, "current", 2, 2), at(1, "spike", 0, 0),
    ]  # fmt: skip
    for i in range(len(ordered)):
        found = merge_all(ordered[: i - 1 : -1] if i else ordered[::-1])
        assert found.first == ordered[i].first


def test_shares_of_one_decision() -> None:
    layer = Layer("l", 1, 0, 0, 0.0, uncertified=1)
    assert Verdict((Comparison("a", "b", 1, (layer,)),)).certified_share == 0.0
    assert Verdict((Comparison("a", "b", 1, (dataclasses.replace(layer, spikes=0),)),)).spikes == 0


def two_layers(first: Sequence[int], second: Sequence[int], **changed: Any) -> Trace:
    """One step, two samples, one neuron in each of two layers; membranes are 0."""

    def shaped(values: Sequence[float], dtype: Any = float) -> np.ndarray:
        return np.array(values, dtype).reshape(1, 2, 1)

    spikes = {"l": shaped(first, np.uint8), "m": shaped(second, np.uint8)}
    known = {"membranes": {"l": (0, 0), "m": (0, 0)}, "scores": ((0, 0), (0, 0))} | changed
    membranes = {name: shaped(values) for name, values in known["membranes"].items()}
    currents = np.array([[[0.5, 0.25], [0.5, 0.25]]])
    scores = np.array(known["scores"], float)
    return Trace("x", spikes, membranes, currents, currents, scores)


def unexplained(a: Trace, b: Trace, certified: Sequence[Sequence[bool]] = (), **more: Any) -> Any:
    """How many samples."""
    return certified_comparison(a, b, certified, **more).unexplained


def certified_comparison(
    a: Trace, b: Trace, certified: Sequence[Sequence[bool]] = (), **more: Any
) -> Comparison:
    """Exact arithmetic decides as `two_layers((1, 0), (0, 0))`, l comes before m."""
    each = np.array(certified or ((False, True), (False, True))).reshape(2, 1, 2, 1)
    margins = {"l": np.array([1.0, -1.0]), "m": np.array([-1.0, -1.0])}
    certificate = Certificate(
        "float32",
        {"l": each[0], "m": each[1]},
        {name: margin.reshape(1, 2, 1).astype(np.float32) for name, margin in margins.items()},
        {name: np.full((1, 2, 1), 0.25, np.float32) for name in "lm"},
    )
    pasts = {"l": Past(frozenset(), frozenset()), "m": Past(frozenset("l"), frozenset("l"))}
    known = Layout(("l", "m"), {"l": np.ones(1), "m": np.ones(1)}, {})
    tolerance = more.pop("tolerance", 0.0)
    rounding = Rounding(certificate, pasts)
    return compare(a, b, known, tolerance, rounding=rounding, **more)


def test_samples_that_rounding_explains() -> None:
    """Sample 0 is a tie in l, so that m may follow; sample 1 agrees."""
    a, b = two_layers((1, 0), (0, 0)), two_layers((0, 0), (1, 0))
    assert unexplained(a, b) == 0
    assert unexplained(a, a) == 0
    # The tie would be none if the decision in l were certified.
    assert unexplained(a, b, ((True, True), (False, True))) == 1
    # m alone differs, and is certified; sample 1 does so in l.
    assert unexplained(a, two_layers((1, 0), (1, 0)), ((False, True), (True, True))) == 1
    assert unexplained(a, two_layers((0, 1), (0, 0))) == 1


def test_membranes_beyond_the_bounds_of_both_sides() -> None:
    """Twice 0.25, where all spikes of the sample agree."""
    a = two_layers((1, 0), (0, 0))
    for difference, count in ((0.5, 0), (0.625, 1), (0.875, 1)):
        for layer in "lm":
            apart = {"l": (0, 0), "m": (0, 0), layer: (0, difference)}
            b = two_layers((0, 0), (0, 0), membranes=apart)
            assert unexplained(a, b) == count
            # In sample 0 everything follows from the tie.
            b = two_layers((0, 0), (0, 0), membranes={name: v[::-1] for name, v in apart.items()})
            assert unexplained(a, b) == 0
    same = two_layers((1, 0), (0, 0), membranes={"l": (0, 0.5), "m": (0, 0)})
    known = Layout(("l", "m"), {"l": np.ones(1), "m": np.ones(1)}, {})
    assert compare(a, same, known, 0.5).first is None
    assert compare(a, same, known, 0.4).first is not None
    assert unexplained(a, same) == 0
    assert certified_comparison(a, same).first is None
    for difference in (0.625, 0.875):
        b = two_layers((1, 0), (0, 0), membranes={"l": (0, difference), "m": (0, 0)})
        assert certified_comparison(a, b).first is not None
    # However large the membranes are.
    a, b = (two_layers((n, 0), (0, 0), membranes={"l": (0, 4 + n), "m": (0, 0)}) for n in (1, 0))
    assert unexplained(a, b) == 1


def test_what_is_unexplained_stays_so() -> None:
    """Also where the sample's membranes, scores or decisions differ, or those of another."""
    a = two_layers((1, 0), (0, 0), scores=((1, 0), (1, 0)))
    apart = {"l": (0, 2), "m": (0, 2)}
    wrong = two_layers((1, 1), (0, 0), membranes=apart, scores=((1, 0), (0, 1)))
    assert unexplained(a, wrong) == 1
    assert unexplained(a, wrong, fold_error=1e-3) == 1
    flipped = two_layers((1, 1), (0, 0), scores=((0, 1), (1, 0)))
    assert unexplained(a, flipped, tolerance=1.0) == 1
    assert unexplained(a, flipped, tolerance=1.0, fold_error=1e-3) == 2
    # The tie of sample 0 explains its class, too.
    tied = two_layers((0, 0), (0, 0), scores=((0, 1), (1, 0)))
    assert unexplained(a, tied, fold_error=1e-3) == 0


def test_scores_that_differ_where_spikes_agree() -> None:
    """Not by rounding, nor by what the foldings state: their error times 0.5."""
    a, tie = two_layers((1, 0), (0, 0), scores=((1, 0), (1, 0))), ((1, 0), (1.125, 0))
    b = two_layers((0, 0), (0, 0), scores=tie)
    assert unexplained(a, b) == 1
    assert unexplained(a, b, tolerance=0.125) == 0
    assert unexplained(a, b, fold_error=0.25) == 0
    assert unexplained(a, b, fold_error=0.125) == 1
    # The currents of either side will do.
    for x, y in ((a, b), (b, a)):
        for fold_error, apart in ((0.25, False), (0.125, True)):
            x = dataclasses.replace(x, currents=np.zeros((0, 2, 0)), partial=True)
            alike = dataclasses.replace(y, spikes=x.spikes)
            for sides in ((x, alike), (alike, x)):
                found = certified_comparison(*sides, fold_error=fold_error)
                assert (found.first is not None) == apart
                assert (found.a, found.b) == ("x", "x")
    # Classes of equal scores flip by rounding; only a folding that flips them is at fault.
    a = two_layers((1, 0), (0, 0), scores=((1, 0), (1, 1.0625)))
    b = two_layers((0, 0), (0, 0), scores=((1, 0), (1, 0.9375)))
    assert unexplained(a, b, tolerance=0.125) == 0
    assert unexplained(a, b, tolerance=0.125, fold_error=0.25) == 1
    # A side without scores has nothing to differ in.
    silent = dataclasses.replace(b, scores=np.zeros((2, 0)))
    assert unexplained(a, silent) == unexplained(silent, a) == 0
    found = certified_comparison(a, silent)
    assert (found.scored, found.score_difference, found.flips) == (False, 0.0, 0)
    assert certified_comparison(a, b).scored


def test_currents_that_differ_where_spikes_agree() -> None:
    a, b = two_layers((1, 0), (0, 0)), two_layers((0, 0), (0, 0))
    other = b.currents.copy()
    other[0, 1, 1] += 0.125
    b = dataclasses.replace(b, currents=other)
    assert unexplained(a, b) == 1
    assert unexplained(a, b, tolerance=0.125) == 0
    fewer = dataclasses.replace(b, currents=np.zeros((1, 2, 1)))
    assert unexplained(a, fewer) == 0


def rounding_of(
    certified: Any, margins: Any, shape: Sequence[int] = (1, 2, 2), names: Sequence[str] = "l"
) -> Rounding:
    """One certificate, for one step, two samples and two neurons."""
    arrays = np.array(certified).reshape(shape), np.array(margins, np.float32).reshape(shape)
    certificate = Certificate(
        "float32", *(dict.fromkeys(names, x) for x in (*arrays, np.zeros(shape, np.float32)))
    )
    return Rounding(certificate, {n: Past(frozenset(), frozenset()) for n in names})


def test_two_graphs_each_with_a_certificate() -> None:
    """Each side is held against its own graph, the right one against both where both know."""
    yes, spiking, silent = [True] * 4, [1.0] * 4, [-1.0] * 4
    ones, zeros = ({"l": np.full((1, 2, 2), n, np.uint8)} for n in (1, 0))
    mine = rounding_of(yes, spiking)

    def unexplained_of(a: Any, b: Any, certified: Any, margins: Any) -> list[bool]:
        theirs = rounding_of(certified, margins)
        return dataclasses.replace(mine, theirs=theirs).between(a, b).tolist()

    assert unexplained_of(ones, ones, yes, spiking) == [False, False]
    assert unexplained_of(zeros, ones, yes, spiking) == [True, True]
    # Their graph says otherwise than ours: each side is true to its own, and they differ.
    assert unexplained_of(ones, zeros, yes, silent) == [True, True]
    # Where theirs does not know, nothing is held against them.
    assert unexplained_of(ones, zeros, [False] * 4, silent) == [False, False]
    half = [True, True, False, False]
    assert unexplained_of(ones, zeros, half, silent) == [True, False]
    # Against their own graph they are wrong, whatever ours says.
    unsure = dataclasses.replace(rounding_of([False] * 4, spiking), theirs=rounding_of(yes, silent))
    assert unsure.between(ones, ones).tolist() == [True, True]
    assert unsure.between(ones, zeros).tolist() == [False, False]


def test_certificates_that_fit_what_was_recorded() -> None:
    """The right side's layers may be flat; each layer must be known, in its shape, to both."""
    image = {"l": np.zeros((1, 2, 2, 1), np.uint8)}
    mine = rounding_of([True] * 4, [-1.0] * 4, (1, 2, 2, 1))
    flat = rounding_of([True, False, True, True], [-1.0] * 4)
    found = dataclasses.replace(mine, theirs=flat).fitting(image)
    assert found is not None
    assert found.theirs is not None
    for name in ("certified", "margins", "bounds"):
        assert getattr(found.theirs.certificate, name)["l"].shape == (1, 2, 2, 1)
    assert found.theirs.certificate.certified["l"].ravel().tolist() == [True, False, True, True]
    assert found.joint.certificate.certified["l"].ravel().tolist() == [True, False, True, True]
    assert mine.fitting(image) == mine
    assert mine.fitting({**image, "m": image["l"]}) is None
    assert flat.fitting(image) is None
    wide = rounding_of([True] * 6, [-1.0] * 6, (1, 2, 3))
    assert dataclasses.replace(mine, theirs=wide).fitting(image) is None
    others = rounding_of([True] * 4, [-1.0] * 4, (1, 2, 2, 1), names="m")
    assert dataclasses.replace(mine, theirs=others).fitting(image) is None
    both = rounding_of([True] * 4, [-1.0] * 4, (1, 2, 2, 1), names="lm")
    assert dataclasses.replace(mine, theirs=both).fitting(image) is not None


def test_nothing_spikes() -> None:
    """There are no decisions that a certificate could be about."""
    silent = dataclasses.replace(made(), spikes={}, membranes={})
    rounding = Rounding(Certificate("float32", {}, {}, {}), {})
    found = compare(silent, silent, Layout(("out",), {}, {}), 0.0, rounding=rounding)
    assert (found.unexplained, found.layers, found.kind) == (None, (), Kind.IDENTICAL)
    moved = dataclasses.replace(silent, scores=np.ones((2, 2)))
    found = compare(silent, moved, Layout((), {}, {}), 0.0, rounding=rounding)
    assert (found.unexplained, found.kind) == (None, Kind.DIVERGENT)


def test_certificates_of_fused_layers() -> None:
    """Cut along the neurons, and called as before; what leads to one leads to its parts."""
    three = np.array([3])
    nodes = {
        "input": nir.Input({"input": three}),
        "both": nir.IF(*np.ones((3, 3))),
        "last": nir.IF(*np.ones((3, 3))),
        "output": nir.Output({"output": three}),
    }
    parts = json.dumps({"both": {"a": [0, 1], "b": [1, 3]}})
    graph = nir.NIRGraph(
        nodes, list(itertools.pairwise(nodes)), metadata={PARTS_KEY: parts}, type_check=False
    )
    values = np.arange(12).reshape(2, 2, 3)
    each = {"both": values, "last": values}
    found = rounding(
        Deployment(graph, Timing(1e-3, 2), InputSpec((3,), "frames")),
        Certificate("float32", *(dict(each) for _ in range(3))),
    )
    for arrays in (
        found.certificate.certified,
        found.certificate.margins,
        found.certificate.bounds,
    ):
        assert {n: x.tolist() for n, x in arrays.items()} == {
            "a": values[..., :1].tolist(), "b": values[..., 1:].tolist(), "last": values.tolist(),
        }  # fmt: skip
    assert found.pasts == {
        "a": Past(frozenset(), frozenset()),
        "b": Past(frozenset(), frozenset()),
        "last": Past(frozenset("ab"), frozenset("ab")),
    }


def test_what_leads_back_step_by_step() -> None:
    """Three edges back in a row: what is behind them all leads to the first node, too."""
    incoming = {
        "i": (), "a": (Incoming("i", False), Incoming("b", True)),
        "b": (Incoming("i", False), Incoming("c", True)),
        "c": (Incoming("i", False), Incoming("d", True)), "d": (Incoming("i", False),),
    }  # fmt: skip
    known = Plan(tuple(incoming), incoming, {}, {}, ("i",), ())
    assert _ancestors(known, cycles=True)["a"] == set("ibcd")
    assert _ancestors(known, cycles=False)["a"] == {"i"}


def test_recordings_that_lack_a_layer() -> None:
    """What both have is compared; what follows from the rest could not be told."""
    a = two_layers((1, 0), (0, 0))
    part = dataclasses.replace(a, spikes={"m": a.spikes["m"]}, membranes={}, partial=True)
    known = Layout(("l", "m"), {"l": np.ones(1), "m": np.ones(1)}, {})
    rounding = Rounding(Certificate("float32", {}, {}, {}), {})
    for x, y in ((a, part), (part, a)):
        assert unexplained(x, y) is None
        found = compare(x, y, known, 0.0, rounding=rounding)
        assert [layer.node for layer in found.layers] == ["m"]
        assert (found.unrecorded, found.missing, found.unexplained) == (("l",), (), None)
    silent = dataclasses.replace(part, scores=np.zeros((2, 0)))
    assert compare(a, silent, known, 0.0).unrecorded == ("l", "readout")
    bare = dataclasses.replace(a, membranes={}, spikes={**a.spikes, "m": 1 - a.spikes["m"]})
    assert compare(bare, a, known, 0.0).first == Difference(
        "m", 1, "spike", 0, 0, (0,), 1.0, 0.0, None, 0.0, 1.0
    )


def test_what_recordings_need_to_have_in_common() -> None:
    """A layer, scores, or currents of one shape."""
    nothing, currents = np.zeros((0, 2, 0)), np.zeros((1, 1, 1))
    a = Trace("a", {}, {}, nothing, nothing, np.zeros((2, 0)), partial=True)

    def why(a: Trace, b: Trace) -> tuple[str, ...]:
        return compare(a, b, Layout((), {}, {}), 0.0).missing

    none = ("there is nothing that both sides have recorded",)
    assert why(a, a) == none
    scored = dataclasses.replace(a, scores=np.zeros((2, 2)))
    flowing = dataclasses.replace(a, currents=currents)
    assert why(a, scored) == why(scored, a) == why(a, flowing) == why(flowing, a) == none
    assert why(scored, scored) == why(flowing, flowing) == ()
    spiking = dataclasses.replace(a, spikes={"l": np.zeros((2, 2, 2), np.uint8)})
    other = dataclasses.replace(a, spikes={"k": np.zeros((2, 2, 2), np.uint8)})
    assert why(spiking, spiking) == ()
    assert why(spiking, a) == none
    assert none[0] not in why(spiking, other)
    wide = dataclasses.replace(flowing, currents=np.zeros((1, 1, 2)))
    shapes = ("currents have shape (1, 1, 1) against (1, 1, 2)",)
    assert why(flowing, wide) == shapes
    whole = dataclasses.replace(flowing, partial=False)
    assert why(whole, wide) == shapes
    assert why(flowing, dataclasses.replace(wide, partial=False)) == shapes


def test_the_last_step_counts() -> None:
    """A certified decision of the last step, after one that is not."""
    margins = np.full((2, 1, 1), -1.0, np.float32)
    certified = np.array([False, True]).reshape(2, 1, 1)
    known = Rounding(
        Certificate("float32", {"l": certified}, {"l": margins}, {"l": 0 * margins}),
        {"l": Past(frozenset(), frozenset())},
    )
    spikes = np.array([0, 1], np.uint8).reshape(2, 1, 1)
    assert known.unexplained({"l": spikes}).tolist() == [True]
    assert known.unexplained({"l": spikes[::-1]}).tolist() == [False]


def test_what_acts_on_either_side_acts_on_both() -> None:
    one = rounding_of([True] * 4, [-1.0] * 4)
    mine, theirs = (
        dataclasses.replace(one, pasts={"l": Past(frozenset(now), frozenset(ever))})
        for now, ever in (("a", "b"), ("c", "d"))
    )
    joint = dataclasses.replace(mine, theirs=theirs).joint
    assert joint.pasts == {"l": Past(frozenset("ac"), frozenset("bd"))}


def test_membranes_across_dialects_may_differ_by_a_moved_threshold() -> None:
    a, b = made(membranes=np.ones((2, 2, 2))), made(membranes=np.full((2, 2, 2), 1 + 1e-6))
    assert compare(a, b, TWO_BY_TWO, 1e-10).first is not None
    assert compare(a, b, TWO_BY_TWO, 1e-10, other=TWO_BY_TWO).first is None
    far = made(membranes=np.full((2, 2, 2), 1 + 1e-4))
    assert compare(a, far, TWO_BY_TWO, 1e-10, other=TWO_BY_TWO).first is not None
    assert compare(a, far, TWO_BY_TWO, 1e-3, other=TWO_BY_TWO).first is None


def test_infinite_membranes() -> None:
    """Equal to themselves, without a warning, and apart from everything else."""
    infinite = np.full((2, 2, 2), np.inf)
    a = made(membranes=infinite)
    (layer,) = compare(a, a, TWO_BY_TWO, 0.0).layers
    assert layer.membrane_difference == 0
    assert compare(a, a, TWO_BY_TWO, 0.0).first is None
    assert compare(a, made(), TWO_BY_TWO, 0.0).first is not None
    huge, low = (made(membranes=np.full((2, 2, 2), v)) for v in (1.7e308, -1.7e308))
    found = compare(huge, low, TWO_BY_TWO, 0.0)
    assert (found.layers[0].membrane_difference, found.first is None) == (np.inf, False)


@st.composite
def comparisons(draw: Any) -> Comparison:
    count = st.integers(0, 5)
    first = st.builds(
        Difference,
        node=st.just("n"),
        rank=count,
        quantity=st.sampled_from(["spike", "membrane"]),
        step=count,
        sample=st.integers(0, 10**6),
        neuron=st.just((0,)),
        a=st.just(0.0),
        b=st.just(1.0),
    )
    margins = st.one_of(st.none(), st.tuples(count, count, count))
    layer = Layer(
        "n",
        draw(count),
        draw(count),
        draw(count),
        draw(st.floats(0, 1)),
        fired_b=draw(count),
        margins=draw(margins),
        smallest_margin=draw(st.one_of(st.none(), st.floats(0, 1))),
        tolerance=1e-4,
        needed=draw(st.one_of(st.none(), st.floats(0, 1))),
        bound=draw(st.one_of(st.none(), st.floats(0, 1))),
    )
    return Comparison(
        "a",
        "b",
        draw(count),
        (layer,),
        draw(st.floats(0, 1)),
        draw(count),
        draw(st.one_of(st.none(), first)),
    )


@given(comparisons(), comparisons(), comparisons())
def test_merging_is_associative(x: Comparison, y: Comparison, z: Comparison) -> None:
    assert merge(merge(x, y), z) == merge(x, merge(y, z))


@given(comparisons(), comparisons())
def test_counts_are_merged_in_any_order(x: Comparison, y: Comparison) -> None:
    assert merge(x, y).layers == merge(y, x).layers
    (p,), (q,), (both,) = x.layers, y.layers, merge(x, y).layers
    assert both.fired_b == p.fired_b + q.fired_b
    if p.margins and q.margins:
        assert both.margins == tuple(np.add(p.margins, q.margins))
    else:
        assert both.margins is None
