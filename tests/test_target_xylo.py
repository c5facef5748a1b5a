"""Xylo Audio 2 and 3: numbers by hand, bounds, what is refused, the readout, and xylosim."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msg_deploy.deployment import Deployment, InputSpec, IntegerForm, Readout
from msg_deploy.exporters.chips import xylo, xylo_numbers
from msg_deploy.exporters.chips.charges import ChargeDecoder, charges
from msg_deploy.exporters.chips.manifest import manifest
from msg_deploy.exporters.chips.populations import populations
from msg_deploy.exporters.chips.target import Findings, OnChip
from msg_deploy.exporters.targets import target
from msg_deploy.onchip import vendor as vendors
from msg_deploy.onchip.check import check_on_chip
from msg_deploy.onchip.export import files_of
from msg_deploy.onchip.prepare import Job
from msg_deploy.onchip.simulator import ChipSimulator
from msg_deploy.sim.integer.engine import Engine
from msg_deploy.sim.integer.network import Edge, Entry, Exit, IntegerNetwork, Neurons, linear
from msg_deploy.sim.integer.neuron import Parameters
from msg_deploy.sim.reference import Reference
from tests.chips import (
    Draw,
    against_vendor,
    flatten,
    looped,
    neurons,
    pool,
    problems,
    row,
    vendor_python,
)

AUDIO2, AUDIO3 = target("xylo_audio2"), target("xylo_audio3")
seeds = given(seed=st.integers(0, 2**32 - 1))
few = settings(deadline=None, max_examples=25)


def subtracting(deployment: Deployment, most: int = 15) -> Deployment:
    """Reset by subtraction, inputs of 0 to `most` events."""
    spec = InputSpec(deployment.input.shape, "frames", 0.0, float(most), levels=most)
    timing = replace(deployment.timing, reset="subtract")
    return replace(deployment, timing=timing, input=spec)


def mlp(seed: int = 0, most: int = 15, first: float = 400.0, **values: float) -> Deployment:
    draw = Draw(seed)
    network = row(
        draw.linear(20, 12),
        neurons("CubaLIF", 20, threshold=first, **values),
        draw.linear(16, 20),
        neurons("CubaLIF", 16, threshold=30.0, **values),
        draw.linear(6, 16),
        neurons("CubaLIF", 6, threshold=20.0, **values),
        inputs=[12],
        outputs=[6],
        steps=12,
    )
    return subtracting(network, most)


def recurrent(seed: int = 0) -> Deployment:
    return looped(mlp(seed), "n1", Draw(seed + 1).matrix(20, 20, 30))


def read_out(seed: int = 0, bias: bool = True, steps: int = 12) -> Deployment:
    draw = Draw(seed)
    network = row(
        draw.linear(20, 12),
        neurons("CubaLIF", 20, threshold=400.0),
        (draw.affine if bias else draw.linear)(6, 20),
        inputs=[12],
        outputs=[6],
        steps=steps,
    )
    f = tuple(draw.random.random(steps).tolist())
    form = IntegerForm(8, {}, 0.125)
    return replace(subtracting(network), readout=Readout(f, "n2"), integers=form)


def convnet(seed: int = 0) -> Deployment:
    draw = Draw(seed)
    network = row(
        draw.conv(3, 1, 2),
        neurons("CubaLIF", 3, 3, 3, threshold=200.0),
        draw.conv(4, 3, 2, padding=1),
        neurons("CubaLIF", 4, 4, 4, threshold=60.0),
        pool(2),
        flatten(4, 2, 2),
        draw.linear(6, 16),
        neurons("CubaLIF", 6, threshold=40.0),
        inputs=[1, 4, 4],
        outputs=[6],
        steps=10,
    )
    return subtracting(network)


def seldom(seed: int = 0) -> Deployment:
    """Single events, and thresholds that the charge of one step hardly reaches twice."""
    return mlp(seed, most=1, first=60.0, tau_mem=4e-3, tau_syn=2e-3)


def changed(deployment: Deployment, node: str, **values: Any) -> Deployment:
    nodes = dict(deployment.graph.nodes)
    nodes[node] = replace(nodes[node], **values)
    graph = nir.NIRGraph(nodes, list(deployment.graph.edges), type_check=False)
    return deployment.with_graph(graph)


def rewired(deployment: Deployment, edges: list[tuple[str, str]], **nodes: Any) -> Deployment:
    graph = deployment.graph
    return deployment.with_graph(
        nir.NIRGraph(
            dict(graph.nodes) | nodes,
            [*((str(a), str(b)) for a, b in graph.edges), *edges],
            type_check=False,
        )
    )


def fits(deployment: Deployment, name: str = "xylo_audio3", approximate: bool = True) -> OnChip:
    chip = target(name).fit(deployment, approximate)
    assert chip.problems == ()
    assert chip.network is not None
    return chip


# --------------------------------------------------------------------------- numbers by hand


def test_numbers_by_hand() -> None:
    """tau_syn = 8 and tau_mem = 4 steps: dashes 3 and 2, v of the chip is 7 x 4 times the graph's.

    Weights 10 and one event a step: a current below 7 x 10 2^shift, a membrane below 4 times that;
    a threshold of 20 is 560 2^shift, which 5 bits take to 17,920 (6: 35,840).
    """
    both = neurons("CubaLIF", 2, threshold=20.0, tau_syn=8e-3, tau_mem=4e-3)
    last = neurons("CubaLIF", 2, threshold=1.0, tau_syn=2e-3, tau_mem=2e-3)
    network = row(
        nir.Linear(10 * np.eye(2)), both, nir.Linear(np.eye(2)), last, inputs=[2], outputs=[2]
    )
    chip = fits(subtracting(network, most=1), approximate=False)
    assert chip.network is not None
    numbers = chip.network.numbers["n1"]
    assert numbers.current_decay[0].tolist() == [3, 3]
    assert numbers.membrane_decay.tolist() == [2, 2]
    assert chip.settings["weight_shift_in"] == 5
    assert numbers.threshold.tolist() == [560 << 5] * 2
    assert chip.units["n1"] == 1 / (28 << 5)
    assert chip.late == {"n1": 0, "n3": 1}
    assert chip.steps == network.timing.steps + 1
    # Dashes of 1: the graph's v times 2, so thresholds of 2; the largest shift there is.
    assert chip.settings["weight_shift_out"] == 7
    assert chip.network.numbers["n3"].threshold.tolist() == [2 << 7] * 2


def test_each_neuron_has_its_own_time_constants_and_threshold() -> None:
    deployment = changed(mlp(), "n1", tau_mem=np.repeat([2e-3, 4e-3], 10))
    deployment = changed(deployment, "n1", v_threshold=np.arange(400.0, 420.0))
    chip = fits(deployment)
    assert chip.network is not None
    numbers = chip.network.numbers["n1"]
    assert numbers.membrane_decay.tolist() == [1] * 10 + [2] * 10
    gain = np.repeat([3 * 2, 3 * 4], 10)
    assert np.array_equal(numbers.threshold, np.arange(400, 420) * gain)


@pytest.mark.parametrize("seed", range(3))
def test_nearly_every_spike_is_the_graphs(seed: int) -> None:
    deployment = seldom(seed)
    chip = target("xylo_audio3").fit(deployment, approximate=True)
    inputs = Draw(seed + 9).inputs(deployment, 30, rate=0.7)
    run, expected = ChipSimulator(chip).run(inputs), Reference().run(deployment, inputs * 1.0)
    total = {name: int(s.sum()) for name, s in expected.spikes.items()}
    assert total["n1"] > 300
    assert total["n3"] > 50
    differ = sum(int((run.spikes[n] != s).sum()) for n, s in expected.spikes.items())
    assert differ < 0.004 * sum(s.size for s in expected.spikes.values())
    first = run.membranes["n1"] * chip.units["n1"]
    same = np.all(run.spikes["n1"] == expected.spikes["n1"], axis=0)
    assert same.any()
    # Two shifts are rounded down, each by less than 1 (or fade by 1 where 0 is near) in each step;
    # of dt/tau 1/2 and 1/4 that adds up to (1 + 1 / (1/2)) / (1/4) at most.
    off = np.abs(first - expected.membranes["n1"])[:, same]
    assert off.max() < 12 * chip.units["n1"]


def test_time_constants_are_rounded_only_if_asked() -> None:
    deployment = mlp(tau_mem=3e-3)
    found = problems("xylo_audio3", deployment)
    words = "tau_mem is 3 steps, and becomes 4; train with 2, 4, 8, ... steps, or use `msg-deploy"
    assert sum(words in text for text in found) == 3
    chip = fits(deployment)
    assert chip.network is not None
    assert set(chip.network.numbers["n1"].membrane_decay.tolist()) == {2}
    assert "tau_syn is 1 steps, and becomes 2" in "".join(
        problems("xylo_audio3", mlp(tau_syn=1e-3))
    )


@pytest.mark.parametrize(("kind", "dash"), [("LIF", 1), ("IF", 15)])
def test_neurons_without_a_current_are_approximated(kind: str, dash: int) -> None:
    draw = Draw(3)
    network = row(
        draw.affine(8, 5),
        neurons(kind, 8, threshold=90.0),
        draw.linear(3, 8),
        neurons("CubaLIF", 3, threshold=20.0),
        inputs=[5],
        outputs=[3],
        steps=6,
    )
    deployment = subtracting(network, most=1)
    found = "".join(problems("xylo_audio3", deployment))
    assert "node 'n1': its input passes a current of which half is lost in each step" in found
    assert ("its membranes come closer to 0 by 1 in each step" in found) == (kind == "IF")
    assert "its bias" not in found
    chip = fits(deployment)
    assert chip.network is not None
    numbers = chip.network.numbers["n1"]
    shift = chip.settings["weight_shift_in"]
    assert set(numbers.membrane_decay.tolist()) == {dash}
    assert set(numbers.current_decay[0].tolist()) == {1}
    assert set(numbers.threshold.tolist()) == {(180 if kind == "LIF" else 90) << shift}
    assert np.array_equal(numbers.bias, network.graph.nodes["n0"].bias.astype(int) << shift)


def test_biases_of_currents_are_approximated() -> None:
    draw = Draw(3)
    network = row(
        draw.affine(8, 5),
        neurons("CubaLIF", 8, threshold=90.0),
        draw.affine(3, 8),
        neurons("CubaLIF", 3, threshold=20.0),
        inputs=[5],
        outputs=[3],
        steps=6,
    )
    deployment = subtracting(network)
    at_once = "its bias enters the membrane at once, with the value that the current would reach"
    found = [text for text in problems("xylo_audio3", deployment) if at_once in text]
    assert len(found) == 2
    assert "acts 1 step before its first input arrives; leave out the bias" in found[1]
    assert "acts" not in found[0]
    chip = fits(deployment)
    assert chip.network is not None
    bias = network.graph.nodes["n0"].bias.astype(int)
    # dt/tau_syn = 1/4: the current would come to b, which is 3 b on the chip.
    assert np.array_equal(
        chip.network.numbers["n1"].bias, 3 * bias << chip.settings["weight_shift_in"]
    )
    files = json.loads(AUDIO3.files(chip)["specification.json"])
    assert files["bias_hidden"] == chip.network.numbers["n1"].bias.tolist()
    assert len(files["bias_out"]) == 3


# --------------------------------------------------------------------------- bounds


def chosen(deployment: Deployment, steps: int) -> xylo_numbers.Chosen:
    network = populations(deployment)
    constants = {
        name: xylo._constants(item, deployment.timing, 0, Findings(approximate=True))
        for name, item in network.items.items()
    }
    return xylo_numbers.Chosen(network, xylo_numbers.laid_out(network), constants, steps)


@few
@seeds
def test_no_state_leaves_its_bound(seed: int) -> None:
    random = np.random.default_rng(seed)
    most = int(random.integers(1, 16))
    first = float(random.choice([1, 3, 40, 150, 400, 900]))
    deployment = mlp(seed, most, first) if seed % 2 else recurrent(seed)
    if seed % 3 == 0:
        deployment = changed(
            deployment, "n1", tau_syn=np.full(20, 2e-3), tau_mem=np.full(20, 16e-3)
        )
    chip = fits(deployment)
    bounds = chosen(deployment, chip.steps)
    assert {f"weight_shift_{k}": v for k, v in bounds.shifts.items()} == chip.settings
    inputs = Draw(seed).inputs(deployment, 6, rate=0.9)
    inputs[:, 0] = deployment.input.high
    run = ChipSimulator(chip).run(inputs)
    for name, counts in run.counts.items():
        reach = bounds.reach(name)
        assert run.spikes[name].max(initial=0) <= reach.spikes.max()
        if max(bounds.reach(n).state.max() for n in run.counts) <= 2**15 - 1:
            assert not any(count.outside for count in counts.values())
        within = [count.largest for count in counts.values() if not count.outside]
        assert max(within, default=0) <= reach.state.max()


def test_a_bound_is_reached_and_more_than_one_spike_is_named() -> None:
    """One neuron, weight 100, 15 events a step, dashes 1: currents 750, 1125, 1313, 1407, ...

    Membranes before spikes of a threshold of 2 x 500: 750; 375 + 1125 = 1500; then 500 - 250 +
    1313 = 1563, ...; with a threshold of 2 x 400 in the second step 1500 - 800 is left, in the
    third 350 + 1313 = 1663 reach it twice.
    """

    def one(threshold: float) -> Deployment:
        fast = {"tau_syn": 2e-3, "tau_mem": 2e-3}
        network = row(
            nir.Linear(np.array([[100.0]])),
            neurons("CubaLIF", 1, threshold=threshold, **fast),
            nir.Linear(np.array([[1.0]])),
            neurons("CubaLIF", 1, threshold=5.0, **fast),
            inputs=[1],
            outputs=[1],
            steps=3,
        )
        return subtracting(network)

    assert problems("xylo_audio3", one(500.0)) == []
    (found,) = problems("xylo_audio3", one(400.0))
    assert "node 'n1': its neurons may spike up to 2 times in one step" in found
    for threshold, spikes in ((500.0, [0, 1, 1]), (400.0, [0, 1, 2])):
        chip = fits(one(threshold))
        run = ChipSimulator(chip).run(np.full((3, 1, 1), 15))
        shift = chip.settings["weight_shift_in"]
        assert run.spikes["n1"].ravel().tolist() == spikes
        third = 1563 if threshold == 500 else 1663
        assert run.membranes["n1"].ravel()[-1] >> shift in (third - 1, third)


def test_a_bound_is_exact_where_all_weights_have_one_sign() -> None:
    """Spikes take 31 thresholds at most; what is left adds up."""
    for weight in (100.0, -100.0):
        network = row(
            nir.Linear(np.array([[weight]])),
            neurons("CubaLIF", 1, threshold=1.0, tau_syn=2e-3, tau_mem=16e-3),
            nir.Linear(np.array([[1.0]])),
            neurons("CubaLIF", 1, threshold=5.0),
            inputs=[1],
            outputs=[1],
            steps=8,
        )
        deployment = subtracting(network)
        chip = fits(deployment)
        assert chip.network is not None
        run = Engine(chip.network, chip.steps).run(np.full((chip.steps, 1, 1), 15))
        (state,) = chosen(deployment, chip.steps).reach("n1").state.tolist()
        # Downwards a shift takes up to 1 more than upwards.
        slack = 0 if weight > 0 else 2 * chip.steps
        assert 0 <= state - run.counts["n1"]["membrane"].largest <= slack


def test_charges_can_be_told_even_where_membranes_may_saturate() -> None:
    """64 weights of 127 and a shift of 2: 32,512 a step, of membranes twice that."""
    network = row(
        nir.Linear(np.ones((64, 1))),
        neurons("CubaLIF", 64, threshold=1.0, tau_syn=2e-3),
        nir.Linear(np.full((1, 64), 127.0)),
        inputs=[1],
        outputs=[1],
        steps=20,
    )
    deployment = replace(subtracting(network, most=1), readout=Readout((1.0,) * 20, "n2"))
    (found,) = problems("xylo_audio3", deployment)
    assert "node 'n2': its currents or membranes may reach 65,0" in found
    assert fits(deployment).settings["weight_shift_out"] == 2


def test_what_may_saturate_is_named() -> None:
    found = problems("xylo_audio3", read_out(steps=12))
    assert any("node 'n2': its currents or membranes may reach" in text for text in found)
    assert any("stay at the ends of 16 bits; quantize with fewer bits" in text for text in found)


# --------------------------------------------------------------------------- the readout


def test_charges_are_told_from_every_state() -> None:
    """All 2^16 sums of a current and a charge, for each of which the current before is known."""
    arrived = np.arange(-(2**15), 2**15)
    lost = np.where(arrived == 1, 1, arrived >> 1)
    current = arrived - lost
    for held in range(-7, 8):
        possible = (arrived - held) % 4 == 0
        first = np.full(possible.sum(), held)
        second = first - np.where(first == 1, 1, first >> 1) + current[possible]
        found = charges(np.stack([first, second]))
        assert np.array_equal(found[1], arrived[possible] - held)


def test_with_a_shift_of_1_charges_are_not_unique() -> None:
    """After a current of 1, charges of 0 and -2 leave a current of 0."""

    def faded(a: int) -> int:
        return a - (a >> 1 or (a > 0) - (a < 0))

    assert faded(1 + 0) == faded(1 - 2) == 0
    assert len({faded(1 + charge) for charge in (-4, 0, 4)}) == 3


@few
@seeds
def test_recovered_charges_are_the_sums(seed: int) -> None:
    deployment = read_out(seed)
    chip = fits(deployment)
    run = ChipSimulator(chip).run(Draw(seed).inputs(deployment, 4))
    shift = chip.settings["weight_shift_out"]
    assert shift >= 2
    found = charges(run.output)[1:] / 2**shift
    assert not charges(run.output)[0].any()
    weight = deployment.graph.nodes["n2"].weight
    assert np.array_equal(found, run.spikes["n1"] @ weight.T)
    sums = run.spikes["n1"] @ weight.T + deployment.graph.nodes["n2"].bias
    assert deployment.readout is not None
    expected = np.tensordot(np.array(deployment.readout.weights), sums, axes=1) * 0.125
    assert np.allclose(run.scores, expected, rtol=1e-12)


@pytest.mark.parametrize("bias", [True, False])
def test_the_exported_decoder_is_ours(bias: bool, tmp_path: Path) -> None:
    deployment = read_out(bias=bias)
    chip = fits(deployment)
    run = ChipSimulator(chip).run(Draw(2).inputs(deployment, 5))
    namespace: dict[str, Any] = {}
    exec(files_of(chip)["decode.py"].decode(), namespace)
    assert np.allclose(namespace["decode"](run.output.tolist()), run.scores, rtol=1e-12)
    with pytest.raises(ValueError, match="13 steps are needed, not 4"):
        namespace["decode"](run.output[:4])
    full = np.full((13, 1, 6), 32767)
    with pytest.warns(UserWarning, match="membranes have left their 16 bits"):
        namespace["decode"](full)


def test_a_spiking_output_is_counted() -> None:
    chip = fits(seldom())
    assert chip.decoder is not None
    assert not isinstance(chip.decoder, ChargeDecoder)
    assert (chip.decoder.reads, chip.decoder.late) == ("spikes", 2)


# --------------------------------------------------------------------------- refusals


def loops_back(deployment: Deployment) -> Deployment:
    return rewired(deployment, [("n3", "back"), ("back", "n1")], back=Draw(3).linear(20, 16))


@pytest.mark.parametrize(
    ("deployment", "words"),
    [
        (
            replace(mlp(), timing=replace(mlp().timing, reset="zero")),
            "it resets by subtraction only; train with reset=subtract",
        ),
        (changed(mlp(), "n1", v_leak=np.full(20, 1.0)), "node 'n1': v_leak is not 0"),
        (changed(mlp(), "n1", r=np.full(20, 2.0)), "node 'n1': r is not 1; msg-deploy quantize"),
        (changed(mlp(), "n3", w_in=np.full(16, 2.0)), "node 'n3': w_in is not 1"),
        (changed(mlp(), "n3", v_threshold=np.zeros(16)), "node 'n3': v_threshold is not above 0"),
        (
            changed(mlp(), "n1", v_threshold=np.full(20, 6000.0)),
            "node 'n1': 36,000 threshold (int16), at most 32,767; quantize with fewer bits",
        ),
        (
            changed(mlp(), "n0", weight=np.full((20, 12), 300.0)),
            "node 'n0': 300 weight (int8), at most 127; quantize to 8 bits",
        ),
        (
            changed(mlp(), "n0", weight=np.full((20, 12), 0.5)),
            "weight must be whole numbers",
        ),
        (mlp(most=16), "node 'input': 16 events of an input channel in a step, at most 15; scale"),
        (
            replace(mlp(), input=InputSpec((12,), "frames", -1.0, 1.0, levels=2)),
            "node 'input': its values are numbers of events; use values from 0 on",
        ),
        (loops_back(mlp()), "node 'back': brings 'n3' to 'n1' 1 step too late: each layer takes"),
        (
            rewired(mlp(), [("input", "skip"), ("skip", "n3")], skip=Draw(3).linear(16, 12)),
            "node 'skip': brings 'input' to 'n3' 1 step too early",
        ),
        (
            rewired(mlp(), [("n1", "twice"), ("twice", "n3")], twice=Draw(3).linear(16, 20)),
            "node 'n3': 'n1' leads into it 2 times; there is one synapse between two neurons",
        ),
        (
            looped(mlp(), "n5", np.eye(6)),
            "node 'back': leads out of the output layer 'n5', whose spikes reach no neuron",
        ),
        (
            subtracting(
                row(
                    nir.Linear(np.eye(3)),
                    neurons("CubaLIF", 3, threshold=9.0),
                    inputs=[3],
                    outputs=[3],
                )
            ),
            "node 'n0': the input reaches hidden neurons only; put a layer of neurons before",
        ),
        (
            subtracting(
                row(
                    nir.Delay(np.full(12, 1e-3)),
                    *list(mlp().graph.nodes.values())[1:-1],
                    inputs=[12],
                    outputs=[6],
                )
            ),
            "node 'n1': brings 'input' to 'n2' 1 step too early",
        ),
        (
            subtracting(
                row(
                    nir.Linear(np.eye(3)),
                    nir.Threshold(np.ones(3)),
                    nir.Linear(np.eye(3)),
                    neurons("CubaLIF", 3, threshold=9.0),
                    inputs=[3],
                    outputs=[3],
                )
            ),
            "node 'n1': Threshold is not among its neurons (CubaLIF, LIF, IF)",
        ),
    ],
)
def test_what_it_lacks_is_named(deployment: Deployment, words: str) -> None:
    found = problems("xylo_audio3", deployment, approximate=True)
    assert any(words in text for text in found), found


def sized(inputs: int, hidden: list[int], outputs: int, filled: int = 0) -> Deployment:
    """Layers one after the other, weights of 1 from the first `filled` neurons (0: from all)."""
    nodes: list[Any] = []
    before = inputs
    for size in [*hidden, outputs]:
        weight = np.zeros((size, before))
        weight[:, : filled or before] = 1.0
        nodes += [nir.Linear(weight), neurons("CubaLIF", size, threshold=4000.0)]
        before = size
    return subtracting(row(*nodes, inputs=[inputs], outputs=[outputs]), most=1)


@pytest.mark.parametrize(
    ("name", "deployment", "words"),
    [
        ("xylo_audio2", sized(17, [2], 2), "17 input channels, at most 16; read fewer values"),
        ("xylo_audio2", sized(2, [1001], 2), "1,001 hidden neurons, at most 1,000; use fewer"),
        ("xylo_audio3", sized(2, [500, 493], 2, 1), "993 hidden neurons, at most 992"),
        ("xylo_audio2", sized(2, [2], 9), "9 output neurons, at most 8; use fewer classes"),
        ("xylo_audio3", sized(2, [2], 33), "33 output neurons, at most 32; use fewer classes"),
        (
            "xylo_audio2",
            sized(2, [2, 65], 2),
            "node 'n1': 65 hidden synapses of a hidden neuron, at most 64; use fewer neurons, or",
        ),
        (
            "xylo_audio2",
            sized(2, [501, 64], 2),
            "32,064 hidden synapses, at most 32,000; use fewer neurons, or prune weights to 0",
        ),
        (
            "xylo_audio3",
            sized(2, [128, 250], 2),
            "32,000 hidden synapses, at most 31,744",
        ),
        (
            "xylo_audio3",
            sized(2, [129, 2], 2, 1),
            "129 hidden neurons up to the last with inputs, at most 128; use a smaller first",
        ),
        (
            "xylo_audio3",
            sized(2, [2, 129], 2),
            "129 hidden neurons from the first with outputs on, at most 128",
        ),
    ],
)
def test_limits_are_counted(name: str, deployment: Deployment, words: str) -> None:
    found = problems(name, deployment, approximate=True)
    assert any(words in text for text in found), found


def test_the_largest_networks_fit() -> None:
    for name, deployment in (
        ("xylo_audio2", sized(16, [936, 64], 8, 34)),
        ("xylo_audio3", sized(16, [128, 736, 128], 32, 35)),
    ):
        chip = fits(deployment, name, approximate=True)
        assert chip.cores[0].uses[0].share == 1
        assert chip.cores[1].uses[0].share == 1


def test_all_is_said_at_once() -> None:
    deployment = changed(mlp(most=16, tau_mem=3e-3), "n1", v_leak=np.full(20, 1.0))
    deployment = replace(deployment, timing=replace(deployment.timing, reset="zero"))
    found = "".join(problems("xylo_audio2", deployment))
    for words in ("reset=subtract", "v_leak", "tau_mem is 3", "16 events", "may spike up to"):
        assert words in found
    found = "".join(problems("xylo_audio2", sized(17, [940, 65], 9)))
    for words in ("17 input", "1,005 hidden neurons", "65 hidden syn", "61,100 hidden", "9 output"):
        assert words in found
    (found,) = problems("xylo_audio2", sized(2, [2001], 2))
    assert "2,001 hidden neurons" in found


# --------------------------------------------------------------------------- the file


def test_the_file() -> None:
    deployment = recurrent()
    chip = fits(deployment, "xylo_audio2")
    assert chip.network is not None
    found = json.loads(AUDIO2.files(chip)["specification.json"])
    nodes = deployment.graph.nodes
    assert np.shape(found["weights_in"]) == (12, 36, 1)
    assert np.shape(found["weights_rec"]) == (36, 36, 1)
    assert np.shape(found["weights_out"]) == (36, 6)
    assert np.array_equal(np.array(found["weights_in"])[:, :20, 0], nodes["n0"].weight.T)
    assert not np.any(np.array(found["weights_in"])[:, 20:])
    between = np.array(found["weights_rec"])[:, :, 0]
    assert np.array_equal(between[:20, :20], nodes["back"].weight.T)
    assert np.array_equal(between[:20, 20:], nodes["n2"].weight.T)
    assert not between[20:].any()
    assert np.array_equal(np.array(found["weights_out"])[20:], nodes["n4"].weight.T)
    assert found["dash_syn"] == [2] * 36
    assert found["dash_mem"] == [1] * 36
    assert found["dash_syn_out"] == [2] * 6
    assert found["dash_mem_out"] == [1] * 6
    second = chip.network.numbers["n3"].threshold.tolist()
    assert found["threshold"] == [*chip.network.numbers["n1"].threshold.tolist(), *second]
    assert found["threshold_out"] == chip.network.numbers["n5"].threshold.tolist()
    assert found["bias_hidden"] is found["bias_out"] is found["aliases"] is None
    # A layer that inputs and other neurons reach has one scale.
    assert found["weight_shift_in"] == found["weight_shift_rec"]
    assert [core.populations for core in chip.cores] == [
        (("n1", 0, 20), ("n3", 20, 36)),
        (("n5", 0, 6),),
    ]


def test_inputs_reach_the_first_and_outputs_come_from_the_last_on_audio_3() -> None:
    chip = fits(sized(4, [100, 60, 90], 3), approximate=True)
    found = json.loads(AUDIO3.files(chip)["specification.json"])
    assert np.shape(found["weights_in"]) == (4, 100, 1)
    assert np.shape(found["weights_rec"]) == (250, 250, 1)
    assert np.shape(found["weights_out"]) == (90, 3)


def test_a_readout_has_the_highest_threshold_and_the_least_dashes() -> None:
    chip = fits(read_out())
    found = json.loads(AUDIO3.files(chip)["specification.json"])
    assert found["threshold_out"] == [32767] * 6
    assert found["dash_mem_out"] == found["dash_syn_out"] == [1] * 6
    # Its biases are for the host.
    assert found["bias_out"] is None
    assert found["weight_shift_out"] >= 2


# --------------------------------------------------------------------------- xylosim

CASES = {
    "layers": mlp,
    "time constants": lambda: mlp(first=60.0, tau_mem=16e-3, tau_syn=4e-3),
    "seldom": seldom,
    "recurrent": recurrent,
    "convolutions": convnet,
    "readout": read_out,
    "many spikes": lambda: mlp(first=20.0),
}


@pytest.mark.parametrize("name", CASES)
def test_xylosim_spikes_alike(name: str) -> None:
    deployment = CASES[name]()
    for chip in ("xylo_audio2", "xylo_audio3"):
        found = against_vendor(chip, deployment, Draw(5).inputs(deployment, 20), approximate=True)
        assert found.first is None
        assert found.spikes
        assert found.membranes


def test_xylosim_saturates_and_spikes_31_times_alike() -> None:
    deployment = changed(recurrent(2), "back", weight=np.full((20, 20), 127.0))
    deployment = changed(deployment, "n1", v_threshold=np.full(20, 10.0))
    for whole in (deployment, changed(read_out(3), "n1", v_threshold=np.full(20, 5.0))):
        inputs = Draw(6).inputs(whole, 20, rate=0.9)
        run = ChipSimulator(fits(whole)).run(inputs)
        assert run.spikes["n1"].max() > 20
        if whole is deployment:
            assert run.spikes["n1"].max() == 31
            assert run.counts["n1"]["current"].outside
            assert run.counts["n3"]["membrane"].outside
        assert against_vendor("xylo_audio3", whole, inputs, approximate=True).first is None


def test_a_readout_at_its_threshold_is_that_of_xylosim() -> None:
    """A membrane that reaches 32767 spikes there, and starts again at 0."""
    deployment = changed(read_out(3, steps=40), "n2", weight=np.full((6, 20), 127.0))
    deployment = changed(deployment, "n1", v_threshold=np.full(20, 5.0))
    inputs = Draw(6).inputs(deployment, 20, rate=0.9)
    chip = fits(deployment)
    assert chip.network is not None
    whole = Engine(chip.network, chip.steps).run(np.concatenate([inputs, 0 * inputs[:1]]))
    assert whole.spikes["n2"].any()
    assert against_vendor("xylo_audio3", deployment, inputs, approximate=True).first is None


@pytest.mark.parametrize("seed", range(4))
def test_two_currents_aliases_and_biases_are_those_of_xylosim(seed: int) -> None:
    """What no graph has, from a specification of its own: the law, to the bit."""
    random, count, inputs, outputs, steps, samples = np.random.default_rng(seed), 12, 6, 3, 20, 30
    weights_in = random.integers(-90, 128, (inputs, count, 2))
    weights_rec = random.integers(-128, 128, (count, count, 2))
    weights_out = random.integers(-128, 128, (count, outputs))
    dashes, dash_mem = random.integers(1, 7, (2, count)), random.integers(1, 16, count)
    threshold, bias = random.integers(300, 9000, count), random.integers(-90, 200, count)
    dash_out, threshold_out = (
        random.integers(1, 5, (2, outputs)),
        random.integers(90, 4000, outputs),
    )
    alias = np.full(count, -1)
    alias[[1, 5, 7]] = [4, 2, 8]
    shift_in, shift_rec, shift_out = (int(s) for s in random.integers(0, 7, 3))
    specification = {
        "weights_in": weights_in.tolist(),
        "weights_rec": weights_rec.tolist(),
        "weights_out": weights_out.tolist(),
        "dash_mem": dash_mem.tolist(),
        "dash_mem_out": dash_out[0].tolist(),
        "dash_syn": dashes[0].tolist(),
        "dash_syn_2": dashes[1].tolist(),
        "dash_syn_out": dash_out[1].tolist(),
        "threshold": threshold.tolist(),
        "threshold_out": threshold_out.tolist(),
        "bias_hidden": bias.tolist(),
        "bias_out": [5] * outputs,
        "weight_shift_in": shift_in,
        "weight_shift_rec": shift_rec,
        "weight_shift_out": shift_out,
        "aliases": [[int(a)] if a >= 0 else [] for a in alias],
    }
    hidden = Neurons(
        replace(xylo.LAW, synapses=2),
        Parameters(
            threshold=threshold,
            bias=bias,
            current_decay=dashes,
            membrane_decay=dash_mem,
            alias=alias,
        ),
        (count,),
    )
    read = Parameters(
        threshold=threshold_out,
        bias=5,
        current_decay=dash_out[1],
        membrane_decay=dash_out[0],
    )
    network = IntegerNetwork(
        {
            "input": Entry((inputs,), 0, 15),
            **{f"in{k}": linear(weights_in[:, :, k].T, shift=shift_in) for k in range(2)},
            **{f"rec{k}": linear(weights_rec[:, :, k].T, shift=shift_rec) for k in range(2)},
            "out": linear(weights_out.T, shift=shift_out),
            "h": hidden,
            "o": Neurons(xylo.OUTPUT, read, (outputs,), "current"),
            "exit": Exit(),
        },
        [
            *(Edge("input", f"in{k}") for k in range(2)),
            *(Edge(f"in{k}", "h", synapse=k) for k in range(2)),
            *(Edge("h", f"rec{k}", delay=1) for k in range(2)),
            *(Edge(f"rec{k}", "h", synapse=k) for k in range(2)),
            Edge("h", "out", delay=1),
            Edge("out", "o"),
            Edge("o", "exit"),
        ],
    )
    x = (random.random((steps, samples, inputs)) < 0.4) * random.integers(
        1, 16, (steps, samples, inputs)
    )
    ours = Engine(network, steps).run(x)
    shapes = (("h", count, "hidden"), ("o", outputs, "output"))
    about = {
        "steps": steps,
        "populations": [
            {"name": name, "shape": [size], "spiking": True, "late": 0} for name, size, _ in shapes
        ],
        "cores": [{"name": core, "populations": [[name, 0, size]]} for name, size, core in shapes],
    }
    files = {
        "specification.json": json.dumps(specification).encode(),
        "target.json": json.dumps(about).encode(),
    }
    theirs = vendors.run("xylo", vendor_python("xylo"), files, x)
    assert ours.spikes["h"].any()
    assert ours.spikes["o"].any()
    for name, thresholds in (("h", threshold), ("o", threshold_out)):
        assert np.array_equal(theirs[f"spikes_{name}"], ours.spikes[name])
        own = ours.spikes[name].copy()
        if name == "h":
            # Those of an alias are not subtracted from its membrane; so it is told by the others.
            alone = np.setdiff1d(np.arange(count), alias)
            own = own[:, :, alone]
            after = ours.membranes["h"][:, :, alone] - own * thresholds[alone]
            assert np.array_equal(theirs["after_h"][:, :, alone], after)
        else:
            after = ours.membranes["o"] - own * thresholds
            assert np.array_equal(theirs["after_o"], after)
    assert np.array_equal(theirs["currents_o"], ours.outputs)


def test_a_network_of_real_numbers_on_rows_of_digits() -> None:
    """Random weights; made whole as the target asks, its time constants powers of two."""
    random = np.random.default_rng(1)
    network = row(
        nir.Linear(random.normal(0.03, 0.05, (40, 8))),
        neurons("CubaLIF", 40, threshold=1.0, tau_mem=3.1e-3, tau_syn=2e-3),
        nir.Linear(random.normal(0, 0.2, (10, 40))),
        inputs=[8],
        outputs=[10],
        steps=8,
    )
    timing = replace(network.timing, reset="subtract")
    spec = InputSpec((8,), "frames", 0.0, 15.0)
    deployment = replace(network, timing=timing, input=spec, readout=Readout((0.125,) * 8, "n2"))
    job = Job("xylo_audio3", data="digit_rows", samples=120, approximate=True)
    verdict = check_on_chip(deployment, job)
    effect, chip = verdict.fit.effect, verdict.fit.chip
    assert effect is not None
    assert chip.network is not None
    assert set(chip.network.numbers["n1"].membrane_decay.tolist()) == {2}
    assert effect.layers[0].spikes > 1000
    assert effect.changed < 0.02 * effect.decisions
    assert effect.flips_whole <= 12
    assert manifest(chip)["decoder"]["weights"] == (0.125,) * 8
    if verdict.vendor is not None:
        assert verdict.vendor.first is None
        assert verdict.vendor.membranes_differ == 0
