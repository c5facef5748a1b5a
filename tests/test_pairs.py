"""Any pair of .pt, .nir, .onnx and .npz, in any simulators."""

from __future__ import annotations

import itertools
import logging
from pathlib import Path

import numpy as np
import pytest

from msg_deploy import api, checkpoint, record
from msg_deploy.errors import UsageError
from msg_deploy.exporters.dialects import in_dialect
from msg_deploy.exporters.trace import trace
from msg_deploy.sim.parameters import same_law
from msg_deploy.sim.verdict import Kind
from tests.helpers import chain, lif, random_network

KINDS = ("pt", "nir", "onnx", "npz")
USUAL = {
    "pt": ["torch"],
    "nir": ["reference", "norse"],
    "onnx": ["onnxruntime", "onnx_reference"],
    "npz": ["torch (model.npz)"],
}
RUNS = {
    "pt": ["torch", "fast", "norse", "onnx_reference", "onnxruntime", "reference"],
    "nir": ["fast", "norse", "onnx_reference", "onnxruntime", "reference"],
    "onnx": ["onnx_reference", "onnxruntime"],
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the same model as every kind of file."""
    folder = tmp_path_factory.mktemp("pairs")
    network = random_network(hidden=(12, 7))
    checkpoint.save(network, folder / "model.pt")
    api.export(network, folder / "model.nir")
    api.export_onnx(network, folder / "model.onnx")
    record(folder / "model.pt", folder / "model.npz", random=6)
    return folder


@pytest.mark.parametrize(("a", "b"), list(itertools.product(KINDS, KINDS)))
def test_any_pair(files: Path, a: str, b: str) -> None:
    sides = (files / f"model.{a}", files / f"model.{b}")
    count = None if "npz" in (a, b) else 6
    verdict = api.check(*sides, random=count)
    assert verdict, verdict
    assert [c.b for c in verdict.comparisons] == USUAL[b]
    assert {c.a for c in verdict.comparisons} == {USUAL[a][0]}
    assert verdict.spikes == len(USUAL[b]) * 6 * 5 * (12 + 7)
    assert verdict.precision == ("float32" if "onnx" in (a, b) else "float64")
    certified = bool({"pt", "nir"} & {a, b})
    assert (verdict.uncertified is not None) == certified
    if b == "npz":
        return
    chosen = api.check(*sides, random=count, simulators=RUNS[b], certify=False)
    assert chosen, chosen
    assert [c.b for c in chosen.comparisons] == RUNS[b]


@pytest.mark.parametrize("a", ["pt", "nir", "onnx"])
def test_the_left_side_in_any_simulator(files: Path, a: str) -> None:
    for name in RUNS[a]:
        verdict = api.check(
            files / f"model.{a}", files / "model.npz", left_simulator=name, certify=False
        )
        assert verdict, verdict
        assert verdict.comparisons[0].a == name


def test_simulators_for_other_files_are_left_out(
    files: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sides = (files / "model.pt", files / "model.onnx")
    with caplog.at_level(logging.WARNING):
        verdict = api.check(*sides, random=2, simulators=["norse", "onnxruntime", "norse"])
    assert [c.b for c in verdict.comparisons] == ["onnxruntime"]
    assert "model.onnx does not run in norse: left out." in caplog.text
    with pytest.raises(UsageError, match=r"does not run in norse or fast; there are onnxruntime"):
        api.check(*sides, random=2, simulators=["norse", "fast"])
    with pytest.raises(UsageError, match=r"model\.nir does not run in torch; there are fast, "):
        api.check(sides[0], files / "model.nir", random=2, simulators=["torch"])
    # A slip of the pen is not passed over, whatever else is named.
    with pytest.raises(UsageError, match="unknown simulator 'onnxrun'"):
        api.check(*sides, random=2, simulators=["onnxrun", "onnxruntime"])


def test_graphs_that_differ_are_both_certified() -> None:
    """The same spikes, but a membrane of the right side comes to lie at its threshold."""
    given = {"inputs": (1,), "outputs": (1,), "dt": 1e-3, "steps": 2}
    away = chain(lif(v_threshold=0.3), **given)
    tied = chain(lif(v_threshold=0.25 * (1 + 2**-24)), **given)
    assert same_law(away, away)
    assert not same_law(away, tied)
    assert not same_law(away, chain(lif(v_threshold=0.3), **(given | {"dt": 2e-3})))
    data = np.array([[[0.5], [0.0]]], np.float32)
    one = api.check(away, away, data=data, random=0, precision="float32")
    assert one.kind is Kind.PROVEN
    both = api.check(away, tied, data=data, random=0, precision="float32")
    assert both.uncertified
    other = api.check(tied, away, data=data, random=0, precision="float32")
    assert other.uncertified == both.uncertified


def test_a_dialect_is_certified_on_its_own_graph() -> None:
    network = trace(random_network(hidden=(12, 7)))
    written = in_dialect(network, "portable")
    assert not same_law(network, written)
    verdict = api.check(network, written, random=16, precision="float32")
    assert verdict.uncertified is not None
    alone = [
        api.check(side, side, random=16, precision="float32", simulators=["fast"])
        for side in (network, written)
    ]
    counts = [v.uncertified for v in alone]
    assert verdict.uncertified >= max(c for c in counts if c is not None)
