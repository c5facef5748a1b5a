"""Verdicts: nothing is flagged that is equal, and every change of an exported file is named."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import nir
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from msg_deploy import api, subjects
from msg_deploy.deployment import METADATA_KEY, Deployment, InputSpec, Timing
from msg_deploy.errors import UsageError
from msg_deploy.exporters.fold import fold_two
from msg_deploy.exporters.trace import trace
from msg_deploy.sim.certificate import Certificate
from msg_deploy.sim.compare import Layout, as_written, compare, layout
from msg_deploy.sim.explanation import Past, Rounding
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
)
from tests.helpers import lif, random_network, samples


@pytest.fixture(params=["delay", "host"])
def exported(trained_file: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    path = tmp_path / "model.nir"
    api.export(trained_file, path, request.param)
    return path


def edit(path: str, change: Callable[[np.ndarray], None]) -> Callable[[h5py.File], None]:
    def apply(content: h5py.File) -> None:
        value = content[path][()]
        change(value)
        content[path][...] = value

    return apply


def add(place: Any, amount: float) -> Callable[[np.ndarray], None]:
    def change(value: np.ndarray) -> None:
        value[place] += amount

    return change


def metadata(field: str, change: Callable[[Any], Any]) -> Callable[[h5py.File], None]:
    def apply(content: h5py.File) -> None:
        group, text = content["node/metadata"], content["node/metadata"][METADATA_KEY][()]
        data = json.loads(text)
        section, name = field.split(".")
        data[section][name] = change(data[section][name])
        del group[METADATA_KEY]
        group[METADATA_KEY] = json.dumps(data)

    return apply


def nudge_first(weights: list[float]) -> list[float]:
    return [weights[0] + 0.01, *weights[1:]]


def test_unchanged_is_proven(trained_file: Path, exported: Path) -> None:
    verdict = api.check(trained_file, exported)
    assert verdict, verdict
    assert verdict.kind is Kind.PROVEN
    assert verdict.parameters == ()
    assert [c.b for c in verdict.comparisons] == ["reference", "norse"]
    assert [c.samples for c in verdict.comparisons] == [424, 424]
    assert verdict.spikes == 2 * 424 * 6 * (48 + 32)
    assert verdict.mismatches == 0


CHANGES = {
    "weight": (edit("node/nodes/fc2/weight", add((3, 5), 0.5)), "fc2"),
    "one ulp of a weight": (
        edit("node/nodes/fc1/weight", lambda w: w.__setitem__((0, 0), np.nextafter(w[0, 0], 9))),
        "fc1",
    ),
    "weight of the output layer": (edit("node/nodes/fc3/weight", add((1, 1), 0.1)), "fc3"),
    "bias": (edit("node/nodes/fc1/bias", add(4, 0.3)), "fc1"),
    "threshold": (edit("node/nodes/lif1/v_threshold", add(7, 0.2)), "lif1"),
    "tau": (edit("node/nodes/lif2/tau", add(7, 1e-3)), "lif2"),
    "v_reset": (edit("node/nodes/lif1/v_reset", add(0, -0.1)), "lif1"),
    "reset mode": (metadata("timing.reset", lambda _: "subtract"), "timing"),
    "dt": (metadata("timing.dt", lambda dt: dt / 2), "timing"),
    "TWO weight": (metadata("readout.weights", nudge_first), "readout"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_found_and_named(trained_file: Path, exported: Path, name: str) -> None:
    change, node = CHANGES[name]
    with h5py.File(exported, "r+") as content:
        change(content)
    verdict = api.check(trained_file, exported)
    assert not verdict
    assert verdict.kind is Kind.DIVERGENT
    assert node in {p.node for p in verdict.parameters}


@pytest.mark.parametrize(
    ("name", "layer", "quantity"),
    [
        ("weight", "lif2", "spike"),
        ("weight of the output layer", "fc3", "current"),
        ("bias", "lif1", "spike"),
        ("threshold", "lif1", "spike"),
        ("reset mode", "lif1", "spike"),
        ("dt", "lif1", "spike"),
    ],
)
def test_the_first_difference_names_the_layer(
    trained_file: Path, exported: Path, name: str, layer: str, quantity: str
) -> None:
    with h5py.File(exported, "r+") as content:
        CHANGES[name][0](content)
    for comparison in api.check(trained_file, exported).comparisons:
        assert comparison.first is not None
        assert (comparison.first.node, comparison.first.quantity) == (layer, quantity)
        if quantity == "spike":
            assert comparison.first.a != comparison.first.b
            assert comparison.first.margin is not None


def test_a_changed_branch_of_the_folding_names_the_readout(
    trained_file: Path, tmp_path: Path
) -> None:
    api.export(trained_file, tmp_path / "model.nir", "delay")
    with h5py.File(tmp_path / "model.nir", "r+") as content:
        content["node/nodes/readout.scale_2/scale"][...] *= 1.5
    verdict = api.check(trained_file, tmp_path / "model.nir")
    assert verdict.kind is Kind.DIVERGENT
    assert {c.first.node for c in verdict.comparisons if c.first} == {"readout"}


def test_a_removed_edge_is_found(trained_file: Path, tmp_path: Path) -> None:
    deployment = trace(random_network("convnet"))
    graph = deployment.graph
    fewer = [e for e in graph.edges if tuple(e) != ("pool2", "flatten")]
    assert len(fewer) == len(graph.edges) - 1
    changed = deployment.with_graph(type(graph)(graph.nodes, fewer, {}, type_check=False))
    verdict = api.check(deployment, changed)
    assert verdict.kind is Kind.DIVERGENT
    assert [(p.node, p.field) for p in verdict.parameters] == [("flatten", "edges")]


def test_two_graphs_and_two_checkpoints(trained_file: Path, exported: Path) -> None:
    assert api.check(exported, exported, samples=20)
    assert api.check(exported, trained_file, samples=20)
    assert [c.b for c in api.check(trained_file, trained_file).comparisons] == ["torch"]


def test_data_can_be_given(trained_file: Path, exported: Path) -> None:
    verdict = api.check(trained_file, exported, data=samples(7), random=0)
    assert verdict.comparisons[0].samples == 7
    with pytest.raises(UsageError, match="wrong input shape"):
        api.check(trained_file, exported, data=samples(7, shape=(28, 28)))
    with pytest.raises(UsageError, match="NaN"):
        api.check(trained_file, exported, data=samples(2) * np.nan)
    with pytest.raises(UsageError, match="no sample"):
        api.check(trained_file, exported, samples=0, random=0)
    with pytest.raises(UsageError, match="unknown data set 'mnits'"):
        api.check(trained_file, exported, data="mnits")


def test_other_inputs_or_steps_cannot_be_compared(trained_file: Path) -> None:
    other = trace(random_network(steps=7))
    verdict = api.check(trained_file, other)
    assert verdict.kind is Kind.DIVERGENT  # the number of steps is a parameter
    assert verdict.problems == ("timesteps are 6 against 7",)


def test_other_layers_cannot_be_compared() -> None:
    one = trace(random_network(hidden=(8,)))
    verdict = api.check(one, trace(random_network(hidden=(8, 8))), random=4)
    reasons = verdict.comparisons[0].missing
    assert "spiking layer 'lif2' is only on the side of reference" in reasons
    assert verdict.comparisons[0].kind is Kind.INCOMPARABLE


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


def test_batches_do_not_change_the_result(
    trained_file: Path, exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with h5py.File(exported, "r+") as content:
        CHANGES["threshold"][0](content)
    whole = api.check(trained_file, exported)
    monkeypatch.setattr(subjects, "LARGEST_BATCH", 37)
    parts = api.check(trained_file, exported)
    for a, b in zip(whole.comparisons, parts.comparisons, strict=True):
        # Sums of another batch size round differently in float64, in the last digit.
        assert a.mismatches == b.mismatches > 0
        assert a.first is not None
        assert b.first is not None
        place = ("node", "step", "sample", "neuron")
        assert [getattr(a.first, f) for f in place] == [getattr(b.first, f) for f in place]


def test_verdicts_are_data(trained_file: Path, exported: Path) -> None:
    verdict = api.check(trained_file, exported, samples=3)
    assert json.loads(json.dumps(dataclasses.asdict(verdict)))["precision"] == "float64"


@pytest.mark.parametrize("prefix", ["", "readout."])
def test_names_like_those_of_a_folding_hide_nothing(prefix: str) -> None:
    """The nodes of a nested graph "readout" are called so."""
    fc, neurons = f"{prefix}fc", f"{prefix}lif"

    def make(threshold: float) -> Deployment:
        three = np.array([3])
        nodes = {
            "input": nir.Input({"input": three}),
            fc: nir.Linear(np.eye(3)),
            neurons: lif((3,), tau=1e-3, v_threshold=threshold),
            "output": nir.Output({"output": three}),
        }
        edges = [("input", fc), (fc, neurons), (neurons, "output")]
        graph = nir.NIRGraph(nodes, edges, metadata={}, type_check=False)
        return Deployment(graph, Timing(1e-3, 4), InputSpec((3,), "frames"))

    data = np.full((2, 4, 3), 0.25, np.float32)
    verdict = api.check(make(0.5), make(0.625), data, ["reference"], random=0)
    assert verdict.kind is Kind.DIVERGENT
    assert [p.node for p in verdict.parameters] == [neurons]


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
    assert compare(a, b, TWO_BY_TWO, 0.0).missing == (
        "spiking layer 'l' is only on the side of a",
        "spiking layer 'k' is only on the side of b",
        "perhaps --map l=k",
    )
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
