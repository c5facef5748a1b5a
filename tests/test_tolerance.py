"""The report of tolerances: what was needed, what was used, how near decisions were."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from msg_deploy import api
from msg_deploy.exporters.trace import trace
from msg_deploy.report.tolerance import DISTANCES, as_data, rows
from msg_deploy.sim.certificate import certify
from msg_deploy.sim.compare import compare, layout
from msg_deploy.sim.explanation import rounding
from msg_deploy.sim.reference import Reference
from msg_deploy.sim.verdict import Comparison, Verdict, merge
from tests.helpers import chain, lif, random_network
from tests.test_cli import run


def compared(*shifts: float, certified: bool = False) -> Comparison:
    """One neuron, three steps; the right side's membranes are shifted, each step by another amount.

    The membrane is 0.25, 0.375 and 0.4375; the threshold 0.4375 (1 + 2^-10).
    """
    deployment = chain(
        lif(v_threshold=0.4375 * (1 + 2**-10)), inputs=(1,), outputs=(1,), dt=1e-3, steps=3
    )
    inputs = np.full((3, 1, 1), 0.5)
    a = Reference().run(deployment, inputs)
    b = replace(a, membranes={"n0": a.membranes["n0"] + np.reshape(shifts, (3, 1, 1))})
    known = rounding(deployment, certify(deployment, inputs)) if certified else None
    return compare(a, b, layout(deployment), 1e-4, rounding=known)


def test_a_layer() -> None:
    (row,) = rows(compared(0, 0, 1e-5))
    assert row.node == "n0"
    assert row.difference is not None
    assert row.used is not None
    np.testing.assert_allclose([row.difference, row.needed, row.used], [1e-5, 1e-5, 0.1], rtol=1e-9)
    assert row.tolerance == 1e-4
    assert row.bound is None
    assert row.smallest_margin == 0.4375 * 2**-10
    # A share of 2^-10, about 9.8e-4, and others far away.
    assert row.within == {
        "1e-07": 0, "1e-06": 0, "1e-05": 0, "1e-04": 0, "1e-03": 1, "1e-02": 1
    }  # fmt: skip
    assert len(DISTANCES) == len(row.within)


def test_what_would_have_been_needed_is_enough() -> None:
    different = compared(0, 3e-4, 0)
    assert different.first is not None
    (row,) = rows(different)
    assert row.used is not None
    assert row.used > 1
    assert row.needed is not None
    assert row.needed <= 3.01e-4


def test_the_bound_of_the_certificate() -> None:
    (row,) = rows(compared(0, 0, 0, certified=True))
    assert row.bound is not None
    assert 0 <= row.bound < 1e-5


def test_batches_are_merged() -> None:
    one, other = compared(0, 0, 1e-6), compared(2e-5, 0, 0)
    for merged in (merge(one, other), merge(other, one)):
        (row,) = rows(merged)
        assert row.difference is not None
        np.testing.assert_allclose(row.difference, 2e-5, rtol=1e-9)
        assert row.within["1e-03"] == 2


def test_without_membranes_margins_are_those_of_exact_arithmetic() -> None:
    deployment = trace(random_network(hidden=(12, 7)))
    inside = api.check(deployment, deployment, random=4, simulators=["fast"], precision="float32")
    outside = api.check(
        deployment, deployment, random=4, left_simulator="onnxruntime",
        simulators=["onnxruntime"], precision="float32",
    )  # fmt: skip
    for x, y in zip(*(rows(v.comparisons[0]) for v in (inside, outside)), strict=True):
        assert y.difference is None
        assert y.used is None
        assert y.within["1e-02"] == x.within["1e-02"]


@pytest.mark.slow
def test_as_data_and_in_a_terminal(tmp_path: Path) -> None:
    assert as_data(Verdict((compared(0, 0, 0),)))[0]["a"] == "reference"
    api.export(trace(random_network(hidden=(12, 7))), tmp_path / "model.nir")
    check = ("equivalence-check", "model.nir", "model.nir", "--random", 4, "--tolerance-report")
    data = json.loads(run(*check, "--json", cwd=tmp_path).stdout)
    layers = data["tolerance_report"][0]["layers"]
    assert [layer["node"] for layer in layers] == ["lif1", "lif2"]
    assert all(layer["needed"] <= layer["tolerance"] for layer in layers)
    shown = run(*check, cwd=tmp_path).stdout
    assert "reference against norse: membranes and their tolerance" in shown
    assert "<=1e-07" in shown
    assert shown.strip().splitlines()[-1].startswith("PROVEN")
    plain = run(*check[:-1], "--json", cwd=tmp_path).stdout
    assert "tolerance_report" not in json.loads(plain)
