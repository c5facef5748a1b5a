"""Neurons of chips, each one `IntegerNeuron`, beside its published equation in plain Python."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msg_deploy.sim.fast import kernels
from msg_deploy.sim.integer.engine import Engine, IntegerRun
from msg_deploy.sim.integer.network import Edge, Entry, IntegerNetwork, Neurons, linear, row
from msg_deploy.sim.integer.neuron import IntegerNeuron, Parameters
from msg_deploy.sim.integer.rules import (
    Decay,
    Range,
    WeightFormat,
    WeightMode,
    signed,
    signed_weights,
    symmetric,
    unsigned,
)

seeds = given(seed=st.integers(0, 2**32 - 1))
few = settings(deadline=None, max_examples=40)
N, J, T = 4, 6, 25


def drawn(seed: int, weights: tuple[int, int], rate: float = 0.3) -> tuple[Any, ...]:
    """(random numbers, weights (N, J), recurrent weights (N, N), input spikes (T, J))."""
    random = np.random.default_rng(seed)
    low, high = weights
    forward = random.integers(low, high + 1, (N, J))
    return (
        random,
        forward,
        random.integers(low, high + 1, (N, N)),
        (random.random((T, J)) < rate).astype(int),
    )


def run(
    neuron: IntegerNeuron, given: Parameters, forward: Any, x: Any, back: Any = None, shift: int = 0
) -> IntegerRun:
    """One sample through one layer, which may feed back with a delay of one step."""
    layer = Neurons(neuron, given, (len(forward),))
    network = row(Entry((forward.shape[1],)), linear(forward, shift=shift), layer)
    if back is not None:
        network = IntegerNetwork(
            network.nodes | {"back": linear(back, shift=shift)},
            [*network.edges, Edge("n1", "back", 1), Edge("back", "n1")],
        )
    return Engine(network, len(x)).run(x[:, None])


def tz(x: int, bits: int) -> int:
    """X / 2^bits toward zero."""
    return (abs(x) >> bits) * (1 if x >= 0 else -1)


# --------------------------------------------------------------------------- Loihi 2 (lava)

LOIHI_DECAY = Decay("multiply", 12, "toward_zero")
LOIHI = IntegerNeuron(
    synapses=1,
    input_shift=6,
    current_decay=LOIHI_DECAY,
    current=Range(1 - 2**23, 2**23, "wrap_once"),
    membrane_decay=LOIHI_DECAY,
    membrane=symmetric(24),
    bias_shift=3,
    threshold_shift=6,
    latency=1,
    threshold=Range(0, 2**17 - 1),
    bias=Range(-4096, 4095),
    weights=WeightFormat((WeightMode(-256, 254, 2), WeightMode(0, 255), WeightMode(-255, 0))),
)


@few
@seeds
def test_loihi(seed: int) -> None:
    random, forward, _, x = drawn(seed, (-128, 127))
    forward, exponent = 2 * forward, int(random.integers(-2, 11))
    du, dv = (int(d) for d in random.integers(0, 4097, 2))
    bias, vth = random.integers(-4096, 4096, N), random.integers(0, 2**14, N)
    given_ones = Parameters(bias=bias, threshold=vth, current_decay=du, membrane_decay=dv)
    found = run(LOIHI, given_ones, forward, x, shift=exponent)
    u, v = [0] * N, [0] * N
    for t in range(T):
        for n in range(N):
            a = sum(int(forward[n, j]) for j in range(J) if t > 0 and x[t - 1, j])
            a = a << exponent if exponent >= 0 else a >> -exponent
            u[n] = tz(u[n] * (4096 - du), 12) + (a << 6)
            u[n] += (u[n] <= -(2**23)) * 2**24 - (u[n] > 2**23) * 2**24
            v[n] = tz(v[n] * (4096 - dv), 12) + u[n] + int(bias[n]) * 8
            v[n] = max(1 - 2**23, min(2**23 - 1, v[n]))
            assert found.membranes["n1"][t, 0, n] == v[n]
            spiked = v[n] > int(vth[n]) << 6
            assert found.spikes["n1"][t, 0, n] == spiked
            v[n] = 0 if spiked else v[n]


def test_a_trace_of_lava(paper_lif: Path) -> None:
    """Weight 10, threshold 25, one step of 25 time constants: 4096 / 25 = 163, truncated."""
    x, recorded, spikes = np.loadtxt(paper_lif / "lif_lava_loihi_fixed.csv", delimiter=",").T
    given_ones = Parameters(threshold=25, current_decay=4096, membrane_decay=163)
    found = run(LOIHI, given_ones, np.array([[10]]), x[:, None].astype(int))
    assert np.array_equal(found.spikes["n1"].ravel(), spikes)
    assert spikes.sum() == 4
    # Where it spikes the file does not hold the membrane.
    quiet = spikes == 0
    assert np.array_equal(found.membranes["n1"].ravel()[quiet], recorded[quiet])


# --------------------------------------------------------------------------- Xylo

XYLO = IntegerNeuron(
    synapses=2,
    current_decay=Decay("shift", least=True),
    current=signed(16),
    decay_current_at="after",
    membrane_decay=Decay("shift", least=True),
    membrane=signed(16),
    increment=True,
    compare=">=",
    reset="subtract",
    max_spikes=31,
    per_add=True,
    threshold=signed(16),
    bias=signed(16),
    weights=signed_weights(8),
)


@few
@seeds
def test_xylo(seed: int) -> None:
    random, forward, back, x = drawn(seed, (-90, 127))
    x, shift = x * random.integers(1, 16, x.shape), int(random.integers(0, 6))
    other = random.integers(-90, 127, (N, J))
    dash_syn, dash_mem = random.integers(1, 6, (2, N)), random.integers(1, 6, N)
    bias, threshold = random.integers(-50, 90, N), random.integers(50, 4000, N)
    alias = np.array([-1, 3, -1, 0])
    given_ones = Parameters(
        threshold=threshold, bias=bias, current_decay=dash_syn, membrane_decay=dash_mem, alias=alias
    )
    layer = Neurons(XYLO, given_ones, (N,))
    network = IntegerNetwork(
        {
            **row(Entry((J,), 0, 15), linear(forward, shift=shift), layer).nodes,
            "other": linear(other, shift=shift),
            "back": linear(back, shift=shift),
        },
        [
            Edge("input", "n0"),
            Edge("n0", "n1"),
            Edge("input", "other"),
            Edge("other", "n1", synapse=1),
            Edge("n1", "back", delay=1),
            Edge("back", "n1"),
            Edge("n1", "output"),
        ],
    )
    found = Engine(network, T).run(x[:, None])

    def sat(value: int) -> int:
        return max(-(2**15), min(2**15 - 1, value))

    def dec(value: int, dash: int) -> int:
        return value >> dash or (value > 0) - (value < 0)

    u, v = np.zeros((2, N), int).tolist(), [0] * N
    before = [0] * N
    for t in range(T):
        for k, n, weights, counts in (
            *((0, n, forward[n], x[t]) for n in range(N)),
            *((1, n, other[n], x[t]) for n in range(N)),
            *((0, n, back[n], before) for n in range(N)),
        ):
            for w, count in zip(weights, counts, strict=True):
                for _ in range(count):
                    u[k][n] = sat(u[k][n] + (int(w) << shift))
        spikes = [0] * N
        for n in range(N):
            for k in range(2):
                u[k][n] -= dec(u[k][n], int(dash_syn[k, n]))
            dv = sat(-dec(v[n], int(dash_mem[n])) + u[0][n] + u[1][n])
            v[n] = sat(v[n] + sat(dv + int(bias[n])))
            assert found.membranes["n1"][t, 0, n] == v[n]
            while v[n] >= threshold[n] and spikes[n] < 31:
                spikes[n] += 1
                v[n] -= int(threshold[n])
            if alias[n] >= 0:
                spikes[alias[n]] = min(31, spikes[alias[n]] + spikes[n])
        assert found.spikes["n1"][t, 0].tolist() == spikes
        before = spikes


def test_the_charge_of_a_spike_on_xylo() -> None:
    """Measured with xylosim: 100 through dash 1 gives 50, 25, 13, 7, 4, 2, 1, together 102."""
    layer = Neurons(XYLO, Parameters(current_decay=1, threshold=1), (1,), "current")
    network = row(Entry((1,)), linear([[100]]), layer)
    found = Engine(network, 8).run(np.eye(8, 1, dtype=int)[:, None]).outputs.ravel().tolist()
    assert found == [50, 25, 13, 7, 4, 2, 1, 0]


# --------------------------------------------------------------------------- Speck

SPECK = IntegerNeuron(
    membrane=signed(16),
    compare=">=",
    compare_at="event",
    reset="subtract",
    max_spikes=2**20,
    per_add=True,
    threshold=Range(0, 2**15 - 1),
    weights=signed_weights(8),
)


@few
@seeds
def test_speck(seed: int) -> None:
    random, forward, _, x = drawn(seed, (-128, 127), 0.5)
    low, threshold = -int(random.integers(1, 200)), random.integers(1, 300, N)
    to_zero = bool(random.integers(2))
    law = replace(SPECK, membrane=Range(low, 2**15 - 1), reset="value" if to_zero else "subtract")
    found = run(law, Parameters(threshold=threshold), forward, x)
    v = [0] * N
    for t in range(T):
        spikes = [0] * N
        for j in np.flatnonzero(x[t]):
            for n in range(N):
                v[n] = max(low, v[n] + int(forward[n, j]))
                if v[n] >= threshold[n]:
                    spikes[n] += 1
                    v[n] = 0 if to_zero else v[n] - int(threshold[n])
        assert found.spikes["n1"][t, 0].tolist() == spikes
        assert found.membranes["n1"][t, 0].tolist() == v


def test_a_weight_of_the_threshold_spikes_on_speck() -> None:
    """The vendor's test for boards: weight 127, threshold 127, one event, exactly one spike."""
    found = run(SPECK, Parameters(threshold=127), np.array([[127]]), np.array([[1], [0]]))
    assert found.spikes["n1"].ravel().tolist() == [1, 0]


# --------------------------------------------------------------------------- Spiker+


def spiker(bits: int, reset: Any) -> IntegerNeuron:
    return IntegerNeuron(
        membrane_decay=Decay("shift"),
        membrane=signed(bits),
        leak_on_spike=False,
        compare_at="start",
        reset=reset,
        per_add=True,
    )


@pytest.mark.parametrize("reset", ["subtract", "value"])
@few
@seeds
def test_spiker(reset: str, seed: int) -> None:
    random, forward, _, x = drawn(seed, (-60, 70))
    threshold, shift, after = int(random.integers(10, 100)), int(random.integers(1, 6)), 3
    given_ones = Parameters(threshold=threshold, v_reset=after, membrane_decay=shift)
    found = run(spiker(8, reset), given_ones, forward, x)

    def sat(value: int) -> int:
        return max(-128, min(127, value))

    v = [0] * N
    for t in range(T):
        spikes = [int(value > threshold) for value in v]
        for n in range(N):
            if spikes[n]:
                v[n] = sat(v[n] - threshold) if reset == "subtract" else after
            else:
                v[n] = sat(v[n] - (v[n] >> shift))
            for j in np.flatnonzero(x[t]):
                v[n] = sat(v[n] + int(forward[n, j]))
        assert found.spikes["n1"][t, 0].tolist() == spikes


# --------------------------------------------------------------------------- ODIN

ODIN = IntegerNeuron(
    membrane_decay=Decay("subtract"),
    membrane=unsigned(8),
    decay_at="last",
    compare=">=",
    compare_at="event",
    max_spikes=2**20,
    per_add=True,
    threshold=unsigned(8),
    weights=WeightFormat((WeightMode(0, 7), WeightMode(-7, 0)), "source"),
)


@few
@seeds
def test_odin(seed: int) -> None:
    """A step is the events of the sources, in their order, then one time reference event."""
    random, forward, _, x = drawn(seed, (0, 7), 0.7)
    forward = forward * random.choice([-1, 1, 1], J)
    threshold, leak = random.integers(0, 40, N), int(random.integers(0, 8))
    found = run(ODIN, Parameters(threshold=threshold, membrane_decay=leak), forward, x)
    v = [0] * N
    for t in range(T):
        spikes = [0] * N
        events = [forward[:, j].tolist() for j in np.flatnonzero(x[t])]
        for event in (*events, [-leak] * N):
            for n, w in enumerate(event):
                v[n] = min(255, v[n] + w) if w >= 0 else max(0, v[n] + w)
                if v[n] >= threshold[n]:
                    spikes[n] += 1
                    v[n] = 0
        assert found.spikes["n1"][t, 0].tolist() == spikes


# --------------------------------------------------------------------------- Akida


@few
@seeds
def test_akida(seed: int) -> None:
    """One bit of activation: fires where the potential is above the threshold; nothing is kept."""
    random, forward, _, x = drawn(seed, (-7, 7))
    threshold = random.integers(-5, 9, N)
    law = IntegerNeuron(
        membrane_decay=Decay("shift"), membrane=signed(32), reset="none", weights=signed_weights(4)
    )
    found = run(law, Parameters(threshold=threshold), forward, x)
    assert np.array_equal(found.spikes["n1"][:, 0], x @ forward.T > threshold)


# --------------------------------------------------------------------------- one thread, several


@pytest.mark.parametrize("law", [ODIN, LOIHI], ids=["odin", "loihi"])
def test_kernels_for_one_thread_and_several_agree(
    law: IntegerNeuron, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the work: all by the one, all by the other."""
    _, forward, _, x = drawn(3, (0, 7), 0.7)
    found = []
    for work in (0, 2**40):
        monkeypatch.setattr(kernels, "SERIAL", work)
        found.append(run(law, Parameters(threshold=9), forward, x).spikes["n1"])
    assert found[0].any()
    assert np.array_equal(*found)
