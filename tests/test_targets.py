"""Speck 2f, Spiker+, ODIN, Akida, SpiNNaker2, BrainScaleS-2: where they are exact, and refusals."""

from __future__ import annotations

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest

from msg_deploy.deployment import InputSpec, Readout
from msg_deploy.exporters import nir as nir_file
from msg_deploy.exporters.targets import target
from msg_deploy.exporters.targets.speck2f import matching
from msg_deploy.onchip.export import files_of
from msg_deploy.onchip.simulator import ChipSimulator
from msg_deploy.sim.reference import Reference
from tests.chips import Draw, against_vendor, flatten, looped, neurons, pool, problems, row


def same(name: str, deployment: Any, inputs: Any, approximate: bool = True) -> Any:
    """The chip, after its spikes were those of the graph."""
    chip = target(name).fit(deployment, approximate)
    assert chip.problems == ()
    run, expected = ChipSimulator(chip).run(inputs), Reference().run(deployment, inputs * 1.0)
    assert set(run.spikes) == set(expected.spikes)
    for layer, spikes in expected.spikes.items():
        assert spikes.any(), layer
        assert np.array_equal(run.spikes[layer], spikes), layer
    if deployment.readout:
        assert np.allclose(run.scores, expected.scores, rtol=1e-12)
    return chip


def one_event_a_step(deployment: Any, samples: int = 6, seed: int = 0) -> Any:
    """(T, B, *shape) with a single 1 in each step of each sample."""
    random = np.random.default_rng(seed)
    steps, shape = deployment.timing.steps, deployment.input.shape
    flat = np.zeros((steps, samples, int(np.prod(shape))), np.int64)
    chosen = random.integers(0, flat.shape[2], (steps, samples))
    np.put_along_axis(flat, chosen[..., None], 1, axis=2)
    return flat.reshape(steps, samples, *shape)


# --------------------------------------------------------------------------- Speck 2f


@pytest.mark.parametrize("reset", ["zero", "subtract"])
def test_speck_with_one_event_at_a_time(reset: str) -> None:
    draw = Draw(1)
    deployment = row(
        draw.conv(3, 2, 3, padding=1),
        neurons("IF", 3, 8, 8, threshold=70.5),
        inputs=[2, 8, 8],
        outputs=[3, 8, 8],
        steps=40,
        reset=reset,
    )
    chip = same("speck2f", deployment, one_event_a_step(deployment))
    content = json.loads(target("speck2f").files(chip)["speck2f.json"])
    (core,) = content["cores"]
    assert core["return_to_zero"] == (reset == "zero")
    assert core["threshold_high"] == 71
    assert np.array_equal(core["weights"], deployment.graph.nodes["n0"].weight)
    assert content["input"] == [{"layer": "n1", "pooling": 1}]
    # 2 inputs x 2^(ceil(log2 9) + ceil(log2 3)); 3 maps x 2^(3 + 3).
    assert [use.used for use in chip.cores[0].uses] == [2 * 2 ** (4 + 2), 3 * 64]


def test_speck_places_layers_where_they_fit() -> None:
    draw = Draw(2)
    deployment = row(
        draw.conv(64, 2, 3, padding=1),
        neurons("IF", 64, 32, 32, threshold=70.5),  # 64 Ki words of neurons: cores 0 to 2
        pool(4),
        draw.conv(64, 64, 3, padding=1),  # 64 Ki words of kernels: cores 5 and 6
        neurons("IF", 64, 8, 8, threshold=70.5),
        pool(2),
        flatten(64, 4, 4),
        draw.linear(10, 1024),
        neurons("IF", 10, threshold=70.5),
        inputs=[2, 32, 32],
        outputs=[10],
        reset="subtract",
    )
    chip = target("speck2f").fit(deployment, approximate=True)
    assert chip.problems == ()
    places = {core.populations[0][0]: int(core.name.split()[1]) for core in chip.cores}
    assert places["n1"] in (0, 1, 2)
    assert places["n4"] in (5, 6)
    assert len(set(places.values())) == 3
    content = json.loads(target("speck2f").files(chip)["speck2f.json"])
    by_layer = {core["layer"]: core for core in content["cores"]}
    assert by_layer["n1"]["destinations"] == [{"layer": "n4", "pooling": 4}]
    assert np.shape(by_layer["n8"]["weights"]) == (10, 64, 4, 4)


def test_matching_moves_what_is_placed() -> None:
    assert matching({"a": [0, 1], "b": [0], "c": [1, 2]}) == {"a": 1, "b": 0, "c": 2}
    assert len(matching({"a": [0], "b": [0]})) == 1


def test_speck_names_what_it_lacks() -> None:
    draw = Draw(3)
    deployment = row(
        draw.affine(8, 5),
        neurons("LIF", 8, threshold=3.5),
        draw.linear(6, 8),
        neurons("IF", 6, threshold=3.5, v_reset=1.0),
        inputs=[5],
        outputs=[6],
    )
    found = problems("speck2f", looped(deployment, "n3", np.eye(6)))
    for words in (
        "node 'n1': LIF: has no exponential leak; train with neuron=if (--tau inf)",
        "node 'n3': v_reset is not 0",
        "node 'back': loops back",
        "neurons decide after every event",
    ):
        assert any(words in text for text in found), words
    wide = row(
        draw.conv(2, 1, 3, padding=1), neurons("IF", 2, 80, 80, threshold=3.5),
        inputs=[1, 80, 80], outputs=[2, 80, 80],
    )  # fmt: skip
    assert any("80 side of an output map, at most 64" in text for text in problems("speck2f", wide))


# --------------------------------------------------------------------------- Spiker+


def test_spikerplus_where_halving_leaves_no_rest() -> None:
    """Weights of 64 and its multiples can be halved six times."""
    random = np.random.default_rng(4)

    def matrix(outputs: int, inputs: int) -> nir.Linear:
        return nir.Linear(64.0 * random.integers(-1, 2, (outputs, inputs)))

    deployment = row(
        matrix(12, 10),
        neurons("LIF", 12, threshold=40.25),
        matrix(8, 12),
        neurons("LIF", 8, threshold=40.25),
        inputs=[10],
        outputs=[8],
        steps=6,
    )
    inputs = Draw(5).inputs(deployment, 20)
    chip = same("spikerplus", deployment, inputs, approximate=False)
    assert dict(chip.late) == {"n1": 1, "n3": 3}
    assert chip.steps == 9
    written = target("spikerplus").files(chip)
    net = json.loads(written["network.json"])["net_dict"]
    assert net["layer_0"]["beta"] == 0.5
    assert net["layer_0"]["threshold"] == 80
    assert net["layer_1"]["reset_mechanism"] == "zero"
    with np.load(io.BytesIO(written["weights.npz"])) as weights:
        assert np.array_equal(weights["fc2"], deployment.graph.nodes["n2"].weight)


@pytest.mark.parametrize("reset", ["zero", "subtract"])
@pytest.mark.parametrize("kind", ["LIF", "IF"])
def test_the_vhdl_of_spikerplus_spikes_alike(kind: str, reset: str) -> None:
    """Three layers, the last of which is read, with weights of all magnitudes."""
    if shutil.which("ghdl") is None:
        pytest.skip("ghdl is not installed")
    draw = Draw(16)
    deployment = row(
        draw.linear(6, 9, 120),
        neurons(kind, 6, threshold=60.5),
        draw.linear(5, 6, 120),
        neurons(kind, 5, threshold=60.5),
        draw.linear(4, 5, 120),
        inputs=[9],
        outputs=[4],
        steps=10,
        reset=reset,
    )
    deployment = replace(deployment, readout=Readout((1.0,) * 10, "n4"))
    inputs = draw.inputs(deployment, 12, 0.5)
    run = ChipSimulator(target("spikerplus").fit(deployment, approximate=True)).run(inputs)
    assert all(spikes.any() for spikes in run.spikes.values())
    found = against_vendor("spikerplus", deployment, inputs, approximate=True)
    assert found.first is None
    assert found.spikes == 12 * 10 * 11
    assert found.membranes


def test_spikerplus_names_what_it_lacks() -> None:
    draw = Draw(6)
    deployment = row(
        draw.affine(8, 5),
        neurons("LIF", 8, threshold=3.5, tau=3e-3),
        draw.linear(6, 8),
        neurons("IF", 6, threshold=3.5),
        inputs=[5],
        outputs=[6],
        reset="subtract",
    )
    found = problems("spikerplus", deployment)
    for words in (
        "node 'n1': has no bias",
        "dt/tau = 0.3333 becomes 1/4; train with tau = 4 dt",
        "node 'n1': does not leak in the step after a spike",
        "node 'n3': gains 1 a step below 0",
    ):
        assert any(words in text for text in found), words
    whole = row(
        draw.linear(3, 2), neurons("LIF", 3, threshold=3.5, tau=1e-3), inputs=[2], outputs=[3]
    )
    assert any("keeps nothing from step to step" in text for text in problems("spikerplus", whole))
    counted = replace(deployment, input=InputSpec((5,), "frames", 0.0, 3.0, levels=3))
    assert any(
        "3 events of an input in a step, at most 1" in t for t in problems("spikerplus", counted)
    )


# --------------------------------------------------------------------------- ODIN


def test_odin_with_one_event_at_a_time() -> None:
    random = np.random.default_rng(7)
    deployment = row(
        nir.Linear(random.integers(0, 8, (20, 30)).astype(float)),
        neurons("IF", 20, threshold=25.5),
        inputs=[30],
        outputs=[20],
        steps=30,
    )
    chip = same("odin", deployment, one_event_a_step(deployment))
    content = json.loads(target("odin").files(chip)["odin.json"])
    assert content["first_neuron"] == 30
    assert content["neurons"] == [26] * 20
    assert np.array_equal(
        np.array(content["synapses"])[:30, 30:], deployment.graph.nodes["n0"].weight.T
    )
    assert not any(content["inhibitory"])
    assert chip.uses[0].used == 50


@pytest.mark.parametrize("rate", [0.2, 0.7])
def test_odin_against_its_verilog(rate: float) -> None:
    """Sources that excite and that inhibit, saturation, neurons that spike twice in a step."""
    draw = Draw(9)
    signs = draw.random.choice([-1, 1, 1], (2, 30))
    first = draw.random.integers(0, 8, (40, 30)) * signs[0]
    second = draw.random.integers(0, 8, (30, 40)) * draw.random.choice([-1, 1, 1], 40)
    third = draw.random.integers(0, 8, (12, 30)) * signs[1]
    deployment = row(
        nir.Linear(first.astype(float)),
        neurons("IF", 40, threshold=9.5),
        nir.Linear(second.astype(float)),
        neurons("IF", 30, threshold=40.0),
        nir.Linear(third.astype(float)),
        neurons("IF", 12, threshold=253.5),
        inputs=[30],
        outputs=[12],
        steps=12,
    )
    inputs = draw.inputs(deployment, 10, rate)
    found = against_vendor("odin", deployment, inputs, approximate=True)
    assert found, found.first
    assert found.samples == 10
    assert (found.spikes, found.membranes) == (12 * 10 * 82, 12 * 10 * 82)
    run = ChipSimulator(target("odin").fit(deployment, approximate=True)).run(inputs)
    assert run.spikes["n1"].max() > 1
    assert run.spikes["n5"].any()


def test_odin_names_what_it_lacks() -> None:
    draw = Draw(8)
    mixed = row(
        draw.linear(200, 100, 7), neurons("IF", 200, threshold=300.5), inputs=[100], outputs=[200]
    )
    found = problems("odin", mixed, approximate=True)
    assert any("300 rows of the crossbar" in text for text in found)
    assert any("301 threshold (8 bits), at most 255" in text for text in found)
    assert any("must all be of 0..7 or -7..0" in text for text in found)
    silent = replace(
        row(draw.linear(4, 5, 7), neurons("IF", 4, threshold=3.5), draw.linear(3, 4, 7),
            inputs=[5], outputs=[3]),
        readout=Readout((1.0,) * 8, "n2"),
    )  # fmt: skip
    assert any("does not spike" in text for text in problems("odin", silent))


# --------------------------------------------------------------------------- Akida


def memoryless() -> Any:
    random = np.random.default_rng(9)
    nodes = [
        nir.Conv2d(
            None, random.integers(-7, 8, (4, 2, 3, 3)).astype(float), 2, 0, 1, 1, np.zeros(4)
        ),
        neurons("LIF", 4, 3, 3, threshold=2.5, tau=1e-3),
        nir.Conv2d(
            None,
            random.integers(-7, 8, (3, 4, 3, 3)).astype(float),
            1,
            1,
            1,
            1,
            random.integers(-3, 4, 3).astype(float),
        ),
        neurons("LIF", 3, 3, 3, threshold=2.5, tau=1e-3),
        flatten(3, 3, 3),
        nir.Affine(
            random.integers(-7, 8, (12, 27)).astype(float),
            random.integers(-3, 4, 12).astype(float),
        ),
        nir.Threshold(np.full(12, 1.5)),
        # The bias of an output layer is added by the host.
        nir.Affine(random.integers(-7, 8, (5, 12)).astype(float), np.arange(5.0)),
    ]
    deployment = row(*nodes, inputs=[2, 8, 8], outputs=[5], steps=4)
    return replace(deployment, readout=Readout((0.5, 0.25, 0.125, 1.0), "n7"))


def test_akida_without_memory() -> None:
    deployment = memoryless()
    chip = same("akida1000", deployment, Draw(10).inputs(deployment, 12), approximate=False)
    layers = json.loads(target("akida1000").files(chip)["akida.json"])
    kinds = ["Convolutional", "Convolutional", "FullyConnected", "FullyConnected"]
    assert [layer["kind"] for layer in layers] == kinds
    weight = deployment.graph.nodes["n0"].weight
    assert np.array_equal(layers[0]["weights"], weight[:, :, ::-1, ::-1])
    # A bias lowers the threshold.
    assert layers[2]["threshold"] == (1 - deployment.graph.nodes["n5"].bias).tolist()
    assert layers[3]["threshold"] is None
    decoder: dict[str, Any] = {}
    exec(files_of(chip)["decode.py"].decode(), decoder)
    inputs = Draw(10).inputs(deployment, 12)
    run = ChipSimulator(chip).run(inputs)
    assert np.allclose(decoder["decode"](run.output), run.scores)
    assert np.allclose(decoder["OFFSETS"], 1.875 * np.arange(5))


@pytest.mark.parametrize("high", [1, 15])
def test_akidas_own_backend_spikes_alike(high: int) -> None:
    spec = InputSpec((2, 8, 8), "frames", 0.0, float(high), levels=high)
    deployment = replace(memoryless(), input=spec)
    found = against_vendor("akida1000", deployment, Draw(14).inputs(deployment, 25))
    assert found.first is None
    assert found.spikes
    assert found.membranes


@pytest.mark.parametrize("shape", [(6,), (2, 3, 5)])
def test_akidas_own_backend_takes_matrices_first(shape: tuple[int, ...]) -> None:
    draw, inputs = Draw(15), int(np.prod(shape))
    nodes = [draw.linear(9, inputs, 7), neurons("LIF", 9, threshold=4.5, tau=1e-3)]
    flat = [flatten(*shape)] if len(shape) > 1 else []
    deployment = row(*flat, *nodes, inputs=shape, outputs=[9])
    assert against_vendor("akida1000", deployment, draw.inputs(deployment, 20)).first is None


def test_akida_names_what_it_lacks() -> None:
    draw = Draw(11)
    deployment = row(
        draw.conv(3, 2, 4),
        neurons("LIF", 3, 5, 5, threshold=3.5),
        pool(5),
        draw.conv(3, 3, 1, stride=3),
        neurons("IF", 3, 1, 1, threshold=3.5),
        inputs=[2, 8, 8],
        outputs=[3, 1, 1],
    )
    found = problems("akida1000", deployment)
    for words in (
        "node 'n1': keeps a membrane from step to step",
        "node 'n4': keeps a membrane",
        "node 'n0': kernels of 4 x 4",
        "node 'n3': sums windows",
        "3 stride, at most 2",
    ):
        assert any(words in text for text in found), words


# --------------------------------------------------------------------------- without arithmetic


def test_spinnaker2_fits_and_is_exported(tmp_path: Path) -> None:
    draw = Draw(12)
    deployment = row(
        draw.conv(4, 2, 3, padding=1),
        neurons("LIF", 4, 8, 8, threshold=3.5),
        pool(2),
        flatten(4, 4, 4),
        draw.linear(10, 64),
        neurons("CubaLIF", 10, threshold=3.5),
        inputs=[2, 8, 8],
        outputs=[10],
    )
    chip = target("spinnaker2").fit(deployment)
    assert chip.fits
    assert chip.network is None
    assert [core.populations for core in chip.cores] == [(("n1", 0, 256),), (("n5", 0, 10),)]
    path = tmp_path / "network.nir"
    path.write_bytes(target("spinnaker2").files(chip)["network.nir"])
    assert set(nir_file.read(path).graph.nodes) == set(deployment.graph.nodes)
    behind = row(
        draw.conv(4, 2, 3), neurons("CubaLIF", 4, 6, 6, threshold=1.5),
        inputs=[2, 8, 8], outputs=[4, 6, 6],
    )  # fmt: skip
    assert any("CubaLIF behind a convolution" in text for text in problems("spinnaker2", behind))


def test_brainscales2_fits_and_names_what_it_lacks(tmp_path: Path) -> None:
    draw = Draw(13)
    reading = nir.CubaLI(
        **{n: np.full(5, v) for n, v in (("tau_mem", 2e-3), ("tau_syn", 2e-3), ("r", 1.0))},
        v_leak=np.zeros(5),
        w_in=np.ones(5),
    )
    deployment = row(
        draw.linear(20, 30),
        neurons("CubaLIF", 20, threshold=3.5),
        draw.linear(5, 20),
        reading,
        inputs=[30],
        outputs=[5],
    )
    chip = target("brainscales2").fit(deployment)
    assert chip.fits, chip.problems
    assert chip.uses[0].used == 25
    path = tmp_path / "network.nir"
    path.write_bytes(target("brainscales2").files(chip)["network.nir"])
    assert len(nir_file.read(path).graph.nodes) == 6
    other = row(
        draw.affine(600, 200), neurons("LIF", 600, threshold=3.5), inputs=[200], outputs=[600]
    )
    found = problems("brainscales2", other)
    for words in (
        "LIF is not among its neurons",
        "has no bias",
        "400 synapse rows of a circuit",
        "600 neuron circuits, at most 512",
    ):
        assert any(words in text for text in found), words


# --------------------------------------------------------------------------- all of them


def single(kind: str, **values: Any) -> Any:
    """One layer, and parameters of it."""
    deployment = row(
        nir.Linear(np.eye(3)), neurons(kind, 3, threshold=3.5), inputs=[3], outputs=[3]
    )
    deployment.graph.nodes["n1"] = replace(deployment.graph.nodes["n1"], **values)
    return deployment


DIFFERING = np.array([1.5, 2.5, 3.5])


@pytest.mark.parametrize(
    ("name", "deployment", "words"),
    [
        *(
            (n, single("IF", r=np.full(3, 2.0)), "node 'n1': r is not 1")
            for n in ("odin", "speck2f")
        ),
        *(
            (n, single("LIF", r=np.full(3, 2.0)), "node 'n1': r is not 1")
            for n in ("generic_int8", "spikerplus", "akida1000")
        ),
        ("generic_int8", single("LIF", tau=DIFFERING), "node 'n1': tau goes from 1.5 to 3.5"),
        ("spikerplus", single("LIF", tau=DIFFERING), "node 'n1': tau goes from 1.5 to 3.5"),
        ("spikerplus", single("LIF", v_threshold=DIFFERING), "node 'n1': v_threshold goes from"),
        ("odin", single("IF", v_threshold=np.full(3, -5.5)), "node 'n1': v_threshold is below 0"),
    ],
)
def test_parameters_that_a_chip_lacks_are_listed(name: str, deployment: Any, words: str) -> None:
    found = problems(name, deployment)
    assert any(words in text for text in found), found


@pytest.mark.parametrize("name", ["odin", "spikerplus", "speck2f", "akida1000"])
def test_events_are_not_negative(name: str) -> None:
    deployment = replace(single("IF"), input=InputSpec((3,), "frames", -1.0, 1.0, levels=2))
    words = "node 'input': its values are numbers of events; use values from 0 on"
    assert any(words in text for text in problems(name, deployment))
