"""What all chip targets share: populations of a graph, decoders, placement, the generic target."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msg_deploy import api, quantize, trace
from msg_deploy.deployment import Deployment, InputSpec, Readout
from msg_deploy.errors import GraphError, UsageError
from msg_deploy.exporters.chips.decoder import Decoder
from msg_deploy.exporters.chips.energy import EnergyModel
from msg_deploy.exporters.chips.manifest import manifest
from msg_deploy.exporters.chips.placing import Demand, packed
from msg_deploy.exporters.chips.populations import populations
from msg_deploy.exporters.chips.target import Findings, Limit, Target
from msg_deploy.exporters.targets import generic_int8, target, targets
from msg_deploy.onchip.simulator import ChipSimulator
from msg_deploy.sim.fast import Fast
from msg_deploy.sim.reference import Reference
from msg_deploy.stimulus import encoded
from tests.helpers import chain, lif, random_network, samples

EXACT = replace(generic_int8.GenericInt8.quantize, exact="float64")


def if_neurons(*shape: int, threshold: float = 0.5) -> nir.IF:
    return nir.IF(np.ones(shape), np.full(shape, threshold), np.zeros(shape))


def conv(weight: Any, stride: int = 1, padding: int = 0, groups: int = 1) -> nir.Conv2d:
    array = np.asarray(weight, np.float64)
    return nir.Conv2d(None, array, stride, padding, 1, groups, np.zeros(len(array)))


def whole(shape: tuple[int, ...], seed: int, largest: int = 5) -> Any:
    return np.random.default_rng(seed).integers(-largest, largest + 1, shape).astype(float)


def pool(size: int) -> nir.SumPool2d:
    both = np.array([size, size])
    return nir.SumPool2d(both, both, np.array([0, 0]))


# --------------------------------------------------------------------------- populations


def test_a_chain_is_populations_and_projections() -> None:
    deployment = chain(
        conv(whole((3, 2, 3, 3), 0), padding=1),
        if_neurons(3, 8, 8),
        pool(2),
        nir.Flatten({"input": np.array([3, 4, 4])}, 0, -1),
        nir.Affine(whole((5, 48), 1), np.arange(5.0)),
        lif((5,)),
        inputs=[2, 8, 8],
        outputs=[5],
    )
    found = populations(deployment)
    assert list(found.items) == ["n1", "n5"]
    assert found.depths == {"input": 0, "n1": 1, "n5": 2}
    first, second = found.projections
    assert (first.source, first.target, first.pool, first.padding) == ("input", "n1", 1, (1, 1))
    assert (second.source, second.pool, second.name) == ("n1", 2, "n4")
    assert found.items["n5"].bias.tolist() == [0, 1, 2, 3, 4]
    assert not found.items["n1"].bias.any()
    assert found.output == "n5"
    assert (first.fan_in, second.fan_in) == (18, 192)


def test_currents_of_the_output_layer_are_a_population() -> None:
    network = trace(random_network("mlp"))
    found = populations(network)
    assert found.output == "fc3"
    assert found.items["fc3"].node is None
    assert not found.items["fc3"].spiking
    assert [item.name for item in found.spiking] == ["lif1", "lif2"]


@pytest.mark.parametrize(
    ("nodes", "words"),
    [
        ([nir.Linear(np.eye(4)), nir.Linear(np.eye(4)), lif((4,))], "weights behind weights"),
        ([nir.Linear(np.eye(4)), nir.Threshold(np.ones(4)), lif((4,))], None),
    ],
)
def test_what_chips_do_not_know_is_named(nodes: list[Any], words: str | None) -> None:
    deployment = chain(*nodes, inputs=[4], outputs=[4])
    if words is None:
        assert [item.name for item in populations(deployment).items.values()] == ["n1", "n2"]
        return
    with pytest.raises(GraphError, match=words):
        populations(deployment)


def test_pooled_currents_and_averages_are_refused() -> None:
    weights = conv(whole((1, 1, 1, 1), 0))
    behind = chain(weights, pool(2), if_neurons(1, 2, 2), inputs=[1, 4, 4], outputs=[1, 2, 2])
    with pytest.raises(GraphError, match=r"node 'n1' \(SumPool2d\): pools currents"):
        populations(behind)
    both = np.array([2, 2])
    average = nir.AvgPool2d(both, both, np.array([0, 0]))
    before = chain(average, weights, if_neurons(1, 2, 2), inputs=[1, 4, 4], outputs=[1, 2, 2])
    with pytest.raises(GraphError, match="`msg-deploy quantize` makes sums"):
        populations(before)
    overlapping = nir.SumPool2d(both, np.array([1, 1]), np.array([0, 0]))
    odd = chain(overlapping, weights, if_neurons(1, 3, 3), inputs=[1, 4, 4], outputs=[1, 3, 3])
    with pytest.raises(GraphError, match="square ones side by side"):
        populations(odd)


def test_a_bias_that_comes_around_a_cycle_is_refused() -> None:
    def looped(bias: float) -> Deployment:
        return chain(
            nir.Linear(np.eye(2)),
            lif((2,)),
            inputs=[2],
            outputs=[2],
        ).with_graph(
            nir.NIRGraph(
                {
                    "input": nir.Input({"input": np.array([2])}),
                    "w": nir.Linear(np.eye(2)),
                    "n": lif((2,)),
                    "back": nir.Affine(np.eye(2), np.full(2, bias)),
                    "output": nir.Output({"output": np.array([2])}),
                },
                [("input", "w"), ("w", "n"), ("n", "back"), ("back", "n"), ("n", "output")],
                type_check=False,
            )
        )

    forward, back = populations(looped(0.0)).items["n"].entering
    assert not forward.previous
    assert back.previous
    assert back.steps == 1
    with pytest.raises(GraphError, match="a bias comes around a cycle"):
        populations(looped(1.0))


def test_factors_before_weights_are_in_the_weights() -> None:
    factor = np.broadcast_to(np.array([2.0, 3.0]).reshape(2, 1, 1), (2, 4, 4))
    weight = whole((3, 2, 1, 1), 2)
    deployment = chain(
        nir.Scale(np.array(factor)),
        conv(weight),
        if_neurons(3, 4, 4),
        inputs=[2, 4, 4],
        outputs=[3, 4, 4],
    )
    (found,) = populations(deployment).projections
    assert np.array_equal(found.weight, weight * np.array([2.0, 3.0]).reshape(1, 2, 1, 1))


def test_factors_without_weights_are_weights_of_each_channel() -> None:
    factor = np.broadcast_to(np.array([2.0, 3.0]).reshape(2, 1, 1), (2, 2, 2))
    deployment = chain(
        nir.Scale(np.array(factor)), if_neurons(2, 2, 2), inputs=[2, 2, 2], outputs=[2, 2, 2]
    )
    (found,) = populations(deployment).projections
    assert found.groups == 2
    assert np.array_equal(found.matrix(), np.diag(factor.ravel()))


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 2**16),
    size=st.integers(1, 3),
    stride=st.integers(1, 2),
    padding=st.integers(0, 2),
    kernel=st.integers(1, 3),
)
def test_a_pool_within_the_weights(
    seed: int, size: int, stride: int, padding: int, kernel: int
) -> None:
    """As the graph computes it, and as a matrix; its entries are the fan-out."""
    side, inside = size * 4, 4
    given_ones = conv(whole((2, 3, kernel, kernel), seed), stride, padding)
    out = (inside + 2 * padding - kernel) // stride + 1
    deployment = chain(
        pool(size),
        given_ones,
        if_neurons(2, out, out, threshold=3.5),
        inputs=[3, side, side],
        outputs=[2, out, out],
        steps=3,
    )
    (found,) = populations(deployment).projections
    spikes = (np.random.default_rng(seed).random((3, 2, 3, side, side)) < 0.4).astype(np.float64)
    trace = Reference().run(deployment, spikes)
    sums = spikes.reshape(6, -1) @ found.matrix().T
    membranes = sums.reshape(3, 2, 2, out, out)
    assert np.array_equal(trace.membranes["n2"][0], membranes[0])
    law_fan_out = (found.matrix() != 0).sum(0)
    assert np.array_equal(found.fan_out.ravel(), law_fan_out)


def test_a_pool_before_a_matrix() -> None:
    weight = whole((4, 8), 3)
    deployment = chain(
        pool(2),
        nir.Flatten({"input": np.array([2, 2, 2])}, 0, -1),
        nir.Linear(weight),
        if_neurons(4),
        inputs=[2, 5, 5],  # the last row and column are in no window
        outputs=[4],
        steps=1,
    )
    (found,) = populations(deployment).projections
    image = np.random.default_rng(0).integers(0, 3, (1, 1, 2, 5, 5)).astype(np.float64)
    trace = Reference().run(deployment, image)
    assert np.array_equal(found.matrix() @ image.ravel(), trace.membranes["n3"].ravel())


# --------------------------------------------------------------------------- decoders


@pytest.mark.parametrize("reads", ["membranes", "currents"])
def test_scores_are_those_of_two(reads: Any, tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    f, currents = random.random(6), random.integers(-50, 50, (6, 4, 3))
    late = np.concatenate([random.integers(-9, 9, (2, 4, 3)), currents])
    recorded = late.copy()
    if reads == "membranes":
        recorded[:2], recorded[2:] = 0, currents.cumsum(axis=0)
    decoder = Decoder(reads, tuple(f.tolist()), late=2, unit=0.5)
    expected = 0.5 * np.tensordot(f, currents, axes=1)
    assert np.allclose(decoder.scores(recorded), expected, rtol=1e-12)
    written: dict[str, Any] = {}
    exec(decoder.as_python(), written)
    assert np.array_equal(written["decode"](recorded), decoder.scores(recorded))
    with pytest.raises(ValueError, match="8 steps are needed, not 7"):
        written["decode"](recorded[:7])


# --------------------------------------------------------------------------- placement


def test_layers_fill_one_core_after_the_other() -> None:
    demands = [Demand("a", 5, {"words": 10}, {}), Demand("b", 4, {}, {"words": 30})]
    cores = packed(demands, {"neurons": 4, "words": 60})
    assert cores is not None
    assert [core.populations for core in cores] == [
        (("a", 0, 4),),
        (("a", 4, 5), ("b", 0, 3)),
        (("b", 3, 4),),
    ]
    # The kernels of b lie on both of its cores.
    assert [[use.used for use in core.uses] for core in cores] == [[4, 40], [4, 40], [1, 30]]
    assert cores[0].uses[1].share == 40 / 60


def test_a_neuron_that_no_core_holds() -> None:
    assert packed([Demand("a", 1, {"words": 61}, {})], {"neurons": 4, "words": 60}) is None
    assert packed([], {"neurons": 4}) == ()


@settings(deadline=None, max_examples=50)
@given(
    sizes=st.lists(st.tuples(st.integers(1, 40), st.integers(0, 9), st.integers(0, 20)), min_size=1)
)
def test_every_neuron_lies_on_one_core(sizes: list[tuple[int, int, int]]) -> None:
    demands = [Demand(str(i), n, {"w": e}, {"w": s}) for i, (n, e, s) in enumerate(sizes)]
    cores = packed(demands, {"neurons": 7, "w": 50})
    assert cores is not None
    for demand in demands:
        ranges = [(a, b) for c in cores for name, a, b in c.populations if name == demand.name]
        assert ranges[0][0] == 0
        assert ranges[-1][1] == demand.neurons
        assert all(one[1] == other[0] for one, other in itertools.pairwise(ranges))
    assert all(use.used <= use.most for core in cores for use in core.uses)


def test_an_estimate_counts_what_is_published() -> None:
    model = EnergyModel({"synaptic operation": 2e-12, "spike": 1e-12}, "a paper")
    assert model.estimate({"synaptic operation": 10, "neuron update": 5}) == 2e-11
    loihi = target("loihi2").energy
    assert loihi is not None
    counts = {"synaptic operation": 1000.0, "neuron update": 100.0, "spike": 10.0}
    # 23.6 nJ, 8.1 nJ, 17 pJ.
    assert np.isclose(loihi.estimate(counts), 31.717e-9)
    assert "Loihi 1" in loihi.source


# --------------------------------------------------------------------------- findings, registry


def test_findings_name_the_limit_and_what_to_change() -> None:
    findings = Findings()
    limit = Limit(10, "neurons", "a page")
    findings.limit("a", limit, 10, "use fewer.")
    findings.limit("b", limit, 1234, "use fewer.")
    findings.instead("c", "decays by shifts", "train with powers of two")
    limited, law = findings.problems
    assert str(limited) == "node 'b': 1,234 neurons, at most 10; use fewer."
    assert str(law) == (
        "node 'c': decays by shifts; train with powers of two, or allow it with --approximate."
    )
    allowed = Findings(approximate=True)
    allowed.instead("c", "decays by shifts", "train with powers of two")
    assert not allowed.problems
    assert allowed.approximations[0].node == "c"


def test_targets_are_found_and_described() -> None:
    assert "generic_int8" in targets()
    with pytest.raises(UsageError, match=r"unknown target 'loihi9'; there are .*generic_int8"):
        target("loihi9")
    assert target("speck").name == "speck2f"
    with pytest.raises(UsageError, match="'xylo' may be xylo_audio2 or xylo_audio3; say which"):
        target("xylo")
    for name, found in targets().items():
        data = json.loads(json.dumps(found.as_data()))
        assert data["name"] == name
        assert data["runs"]
        assert data["lacks"]
        assert all(limit["source"] and limit["unit"] for limit in data["limits"].values())


# --------------------------------------------------------------------------- the generic target


@pytest.mark.parametrize("name", ["mlp", "vggsnn", "sew_resnet34"])
@pytest.mark.parametrize("reset", ["zero", "subtract"])
def test_without_a_leak_the_generic_core_spikes_as_the_graph(name: str, reset: str) -> None:
    shape = {"mlp": (1, 8, 8), "vggsnn": (2, 48, 48), "sew_resnet34": (1, 16, 16)}[name]
    options = {"width": 4} if name != "mlp" else {}
    network = random_network(
        name, shape=shape, steps=4, tau=float("inf"), reset=reset, v_threshold=0.3, **options
    )
    coarse = np.round(samples(8, shape=shape) * 16) / 16
    quantized = quantize(network, options=EXACT, data=coarse).deployment
    chip = target("generic_int8").fit(quantized)
    assert chip.problems == ()
    inputs = encoded(quantized, coarse)
    run = ChipSimulator(chip).run(inputs)
    expected = Reference().run(quantized, inputs)
    assert set(run.spikes) == set(expected.spikes)
    for layer, spikes in expected.spikes.items():
        assert np.array_equal(run.spikes[layer], spikes), layer
    assert sum(int(spikes.sum()) for spikes in run.spikes.values()) > 100
    form = quantized.integers
    assert form is not None
    assert np.allclose(run.scores, expected.scores * form.scores, rtol=1e-12)


def test_a_leak_worked_by_hand() -> None:
    """Weight 10, dt/tau 0.3 as 1229/4096; theta = 4 / (0.3 / 64), so 854 is the first above it.

    Without a spike v = 640, 640 + 447 = 1087: trunc(640 (4096 - 1229) / 4096) = 447.
    """
    node = nir.LIF(
        tau=np.array([1 / 0.3e3]),
        r=np.ones(1),
        v_leak=np.zeros(1),
        v_threshold=np.array([4.0]),
        v_reset=np.zeros(1),
    )
    deployment = chain(
        nir.Linear(np.array([[10.0]])), node, inputs=[1], outputs=[1], dt=1e-3, steps=4
    )
    chip = target("generic_int8").fit(deployment)
    assert chip.network is not None
    assert chip.network.numbers["n1"].threshold.tolist() == [int(4 * 64 / 0.3) + 1]
    run = ChipSimulator(chip).run(np.ones((4, 1, 1)))
    assert run.membranes["n1"].ravel().tolist() == [640, 1087, 640, 1087]
    assert run.spikes["n1"].ravel().tolist() == [0, 1, 0, 1]
    assert run.after["n1"].ravel().tolist() == [640, 0, 640, 0]


def test_what_the_generic_core_lacks_is_all_said() -> None:
    full = {"tau_mem": 2e-3, "tau_syn": 3e-3, "r": 1.0, "v_leak": 0.0, "v_threshold": 1.0}
    coupled = nir.CubaLIF(**{k: np.full(2, v) for k, v in full.items()}, v_reset=np.zeros(2))
    deployment = chain(
        nir.Linear(np.eye(2)), coupled, nir.Linear(np.eye(2)), lif((2,), v_reset=0.25),
        inputs=[2], outputs=[2],
    )  # fmt: skip
    chip = target("generic_int8").fit(deployment)
    assert chip.network is None
    told = [str(problem) for problem in chip.problems]
    assert any("'n1': CubaLIF is not among its neurons" in text for text in told)
    assert any("node 'n3': v_reset is not 0" in text for text in told)
    decides = chain(nir.Threshold(np.full(2, 0.5)), inputs=[2], outputs=[2])
    assert "Threshold is not among" in str(target("generic_int8").fit(decides).problems[0])
    with pytest.raises(GraphError, match="generic_int8 cannot run the network"):
        ChipSimulator(chip)


def test_too_many_neurons_and_too_wide_weights() -> None:
    wide = chain(nir.Linear(np.full((2, 2), 200.0)), if_neurons(2), inputs=[2], outputs=[2])
    (problem,) = target("generic_int8").fit(wide).problems
    assert "the weights (200..200) must all be of -127..127" in str(problem)
    fan_in = 2**20 + 1
    many = chain(nir.Linear(np.ones((1, fan_in))), if_neurons(1), inputs=[fan_in], outputs=[1])
    assert "1,048,577 8-bit synapse words of a core, at most 1,048,576" in str(
        target("generic_int8").fit(many).problems[0]
    )


def test_a_manifest_says_what_is_where() -> None:
    network = trace(random_network("mlp", tau=float("inf")))
    quantized = quantize(network, options=EXACT, data=samples(8)).deployment
    data = json.loads(json.dumps(manifest(target("generic_int8").fit(quantized))))
    assert [item["name"] for item in data["populations"]] == ["lif1", "lif2", "fc3"]
    assert data["output"] == "fc3"
    assert data["decoder"]["reads"] == "membranes"
    assert data["cores"][0]["populations"] == [["lif1", 0, 256], ["lif2", 0, 128], ["fc3", 0, 10]]


def test_a_target_without_a_format_says_so() -> None:
    network = quantize(trace(random_network("mlp")), options=EXACT, data=samples(8)).deployment
    found: Target = target("generic_int8")
    with pytest.raises(GraphError, match="nothing is exported for it"):
        found.files(found.fit(network))


def test_a_readout_of_spikes_counts_them() -> None:
    deployment = chain(
        nir.Linear(np.array([[2.0, 0.0], [0.0, 1.0]])),
        if_neurons(2, threshold=1.5),
        inputs=[2],
        outputs=[2],
        steps=4,
    )
    deployment = replace(
        deployment,
        input=InputSpec((2,), "frames", 0.0, 1.0),
        readout=Readout((0.5, 0.25, 0.25, 1.0), "n1"),
    )
    run = ChipSimulator(target("generic_int8").fit(deployment)).run(np.ones((4, 1, 2)))
    # The first spikes at every step, the second at every other.
    assert run.scores.tolist() == [[2.0, 1.25]]
    trace = Fast().run(deployment, np.ones((4, 1, 2), np.float32), "float32")
    assert np.array_equal(trace.scores, run.scores)
    assert api.open_model(deployment).has_graph
