"""The integer neuron: tables worked by hand, and its equations in plain Python."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msg_deploy.errors import GraphError, MsgDeployError, UsageError
from msg_deploy.sim.integer.engine import Engine, IntegerRun
from msg_deploy.sim.integer.network import (
    Edge,
    Entry,
    IntegerNetwork,
    IntegerReadout,
    Neurons,
    Postponed,
    Transform,
    conv2d,
    flatten,
    linear,
    row,
    sum_pool2d,
)
from msg_deploy.sim.integer.neuron import IntegerNeuron, Parameters
from msg_deploy.sim.integer.rules import (
    EXACT,
    NO_DECAY,
    Decay,
    DecayKind,
    Range,
    Rounding,
    WeightFormat,
    WeightMode,
    signed,
    signed_weights,
    symmetric,
    unsigned,
)

STILL = IntegerNeuron(compare="never")


def run(network: IntegerNetwork, inputs: Any) -> IntegerRun:
    """Of one sample (T, N)."""
    array = np.asarray(inputs)
    return Engine(network, len(array)).run(array[:, None])


def alone(
    neuron: IntegerNeuron, inputs: Any, output: str = "spikes", **parameters: Any
) -> IntegerRun:
    """One layer that gets inputs (T, N) as they are."""
    array = np.asarray(inputs)
    entry = Entry(array.shape[1:], int(array.min()), int(array.max()))
    layer = Neurons(neuron, Parameters(**parameters), entry.shape, output)  # type: ignore[arg-type]
    return run(row(entry, layer), array)


def column(values: np.ndarray) -> list[int]:
    """Of the only sample, and the only neuron."""
    found: list[int] = values.reshape(-1).tolist()
    return found


# --------------------------------------------------------------------------- tables

QUARTERS = [-6, -5, -3, -2, -1, 0, 1, 2, 3, 5, 6]
ROUNDED = {
    "floor": [-2, -2, -1, -1, -1, 0, 0, 0, 0, 1, 1],
    "ceiling": [-1, -1, 0, 0, 0, 0, 1, 1, 1, 2, 2],
    "toward_zero": [-1, -1, 0, 0, 0, 0, 0, 0, 0, 1, 1],
    "away": [-2, -2, -1, -1, -1, 0, 1, 1, 1, 2, 2],
    "nearest_up": [-1, -1, -1, 0, 0, 0, 0, 1, 1, 1, 2],
    "nearest_away": [-2, -1, -1, -1, 0, 0, 0, 1, 1, 1, 2],
    "nearest_even": [-2, -1, -1, 0, 0, 0, 0, 0, 1, 1, 2],
}
"""Of -6/4, -5/4, ..."""


@pytest.mark.parametrize("rounding", get_args(Rounding))
def test_what_stays_and_what_is_lost_are_rounded(rounding: Rounding) -> None:
    x = np.array(QUARTERS)
    nothing = np.zeros((1, len(x)), int)

    def after(decay: Decay, amount: int) -> list[int]:
        neuron = replace(STILL, membrane_decay=decay)
        return column(alone(neuron, nothing, "membrane", start=x, membrane_decay=amount).outputs)

    stays = after(Decay("multiply", 2, rounding), 3)
    assert stays == ROUNDED[rounding]
    left = after(Decay("shift", rounding=rounding), 2)
    assert left == [v - lost for v, lost in zip(QUARTERS, ROUNDED[rounding], strict=True)]


DECAYS = {
    "none": (NO_DECAY, 0, 100, [100, 100, 100]),
    "multiply": (Decay("multiply", 12, "toward_zero"), 164, -640, [-614, -589, -565]),
    "multiply, floor": (Decay("multiply", 12), 164, -640, [-615, -591, -568]),
    "multiply, all": (Decay("multiply", 12), 4096, -640, [0, 0, 0]),
    "shift": (Decay("shift"), 4, -17, [-15, -14, -13]),
    "shift, stuck": (Decay("shift"), 4, 15, [15, 15, 15]),
    "shift, least": (Decay("shift", least=True), 4, 17, [16, 15, 14]),
    "shift, least, below 0": (Decay("shift", least=True), 4, -2, [-1, 0, 0]),
    "shift by 0": (Decay("shift"), 0, -17, [0, 0, 0]),
    "subtract": (Decay("subtract"), 7, 7, [0, -7, -8]),
    "subtract, grows": (Decay("subtract"), -2, 3, [5, 7, 7]),
    "toward zero": (Decay("toward_zero"), 7, -10, [-3, 0, 0]),
}


@pytest.mark.parametrize("case", DECAYS.values(), ids=DECAYS)
def test_decays(case: tuple[Decay, int, int, list[int]]) -> None:
    decay, amount, start, expected = case
    limits = Range(-8, 7) if decay.kind == "subtract" else EXACT
    neuron = replace(STILL, membrane_decay=decay, membrane=limits)
    found = alone(neuron, [[0]] * 3, "membrane", start=start, membrane_decay=amount)
    assert column(found.outputs) == expected


RANGES = {
    "wrap at 24 bits": (
        signed(24, "wrap"),
        2**23 - 2,
        [3, 1, -5],
        [1 - 2**23, 2 - 2**23, 2**23 - 3],
    ),
    "twice around": (signed(4, "wrap"), 7, [33, -70], [-8, 2]),
    "once around": (signed(4, "wrap_once"), 7, [33, -60], [24, -20]),
    "lava's 24 bits": (Range(1 - 2**23, 2**23, "wrap_once"), 2**23 - 1, [1, 1], [2**23, 1 - 2**23]),
    "saturate at 16 bits": (signed(16), 32766, [3, -1, -70000], [32767, 32766, -32768]),
    "symmetric": (symmetric(16), 0, [-70000, 0], [-32767, -32767]),
    "unsigned": (unsigned(8), 3, [-5, 300], [0, 255]),
}


@pytest.mark.parametrize("case", RANGES.values(), ids=RANGES)
def test_ranges_and_counters(case: tuple[Range, int, list[int], list[int]]) -> None:
    limits, start, inputs, expected = case
    found = alone(replace(STILL, membrane=limits), [[x] for x in inputs], "membrane", start=start)
    assert column(found.outputs) == expected
    states = [start, *expected[:-1]]
    sums = [v + x for v, x in zip(states, inputs, strict=True)]
    outside = sum(not limits.low <= v <= limits.high for v in sums)
    count = found.counts["n0"]["membrane"]
    assert (count.outside, count.largest) == (outside, max(map(abs, sums)))
    wraps = limits.overflow != "saturate"
    assert (count.saturated, count.wrapped) == ((0, outside) if wraps else (outside, 0))


SPIKES = {
    "above": (IntegerNeuron(), [10, 1], [0, 1], [10, 0]),
    "reached": (IntegerNeuron(compare=">="), [9, 1, 3], [0, 1, 0], [9, 0, 3]),
    "minus threshold": (IntegerNeuron(reset="subtract"), [35, 0], [1, 1], [25, 15]),
    "three at most": (IntegerNeuron(reset="subtract", max_spikes=3), [45, 0], [3, 1], [15, 5]),
    "twice the threshold, above": (
        IntegerNeuron(reset="subtract", max_spikes=9), [20, 0], [1, 0], [10, 10],
    ),
    "twice the threshold, reached": (
        IntegerNeuron(compare=">=", reset="subtract", max_spikes=9), [20, 0], [2, 0], [0, 0],
    ),
    "kept": (IntegerNeuron(reset="none"), [11, 0, -2], [1, 1, 0], [11, 11, 9]),
    "at the next start": (IntegerNeuron(compare_at="start"), [11, 2, 0], [0, 1, 0], [11, 2, 2]),
    "never": (STILL, [99, 0], None, [99, 99]),
}  # fmt: skip


@pytest.mark.parametrize("case", SPIKES.values(), ids=SPIKES)
def test_spikes_and_resets(case: tuple[IntegerNeuron, list[int], Any, list[int]]) -> None:
    neuron, inputs, spikes, left = case
    found = alone(neuron, [[x] for x in inputs], "membrane", threshold=10)
    assert column(found.outputs) == left
    assert ("n0" in found.spikes) == (spikes is not None)
    if spikes is not None:
        assert column(found.spikes["n0"]) == spikes


def test_membranes_are_those_of_the_decision() -> None:
    found = alone(IntegerNeuron(), [[8], [5], [1]], threshold=10)
    assert column(found.membranes["n0"]) == [8, 13, 1]
    start = alone(IntegerNeuron(compare_at="start"), [[8], [5], [1]], threshold=10)
    assert column(start.membranes["n0"]) == [0, 8, 13]


def test_shifts_of_input_bias_and_threshold() -> None:
    neuron = IntegerNeuron(input_shift=6, bias_shift=2, threshold_shift=6, membrane=signed(24))
    found = alone(neuron, [[1], [1]], bias=1, threshold=1, gain=-1)
    assert column(found.membranes["n0"]) == [-60, -120]
    assert column(alone(neuron, [[1], [1]], bias=1, threshold=1).spikes["n0"]) == [1, 1]


ORDERS = {
    # u before: 8, then what is in it enters the membrane.
    "decay, then add": ("before", [10, 15], [10, 25]),
    "add, then decay": ("after", [5, 7], [5, 12]),
}


@pytest.mark.parametrize("case", ORDERS.values(), ids=ORDERS)
def test_order_of_the_current(case: tuple[Any, list[int], list[int]]) -> None:
    order, currents, membranes = case
    neuron = replace(STILL, synapses=1, current_decay=Decay("multiply", 1), decay_current_at=order)
    inputs = [[10], [10]]
    found = alone(neuron, inputs, "current", current_decay=1)
    assert column(found.outputs) == currents
    assert column(alone(neuron, inputs, "membrane", current_decay=1).outputs) == membranes


MEMBRANE_ORDERS = {"before": [16, 24], "after": [8, 12], "last": [8, 12]}


@pytest.mark.parametrize("order", MEMBRANE_ORDERS)
def test_order_of_the_membrane(order: Any) -> None:
    neuron = replace(STILL, membrane_decay=Decay("shift"), decay_at=order)
    found = alone(neuron, [[16], [16]], "membrane", membrane_decay=1)
    assert column(found.outputs) == MEMBRANE_ORDERS[order]
    spiking = alone(replace(neuron, compare=">"), [[16], [16]], membrane_decay=1, threshold=10)
    assert column(spiking.spikes["n0"])[0] == (order != "after")


@pytest.mark.parametrize(("leaks", "second"), [(True, 3), (False, 5)])
def test_the_leak_of_a_step_with_a_spike(leaks: bool, second: int) -> None:
    neuron = IntegerNeuron(
        membrane_decay=Decay("shift"), compare_at="start", leak_on_spike=leaks, reset="subtract"
    )
    found = alone(neuron, [[15], [0]], "membrane", threshold=10, membrane_decay=1)
    # 15 > 10 at the second start: 5 is left, and loses 5 >> 1 or nothing.
    assert column(found.outputs) == [15, second]


def test_each_event_saturates_on_its_own() -> None:
    weights = [[7, 7, -7]]
    one = replace(STILL, membrane=signed(4), per_add=True)
    summed = replace(one, per_add=False)

    def left(neuron: IntegerNeuron, matrix: list[list[int]], given: list[int]) -> int:
        layer = Neurons(neuron, Parameters(), (1,), "membrane")
        network = row(Entry((3,), 0, 3), linear(matrix), layer)
        return column(run(network, [given]).outputs)[0]

    assert left(one, weights, [1, 1, 1]) == 0
    assert left(summed, weights, [1, 1, 1]) == 7
    # In the order of the sources, not of the weights' size.
    assert left(one, [[-7, 7, 7]], [1, 1, 1]) == 7
    # What comes twice is added twice.
    assert left(one, [[7, 0, -2]], [2, 0, 3]) == 1


def test_each_event_decides() -> None:
    neuron = IntegerNeuron(
        membrane=signed(8), compare=">=", compare_at="event", reset="subtract",
        per_add=True, max_spikes=9,
    )  # fmt: skip
    layer = Neurons(neuron, Parameters(threshold=10), (1,))
    network = row(Entry((4,)), linear([[35, 0, 0, -6]]), layer)
    found = run(network, [[1, 1, 0, 1], [0, 1, 0, 0], [1, 1, 1, 0]])
    # 35 -> 25, an event of weight 0 -> 15, -6 -> 9; 9; 44 -> 34 -> 24 -> 14
    assert column(found.spikes["n1"]) == [2, 0, 3]
    assert column(found.membranes["n1"]) == [9, 9, 14]
    two = replace(layer, neuron=replace(neuron, max_spikes=2))
    assert column(
        run(row(Entry((4,)), linear([[35, 0, 0, -6]]), two), [[1] * 4] * 2).spikes["n1"]
    ) == [
        2,
        2,
    ]


@pytest.mark.parametrize("latency", [0, 1, 2])
def test_latency(latency: int) -> None:
    layer = Neurons(IntegerNeuron(latency=latency), Parameters(), (1,))
    network = row(Entry((1,)), linear([[1]]), layer, linear([[1]]), layer)
    found = run(network, [[1], [0], [0], [0], [0], [0]])
    assert column(found.spikes["n1"]).index(1) == latency
    assert column(found.spikes["n3"]).index(1) == 2 * latency


def test_a_delay_of_an_edge_goes_before_the_latency() -> None:
    layer = Neurons(IntegerNeuron(latency=1), Parameters(), (1,))
    nodes = {
        "in": Entry((1,)),
        "n": layer,
        "out": Postponed(2),
        "end": row(Entry((1,))).nodes["output"],
    }
    network = IntegerNetwork(
        nodes, [Edge("in", "n", delay=3), Edge("n", "out"), Edge("out", "end")]
    )
    found = run(network, [[1], *[[0]] * 6])
    assert column(found.spikes["n"]) == [0, 0, 0, 1, 0, 0, 0]
    assert column(found.outputs) == [0, 0, 0, 0, 0, 1, 0]


def test_aliases_spike_along() -> None:
    neuron = IntegerNeuron(compare=">=", reset="subtract", max_spikes=3)
    # The first one's spikes are added to the second's before it decides, the third's afterwards.
    found = alone(neuron, [[20, 15, 10], [0, 0, 40]], threshold=10, alias=np.array([1, -1, 1]))
    assert found.spikes["n0"][:, 0].tolist() == [[2, 3, 1], [0, 3, 3]]
    assert found.membranes["n0"][:, 0].tolist() == [[20, 15, 10], [0, 5, 40]]


# --------------------------------------------------------------------------- the equations


def rounded(x: Fraction, rounding: str) -> int:
    sign = 1 if x >= 0 else -1
    ways: dict[str, Callable[[], int]] = {
        "floor": lambda: math.floor(x),
        "ceiling": lambda: math.ceil(x),
        "toward_zero": lambda: math.trunc(x),
        "away": lambda: sign * math.ceil(abs(x)),
        "nearest_up": lambda: math.floor(x + Fraction(1, 2)),
        "nearest_away": lambda: sign * math.floor(abs(x) + Fraction(1, 2)),
        "nearest_even": lambda: round(x),
    }
    return ways[rounding]()


def fades(x: int, decay: Decay, d: int) -> int:
    if decay.kind == "none":
        return x
    if decay.kind == "multiply":
        whole = 2**decay.bits
        return rounded(Fraction(x * (whole - d), whole), decay.rounding)
    if decay.kind == "shift":
        lost = rounded(Fraction(x, 2**d), decay.rounding)
        if decay.least and lost == 0 and x != 0:
            lost = x // abs(x)
        return x - lost
    if decay.kind == "subtract":
        return x - d
    return 0 if abs(x) <= d else x - d * (x // abs(x))


@dataclass
class Register:
    """A range, and what it counted."""

    limits: Range
    outside: int = 0
    largest: int = 0

    def put(self, x: int) -> int:
        low, high, how = self.limits.low, self.limits.high, self.limits.overflow
        self.largest = max(self.largest, abs(x))
        if low <= x <= high:
            return x
        self.outside += 1
        if how == "saturate":
            return min(max(x, low), high)
        period = high - low + 1
        while x > high and how.startswith("wrap"):
            x -= period
            if how == "wrap_once":
                return x
        while x < low and how.startswith("wrap"):
            x += period
            if how == "wrap_once":
                return x
        return x


@dataclass(frozen=True)
class Way:
    """An edge into the layer: what it carries at each step, for each source."""

    weights: list[list[int]]
    synapse: int
    carried: list[list[int]]


@dataclass
class Layer:
    """One layer and one sample, step by step, neuron by neuron."""

    law: IntegerNeuron
    each: list[dict[str, Any]]
    membrane: Register = field(init=False)
    current: Register = field(init=False)

    def __post_init__(self) -> None:
        self.membrane, self.current = Register(self.law.membrane), Register(self.law.current)
        self.v = [p["start"] for p in self.each]
        self.u = [[0] * self.law.synapses for _ in self.each]
        self.decided: list[list[int]] = []

    def step(self, ways: list[tuple[list[list[int]], int, list[int]]]) -> list[int]:
        self.spikes = [0] * len(self.each)
        self.decided.append([0] * len(self.each))
        for n in range(len(self.each)):
            self.neuron(n, ways)
            other = self.each[n]["alias"]
            if other >= 0:
                total = self.spikes[other] + self.spikes[n]
                self.spikes[other] = min(self.law.max_spikes, total)
        return self.spikes

    def decide(self, n: int) -> bool:
        law, p = self.law, self.each[n]
        theta = p["threshold"] * 2**law.threshold_shift
        room = law.max_spikes - self.spikes[n]
        room = min(room, 1) if law.compare_at == "event" else room
        count = 0
        if law.compare != "never":
            while count < room and (
                self.v[n] > (count + 1) * theta
                or (law.compare == ">=" and self.v[n] == (count + 1) * theta)
            ):
                count += 1
        self.spikes[n] += count
        if count and law.reset == "value":
            self.v[n] = p["v_reset"]
        if count and law.reset == "subtract":
            self.v[n] = self.membrane.put(self.v[n] - count * theta)
        if count and law.reset_current:
            self.u[n] = [0] * law.synapses
        return count > 0

    def faded(self, n: int) -> int:
        v = fades(self.v[n], self.law.membrane_decay, self.each[n]["membrane_decay"])
        return self.membrane.put(v) if self.law.membrane_decay.kind == "subtract" else v

    def leak(self, n: int) -> None:
        self.v[n] = self.faded(n)
        if self.law.compare_at == "event" and self.law.membrane_decay.kind != "none":
            self.decide(n)

    def fade_current(self, n: int, k: int) -> None:
        u = fades(self.u[n][k], self.law.current_decay, self.each[n]["current_decay"][k])
        subtracts = self.law.current_decay.kind == "subtract"
        self.u[n][k] = self.current.put(u) if subtracts else u

    def neuron(self, n: int, ways: list[tuple[list[list[int]], int, list[int]]]) -> None:
        law, p = self.law, self.each[n]
        bias = p["bias"] * 2**law.bias_shift
        gain = p["gain"] * 2**law.input_shift
        leaks = True
        if law.compare_at == "start":
            self.decided[-1][n] = self.v[n]
            leaks = not self.decide(n) or law.leak_on_spike
        before = self.v[n]
        if law.decay_at == "before" and leaks:
            self.leak(n)
        for k in range(law.synapses):
            if law.decay_current_at == "before":
                self.fade_current(n, k)
            amounts = [
                x * weights[n][j]
                for weights, synapse, values in ways
                if synapse == k
                for j, x in enumerate(values)
            ]
            if law.per_add:
                for weights, synapse, values in ways:
                    for j, x in enumerate(values):
                        for _ in range(abs(x) if synapse == k else 0):
                            more = weights[n][j] * (1 if x > 0 else -1) * gain
                            self.u[n][k] = self.current.put(self.u[n][k] + more)
            else:
                self.u[n][k] = self.current.put(self.u[n][k] + gain * sum(amounts))
            if law.decay_current_at == "after":
                self.fade_current(n, k)
        if law.per_add and not law.synapses:
            for weights, _, values in ways:
                for j, x in enumerate(values):
                    for _ in range(abs(x)):
                        more = weights[n][j] * (1 if x > 0 else -1) * gain
                        self.v[n] = self.membrane.put(self.v[n] + more)
                        if law.compare_at == "event":
                            self.decide(n)
            if bias != 0:
                self.v[n] = self.membrane.put(self.v[n] + bias)
                if law.compare_at == "event":
                    self.decide(n)
        else:
            i = sum(p["current_gain"] * u for u in self.u[n])
            if not law.synapses:
                i = gain * sum(
                    x * weights[n][j] for weights, _, values in ways for j, x in enumerate(values)
                )
            if law.increment:
                d = self.membrane.put(i - (before - self.v[n]))
                d = self.membrane.put(d + bias)
                self.v[n] = self.membrane.put(before + d)
            else:
                self.v[n] = self.membrane.put(self.v[n] + i + bias)
        if law.decay_at == "after" and leaks:
            self.leak(n)
        if law.compare_at != "start":
            self.decided[-1][n] = self.v[n]
        if law.compare_at == "end":
            leaks = not self.decide(n) or law.leak_on_spike
        if law.decay_at == "last" and leaks:
            self.leak(n)


@st.composite
def ranges(draw: st.DrawFn, overflows: tuple[str, ...]) -> Range:
    how: Any = draw(st.sampled_from(overflows))
    if how == "forbid":
        return EXACT
    return Range(draw(st.integers(-60, 0)), draw(st.integers(1, 60)), how)


@st.composite
def decays(draw: st.DrawFn) -> Decay:
    kind: Any = draw(st.sampled_from(get_args(DecayKind)))
    return Decay(
        kind,
        draw(st.integers(1, 5)) if kind == "multiply" else 0,
        draw(st.sampled_from(get_args(Rounding))),
        draw(st.booleans()) if kind == "shift" else False,
    )


OVERFLOWS = ("forbid", "saturate", "wrap", "wrap_once")


@st.composite
def laws(draw: st.DrawFn) -> IntegerNeuron:
    """Every combination that there is."""
    pick = st.sampled_from
    synapses, per_add = draw(st.integers(0, 2)), draw(st.booleans())
    into_membrane = per_add and not synapses
    increment = not into_membrane and draw(st.booleans())
    compare_at = draw(pick(["start", "end", *(["event"] * into_membrane)]))
    decay_at = "before" if increment else draw(pick(["before", "after", "last"]))
    reset = draw(pick(["value", "subtract", "none"]))
    early = compare_at == "start" or (compare_at == "end" and decay_at == "last")
    several = reset == "subtract" or compare_at == "event"
    currents: dict[str, Any] = {}
    if synapses:
        currents = {
            "current_decay": draw(decays()),
            "current": draw(ranges(OVERFLOWS)),
            "decay_current_at": draw(pick(["before", "after"])),
            "reset_current": draw(st.booleans()),
        }
    return IntegerNeuron(
        synapses=synapses,
        input_shift=draw(st.integers(0, 2)),
        membrane_decay=draw(decays()),
        membrane=draw(ranges(OVERFLOWS[:2] if increment else OVERFLOWS)),
        decay_at=decay_at,
        leak_on_spike=not early or draw(st.booleans()),
        increment=increment,
        bias_shift=draw(st.integers(0, 1)),
        compare=draw(pick([">", ">=", ">", ">=", "never"])),
        compare_at=compare_at,
        threshold_shift=draw(st.integers(0, 1)),
        reset=reset,
        max_spikes=draw(st.integers(1, 4)) if several else 1,
        per_add=per_add,
        latency=draw(st.integers(0, 2)),
        **currents,
    )


def amounts(draw: st.DrawFn, decay: Decay, count: int) -> list[int]:
    low, high = {"none": (0, 0), "multiply": (0, 2**decay.bits), "subtract": (-5, 5)}.get(
        decay.kind, (0, 5)
    )
    return [draw(st.integers(low, high)) for _ in range(count)]


@st.composite
def parameters(draw: st.DrawFn, law: IntegerNeuron, count: int) -> list[dict[str, Any]]:
    low, high = max(law.membrane.low, -60), min(law.membrane.high, 60)
    least = -10
    if law.reset == "subtract":
        least = 0 if law.compare_at == "event" else 1 if law.max_spikes > 1 else -10
    found = [
        {
            "threshold": draw(st.integers(least, 20)),
            "v_reset": draw(st.integers(low, high)),
            "bias": draw(st.sampled_from([0, 0, -3, 2])),
            "membrane_decay": amounts(draw, law.membrane_decay, 1)[0],
            "current_decay": amounts(draw, law.current_decay, 2),
            "gain": draw(st.sampled_from([1, 1, -2])),
            "current_gain": draw(st.sampled_from([1, 1, -2])) if law.synapses else 1,
            "start": draw(st.integers(low, high)),
            "alias": -1,
        }
        for _ in range(count)
    ]
    if law.compare_at == "end" and law.spiking and count > 1 and draw(st.booleans()):
        one, other = draw(st.permutations(range(count)))[:2]
        found[one]["alias"] = other
    return found


@settings(deadline=None, max_examples=300)
@given(data=st.data())
def test_kernels_give_what_the_equations_say(data: st.DataObject) -> None:
    """One layer with an edge from the input, one from itself, and two samples."""
    law = data.draw(laws())
    sources, count, steps = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3)), 6
    each = data.draw(parameters(law, count))
    weight = st.integers(-20, 20)

    def matrix(width: int) -> list[list[int]]:
        return [[data.draw(weight) for _ in range(width)] for _ in range(count)]

    forward, back = matrix(sources), matrix(count)
    synapse = data.draw(st.integers(0, max(0, law.synapses - 1)))
    delay = data.draw(st.integers(0, 2))
    output: Any = data.draw(
        st.sampled_from(
            ["membrane", *(["current"] * (law.synapses > 0)), *(["spikes"] * law.spiking)]
        )
    )
    inputs = np.array(
        [[[data.draw(st.integers(-2, 3)) for _ in range(sources)] for _ in "ab"] for _ in "123456"]
    )
    given_as = {
        name: np.array([p[name] for p in each], int) for name in each[0] if name != "current_decay"
    }
    fading = np.array([p["current_decay"] for p in each], int).T
    layer = Neurons(law, Parameters(**given_as, current_decay=fading), (count,), output)
    loops = law.spiking and output == "spikes"
    edges, nodes = [Edge("input", "forward"), Edge("forward", "n", delay)], {}
    if loops:
        nodes["back"] = linear(back)
        edges += [Edge("n", "back", 1), Edge("back", "n", delay, synapse)]
    network = IntegerNetwork(
        {"input": Entry((sources,), -2, 3), "forward": linear(forward), "n": layer}
        | nodes
        | {"end": row(Entry((1,))).nodes["output"]},
        [*edges, Edge("n", "end")],
    )
    engine = Engine(network, steps)
    found = engine.run(inputs)
    late = delay or law.latency
    membrane, current = 0, 0
    outside = largest = 0
    for sample in range(2):
        reference = Layer(law, each)
        emitted: list[list[int]] = []
        for t in range(steps):
            ways = [(forward, 0, inputs[t - late, sample].tolist())] if t >= late else []
            if loops and t >= late + 1:
                ways.append((back, synapse, emitted[t - late - 1]))
            emitted.append(reference.step(ways))
            state = {
                "spikes": emitted[-1],
                "membrane": reference.v,
                "current": [sum(u) for u in reference.u],
            }
            assert found.outputs[t, sample].tolist() == state[output], (t, law)
        if law.spiking:
            assert found.spikes["n"][:, sample].tolist() == emitted
            assert found.membranes["n"][:, sample].tolist() == reference.decided
        outside += reference.membrane.outside
        largest = max(largest, reference.membrane.largest)
        membrane = max(membrane, reference.membrane.largest)
        current = max(current, reference.current.largest)
    count_of = found.counts["n"]["membrane"]
    assert (count_of.outside, count_of.largest) == (outside, largest)
    bound = engine.bounds["n"]
    assert membrane <= bound.membrane and current <= bound.current
    assert np.all(found.outputs.reshape(-1, count) >= bound.output.low)
    assert np.all(found.outputs.reshape(-1, count) <= bound.output.high)


@given(laws(), st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=60)
def test_decisions_at_the_start_are_those_of_the_last_end(law: IntegerNeuron, seed: int) -> None:
    """What decides at the start, then leaks, is what decides at the end and leaks last."""
    random = np.random.default_rng(seed)
    start = replace(
        law, compare_at="start", compare=">", decay_at="before", increment=False, reset="value",
        reset_current=False, max_spikes=1, per_add=False, membrane_decay=Decay("shift"),
    )  # fmt: skip
    end = replace(start, compare_at="end", decay_at="last")
    inputs = random.integers(-5, 9, (9, 4))
    found = [alone(x, inputs, threshold=7, membrane_decay=2).spikes["n0"] for x in (start, end)]
    assert np.array_equal(found[0][1:], found[1][:-1])
    assert not found[0][0].any()


# --------------------------------------------------------------------------- networks


def test_a_product_beyond_float64() -> None:
    weights = [[2**51 + 1, -(2**49) - 3]]
    layer = Neurons(replace(STILL, membrane=Range(-(2**60), 2**60)), Parameters(), (1,), "membrane")
    found = run(row(Entry((2,), 0, 127), linear(weights), layer), [[127, 3]])
    assert column(found.outputs) == [127 * (2**51 + 1) - 3 * (2**49 + 3)]


ACCUMULATORS = {
    "shift left": (2, None, [12, -20]),
    "shift right, floor": (-1, None, [1, -3]),
    "saturate": (0, signed(3), [3, -4]),
    "wrap": (2, signed(4, "wrap"), [-4, -4]),
    "wrap once": (2, signed(4, "wrap_once"), [-4, -4]),
}


@pytest.mark.parametrize("case", ACCUMULATORS.values(), ids=ACCUMULATORS)
def test_accumulators(case: tuple[int, Range | None, list[int]]) -> None:
    shift, limits, expected = case
    layer = Neurons(STILL, Parameters(), (2,), "membrane")
    product = linear([[1, 2], [-1, -4]], shift=shift, accumulator=limits)
    found = run(row(Entry((2,)), product, layer), [[1, 1]])
    assert column(found.outputs) == expected
    if limits is not None:
        sums = [3 << shift, -5 << shift]
        count = found.counts["n0"]["accumulator"]
        outside = sum(not limits.low <= x <= limits.high for x in sums)
        assert (count.outside, count.largest) == (outside, max(map(abs, sums)))


def test_convolutions_by_event_give_the_same_as_sums() -> None:
    random = np.random.default_rng(0)
    kernels = random.integers(-3, 4, (4, 1, 3, 2))
    neuron = IntegerNeuron(reset="subtract")

    def network(per_add: bool) -> IntegerNetwork:
        law = replace(neuron, per_add=per_add)
        first = conv2d(kernels, stride=2, padding=(1, 0), groups=2, shift=1)
        image = Neurons(law, Parameters(threshold=2), (4, 3, 2))
        matrix = linear(random.integers(-3, 4, (3, 4)) * 0 + [[1, -1, 2, 0]] * 3)
        last = Neurons(replace(law, synapses=1, current=signed(9)), Parameters(threshold=3), (3,))
        return row(Entry((2, 5, 5)), first, image, sum_pool2d(2), flatten((4, 1, 1)), matrix, last)

    inputs = random.integers(0, 2, (6, 3, 2, 5, 5))
    found = [Engine(network(each), 6).run(inputs) for each in (True, False)]
    assert found[0].spikes["n1"].any() and found[0].spikes["n5"].any()
    for name in ("n1", "n5"):
        assert np.array_equal(found[0].spikes[name], found[1].spikes[name])
        assert np.array_equal(found[0].membranes[name], found[1].membranes[name])


def test_many_neurons_and_samples_on_several_threads_and_in_parts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    random = np.random.default_rng(0)
    neuron = IntegerNeuron(membrane=signed(6), membrane_decay=Decay("shift"), reset="subtract")
    layer = Neurons(neuron, Parameters(threshold=9, membrane_decay=3), (5000,))
    inputs = random.integers(-9, 20, (5, 3, 5000))
    network = row(Entry((5000,), -9, 19), layer)
    found = Engine(network, 5).run(inputs)
    few = Engine(row(Entry((40,), -9, 19), replace(layer, shape=(40,))), 5)
    monkeypatch.setattr("msg_deploy.sim.integer.engine.MEMORY", 1)
    parts = few.run(inputs[:, :, -40:])
    assert np.array_equal(found.spikes["n0"][:, :, -40:], parts.spikes["n0"])
    assert np.array_equal(found.membranes["n0"][:, :, -40:], parts.membranes["n0"])
    monkeypatch.undo()
    whole = few.run(inputs[:, :, -40:])
    assert whole.counts == parts.counts
    assert few.run(inputs[:, :, -40:], membranes=False).membranes == {}


def test_scores_and_the_same_from_membranes() -> None:
    weights = (3, 1, -2)
    inputs = [[1, 0], [1, 1], [0, 1]]
    readout = IntegerReadout(weights, 2)
    silent = replace(STILL, membrane_decay=Decay("shift"))
    now = Neurons(silent, Parameters(), (2,), "membrane")
    kept = Neurons(STILL, Parameters(), (2,), "membrane")
    network = row(Entry((2,)), linear([[2, -1], [5, 7]]), now, readout=readout)
    expected = [3 * 2 + 1 * 1 - 2 * -1, 3 * 5 + 12 - 2 * 7]
    assert run(network, inputs).scores[0].tolist() == expected
    summed = row(Entry((2,)), linear([[2, -1], [5, 7]]), kept, readout=readout.of_membranes())
    assert run(summed, inputs).scores[0].tolist() == expected
    assert run(replace(network, readout=None), inputs).scores[0].tolist() == [2, 24]
    with pytest.raises(GraphError, match="3 weights, but there are 4 steps"):
        Engine(network, 4)


def test_weight_formats() -> None:
    loihi = WeightFormat((WeightMode(-256, 254, 2), WeightMode(0, 255), WeightMode(-255, 0)))
    neuron = IntegerNeuron(weights=loihi)
    for weights in ([[-256, 254]], [[255, 0]], [[-255, -1]]):
        row(Entry((2,)), linear(weights), Neurons(neuron, Parameters(), (1,)))
    with pytest.raises(
        GraphError, match=r"'n0': the weights \(-1\.\.2\) must all be of -256\.\.254 in"
    ):
        row(Entry((2,)), linear([[-1, 2]]), Neurons(neuron, Parameters(), (1,)))
    by_source = WeightFormat((WeightMode(0, 7), WeightMode(-7, 0)), "source")
    layer = Neurons(IntegerNeuron(weights=by_source), Parameters(), (2,))
    row(Entry((2,)), linear([[1, -7], [7, 0]]), layer)
    with pytest.raises(GraphError, match="of source 1 "):
        row(Entry((2,)), linear([[1, -7], [7, 1]]), layer)
    assert signed_weights(8).problem(np.array([[-128, 127]])) is None
    assert signed_weights(8).problem(np.array([[128]])) is not None


# --------------------------------------------------------------------------- refusals

NO_SUCH_LAW: dict[str, Callable[[], Any]] = {
    "increment": lambda: IntegerNeuron(increment=True, decay_at="last"),
    'compare_at "event"': lambda: IntegerNeuron(compare_at="event"),
    "leak_on_spike": lambda: IntegerNeuron(leak_on_spike=False),
    "max_spikes": lambda: IntegerNeuron(max_spikes=2),
    "need synapses": lambda: IntegerNeuron(reset_current=True),
    "least belongs": lambda: Decay("multiply", 3, least=True),
    "bits": lambda: Decay("shift", 3),
}


@pytest.mark.parametrize("message", NO_SUCH_LAW)
def test_fields_that_do_not_go_together(message: str) -> None:
    with pytest.raises(UsageError, match=message):
        NO_SUCH_LAW[message]()


@pytest.mark.parametrize(
    "values", [{"low": 1, "high": 2}, {"low": -(2**61), "high": 0}, {"low": 0, "high": 1.5}]
)
def test_ranges_that_are_none(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="Range"):
        Range(**values)


ONE = Parameters()
PARAMETERS: dict[str, tuple[IntegerNeuron, Parameters]] = {
    "threshold must be integers, not float64": (STILL, Parameters(threshold=0.5)),
    r"bias has shape \(3,\), but must have \(1,\)": (STILL, Parameters(bias=np.zeros(3, int))),
    "membrane_decay must be within 0..4096": (
        replace(STILL, membrane_decay=Decay("multiply", 12)), Parameters(membrane_decay=4097),
    ),
    "start must be within -8..7": (replace(STILL, membrane=signed(4)), Parameters(start=8)),
    "threshold must be within 1..": (
        IntegerNeuron(reset="subtract", max_spikes=2), Parameters(threshold=0),
    ),
    "gain must be within": (STILL, Parameters(gain=np.array([2**63], np.uint64))),
    "bias shifted by 40 bits": (replace(STILL, bias_shift=40), Parameters(bias=2**21)),
    'alias needs compare_at "end"': (IntegerNeuron(compare_at="start"), Parameters(alias=0)),
    "alias must name another neuron": (IntegerNeuron(), Parameters(alias=0)),
}  # fmt: skip


@pytest.mark.parametrize("message", PARAMETERS)
def test_parameters_that_are_refused(message: str) -> None:
    neuron, given_ones = PARAMETERS[message]
    with pytest.raises(GraphError, match=f"node 'n0': {message}"):
        row(Entry((1,)), Neurons(neuron, given_ones, (1,), "membrane"))


BY_EVENT = Neurons(IntegerNeuron(per_add=True), ONE, (1,))
LAYER = Neurons(IntegerNeuron(), ONE, (1,))
NETWORKS: dict[str, Callable[[], Any]] = {
    "there is no node 'x'": lambda: row(Entry((1,)), LAYER, edges=[Edge("x", "n0")]),
    "synapse must be from 0 to 0, not 1": lambda: row(
        Entry((1,)), LAYER, edges=[Edge("n0", "n0", 1, 1)]
    ),
    "cycle through n0 has no delay": lambda: row(Entry((1,)), LAYER, edges=[Edge("n0", "n0")]),
    "'n0': nothing leads into it": lambda: IntegerNetwork(
        {"i": Entry((1,)), "n0": LAYER, "o": row(Entry((1,))).nodes["output"]}, [Edge("i", "o")]
    ),
    "gives shape": lambda: row(Entry((2,)), LAYER),
    "whole numbers": lambda: row(Entry((1,)), linear([[0.5]]), LAYER),
    "shift must be from -62": lambda: row(Entry((1,)), linear([[1]], shift=63), LAYER),
    "its neurons have no current": lambda: row(Entry((1,)), replace(LAYER, output="current")),
    "its neurons have no spikes": lambda: row(Entry((1,)), replace(LAYER, neuron=STILL)),
    "a bias belongs to the neuron": lambda: row(Entry((1,)), linear([[1]], [1]), BY_EVENT),
    "no sum to shift right": lambda: row(Entry((1,)), linear([[1]], shift=-1), BY_EVENT),
    "write it twice": lambda: row(
        Entry((1,)), linear([[1]]), BY_EVENT, edges=[Edge("n0", "output")]
    ),
}


@pytest.mark.parametrize("message", NETWORKS)
def test_networks_that_are_refused(message: str) -> None:
    with pytest.raises(GraphError, match=message):
        NETWORKS[message]()


LIMITLESS = replace(STILL, membrane=Range(-(2**60), 2**60, "forbid"))
BOUNDS: dict[str, Callable[[], IntegerNetwork]] = {
    "'n0': sums may go from 0 to 9, but its accumulator holds -8..7": lambda: row(
        Entry((1,), 0, 3), linear([[3]], accumulator=signed(4, "forbid")), LAYER
    ),
    "'n0': values may reach 2.63": lambda: row(Entry((1,)), linear([[2]], shift=62), LAYER),
    "'n0': values may reach 2.8": lambda: row(
        Entry((1,), 0, 2**30), Neurons(LIMITLESS, Parameters(gain=2**50), (1,), "membrane")
    ),
    "'n0': nothing bounds the values of its cycle": lambda: row(
        Entry((1,)), Neurons(STILL, ONE, (1,), "membrane"), edges=[Edge("n0", "n0", 1)]
    ),
    "'n0': 'input' may give 4294967296 at once": lambda: row(Entry((1,), 0, 2**32), BY_EVENT),
    "'n0': scores may reach": lambda: row(
        Entry((1,), 0, 2**50),
        Neurons(LIMITLESS, ONE, (1,), "membrane"),
        readout=IntegerReadout((2**9, 2**9, 2**9)),
    ),
}


@pytest.mark.parametrize("message", BOUNDS)
def test_what_could_overflow_is_refused_beforehand(message: str) -> None:
    network = BOUNDS[message]()
    with pytest.raises(GraphError, match=message.replace("'n0': scores", "'output': scores")):
        Engine(network, 3)


REACHED: dict[str, tuple[IntegerNeuron, dict[str, int], int, int]] = {
    # (law, parameters, input at each of 6 steps, largest magnitude of the membrane)
    "no leak while it spikes": (
        IntegerNeuron(
            membrane_decay=Decay("shift"), compare_at="start", leak_on_spike=False, reset="subtract"
        ),
        {}, 2, 12,
    ),
    "a threshold below 0 is added": (IntegerNeuron(reset="subtract"), {"threshold": -10}, 0, 60),
    "a wrap to the longer side": (replace(STILL, membrane=Range(-1000, 10, "wrap")), {}, 3, 996),
    "once is not enough": (
        replace(STILL, membrane=Range(-8, 7, "wrap_once")), {}, 100, 520,
    ),
    "what grows by itself": (
        replace(STILL, synapses=1, current_decay=Decay("subtract")), {"current_decay": -5}, 0, 105,
    ),
    "from the start": (
        replace(STILL, membrane_decay=Decay("shift")), {"membrane_decay": 1, "start": 99}, 1, 51,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REACHED.values(), ids=REACHED)
def test_bounds_hold_what_is_reached(case: tuple[IntegerNeuron, dict[str, int], int, int]) -> None:
    law, given_ones, arriving, largest = case
    output: Any = "spikes" if law.spiking else "membrane"
    layer = Neurons(law, Parameters(**given_ones), (1,), output)
    network = row(Entry((1,), arriving, arriving), layer)
    engine = Engine(network, 6)
    found = engine.run(np.full((6, 1, 1), arriving))
    assert found.counts["n0"]["membrane"].largest == largest
    assert engine.bounds["n0"].membrane >= largest


def test_bounds_know_that_a_delay_begins_with_nothing() -> None:
    layer = Neurons(replace(STILL, latency=1), Parameters(), (1,), "membrane")
    chain = row(Entry((1,), 5, 9), linear([[1]]), layer)
    delayed = IntegerNetwork(chain.nodes, [Edge("input", "n0", 1), *chain.edges[1:]])
    assert Engine(chain, 2).bounds["n0"].output.low == 5
    assert Engine(delayed, 2).bounds["n0"].output.low == 0


def test_what_is_forbidden_is_refused_when_it_happens() -> None:
    neuron = replace(STILL, membrane=signed(4, "forbid"))
    layer = Neurons(neuron, ONE, (1,), "membrane")
    network = row(Entry((1,), 0, 9), layer)
    assert column(run(network, [[3], [4]]).outputs) == [3, 7]
    with pytest.raises(
        GraphError, match=r"'n0': its membrane reached 12 and left -8\.\.7, 1 times"
    ):
        run(network, [[3], [9]])


def test_inputs_and_wishes_that_are_refused() -> None:
    network = row(Entry((1,), 0, 3), linear([[1]]), BY_EVENT)
    engine = Engine(network, 2)
    for inputs, message in (
        (np.zeros((3, 1, 1), int), "wrong input shape"),
        (np.full((2, 1, 1), 0.5), "takes whole numbers"),
        (np.full((2, 1, 1), np.nan), "takes whole numbers"),
        (np.full((2, 1, 1), 4), "from 4 to 4, but must be within 0..3"),
        (np.full((2, 1, 1), np.inf), "from inf to inf, but must be within 0..3"),
    ):
        with pytest.raises(UsageError, match=message):
            engine.run(inputs)
    for name in ("x", "n0"):
        with pytest.raises(UsageError, match="no values of"):
            engine.run(np.zeros((2, 1, 1), int), values=[name])
    assert engine.run(np.zeros((2, 0, 1), int)).scores.shape == (0, 1)


def test_every_refusal_is_for_the_person_at_the_keyboard() -> None:
    for refuse in (*NO_SUCH_LAW.values(), *NETWORKS.values()):
        with pytest.raises(MsgDeployError):
            refuse()


def test_a_wrong_transform() -> None:
    import nir

    with pytest.raises(GraphError, match="a Threshold is not one of Linear"):
        row(Entry((1,)), Transform(nir.Threshold(np.ones(1))), LAYER)
