"""Dialects: the same spikes, in words that the importers understand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest

import msg_deploy
from msg_deploy import api
from msg_deploy.deployment import Deployment
from msg_deploy.errors import FileError, GraphError, UsageError
from msg_deploy.exporters import nir as nir_file
from msg_deploy.exporters.dialects import dialects, in_dialect
from msg_deploy.exporters.fold import fold_two
from msg_deploy.graph import plan
from tests.helpers import chain, lif, random_network, samples

TWO, NONE = np.array([2, 2]), np.array([0, 0])


@pytest.mark.parametrize("name", ["mlp", "convnet"])
@pytest.mark.parametrize(
    "neuron", [{}, {"tau": 7.3, "v_threshold": 0.15}, {"tau": float("inf"), "v_threshold": 2.0}]
)
def test_a_network_and_its_portable_file(name: str, neuron: dict[str, Any], tmp_path: Path) -> None:
    network = random_network(name, **neuron)
    api.export(network, tmp_path / "model.nir", "host", dialect="portable")
    verdict = msg_deploy.check(network, tmp_path / "model.nir", samples(32), random=8)
    assert verdict, verdict
    assert all(0 < layer.fired < layer.spikes for layer in verdict.comparisons[0].layers)


def test_what_a_portable_file_holds() -> None:
    kernel = np.arange(36.0).reshape(4, 1, 3, 3)
    deployment = chain(
        nir.Conv2d(None, kernel, 1, 1, 1, 2, np.zeros(4)),
        lif((4, 4, 4), tau=5e-3, r=2.0),
        nir.AvgPool2d(TWO, TWO, NONE),
        nir.Flatten({"input": np.array([4, 2, 2])}, 0, 2),
        nir.Linear(np.ones((3, 16))),
        nir.Scale(np.array([1.0, 2.0, 3.0])),
        lif((3,)),
        inputs=[2, 4, 4],
        outputs=[3],
        dt=1e-3,
    )
    portable = in_dialect(deployment, "portable")
    nodes = portable.graph.nodes
    assert portable.timing.dt == 1e-4
    assert portable.provenance.dialect == "portable"
    kinds = {type(node) for node in nodes.values()}
    assert kinds <= {
        nir.Input, nir.Output, nir.Affine, nir.Conv2d, nir.SumPool2d, nir.Flatten, nir.CubaLIF
    }  # fmt: skip
    neuron = nodes["n1"]
    assert neuron.tau_mem == pytest.approx(np.full((4, 4, 4), 5e-4))
    assert neuron.tau_syn.tolist() == np.full((4, 4, 4), 1e-4).tolist()
    # th tau/(dt r), moved up, because it is on the grid of the kernel's integers
    assert neuron.v_threshold == pytest.approx(np.full((4, 4, 4), 0.5 * 5 / 2 * (1 + 2**-21)))
    assert neuron.tau_mem.dtype == np.float64
    dense = nodes["n0"].weight
    assert dense.shape == (4, 2, 3, 3)
    assert not dense[:2, 1].any()
    assert np.array_equal(dense[2:, 1], kernel[2:, 0])
    assert (nodes["n3"].start_dim, nodes["n3"].end_dim) == (-3, -1)
    plan(portable.graph)


def test_the_long_way_comes_before_the_skip() -> None:
    deployment = chain(
        lif((3,)),
        affine(3, 3),
        lif((3,)),
        affine(3, 3),
        inputs=[3],
        outputs=[3],
        edges=[("n0", "n3")],
    )
    graph = deployment.graph
    skip_first = nir.NIRGraph(graph.nodes, graph.edges[::-1], metadata={}, type_check=False)
    for one in (deployment, deployment.with_graph(skip_first)):
        edges = in_dialect(one, "portable").graph.edges
        assert edges.index(("n2", "n3")) < edges.index(("n0", "n3"))


def test_a_changed_threshold_is_found_across_dialects() -> None:
    network = random_network()
    portable = in_dialect(msg_deploy.trace(network), "portable")
    portable.graph.nodes["lif1"].v_threshold[3] *= 1.2
    verdict = msg_deploy.check(network, portable, samples(32))
    assert not verdict
    first = verdict.comparisons[0].first
    assert first is not None
    assert (first.node, first.neuron) == ("lif1", (3,))


def affine(*shape: int) -> nir.Affine:
    return nir.Affine(np.ones(shape), np.zeros(shape[0]))


ONE = lif((2,))


@pytest.mark.parametrize(
    ("nodes", "options", "problem"),
    [
        ([ONE], {"reset": "subtract"}, "'subtract' has no portable form"),
        ([lif((2,), v_leak=0.1)], {}, r"'n0' \(LIF\): v_leak must be 0"),
        ([lif((2,), v_reset=0.1)], {}, "v_reset must be 0"),
        ([lif((2,), r=-1.0)], {}, "r must be above 0"),
        ([lif((2,), tau=1e-4)], {}, "below dt"),
        ([nir.LI(*np.ones((3, 2)))], {}, r"'n0' \(LI\): not all importers"),
        ([nir.Delay(np.ones(2))], {}, "not all importers"),
        ([ONE, affine(2, 2), ONE], {"edges": [("n1", "n0")]}, "recurrence through one matrix"),
        ([ONE, affine(2, 2), ONE], {"edges": [("n2", "n0")]}, "recurrence through one matrix"),
        ([affine(2, 2), ONE], {"edges": [("n0", "output")]}, "one edge into the Output"),
    ],
)
def test_refusals(nodes: Any, options: Any, problem: str) -> None:
    deployment = chain(*nodes, inputs=[2], outputs=[2], **options)
    with pytest.raises(GraphError, match=problem):
        in_dialect(deployment, "portable")


def test_refuses_what_differs_within_a_layer() -> None:
    for field in ("tau", "v_threshold"):
        node = lif((2,))
        getattr(node, field)[0] *= 2
        with pytest.raises(GraphError, match=r"'n0'.*one (value|threshold)"):
            in_dialect(chain(node, inputs=[2], outputs=[2]), "portable")


def test_refuses_parallel_branches() -> None:
    deployment = chain(affine(2, 2), ONE, affine(2, 2), ONE, inputs=[2], outputs=[2])
    deployment.graph.nodes["side"] = affine(2, 2)
    deployment.graph.edges += [("input", "side"), ("side", "n3")]
    with pytest.raises(GraphError, match="parallel branches"):
        in_dialect(deployment, "portable")


def recurrent(bias: float = 0.0) -> Deployment:
    random = np.random.default_rng(0)
    first = nir.Affine(random.normal(size=(4, 3)) * 2, random.normal(size=4))
    last = nir.Affine(random.normal(size=(2, 4)) * 2, np.zeros(2))
    deployment = chain(
        first, lif((4,)), last, lif((2,)), inputs=[3], outputs=[2], steps=20, dt=1e-3
    )
    deployment.graph.nodes["back"] = nir.Affine(random.normal(size=(4, 4)), np.full(4, bias))
    deployment.graph.edges += [("n1", "back"), ("back", "n1")]
    return deployment


def test_recurrence_is_nested_in_the_file_and_flat_again_when_read(tmp_path: Path) -> None:
    deployment = recurrent()
    portable = in_dialect(deployment, "portable")
    nir_file.write(portable, tmp_path / "model.nir")
    names = list(nir.read(tmp_path / "model.nir", type_check=False).nodes)  # noqa: TID251
    assert names == sorted(names)
    assert len(names) == 6
    found = nir_file.read(tmp_path / "model.nir")
    assert set(found.graph.nodes) == set(deployment.graph.nodes)
    assert {tuple(e) for e in found.graph.edges} == set(deployment.graph.edges)
    assert all(not node.metadata for node in found.graph.nodes.values())
    verdict = msg_deploy.check(deployment, tmp_path / "model.nir", random=20)
    assert verdict, verdict
    assert all(layer.fired > 0 for layer in verdict.comparisons[0].layers)


def test_thresholds_leave_the_grid_of_the_weights() -> None:
    grid = chain(affine(2, 2), ONE, inputs=[2], outputs=[2])
    moved = in_dialect(grid, "portable").graph.nodes["n1"].v_threshold
    # th tau/(dt r) = 0.5 * 2
    assert moved.tolist() == [1 + 2**-21] * 2
    assert msg_deploy.check(grid, in_dialect(grid, "portable"), random=20)
    grid.graph.nodes["n0"].weight[:] = np.random.default_rng(0).normal(size=(2, 2))
    assert in_dialect(grid, "portable").graph.nodes["n1"].v_threshold.tolist() == [1, 1]


def test_a_recurrent_bias_is_refused() -> None:
    with pytest.raises(GraphError, match=r"'back' \(Affine\): a recurrent bias"):
        in_dialect(recurrent(bias=0.1), "portable")


def test_two_nodes_of_one_name_are_refused(tmp_path: Path) -> None:
    deployment = chain(lif((2,)), lif((2,)), inputs=[2], outputs=[2])
    for name in ("n0", "n1"):
        deployment.graph.nodes[name].metadata["msg_deploy_name"] = "same"
    nir_file.write(deployment, tmp_path / "model.nir")
    with pytest.raises(FileError, match="two nodes have the same name"):
        nir_file.read(tmp_path / "model.nir")


def test_refuses_folded_readouts() -> None:
    folded = fold_two(msg_deploy.trace(random_network()), "delay")
    with pytest.raises(GraphError, match="fold it by 'host'"):
        in_dialect(folded, "portable")


def test_plain_is_as_it_was(tmp_path: Path) -> None:
    deployment: Deployment = msg_deploy.trace(random_network())
    assert in_dialect(deployment, "nir") == deployment
    assert {"nir", "portable"} <= set(dialects())
    with pytest.raises(UsageError, match="unknown dialect 'x'; there are lava, nir, portable"):
        in_dialect(deployment, "x")
    nir_file.write(in_dialect(deployment, "portable"), tmp_path / "a.nir")
    assert nir_file.read(tmp_path / "a.nir").provenance.dialect == "portable"


def test_another_dialect_has_its_own_latency() -> None:
    deployment = chain(affine(2, 2), lif((2,)), inputs=[2], outputs=[2], dt=1e-3, reset="subtract")
    late = in_dialect(deployment, "spyx")
    assert late.provenance.latency == 1
    assert in_dialect(late, "nir").provenance.latency == 0


@pytest.mark.parametrize(("name", "reset"), [("sinabs", "subtract"), ("portable", "zero")])
def test_rescaled_neurons_are_not_in_units_of_the_quantized_network(name: str, reset: Any) -> None:
    deployment = chain(
        nir.Affine(np.eye(2), np.zeros(2)), lif((2,), tau=2e-3, v_threshold=0.9),
        inputs=[2], outputs=[2], dt=1e-3, reset=reset, steps=3,
    )  # fmt: skip
    quantized = msg_deploy.to_integers(deployment, samples(4, 0, (3, 2)))
    assert quantized.integers is not None
    assert in_dialect(quantized, name).integers is None
    assert in_dialect(quantized, "nir").integers == quantized.integers
