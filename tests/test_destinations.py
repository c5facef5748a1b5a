"""Dialects of destinations: their laws, written down here from their sources, give our spikes.

Each `_law` is a closed form of what the destination's importer makes of the numbers in a file; none
of it is our code. benchmarks/interop.py runs the importers themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest

import msg_deploy
from msg_deploy.console import print_deployment
from msg_deploy.deployment import Deployment
from msg_deploy.errors import FileError, GraphError
from msg_deploy.exporters import nir as nir_file
from msg_deploy.exporters.dialects import dialects, in_dialect
from msg_deploy.exporters.fold import fold_two
from msg_deploy.sim.reference import Reference
from tests.helpers import chain, lif, random_network

STEPS, BATCH = 30, 4
TWO, NONE = np.array([2, 2]), np.array([0, 0])
Array = np.ndarray
Law = Callable[[Any, Array, Array | None], Array]
"""(neuron of the file, input (T, B, N), recurrent weights) -> spikes (T, B, N)."""


def sinabs_law(node: nir.LIF, x: Array, back: Array | None) -> Array:
    """V = exp(-1/tau) V + x; trunc(V / th) spikes where V > 0; V -= spikes th."""
    assert isinstance(node, nir.LIF)
    alpha = np.exp(-1 / node.tau)
    v, spikes = np.zeros_like(x[0]), []
    for now in x:
        v = alpha * v + now
        spikes.append(np.trunc(v / node.v_threshold) * (v > 0))
        v = v - spikes[-1] * node.v_threshold
    return np.stack(spikes)


def rockpool_law(node: nir.CubaLIF, x: Array, back: Array | None) -> Array:
    """I = (I + x) exp(-dt/tau_syn); V = exp(-dt/tau_mem) V + I; floor(V / th) spikes."""
    assert isinstance(node, nir.CubaLIF)
    dt = np.min(node.tau_mem / (1 + node.r))
    alpha, beta = np.exp(-dt / node.tau_mem), np.exp(-dt / node.tau_syn)
    i, v, spikes = np.zeros_like(x[0]), np.zeros_like(x[0]), [np.zeros_like(x[0])]
    for now in x:
        fed = 0 if back is None else spikes[-1] @ back.T
        i = (i + now + fed) * beta
        v = alpha * v + i + node.v_leak
        spikes.append(np.floor(v / node.v_threshold) * (v >= node.v_threshold))
        v = v - spikes[-1] * node.v_threshold
    return np.stack(spikes[1:])


def spyx_law(node: nir.CubaLIF, x: Array, back: Array | None) -> Array:
    """S = V > th before this step; V -= S th; I = alpha I + x; V = beta V + I; dt = 1."""
    assert isinstance(node, nir.CubaLIF)
    alpha, beta = 1 - 1 / node.tau_syn, 1 - 1 / node.tau_mem
    i, v, spikes = np.zeros_like(x[0]), np.zeros_like(x[0]), []
    for now in x:
        s = (v > node.v_threshold).astype(float)
        i = alpha * i + now + (0 if back is None else s @ back.T)
        v = beta * (v - s * node.v_threshold) + i
        spikes.append(s)
    return np.stack(spikes)


def run(law: Law, path: Path, inputs: Array, extra: int) -> Array:
    """All layers of a file, one after the other; `extra` steps without input at the end."""
    graph = nir.read(path, type_check=False)  # noqa: TID251
    x = np.concatenate([inputs, np.zeros((extra, *inputs.shape[1:]))])
    x = x.reshape(len(x), BATCH, *graph.nodes["input"].input_type["input"])
    here = "input"
    while here != "output":
        here = next(str(b) for a, b in graph.edges if a == here)
        node, back = graph.nodes[here], None
        if isinstance(node, nir.NIRGraph):
            back = node.nodes["n1"].weight
            assert not node.nodes["n1"].bias.any()
            node = node.nodes["n0"]
        if isinstance(node, nir.Affine):
            x = x @ node.weight.T + node.bias
        elif isinstance(node, nir.Flatten):
            x = x.reshape(len(x), BATCH, -1)
        elif not isinstance(node, nir.Output):
            x = law(node, x, back)
    return x


def neuron(kind: str, size: int, k: float) -> Any:
    def each(value: float) -> Array:
        return np.full(size, value)

    if kind == "IF":
        return nir.IF(each(2.0), each(1.5), each(0.0))
    if kind == "CubaLIF":
        return nir.CubaLIF(
            each(3e-3), each(k * 1e-3), each(2.0), each(0.0), each(1.0), each(0.0), each(1.5)
        )
    return lif((size,), tau=k * 1e-3, r=1.3, v_threshold=0.9)


def network(kind: str, k: float, **options: Any) -> Deployment:
    """Two layers with biases, whose weights are such that two thresholds are just not reached.

    Decay times threshold plus the largest drive is 1.95 thresholds.
    """
    random = np.random.default_rng(int(10 * k))
    largest = {"IF": 1.5 / 2.0, "CubaLIF": (k + 1) / (2.0 * 1.5), "LIF": (k + 1) * 0.9 / 1.3}[kind]
    back = random.uniform(-0.4, 0.1, (8, 8)) * largest / 8

    def affine(outputs: int, inputs: int, room: Array | float = 0.0) -> nir.Affine:
        weight, bias = random.uniform(-0.2, 1, (outputs, inputs)), random.uniform(0, 0.1, outputs)
        reach = np.maximum(weight, 0).sum(axis=1) + bias
        scale = (0.95 * largest - room) / reach
        return nir.Affine(weight * scale[:, None], bias * scale)

    first, last = affine(8, 4, np.maximum(back, 0).sum(axis=1)), affine(3, 8)
    nodes = [first, neuron(kind, 8, k), last, neuron(kind, 3, k)]
    deployment = chain(*nodes, inputs=[4], outputs=[3], steps=STEPS, dt=1e-3, **options)
    deployment.graph.nodes["back"] = nir.Linear(back)
    return deployment


def recur(deployment: Deployment) -> Deployment:
    deployment.graph.edges += [("n1", "back"), ("back", "n1")]
    return deployment


def without_recurrence(deployment: Deployment) -> Deployment:
    deployment.graph.nodes.pop("back", None)
    return deployment


LAWS: dict[str, Law] = {"sinabs": sinabs_law, "rockpool": rockpool_law, "spyx": spyx_law}


def assert_law(name: str, deployment: Deployment, folder: Path) -> None:
    shape = (STEPS, BATCH, *deployment.input.shape)
    inputs = (np.random.default_rng(1).random(shape) < 0.8).astype(float)
    expected = Reference().run(deployment, inputs).outputs
    written = in_dialect(deployment, name)
    nir_file.write(written, folder / "model.nir")
    late = written.provenance.latency
    found = run(LAWS[name], folder / "model.nir", inputs, late)
    assert not found[:late].any()
    assert np.array_equal(found[late:], expected)
    assert 20 < expected.sum() < expected.size, "hardly a spike"
    # And the file means the same to us.
    back = nir_file.read(folder / "model.nir")
    assert back.provenance.dialect == name
    verdict = msg_deploy.check(deployment, folder / "model.nir", random=8)
    assert verdict, verdict


@pytest.mark.parametrize("k", [1.5, 2.0, 5.0, 20.0])
@pytest.mark.parametrize("kind", ["LIF", "IF", "CubaLIF"])
@pytest.mark.parametrize("name", LAWS)
def test_the_law_of_the_destination_gives_our_spikes(
    name: str, kind: str, k: float, tmp_path: Path
) -> None:
    deployment = without_recurrence(network(kind, k, reset="subtract"))
    if (name, kind) == ("sinabs", "CubaLIF"):
        with pytest.raises(GraphError, match=r"'n1' \(CubaLIF\): sinabs reads no CubaLIF"):
            in_dialect(deployment, name)
        return
    assert_law(name, deployment, tmp_path)


@pytest.mark.parametrize("kind", ["LIF", "CubaLIF"])
@pytest.mark.parametrize("name", ["rockpool", "spyx"])
def test_recurrence(name: str, kind: str, tmp_path: Path) -> None:
    assert_law(name, recur(network(kind, 2.0, reset="subtract")), tmp_path)


@pytest.mark.parametrize("name", LAWS)
def test_without_memory_the_kind_of_reset_does_not_matter(name: str, tmp_path: Path) -> None:
    deployment = without_recurrence(network("LIF", 1.0, reset="zero"))
    assert_law(name, deployment, tmp_path)


@pytest.mark.parametrize("name", LAWS)
def test_images_become_matrices(name: str, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    deployment = chain(
        # A drive of at most 3 thresholds is allowed at tau = 2 dt: 9 places of at most 0.16.
        nir.Conv2d(None, random.uniform(0.08, 0.16, (4, 1, 3, 3)), 1, 1, 1, 2, np.full(4, 0.02)),
        lif((4, 4, 4), tau=2e-3),
        nir.AvgPool2d(TWO, TWO, NONE),
        nir.Flatten({"input": np.array([4, 2, 2])}, 0, -1),
        nir.Affine(random.uniform(0.05, 0.08, (3, 16)), np.full(3, 0.2)),
        lif((3,), tau=2e-3),
        inputs=[2, 4, 4],
        outputs=[3],
        steps=STEPS,
        dt=1e-3,
        reset="subtract",
    )
    assert_law(name, deployment, tmp_path)
    kinds = [type(node).__name__ for node in in_dialect(deployment, name).graph.nodes.values()]
    assert kinds.count("Affine") == 2
    assert "Conv2d" not in kinds


def test_lava_reads_its_numbers_off_the_file(tmp_path: Path) -> None:
    """u = (1 - du) u + a; v = (1 - dv) v + u; s = v > vth; v = 0; a matrix takes a step."""
    for kind in ("LIF", "IF", "CubaLIF"):
        deployment = without_recurrence(network(kind, 5.0))
        inputs = (np.random.default_rng(1).random((STEPS, BATCH, 4)) < 0.8).astype(float)
        expected = Reference().run(deployment, inputs).outputs
        written = in_dialect(deployment, "lava")
        nir_file.write(written, tmp_path / "model.nir")
        graph = nir.read(tmp_path / "model.nir", type_check=False)  # noqa: TID251
        late = written.provenance.latency
        assert late == 2
        x = np.concatenate([inputs, np.zeros((late, BATCH, 4))])
        for layer in (1, 2):
            matrix, node = graph.nodes[f"n{2 * layer - 2}"], graph.nodes[f"n{2 * layer - 1}"]
            arrived = np.concatenate(
                [np.zeros((1, BATCH, len(matrix.weight))), x @ matrix.weight.T]
            )
            arrived[layer:] += matrix.bias
            u, v, spikes = np.zeros_like(arrived[0]), np.zeros_like(arrived[0]), []
            for a in arrived[:-1]:
                u = (1 - 1 / node.tau_syn[0]) * u + a
                v = (1 - 1 / node.tau_mem[0]) * v + u
                spikes.append((v > node.v_threshold[0]).astype(float))
                v = np.where(spikes[-1] > 0, 0, v)
            x = np.stack(spikes)
        assert np.array_equal(x[late:], expected)
        assert expected.sum() > 20
        assert msg_deploy.check(deployment, tmp_path / "model.nir", random=8)


def test_snn_mlir_reads_what_is_meant() -> None:
    """dt = tau_mem/r; decays 1 - dt/tau; w_in dt/tau_syn = 1 (snn_mlir/nodes/cubalif.py)."""
    written = in_dialect(recur(network("CubaLIF", 5.0)), "snn-mlir")
    node = written.graph.nodes["n1"]
    dt = node.tau_mem / node.r
    assert 1 - dt / node.tau_syn == pytest.approx(np.full(8, 1 - 1 / 3))
    assert 1 - dt / node.tau_mem == pytest.approx(np.full(8, 1 - 1 / 5))
    assert node.w_in * dt / node.tau_syn == pytest.approx(np.ones(8))
    assert node.v_threshold == pytest.approx(np.full(8, 15 / 3))
    assert {("n1", "back"), ("back", "n1")} <= set(written.graph.edges)
    assert in_dialect(network_with_names(), "snn_mlir").provenance.dialect == "snn-mlir"


def network_with_names() -> Deployment:
    """Terminals called otherwise."""
    deployment = without_recurrence(network("LIF", 2.0))
    graph, names = deployment.graph, {"input": "in", "output": "out"}
    nodes = {names.get(n, n): node for n, node in graph.nodes.items()}
    edges = [(names.get(a, a), names.get(b, b)) for a, b in graph.edges]
    return deployment.with_graph(nir.NIRGraph(nodes, edges, metadata={}, type_check=False))


def test_terminals_get_the_names_that_importers_look_for() -> None:
    deployment = network_with_names()
    for name in ("lava", "snn-mlir"):
        nodes = in_dialect(deployment, name).graph.nodes
        assert isinstance(nodes["input"], nir.Input)
        assert isinstance(nodes["output"], nir.Output)
    deployment.graph.nodes["input"] = deployment.graph.nodes.pop("n0")
    deployment.graph.edges[:] = [("in", "input"), ("input", "n1"), *deployment.graph.edges[2:]]
    with pytest.raises(GraphError, match="'input': lava keeps this name"):
        in_dialect(deployment, "lava")


def test_spyx_needs_one_neuron_more_only_before_a_bias(tmp_path: Path) -> None:
    deployment = without_recurrence(network("LIF", 2.0, reset="subtract"))
    nir_file.write(in_dialect(deployment, "spyx"), tmp_path / "model.nir")
    assert nir.read(tmp_path / "model.nir").nodes["n1"].tau_mem.shape == (9,)  # noqa: TID251
    assert nir_file.read(tmp_path / "model.nir").graph.nodes["n1"].tau_mem.shape == (8,)
    deployment.graph.nodes["n2"].bias = np.zeros(3)
    nir_file.write(in_dialect(deployment, "spyx"), tmp_path / "model.nir")
    assert nir.read(tmp_path / "model.nir").nodes["n1"].tau_mem.shape == (8,)  # noqa: TID251


def test_a_file_that_only_says_it_is_of_spyx(tmp_path: Path) -> None:
    deployment = small(lif((2,)))
    deployment.graph.nodes["n0"].metadata["msg_deploy_one_more"] = 1
    claimed = replace(deployment, provenance=replace(deployment.provenance, dialect="spyx"))
    nir_file.write(claimed, tmp_path / "model.nir")
    with pytest.raises(FileError, match="'n0': metadata 'msg_deploy_one_more' belongs to other"):
        nir_file.read(tmp_path / "model.nir")


def affine(outputs: int, inputs: int, value: float = 1.0) -> nir.Affine:
    return nir.Affine(np.full((outputs, inputs), value), np.zeros(outputs))


def small(*nodes: Any, **options: Any) -> Deployment:
    options = {"dt": 1e-3, "reset": "subtract", "steps": 5} | options
    return chain(*nodes, inputs=[2], outputs=[2], **options)


def skipping() -> Deployment:
    nodes = [affine(2, 2), lif((2,)), affine(2, 2), lif((2,)), affine(2, 2), lif((2,))]
    return small(*nodes, edges=[("n1", "n4")])


def parallel() -> Deployment:
    deployment = small(affine(2, 2, 0.1), lif((2,)), affine(2, 2, 0.1), lif((2,)))
    deployment.graph.nodes["side"] = affine(2, 2, 0.1)
    deployment.graph.edges += [("n1", "side"), ("side", "n3")]
    return deployment


ONE = lif((2,), tau=2e-3)
VARIED = nir.LIF(
    np.array([2e-3, 3e-3]), *np.ones((1, 2)), *np.zeros((1, 2)), np.ones(2), np.zeros(2)
)
SLOW = nir.CubaLIF(*(np.full(2, v) for v in (3e-3, 2e-3, 1.0, 0.0, 1.0, 0.0, 1.0)))


@pytest.mark.parametrize(
    ("name", "deployment", "problem"),
    [
        ("sinabs", small(affine(2, 2, 5.0), ONE), r"'n1' \(LIF\): could reach [0-9.]+ thresholds"),
        ("rockpool", small(affine(2, 2, 5.0), ONE), "for which rockpool gives several spikes"),
        ("sinabs", small(affine(2, 2, 0.1), ONE, reset="zero"), "'n1'.*is reset to zero"),
        ("rockpool", small(affine(2, 2, 0.1), ONE, reset="zero"), "'n1'.*is reset to zero"),
        ("spyx", small(affine(2, 2, 0.1), ONE, reset="zero"), "'n1'.*spyx subtracts"),
        ("lava", small(affine(2, 2, 0.1), ONE), "lava's LIF resets to zero"),
        ("snn-mlir", small(affine(2, 2, 0.1), ONE), "'subtract' has no portable form"),
        ("sinabs", small(affine(2, 2, 0.1), SLOW), r"'n1' \(CubaLIF\).*tau_syn above dt"),
        ("sinabs", small(ONE, affine(2, 2), edges=[("n1", "n0")]), "'n0'.*sinabs ignores that"),
        ("spyx", skipping(), "'n1': leads to n2, n4; spyx keeps one branch"),
        (
            "lava",
            small(ONE, ONE, edges=[("input", "n1")], reset="zero"),
            "'input': leads to n0, n1",
        ),
        ("snn-mlir", small(ONE, ONE, edges=[("input", "n1")], reset="zero"), "one layer after"),
        ("sinabs", parallel(), "'n3': the branches n2, side meet, which sinabs runs"),
        ("rockpool", parallel(), "'n3'.*rockpool runs in a wrong order"),
        ("lava", small(VARIED, reset="zero"), r"'n0' \(LIF\): lava's LIF takes one du"),
        ("spyx", small(nir.LI(*np.full((3, 2), 2e-3))), r"'n0' \(LI\): spyx has nothing"),
        ("spyx", small(lif((2,), v_leak=0.1)), r"'n0' \(LIF\): v_leak must be 0"),
        ("lava", small(lif((2,), v_reset=0.1), reset="zero"), "v_reset must be 0"),
        ("spyx", small(lif((2,), r=-1.0)), "r must be above 0"),
        ("spyx", small(lif((2,), tau=1e-4)), "a time constant is below dt"),
    ],
)
def test_refusals(name: str, deployment: Deployment, problem: str) -> None:
    with pytest.raises(GraphError, match=problem):
        in_dialect(deployment, name)


@pytest.mark.parametrize(
    ("metadata", "problem"),
    [
        ({"msg_deploy_shape": np.array([1, 3])}, "is .1 3., not a shape of .2."),
        ({"msg_deploy_shape": "text"}, "not a shape of"),
        ({"msg_deploy_shape": np.array([2, 1]), "msg_deploy_flattened": "n0"}, "which is taken"),
    ],
)
def test_a_file_that_only_says_it_is_of_rockpool(
    metadata: Any, problem: str, tmp_path: Path
) -> None:
    deployment = small(affine(2, 2, 0.1), ONE)
    deployment.graph.nodes["input"].metadata = {"msg_deploy_flattened": "flat"} | metadata
    claimed = replace(deployment, provenance=replace(deployment.provenance, dialect="rockpool"))
    nir_file.write(claimed, tmp_path / "model.nir")
    with pytest.raises(FileError, match=f"'input'.*{problem}"):
        nir_file.read(tmp_path / "model.nir")


def test_more_refusals() -> None:
    image = chain(lif((1, 2, 2)), inputs=[1, 2, 2], outputs=[1, 2, 2], dt=1e-3, reset="subtract")
    with pytest.raises(GraphError, match=r"'output'.*the output must be flat"):
        in_dialect(image, "spyx")
    biased = small(ONE, nir.Affine(np.eye(2) * 0.1, np.full(2, 0.1)), ONE)
    with pytest.raises(GraphError, match="'n0': a bias behind it would need a matrix before it"):
        in_dialect(biased, "spyx")
    looped = small(affine(2, 2, 0.1), ONE, affine(2, 2, 0.1), ONE)
    looped.graph.nodes["back"] = nir.Affine(np.eye(2) * 0.1, np.full(2, 0.1))
    looped.graph.edges += [("n1", "back"), ("back", "n1")]
    for name in ("rockpool", "spyx"):
        with pytest.raises(GraphError, match=r"'back' \(Affine\): a recurrent bias"):
            in_dialect(looped, name)
    folded = fold_two(msg_deploy.trace(random_network(reset="subtract")), "delay")
    with pytest.raises(GraphError):
        in_dialect(folded, "spyx")


def test_a_skip_is_read_right_by_sinabs_and_rockpool() -> None:
    deployment = skipping()
    for i in (0, 2, 4):
        deployment.graph.nodes[f"n{i}"] = affine(2, 2, 0.15)
    for name in ("sinabs", "rockpool"):
        edges = in_dialect(deployment, name).graph.edges
        assert edges.index(("n3", "n4")) < edges.index(("n1", "n4"))


def test_matrices_have_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("msg_deploy.exporters.dense.MAX_ENTRIES", 10)
    image = chain(
        nir.Flatten({"input": np.array([1, 2, 2])}, 0, -1),
        lif((4,), v_threshold=4.0),
        inputs=[1, 2, 2],
        outputs=[4],
        dt=1e-3,
        reset="subtract",
    )
    with pytest.raises(GraphError, match=r"'n0' \(Flatten\): as a matrix it has 4 x 4 entries"):
        in_dialect(image, "spyx")


def test_the_command_line_names_all_dialects() -> None:
    source = (Path(__file__).parents[1] / "docs" / "cli.md").read_text()
    for name in dialects():
        assert name in source


def test_inspect_tells_how_much_later_spikes_come(capsys: pytest.CaptureFixture[str]) -> None:
    deployment = chain(lif((2,)), lif((2,)), inputs=[2], outputs=[2], dt=1e-3, reset="subtract")
    print_deployment(in_dialect(deployment, "spyx"))
    assert "latency: outputs come 2 steps later there (dialect spyx)" in capsys.readouterr().out
    print_deployment(deployment)
    assert "latency" not in capsys.readouterr().out
