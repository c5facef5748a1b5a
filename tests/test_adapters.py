"""Models of other frameworks against their export: their own forward pass is the evidence."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable
from typing import Any

import nir
import norse.torch as norse
import numpy as np
import pytest
import torch
from torch import Tensor, nn

import msg_deploy
from msg_deploy import ForeignNetwork, InputSpec, MaskedSurrogate, api
from msg_deploy.errors import TraceError, UsageError
from msg_deploy.exporters.adapters.norse import use_surrogate
from msg_deploy.exporters.trace import trace
from msg_deploy.options import Precision
from msg_deploy.sim.framework import FrameworkModule
from msg_deploy.sim.reference import Reference
from msg_deploy.surrogate import arctan

SPEC = InputSpec((6,), low=-1.0, high=1.0)
STEPS = 25
SEEDS = 20
Make = Callable[[], nn.Module]

# Neurons


def snntorch(**options: Any) -> Make:
    def make() -> nn.Module:
        module = pytest.importorskip("snntorch", reason="snnTorch is not installed")
        kind = module.Synaptic if "alpha" in options else module.Leaky
        neuron: nn.Module = kind(**{"threshold": 0.4, "init_hidden": True} | options)
        return neuron

    return make


def spikingjelly(kind: str, **options: Any) -> Make:
    def make() -> nn.Module:
        name = "spikingjelly.activation_based.neuron"
        module = pytest.importorskip(name, reason="spikingjelly is not installed")
        neuron: nn.Module = getattr(module, kind)(**{"v_threshold": 0.3} | options)
        return neuron

    return make


def lif_box(**options: Any) -> Make:
    def make() -> nn.Module:
        values = {"v_th": 0.2, "v_leak": 0.0, "v_reset": 0.0, "tau_mem_inv": 137.0}
        values |= {k: v for k, v in options.items() if k in values}
        tensors: dict[str, Any] = {k: torch.tensor(v) for k, v in values.items()}
        if "reset_method" in options:
            tensors["reset_method"] = options["reset_method"]
        return norse.LIFBoxCell(norse.LIFBoxParameters(**tensors), dt=options.get("dt", 1e-3))

    return make


def norse_lif(**options: Any) -> Make:
    values = {"v_th": 0.2, "tau_syn_inv": 211.0, "tau_mem_inv": 97.0} | options
    tensors = {k: torch.tensor(v) for k, v in values.items()}
    return lambda: norse.LIFCell(norse.LIFParameters(**tensors))


def iaf(v_reset: float = 0.0) -> Make:
    parameters = {"v_th": torch.tensor(0.9), "v_reset": torch.tensor(v_reset)}
    return lambda: norse.IAFCell(norse.IAFParameters(**parameters))


SNNTORCH = {
    "subtract": snntorch(beta=0.9),
    "subtract, many beta": snntorch(beta=torch.linspace(0, 0.99, 12)),
    "subtract, beta 1": snntorch(beta=1.0),
    "subtract, beta above 1 is clamped": snntorch(beta=1.5),
    "zero": snntorch(beta=0.8, reset_mechanism="zero"),
    "zero at once": snntorch(beta=0.8, reset_mechanism="zero", reset_delay=False),
    "zero, beta 1": snntorch(beta=1.0, reset_mechanism="zero"),
    "none": snntorch(beta=0.7, reset_mechanism="none"),
    "thresholds": snntorch(beta=0.9, threshold=torch.linspace(0.1, 1, 12)),
    "synaptic, subtract": snntorch(alpha=0.6, beta=0.9),
    "synaptic, zero at once": snntorch(
        alpha=0.6, beta=0.8, reset_mechanism="zero", reset_delay=False
    ),
    "synaptic, no decay": snntorch(
        alpha=1.0, beta=0.8, reset_mechanism="zero", reset_delay=False, threshold=2.0
    ),
    "synaptic, none": snntorch(alpha=0.5, beta=0.5, reset_mechanism="none"),
}
SPIKINGJELLY = {
    "IF": spikingjelly("IFNode"),
    "IF, v_reset": spikingjelly("IFNode", v_reset=-0.25),
    "IF, subtract": spikingjelly("IFNode", v_reset=None),
    "LIF": spikingjelly("LIFNode", tau=3.0),
    "LIF, v_reset": spikingjelly("LIFNode", tau=3.0, v_reset=-0.25),
    "LIF, subtract": spikingjelly("LIFNode", tau=3.0, v_reset=None),
    "LIF, input as it is": spikingjelly("LIFNode", tau=1.7, decay_input=False, v_reset=0.125),
    "PLIF": spikingjelly("ParametricLIFNode", init_tau=1.3),
    "PLIF, input as it is": spikingjelly(
        "ParametricLIFNode", init_tau=5.0, decay_input=False, v_reset=None
    ),
}
NORSE = {
    "LIFBox": lif_box(),
    "LIFBox, v_leak and v_reset": lif_box(v_leak=0.1, v_reset=-0.2),
    "LIFBox, subtract": lif_box(reset_method=norse.reset_subtract),
    "LIFBox, dt": lif_box(dt=3e-4, tau_mem_inv=700.0, v_th=0.1),
    "LIF": norse_lif(),
    "LIF, v_leak and v_reset": norse_lif(v_leak=0.05, v_reset=-0.1),
    "IAF": iaf(),
    "IAF, v_reset": iaf(-0.3),
}


def between(make: Make, seed: int = 0) -> nn.Module:
    """Linear, neuron, linear, neuron, linear; weights that make neurons fire now and then."""
    torch.manual_seed(seed)
    layers = [nn.Linear(6, 12), make(), nn.Linear(12, 12), make(), nn.Linear(12, 3)]
    for layer in layers[::2]:
        nn.init.normal_(layer.weight, std=0.8)  # type: ignore[arg-type]
    if isinstance(layers[1], (norse.LIFBoxCell, norse.LIFCell, norse.IAFCell)):
        return norse.SequentialState(*layers)
    return nn.Sequential(*layers)


def frames(seed: int = 0, steps: int = STEPS, batch: int = 4) -> np.ndarray:
    shape = (steps, batch, *SPEC.shape)
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


def differing(network: ForeignNetwork, inputs: np.ndarray, precision: Precision) -> tuple[int, int]:
    """Decisions that the module and the reference simulator of its export take differently."""
    deployment = trace(network)
    own = FrameworkModule(network).run(deployment, inputs, precision)
    found = Reference().run(deployment, inputs, precision)
    assert set(own.spikes) == set(found.spikes)
    assert own.spikes
    count = sum(int((own.spikes[n] != found.spikes[n]).sum()) for n in own.spikes)
    fired = min(int(s.sum()) for s in own.spikes.values())
    return count, fired


@pytest.mark.filterwarnings("ignore:.*")
@pytest.mark.parametrize("precision", ["float64", "float32"])
@pytest.mark.parametrize(
    "make",
    [*SNNTORCH.values(), *SPIKINGJELLY.values(), *NORSE.values()],
    ids=[
        *(f"snntorch {n}" for n in SNNTORCH),
        *(f"spikingjelly {n}" for n in SPIKINGJELLY),
        *(f"norse {n}" for n in NORSE),
    ],
)
def test_the_module_spikes_as_its_export(make: Make, precision: Precision) -> None:
    fired = 0
    for seed in range(SEEDS):
        network = ForeignNetwork(between(make, seed), SPEC, STEPS)
        count, least = differing(network, frames(seed), precision)
        assert count == 0, seed
        fired += least
    assert fired > 20


def test_outputs_are_those_of_the_module() -> None:
    network = ForeignNetwork(between(NORSE["LIFBox"]), SPEC, STEPS)
    deployment, inputs = trace(network), frames()
    own = FrameworkModule(network).run(deployment, inputs)
    found = Reference().run(deployment, inputs)
    np.testing.assert_allclose(found.outputs, own.outputs, atol=1e-12)
    np.testing.assert_allclose(own.scores, own.outputs.sum(axis=0), atol=1e-12)


@pytest.mark.parametrize(
    "make",
    [SNNTORCH["subtract"], SPIKINGJELLY["LIF"], NORSE["LIF"]],
    ids=["snntorch", "spikingjelly", "norse"],
)
def test_check_and_export(make: Make, tmp_path: Any) -> None:
    network = ForeignNetwork(between(make), SPEC, STEPS, readout=msg_deploy.TWO(STEPS), dt=None)
    deployment = msg_deploy.export(network, tmp_path / "model.nir")
    assert deployment.readout is not None
    verdict = msg_deploy.check(network, tmp_path / "model.nir", random=16)
    assert verdict, verdict
    assert [(c.a, c.b) for c in verdict.comparisons] == [
        ("module", "reference"),
        ("module", "norse"),
    ]
    assert verdict.comparisons[0].layers[0].membrane_difference is None


def test_a_changed_threshold_is_found(tmp_path: Any) -> None:
    network = ForeignNetwork(between(SPIKINGJELLY["LIF"]), SPEC, STEPS)
    deployment = trace(network)
    deployment.graph.nodes["1"].v_threshold[3] += 0.2
    verdict = msg_deploy.check(network, deployment, random=16)
    assert not verdict
    first = verdict.comparisons[0].first
    assert first is not None
    assert (first.node, first.neuron, first.membrane_a) == ("1", (3,), None)
    assert first.margin is not None


# Decisions at the threshold itself


@pytest.mark.parametrize("precision", ["float64", "float32"])
@pytest.mark.parametrize(
    ("make", "fires"),
    [
        (spikingjelly("IFNode", v_threshold=0.7), True),
        (spikingjelly("LIFNode", v_threshold=0.7, decay_input=False), True),
        (snntorch(beta=0.5, threshold=0.7), False),
        (snntorch(beta=0.5, threshold=0.7, reset_mechanism="zero"), False),
        (iaf(), False),
    ],
    ids=["IFNode", "LIFNode", "Leaky", "Leaky zero", "IAF"],
)
def test_a_membrane_exactly_at_the_threshold(make: Make, fires: bool, precision: Precision) -> None:
    neuron = make()
    chain = norse.SequentialState if isinstance(neuron, norse.IAFCell) else nn.Sequential
    module = chain(neuron)
    threshold = np.float32(0.9 if isinstance(neuron, norse.IAFCell) else 0.7)
    network = ForeignNetwork(module, InputSpec((1,), high=2.0), 1)
    deployment = trace(network)
    below, above = np.nextafter(threshold, np.float32([0, 2]))
    inputs = np.array([below, threshold, above], np.float32).reshape(1, 3, 1)
    (name,) = FrameworkModule(network).run(deployment, inputs, precision).spikes
    own = FrameworkModule(network).run(deployment, inputs, precision).spikes[name]
    found = Reference().run(deployment, inputs, precision).spikes[name]
    assert own.ravel().tolist() == [0, int(fires), 1]
    assert np.array_equal(own, found)


def test_weights_on_a_grid_tie_often_and_agree() -> None:
    total = 0
    for seed in range(SEEDS):
        module = between(spikingjelly("IFNode", v_threshold=1.0), seed)
        with torch.no_grad():
            for p in module.parameters():
                p.copy_(torch.round(p * 4) / 4)
        network = ForeignNetwork(module, InputSpec((6,)), STEPS)
        inputs = (frames(seed) > 0).astype(np.float32)
        count, fired = differing(network, inputs, "float32")
        assert count == 0, seed
        total += fired
    assert total > 100


@pytest.mark.parametrize(
    "make",
    [
        snntorch(beta=0.5, threshold=0.7, reset_delay=False),
        snntorch(alpha=0.3, beta=0.5, threshold=1.0, reset_delay=False),
    ],
    ids=["Leaky", "Synaptic"],
)
def test_subtract_at_once_is_lif_while_membranes_stay_below_threshold(make: Make) -> None:
    """Inputs up to 1.5 thresholds cannot leave a membrane above threshold at beta = 0.5."""
    network = ForeignNetwork(nn.Sequential(make()), SPEC, STEPS)
    count, fired = differing(network, frames(batch=200), "float64")
    assert count == 0
    assert fired > 1000


def test_subtract_at_once_differs_where_snntorch_takes_the_threshold_off_twice(
    caplog: pytest.LogCaptureFixture,
) -> None:
    make = snntorch(beta=0.9, reset_delay=False, threshold=0.3)
    network = ForeignNetwork(between(make), InputSpec((6,), low=0, high=3), STEPS)
    with caplog.at_level(logging.WARNING):
        deployment = trace(network)
    assert "as long as no membrane stays above threshold" in caplog.text
    assert not msg_deploy.check(network, deployment, random=0, random_float=8)


# Forward passes as people write them


class WithMembranes(nn.Module):
    """snnTorch's tutorials: membranes in and out, one step."""

    def __init__(self) -> None:
        super().__init__()
        module = pytest.importorskip("snntorch", reason="snnTorch is not installed")
        self.fc1, self.fc2 = nn.Linear(6, 12), nn.Linear(12, 3)
        self.lif1 = module.Leaky(beta=0.9, threshold=0.4)
        self.lif2 = module.Leaky(beta=0.8, threshold=0.4)

    def forward(self, x: Tensor, mem1: Any = None, mem2: Any = None) -> Any:
        spk1, mem1 = self.lif1(self.fc1(x), mem1)
        spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
        return spk2, mem1, mem2


class NorseState(nn.Module):
    """One state for all cells, a residual connection, and a leaky readout."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2, self.fc3 = nn.Linear(6, 12), nn.Linear(12, 12), nn.Linear(12, 3)
        self.lif1, self.lif2 = lif_box()(), lif_box()()
        parameters = norse.LIBoxParameters(tau_mem_inv=torch.tensor(100.0))
        self.out = norse.LIBoxCell(parameters, dt=1e-3)

    def forward(self, x: Tensor, state: Any = None) -> Any:
        s1, s2, s3 = (None, None, None) if state is None else state
        z1, s1 = self.lif1(self.fc1(x), s1)
        z2, s2 = self.lif2(self.fc2(z1), s2)
        y, s3 = self.out(self.fc3(z1 + z2), s3)
        return y, (s1, s2, s3)


class Doubled(norse.SequentialState):
    """A container with a way of its own."""

    def forward(self, x: Tensor, state: Any = None) -> Any:
        y, state = self[1](self[0](x), state)
        return self[2](y + self[0](x)), state


def test_containers_with_a_way_of_their_own_are_not_taken_for_rows() -> None:
    module = Doubled(nn.Linear(6, 6), lif_box()(), nn.Linear(6, 3))
    with pytest.raises(TraceError, match="'0' is used twice"):
        trace(ForeignNetwork(module, SPEC, STEPS))


def conv_net() -> nn.Module:
    name = "spikingjelly.activation_based"
    pytest.importorskip(name, reason="spikingjelly is not installed")
    from spikingjelly.activation_based import layer, neuron

    return nn.Sequential(
        layer.Conv2d(2, 4, 3, padding=1, bias=False, step_mode="m"),
        layer.BatchNorm2d(4, step_mode="m"),
        neuron.LIFNode(v_threshold=0.3, step_mode="m"),
        layer.AvgPool2d(2, step_mode="m"),
        layer.SeqToANNContainer(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)),
        neuron.ParametricLIFNode(v_threshold=0.3, step_mode="m"),
        layer.Flatten(step_mode="m"),
        layer.Dropout(0.5, step_mode="m"),
        layer.Linear(16, 3, step_mode="m"),
    )


@pytest.mark.filterwarnings("ignore:.*")
@pytest.mark.parametrize(
    ("make", "spec"),
    [
        (WithMembranes, SPEC),
        (NorseState, SPEC),
        (conv_net, InputSpec((2, 8, 8), encoding="frames", high=3.0)),
    ],
    ids=["membranes", "state", "multi-step convolutions"],
)
def test_forward_passes_as_people_write_them(make: Make, spec: InputSpec) -> None:
    torch.manual_seed(0)
    module = make()
    for layer in module.modules():
        if isinstance(layer, (nn.Linear, nn.Conv2d)):
            nn.init.normal_(layer.weight, std=0.5)
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.running_var, 0.5, 1.5)  # type: ignore[arg-type]
            nn.init.uniform_(layer.running_mean, -0.5, 0.5)  # type: ignore[arg-type]
    network = ForeignNetwork(module, spec, 8)
    verdict = msg_deploy.check(network, trace(network), random=32)
    assert verdict, verdict
    assert all(layer.fired > 0 for layer in verdict.comparisons[0].layers)


def test_a_trained_module_with_gradients_in_its_states() -> None:
    module = between(SNNTORCH["subtract"])
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.01)
    for _ in range(3):
        for layer in (module[1], module[3]):  # type: ignore[index]
            layer.reset_mem()
        sum(module(x).square().mean() for x in torch.from_numpy(frames())).backward()  # type: ignore[union-attr]
        optimizer.step()
        optimizer.zero_grad()
    network = ForeignNetwork(module, SPEC, STEPS)
    assert msg_deploy.check(network, trace(network), random=8)


def test_timing_comes_from_the_cells() -> None:
    network = ForeignNetwork(between(lif_box(dt=3e-4)), SPEC, STEPS)
    timing = trace(network).timing
    assert (timing.dt, timing.steps, timing.reset) == (3e-4, STEPS, "zero")
    subtract = ForeignNetwork(between(NORSE["LIFBox, subtract"]), SPEC, 3)
    assert trace(subtract).timing.reset == "subtract"


def test_nodes_of_a_delayed_reset() -> None:
    network = ForeignNetwork(between(snntorch(alpha=0.5, beta=0.75)), SPEC, STEPS, dt=1e-4)
    nodes = trace(network).graph.nodes
    kinds = [type(nodes["1" + s]) for s in (".synapse", ".membrane", "", ".reset")]
    assert kinds == [nir.LI, nir.LI, nir.Threshold, nir.Scale]
    assert nodes["1.membrane"].tau == pytest.approx(np.full(12, 4e-4))
    assert nodes["1.membrane"].r == pytest.approx(np.full(12, 4.0))


class UsesMembrane(WithMembranes):
    def forward(self, x: Tensor, mem1: Any = None, mem2: Any = None) -> Any:
        _, mem1 = self.lif1(self.fc1(x), mem1)
        return self.fc2(mem1)


class LoopsOverTime(WithMembranes):
    def forward(self, x: Tensor, mem1: Any = None, mem2: Any = None) -> Any:
        _, mem1 = self.lif1(self.fc1(x), None)
        return self.lif1(self.fc1(x), mem1)


class Packed(WithMembranes):
    def forward(self, x: Tensor, mem1: Any = None, mem2: Any = None) -> Any:
        return self.fc2(self.lif1(self.fc1(x)))


def alone(make: Make) -> nn.Module:
    """A neuron in a container; other modules as they are."""
    module = make()
    kinds = ("Leaky", "Synaptic", "LIFBoxCell")
    return nn.Sequential(module) if type(module).__name__ in kinds else module


def mixed(*makes: Make) -> Make:
    return lambda: nn.Sequential(*(make() for make in makes))


@pytest.mark.filterwarnings("ignore:.*")
@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (snntorch(alpha=0.5, beta=0.5, reset_mechanism="zero"), "sets the membrane to 0"),
        (snntorch(beta=0.5, inhibition=True), "inhibition"),
        (snntorch(beta=0.5, state_quant=torch.round), "state_quant"),
        (snntorch(beta=0.5, graded_spikes_factor=2.0), "graded_spikes_factor"),
        (
            snntorch(beta=0.5, threshold=-1.0, reset_delay=False, reset_mechanism="zero"),
            "threshold of at least 0",
        ),
        *(
            (snntorch(beta=torch.tensor([0.5] * 5 + [1.0]), **options), "exactly 1 and below")
            for options in ({}, {"reset_mechanism": "zero"}, {"alpha": 0.5, "reset_delay": False})
        ),
        (snntorch(beta=torch.tensor([0.5] * 5)), r"the shape \(5,\), .* the shape \(6,\)"),
        (lif_box(reset_method=lambda z, v, r, t: v), "reset_method"),
        (lif_box(tau_mem_inv=-1.0), "above 0"),
        (mixed(SPIKINGJELLY["LIF"], SPIKINGJELLY["LIF, subtract"]), "reset differently"),
        (mixed(lif_box(dt=1e-3), lif_box(dt=2e-3)), "timesteps differ"),
        (mixed(SPIKINGJELLY["LIF"], lambda: msg_deploy.LIF(STEPS)), "none of ours"),
        (mixed(SPIKINGJELLY["LIF"], nn.ReLU), "ReLU"),
        (lambda: nn.Linear(6, 3), "needs neurons of"),
        (UsesMembrane, "uses the state of a neuron"),
        (LoopsOverTime, "forward makes one step"),
        (Packed, "together with its state"),
        (lambda: mixed(SPIKINGJELLY["LIF"])()[0], "is a neuron itself"),
    ],
)
def test_what_cannot_be_expressed_is_refused(make: Make, problem: str) -> None:
    with pytest.raises(TraceError, match=problem):
        trace(ForeignNetwork(alone(make), SPEC, STEPS))


def test_a_plain_module_of_another_framework_needs_its_steps() -> None:
    with pytest.raises(TraceError, match="ForeignNetwork"):
        trace(between(NORSE["LIFBox"]), SPEC)
    assert trace(between(NORSE["LIFBox"]), SPEC, steps=STEPS).timing.steps == STEPS


@pytest.mark.parametrize("given", [{"steps": STEPS + 1}, {"dt": 0.5}])
def test_a_network_that_states_its_timing_takes_no_other(given: dict[str, Any]) -> None:
    with pytest.raises(TraceError, match="is given, but the module has"):
        trace(ForeignNetwork(between(NORSE["LIFBox"]), SPEC, STEPS), **given)


def test_a_forward_pass_that_fails_is_an_error_of_usage() -> None:
    network = ForeignNetwork(nn.Sequential(nn.Linear(6, 3), spikingjelly("LIFNode")()), SPEC, 3)
    deployment = trace(network)
    broken = ForeignNetwork(nn.Sequential(nn.Linear(5, 3), spikingjelly("LIFNode")()), SPEC, 3)
    with pytest.raises(UsageError, match="forward failed on an input of shape"):
        FrameworkModule(broken).run(deployment, frames(steps=3))


# MSG as their surrogate


def masked_neurons(p: float, alpha: float = 2.0) -> dict[str, nn.Module]:
    """A neuron of each framework that fires by MSG, with a threshold of 0.5 and no leak."""
    leaky = snntorch(
        beta=1.0,
        threshold=0.5,
        spike_grad=MaskedSurrogate(p, alpha=alpha),
        init_hidden=True,
    )()
    node = spikingjelly(
        "IFNode", v_threshold=0.5, surrogate_function=MaskedSurrogate(p, alpha=alpha, strict=False)
    )()
    multi = spikingjelly(
        "IFNode",
        v_threshold=0.5,
        step_mode="m",
        surrogate_function=MaskedSurrogate(p, alpha=alpha, strict=False),
    )()
    cell = norse.IAFCell(
        norse.IAFParameters(v_th=torch.tensor(0.5), v_reset=torch.tensor(0.0)), dt=1e-3
    )
    use_surrogate(cell, MaskedSurrogate(p, alpha=alpha))
    return {"snntorch": leaky, "spikingjelly": node, "multi-step": multi, "norse": cell}


@pytest.mark.filterwarnings("ignore:.*")
@pytest.mark.parametrize("name", ["snntorch", "spikingjelly", "multi-step", "norse"])
def test_msg_in_each_framework(name: str) -> None:
    """One step from rest: V = x, so the gradient is dS/dV at x, masked."""
    x = torch.rand(50, 40, generator=torch.Generator().manual_seed(1)).requires_grad_()
    expected = arctan(x.detach() - 0.5, 3.0)

    def gradient(neuron: nn.Module) -> tuple[Tensor, Tensor]:
        if name == "multi-step":
            neuron.reset()  # type: ignore[operator]
            out = neuron(x[None])[0]
        elif name == "norse":
            out = neuron(x)[0]
        else:
            neuron.reset_mem() if name == "snntorch" else neuron.reset()  # type: ignore[operator]
            out = neuron(x)
        return out, torch.autograd.grad(out.sum(), x)[0]

    spikes, plain = gradient(masked_neurons(0.0, alpha=3.0)[name])
    assert torch.equal(spikes, (x > 0.5).float())
    assert torch.allclose(plain, expected)
    neuron = masked_neurons(0.3, alpha=3.0)[name]
    masked_spikes, masked = gradient(neuron)
    assert torch.equal(masked_spikes, spikes)
    kept = masked != 0
    assert torch.allclose(masked[kept], expected[kept])
    assert kept.float().mean().item() == pytest.approx(0.7, abs=0.05)
    _, again = gradient(neuron)
    assert not torch.equal(again != 0, kept)
    assert torch.allclose(gradient(neuron.eval())[1], expected)


def test_norse_with_our_surrogate_is_norse() -> None:
    for make in (lif_box(v_leak=0.1, v_reset=-0.2), norse_lif(), iaf(-0.3)):
        plain, ours = make(), make()
        use_surrogate(ours, MaskedSurrogate(0.5))
        states: list[Any] = [None, None]
        for x in torch.from_numpy(frames()):
            (z, states[0]), (own, states[1]) = plain(x, states[0]), ours(x, states[1])
            assert torch.equal(z, own)
            assert all(torch.equal(a, b) for a, b in zip(*states, strict=True))
    with pytest.raises(TraceError, match="Linear is none of"):
        use_surrogate(nn.Linear(2, 2), MaskedSurrogate(0.5))


@pytest.mark.filterwarnings("ignore:.*")
@pytest.mark.parametrize("name", ["snntorch", "spikingjelly", "norse"])
def test_trained_with_msg_then_exported(name: str) -> None:
    torch.manual_seed(0)
    makes = {"snntorch": nn.Sequential, "spikingjelly": nn.Sequential}
    wrap = makes.get(name, norse.SequentialState)
    module = wrap(nn.Linear(6, 12), masked_neurons(0.5)[name], nn.Linear(12, 3))
    before = copy.deepcopy(module[0].weight)
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.05)
    state, loss = (None,), torch.zeros(())
    for x in torch.from_numpy(frames()):
        out = module(x, *state) if name == "norse" else module(x)
        out, state = (out[0], (out[1],)) if name == "norse" else (out, state)
        loss = loss + out.square().mean()
    loss.backward()
    optimizer.step()
    assert not torch.equal(before, module[0].weight)
    network = ForeignNetwork(module, SPEC, STEPS)
    verdict = api.check(network, trace(network), random=16)
    assert verdict, verdict


def test_masked_surrogate_arguments() -> None:
    for arguments in ({"p": 1.0}, {"surrogate": "box"}, {"alpha": 0.0}):
        with pytest.raises(UsageError):
            MaskedSurrogate(**arguments)  # type: ignore[arg-type]


def test_masks_go_on_after_a_copy() -> None:
    one = MaskedSurrogate(0.5)
    x = torch.zeros(100, requires_grad=True)
    one(x)
    two = copy.deepcopy(one)
    a, b = (torch.autograd.grad(m(x).sum(), x)[0] for m in (one, two))
    assert torch.equal(a, b)


def test_at_the_threshold_by_choice() -> None:
    zero = torch.zeros(1)
    assert MaskedSurrogate(strict=True)(zero).item() == 0
    assert MaskedSurrogate(strict=False)(zero).item() == 1
    assert math.isclose(arctan(zero, 2.0).item(), 1.0)
