"""Verdicts that depend on the certificate: PROVEN, IDENTICAL, TIES, DIVERGENT; and exit codes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest

from msg_deploy import api, cli, runners
from msg_deploy.console import print_verdict
from msg_deploy.deployment import Deployment
from msg_deploy.exporters.trace import trace
from msg_deploy.options import Precision
from msg_deploy.report.data import verdict_as_data
from msg_deploy.sim.certificate import certify
from msg_deploy.sim.compare import TOLERANCE, compare, layout
from msg_deploy.sim.explanation import Rounding, rounding
from msg_deploy.sim.reference import Reference
from msg_deploy.sim.simulator import FloatArray, Trace
from msg_deploy.sim.verdict import Comparison, Kind, Verdict, merge
from tests.helpers import chain, lif, random_network
from tests.test_certificate import with_thresholds


def tied(**timing: Any) -> Deployment:
    """Where all inputs are 1, neuron 0 of the first layer is at its threshold; others are not."""
    weight = np.array([[0.1, 0.2, 0.3], [0.5, 0.5, 0.5], [0.1, 0.1, 0.1]])
    neurons = nir.IF(np.ones(3), np.full(3, 0.6), np.zeros(3))
    return chain(
        nir.Linear(weight), neurons, nir.Linear(np.eye(3)), lif((3,), v_threshold=0.4),
        inputs=(3,), outputs=(3,), dt=1e-3, steps=3, **timing,
    )  # fmt: skip


def known_of(deployment: Deployment, inputs: FloatArray) -> tuple[Trace, Rounding]:
    certificate = certify(deployment, inputs)
    return Reference().run(deployment, inputs), rounding(deployment, certificate)


def flipped(trace: Trace, *places: tuple[str, int, int, int]) -> Trace:
    """With other decisions: layer, step, sample, neuron."""
    spikes = {name: values.copy() for name, values in trace.spikes.items()}
    for name, step, sample, neuron in places:
        spikes[name][step, sample, neuron] ^= 1
    return replace(trace, spikes=spikes)


def verdict(deployment: Deployment, *places: tuple[str, int, int, int]) -> Comparison:
    inputs = np.zeros((3, 2, 3), np.float32)
    inputs[0, 0] = 1
    a, known = known_of(deployment, inputs)
    b = flipped(a, *places)
    return compare(a, b, layout(deployment), TOLERANCE["float32"], rounding=known)


def test_the_tie_is_the_only_uncertified_decision() -> None:
    found = verdict(tied())
    assert found.kind is Kind.IDENTICAL
    # At step 0 the tie; afterwards the neuron may still be there, if it did not spike.
    assert found.uncertified is not None
    assert 1 <= found.uncertified <= 3
    assert found.unexplained == 0


@pytest.mark.parametrize(
    ("places", "kind"),
    [
        ([("n1", 0, 0, 0)], Kind.TIES),
        # What follows from it, later or in layers behind.
        ([("n1", 0, 0, 0), ("n3", 0, 0, 0), ("n3", 2, 0, 2)], Kind.TIES),
        ([("n1", 0, 0, 0), ("n1", 2, 0, 0)], Kind.TIES),
        # What cannot follow: another neuron of the same layer, another sample, an earlier step.
        ([("n1", 0, 0, 0), ("n1", 0, 0, 1)], Kind.DIVERGENT),
        ([("n1", 0, 0, 0), ("n1", 2, 0, 1)], Kind.DIVERGENT),
        ([("n1", 0, 0, 0), ("n3", 0, 1, 0)], Kind.DIVERGENT),
        ([("n3", 0, 0, 0)], Kind.DIVERGENT),
        ([("n1", 1, 0, 1)], Kind.DIVERGENT),
    ],
)
def test_ties_and_what_follows(places: list[tuple[str, int, int, int]], kind: Kind) -> None:
    found = verdict(tied(), *places)
    assert found.kind is kind
    assert found.first is not None


def test_on_a_cycle_everything_follows_a_step_later() -> None:
    deployment = tied()
    edges = [*deployment.graph.edges, ("n3", "n1")]
    graph = nir.NIRGraph(deployment.graph.nodes, edges, metadata={}, type_check=False)
    cyclic = deployment.with_graph(graph)
    assert verdict(cyclic, ("n1", 0, 0, 0), ("n1", 1, 0, 1)).kind is Kind.TIES
    assert verdict(cyclic, ("n1", 0, 0, 0), ("n1", 0, 0, 1)).kind is Kind.DIVERGENT


def test_values_that_differ_without_a_spike_are_no_ties() -> None:
    deployment = tied()
    inputs = np.zeros((3, 2, 3), np.float32)
    inputs[0, 0] = 1
    a, known = known_of(deployment, inputs)
    b = flipped(a, ("n1", 0, 0, 0))
    shifted = a.currents.copy()
    shifted[2, 1] += 0.5
    for currents, kind in ((a.currents, Kind.TIES), (shifted, Kind.DIVERGENT)):
        found = compare(a, replace(b, currents=currents), layout(deployment), 1e-4, rounding=known)
        assert found.kind is kind


def test_two_engines_that_agree_with_each_other_alone_prove_nothing() -> None:
    deployment = trace(random_network())
    inputs = np.random.default_rng(0).uniform(0, 1, (5, 4, 1, 8, 8)).astype(np.float32)
    a, known = known_of(deployment, inputs)
    assert compare(a, a, layout(deployment), 1e-4, rounding=known).kind is Kind.PROVEN
    wrong = flipped(a, ("lif1", 0, 0, 0))
    found = compare(wrong, wrong, layout(deployment), 1e-4, rounding=known)
    assert (found.kind, found.unexplained) == (Kind.IDENTICAL, 1)


def test_without_a_certificate_nothing_is_proven() -> None:
    deployment = trace(random_network())
    found = api.check(deployment, deployment, random=3, certify=False)
    assert found.kind is Kind.IDENTICAL
    assert found.uncertified is None
    assert found.certified_share is None


def test_the_weakest_counts() -> None:
    proven, identical = Comparison("a", "b"), Comparison("a", "b")
    inputs = np.random.default_rng(0).uniform(0, 1, (5, 4, 1, 8, 8)).astype(np.float32)
    deployment = trace(random_network())
    a, known = known_of(deployment, inputs)
    proven = compare(a, a, layout(deployment), 1e-4, rounding=known)
    identical = compare(a, a, layout(deployment), 1e-4)
    tie = verdict(tied(), ("n1", 0, 0, 0))
    assert Verdict((proven,)).kind is Kind.PROVEN
    assert Verdict((proven, identical)).kind is Kind.IDENTICAL
    assert Verdict((proven, tie)).kind is Kind.TIES
    assert [bool(Verdict((c,))) for c in (proven, identical, tie)] == [True, True, False]
    merged = merge(proven, proven)
    assert (merged.kind, merged.unexplained, merged.uncertified) == (Kind.PROVEN, 0, 0)
    assert merge(proven, identical).unexplained is None
    assert list(Kind) == ["PROVEN", "IDENTICAL", "TIES", "DIVERGENT", "INCOMPARABLE"]


class Contrary:
    """The reference simulator, but it decides the tie the other way."""

    name = "contrary"

    def unsupported(self, deployment: Deployment, precision: Precision = "float64") -> list[str]:
        return []

    def run(
        self, deployment: Deployment, inputs: FloatArray, precision: Precision = "float64"
    ) -> Trace:
        usual = Reference().run(deployment, inputs, precision)
        beside = 0.6 + (1e-6 if usual.spikes["n1"][0, 0, 0] else -1e-6)
        thresholds = {"n1": np.array([beside, 0.6, 0.6])}
        return Reference().run(with_thresholds(deployment, thresholds), inputs, precision)


def test_exit_codes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    api.export(tied(), tmp_path / "model.nir", "host")
    samples = np.zeros((2, 3, 3), np.float32)
    samples[0, 0] = 1
    np.savez(tmp_path / "data.npz", samples=samples)
    known = {"reference": Reference, "norse": Contrary}
    monkeypatch.setattr(runners, "_engine", lambda name, runtime: known[name]())

    def code(*options: str) -> int:
        model = str(tmp_path / "model.nir")
        data = ["--data", str(tmp_path / "data.npz"), "--random", "0", "--with", "norse"]
        words = ["equivalence-check", model, model, *data, "--precision", "float32", *options]
        monkeypatch.setattr("sys.argv", words)
        with pytest.raises(SystemExit) as stopped:
            cli.equivalence_check_main()
        return int(stopped.value.code or 0)

    assert code() == 1
    shown = capsys.readouterr().out
    assert "the first differences are all among those" in shown
    assert shown.splitlines()[-1].startswith("TIES: 2 mismatching of ")
    assert code("--accept-ties") == 0
    capsys.readouterr()
    assert code("--accept-ties", "--no-certificate", "--no-diagnosis") == 1
    shown = capsys.readouterr().out
    assert shown.splitlines()[-1].startswith("DIVERGENT: ")
    assert "certified: " not in shown


def test_what_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    deployment = trace(random_network())
    found = api.check(deployment, deployment, random=64, precision="float32")
    print_verdict(found)
    lines = capsys.readouterr().out.splitlines()
    told = next(line for line in lines if line.startswith("certified: "))
    assert "% of the spikes compared; " in told
    data = verdict_as_data(found)
    assert 0.9999 < data["certified_share"] <= 1
    assert data["comparisons"][0]["layers"][0]["uncertified"] is not None
