"""Loihi 2: constants by hand, what is refused, the file, and lava's own model."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import nir
import numpy as np
import pytest

from msg_deploy.deployment import InputSpec, Readout
from msg_deploy.errors import GraphError
from msg_deploy.exporters.targets import target
from msg_deploy.onchip.simulator import ChipSimulator
from msg_deploy.sim.reference import Reference
from tests.chips import Draw, against_vendor, flatten, looped, neurons, pool, problems, row

LOIHI = target("loihi2")


def mlp(kind: str = "IF", seed: int = 0, bias: bool = False, **values: float) -> Any:
    draw = Draw(seed)
    layer = draw.affine if bias else draw.linear
    return row(
        layer(20, 30),
        neurons(kind, 20, threshold=50.5, **values),
        layer(10, 20),
        neurons(kind, 10, threshold=20.5, **values),
        inputs=[30],
        outputs=[10],
        steps=12,
    )


def convnet(seed: int = 0) -> Any:
    draw = Draw(seed)
    return row(
        draw.conv(4, 2, 3, bias=True, padding=1),
        neurons("IF", 4, 10, 10, threshold=60.5),
        pool(2),
        draw.conv(6, 4, 3, stride=2, padding=1),
        neurons("LIF", 6, 3, 3, threshold=20.5),
        draw.conv(6, 2, 2, groups=3, dilation=2),
        neurons("IF", 6, 1, 1, threshold=20.5),
        flatten(6, 1, 1),
        draw.affine(10, 6),
        neurons("IF", 10, threshold=20.5),
        inputs=[2, 10, 10],
        outputs=[10],
        steps=8,
    )


def recurrent(seed: int = 0, kind: str = "CubaLIF") -> Any:
    draw = Draw(seed)
    forward = row(
        draw.linear(12, 30),
        neurons(kind, 12, threshold=20.5),
        draw.linear(10, 12),
        neurons("LIF", 10, threshold=20.5),
        inputs=[30],
        outputs=[10],
        steps=12,
    )
    return looped(forward, "n1", draw.matrix(12, 12))


def delayed(seed: int = 0) -> Any:
    draw = Draw(seed)
    return row(
        draw.linear(20, 30),
        neurons("IF", 20, threshold=50.5),
        nir.Delay(np.full(20, 3e-3)),
        draw.linear(10, 20),
        neurons("IF", 10, threshold=20.5),
        inputs=[30],
        outputs=[10],
        steps=12,
    )


def counts(seed: int = 0) -> Any:
    return replace(mlp("LIF", seed), input=InputSpec((30,), "frames", 0.0, 15.0, levels=15))


def read_out(seed: int = 0) -> Any:
    draw = Draw(seed)
    f = tuple(draw.random.random(12).tolist())
    network = row(
        draw.affine(20, 30),
        neurons("IF", 20, threshold=50.5),
        draw.affine(10, 20),
        inputs=[30],
        outputs=[10],
        steps=12,
    )
    return replace(network, readout=Readout(f, "n2"))


# --------------------------------------------------------------------------- constants


def test_constants_by_hand() -> None:
    """dt/tau = 1/4, so 1024 of 4096; theta = 10 / (1/4) = 40; with dt/tau_syn = 1/8 it is 320."""
    leaky = row(
        nir.Linear(np.eye(2)),
        neurons("LIF", 2, threshold=10.0, tau=4e-3),
        inputs=[2],
        outputs=[2],
    )
    chip = LOIHI.fit(leaky)
    assert chip.network is not None
    numbers = chip.network.numbers["n1"]
    assert set(numbers.membrane_decay.tolist()) == {1024}
    assert set(numbers.current_decay.ravel().tolist()) == {4096}
    assert set(numbers.threshold.tolist()) == {40 << 6}
    assert chip.units["n1"] == 1 / 256
    both = neurons("CubaLIF", 2, threshold=10.0, tau_mem=4e-3, tau_syn=8e-3)
    coupled = LOIHI.fit(row(nir.Linear(np.eye(2)), both, inputs=[2], outputs=[2]))
    assert coupled.network is not None
    numbers = coupled.network.numbers["n1"]
    assert set(numbers.current_decay.ravel().tolist()) == {512}
    assert set(numbers.threshold.tolist()) == {320 << 6}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("make", [mlp, delayed, read_out])
def test_without_leaks_every_spike_is_the_graphs(make: Any, seed: int) -> None:
    deployment = make(seed=seed)
    chip, inputs = LOIHI.fit(deployment), Draw(seed + 9).inputs(deployment, 10)
    run, expected = ChipSimulator(chip).run(inputs), Reference().run(deployment, inputs * 1.0)
    for name, spikes in expected.spikes.items():
        assert spikes.any()
        assert np.array_equal(run.spikes[name], spikes)
        assert np.array_equal(run.membranes[name] * chip.units[name], expected.membranes[name])
    if deployment.readout:
        assert np.allclose(run.scores, expected.scores, rtol=1e-12)


@pytest.mark.parametrize("make", [lambda: mlp("LIF"), lambda: mlp("CubaLIF"), recurrent, convnet])
def test_with_leaks_nearly_every_spike_is(make: Any) -> None:
    deployment = make()
    chip, inputs = LOIHI.fit(deployment), Draw(1).inputs(deployment, 20)
    run, expected = ChipSimulator(chip).run(inputs), Reference().run(deployment, inputs * 1.0)
    spikes = sum(s.size for s in expected.spikes.values())
    changed = sum(int((run.spikes[n] != s).sum()) for n, s in expected.spikes.items())
    assert sum(int(s.sum()) for s in run.spikes.values()) > 100
    assert changed <= 0.02 * spikes


def test_a_trace_of_lava(paper_lif: Path) -> None:
    """What the NIR paper's authors recorded of Loihi's fixed-point neuron in Lava."""
    x, _, spikes = np.loadtxt(paper_lif / "lif_lava_loihi_fixed.csv", delimiter=",").T
    # 4096 / 25 is 163.84; Lava was given 163, so the time constant here is 4096 / 163 steps.
    neuron = neurons("LIF", 1, threshold=25 * 163 / 4096, tau=1e-3 * 4096 / 163)
    deployment = row(nir.Linear(np.array([[10.0]])), neuron, inputs=[1], outputs=[1], steps=len(x))
    run = ChipSimulator(LOIHI.fit(deployment)).run(x[:, None, None])
    # There everything comes a step later.
    assert np.array_equal(run.spikes["n1"].ravel()[:-1], spikes[1:])
    assert spikes.sum() == 4


# --------------------------------------------------------------------------- refusals


def changed(node: str, **values: Any) -> Any:
    deployment = mlp("LIF")
    nodes = dict(deployment.graph.nodes)
    nodes[node] = replace(nodes[node], **values)
    return deployment.with_graph(
        nir.NIRGraph(nodes, list(deployment.graph.edges), type_check=False)
    )


@pytest.mark.parametrize(
    ("deployment", "words"),
    [
        (changed("n1", v_reset=np.full(20, 1.0)), "node 'n1': v_reset is not 0"),
        (changed("n1", v_leak=np.full(20, 1.0)), "node 'n1': v_leak is not 0"),
        (changed("n1", r=np.full(20, 2.0)), "node 'n1': r is not 1; msg-deploy quantize makes it"),
        (
            changed("n3", tau=np.linspace(2e-3, 3e-3, 10)),
            "node 'n3': tau goes from 0.002 to 0.003; one value for the whole layer is needed",
        ),
        (
            changed("n3", v_threshold=np.full(10, 1e5)),
            "node 'n3': 200,000 vThMant (17 bits), at most 131,071",
        ),
        (changed("n2", weight=np.zeros((10, 20))), "node 'n2': all weights are 0"),
        (changed("n2", weight=np.full((10, 20), 300.0)), "must all be of -128..127 or -256..254"),
        (
            changed("n2", weight=np.tile([255.0, -1.0], (10, 10))),
            "must all be of -128..127 or -256..254 in steps of 2 or 0..255",
        ),
    ],
)
def test_what_it_lacks_is_named(deployment: Any, words: str) -> None:
    assert any(words in text for text in problems("loihi2", deployment)), problems(
        "loihi2", deployment
    )


def test_all_is_said_at_once() -> None:
    deployment = changed("n1", v_reset=np.full(20, 1.0), v_threshold=np.full(20, 9.0))
    deployment = replace(deployment, timing=replace(deployment.timing, reset="subtract"))
    found = problems("loihi2", deployment)
    assert any("train with reset=zero" in text for text in found)
    assert any("v_reset is not 0" in text for text in found)


def test_limits_are_counted() -> None:
    biased = row(
        nir.Affine(np.eye(2), np.array([0.0, 4096.0])),
        neurons("IF", 2, threshold=1.5),
        inputs=[2],
        outputs=[2],
    )
    (text,) = problems("loihi2", biased)
    assert "4,096 bias mantissa (13 bits with sign), at most 4,095" in text
    late = row(
        nir.Delay(np.full(2, 63e-3)),
        nir.Linear(np.eye(2)),
        neurons("IF", 2, threshold=0.5),
        inputs=[2],
        outputs=[2],
        steps=80,
    )
    assert "63 steps of delay, at most 62" in problems("loihi2", late)[0]
    wide = row(
        nir.Linear(np.ones((1, 200_000))),
        neurons("IF", 1, threshold=0.5),
        inputs=[200_000],
        outputs=[1],
    )
    assert "200,000 bytes of synapses of a core, at most 196,608" in problems("loihi2", wide)[0]


def test_a_bias_of_a_current_is_approximated_only_if_asked() -> None:
    deployment = mlp("CubaLIF", bias=True)
    found = problems("loihi2", deployment)
    assert len(found) == 2
    assert all("its bias enters the membrane at once" in text for text in found)
    chip = LOIHI.fit(deployment, approximate=True)
    assert chip.fits
    assert len(chip.approximations) == 2
    # dt/tau_syn = 1/4: the current would come to 4 b in units of the chip.
    first = deployment.graph.nodes["n0"].bias
    assert chip.network is not None
    assert np.array_equal(chip.network.numbers["n1"].bias, (4 * first).astype(int) << 6)


def test_ways_back_to_an_earlier_layer_and_biased_loops() -> None:
    deployment = mlp("IF")
    graph = deployment.graph
    nodes = dict(graph.nodes) | {"back": Draw(3).linear(20, 10)}
    edges = [*graph.edges, ("n3", "back"), ("back", "n1")]
    around = deployment.with_graph(nir.NIRGraph(nodes, edges, type_check=False))
    assert "leads back from 'n3' to the earlier 'n1', which takes 2 steps" in "".join(
        problems("loihi2", around)
    )
    biased = looped(mlp("IF", bias=True), "n1", np.eye(20))
    assert "leave out the bias of recurrent layers" in "".join(problems("loihi2", biased))


def test_a_residual_branch_fits_but_netx_cannot_say_it() -> None:
    deployment = mlp("IF")
    graph = deployment.graph
    nodes = dict(graph.nodes) | {"skip": Draw(3).linear(10, 30)}
    edges = [*graph.edges, ("input", "skip"), ("skip", "n3")]
    branched = deployment.with_graph(nir.NIRGraph(nodes, edges, type_check=False))
    chip, inputs = LOIHI.fit(branched), Draw(4).inputs(branched, 5)
    assert chip.fits
    expected = Reference().run(branched, inputs * 1.0)
    assert np.array_equal(ChipSimulator(chip).run(inputs).spikes["n3"], expected.spikes["n3"])
    with pytest.raises(GraphError, match="node 'n3': takes from n1, input; netx is a chain"):
        LOIHI.files(chip)


# --------------------------------------------------------------------------- the file


def test_the_file() -> None:
    chip = LOIHI.fit(convnet())
    with h5py.File(io.BytesIO(LOIHI.files(chip)["network.net"])) as file:
        layers = [file[f"layer/{k}"] for k in range(len(file["layer"]))]
        kinds = [layer["type"][0].decode() for layer in layers]
        assert kinds == ["input", "conv", "conv", "conv", "flatten", "dense"]
        assert layers[0]["shape"][()].tolist() == [2, 10, 10]
        second = layers[2]
        # A pooling of 2 before kernels of 3, stride 2, padding 1.
        assert second["weight"].shape == (6, 4, 6, 6)
        assert second["stride"][()].tolist() == [4, 4]
        assert second["padding"][()].tolist() == [2, 2]
        assert second["neuron/vDecay"][()] == 2048
        assert second["neuron/iDecay"][()] == 4096
        assert second["neuron/type"][()] == b"CUBA"
        assert layers[3]["groups"][()] == 3
        assert layers[3]["dilation"][()].tolist() == [2, 2]
        assert layers[1]["bias"].shape == (4,)
        assert layers[5]["weight"].shape == (10, 6)
        assert layers[5]["bias"].shape == (10,)


def test_a_readout_never_spikes_and_is_read() -> None:
    chip = LOIHI.fit(read_out())
    assert chip.decoder is not None
    assert chip.decoder.reads == "membranes"
    with h5py.File(io.BytesIO(LOIHI.files(chip)["network.net"])) as file:
        neuron = file["layer/2/neuron"]
        assert [neuron[n][()] for n in ("iDecay", "vDecay", "vThMant")] == [4096, 0, 2**18 - 1]
    assert chip.settings == {"reset_interval": 14, "reset_offset": 1, "input_message_bits": 0}
    assert LOIHI.fit(counts()).settings["input_message_bits"] == 5


# --------------------------------------------------------------------------- lava

CASES = {
    "if": mlp,
    "if with biases": lambda: mlp(bias=True),
    "lif": lambda: mlp("LIF", tau=3e-3),
    "cuba": lambda: mlp("CubaLIF"),
    "convolutions": convnet,
    "recurrent": recurrent,
    "recurrent lif": lambda: recurrent(kind="LIF"),
    "delays": delayed,
    "counts": counts,
    "readout": read_out,
}


@pytest.mark.parametrize("name", CASES)
def test_lava_spikes_alike(name: str) -> None:
    deployment = CASES[name]()
    found = against_vendor("loihi2", deployment, Draw(5).inputs(deployment, 15))
    assert found.first is None
    assert found.spikes
    assert found.membranes


def test_lava_saturates_and_wraps_alike() -> None:
    """Currents beyond 24 bits wrap, membranes stay at the end of their range."""
    strong = InputSpec((30,), "frames", 0.0, 2000.0, levels=2000)
    deployment = replace(mlp("CubaLIF", seed=2, tau_mem=16e-3, tau_syn=16e-3), input=strong)
    inputs = Draw(6).inputs(deployment, 10, rate=0.9)
    run = ChipSimulator(LOIHI.fit(deployment)).run(inputs)
    assert run.counts["n1"]["current"].outside
    assert run.counts["n1"]["membrane"].outside
    assert against_vendor("loihi2", deployment, inputs).first is None
