"""The law of `IntegerNeuron` over many steps in one pass over memory, compiled by numba.

Everything is int64; `bounds` proves beforehand that nothing overflows it. The states of a block of
neurons stay in the cache while the steps go by.

Arrays: x (max(1, K), T, B, N) for K currents; currents (K, B, N) and membrane (B, N), moved on in
place; numbers (N,); emitted (T, B, N), zeros at first; decisions, after and summed (T, B, N), or
(0, B, N) where they are not wanted; tally (work items, 2, 2): for membrane and currents, how often
a range was left and the largest magnitude before that was put right.
"""

from __future__ import annotations

from typing import Any, NamedTuple, get_args

import numba
import numpy as np
import numpy.typing as npt
from numba import prange

from msg_deploy.sim.fast.kernels import BLOCK as BLOCK
from msg_deploy.sim.fast.kernels import kernel
from msg_deploy.sim.integer.neuron import Compare, CompareAt, DecayAt, IntegerNeuron, Reset
from msg_deploy.sim.integer.rules import Decay, DecayKind, Overflow, Range, Rounding

# Each name is the position of its word in the option's list.
FORBID, SATURATE, WRAP, WRAP_ONCE = range(len(get_args(Overflow)))
FLOOR, CEILING, TOWARD_ZERO, AWAY, NEAREST_UP, NEAREST_AWAY, NEAREST_EVEN = range(
    len(get_args(Rounding))
)
NONE, MULTIPLY, SHIFT, SUBTRACT, DIMINISH = range(len(get_args(DecayKind)))
ABOVE, REACHED, NEVER = range(len(get_args(Compare)))
VALUE, MINUS, KEPT = range(len(get_args(Reset)))
START, EVENT, END = range(len(get_args(CompareAt)))
BEFORE, AFTER, LAST = range(len(get_args(DecayAt)))
MEMBRANE, CURRENT = range(2)
"""Rows of a tally."""


class Limits(NamedTuple):
    """A range, as a kernel takes it."""

    low: int
    high: int
    overflow: int


class Fading(NamedTuple):
    """A decay, as a kernel takes it."""

    kind: int
    bits: int
    rounding: int
    least: bool


class Code(NamedTuple):
    """A law, as a kernel takes it."""

    synapses: int
    membrane: Limits
    current: Limits
    membrane_decay: Fading
    current_decay: Fading
    decay_current_at: int
    decay_at: int
    leak_on_spike: bool
    increment: bool
    compare: int
    compare_at: int
    reset: int
    reset_current: bool
    max_spikes: int
    per_add: bool


def code(neuron: IntegerNeuron) -> npt.NDArray[np.int64]:
    """A law as numbers, which `law_of` makes a `Code` of again.

    Parallel kernels of numba take arrays and numbers, and tuples of these, but not tuples in them.
    """
    return np.array(
        [
            neuron.synapses,
            *_limits(neuron.membrane),
            *_limits(neuron.current),
            *_fading(neuron.membrane_decay),
            *_fading(neuron.current_decay),
            _position(DecayAt, neuron.decay_current_at),
            _position(DecayAt, neuron.decay_at),
            neuron.leak_on_spike,
            neuron.increment,
            _position(Compare, neuron.compare),
            _position(CompareAt, neuron.compare_at),
            _position(Reset, neuron.reset),
            neuron.reset_current,
            neuron.max_spikes,
            neuron.per_add,
        ],
        np.int64,
    )


def _position(option: Any, word: str) -> int:
    return get_args(option).index(word)


def _limits(found: Range) -> Limits:
    return Limits(found.low, found.high, _position(Overflow, found.overflow))


def _fading(decay: Decay) -> Fading:
    kind, rounding = _position(DecayKind, decay.kind), _position(Rounding, decay.rounding)
    return Fading(kind, decay.bits, rounding, decay.least)


@numba.njit(cache=True)
def law_of(numbers):  # type: ignore[no-untyped-def]
    """The opposite of `code`."""
    return Code(
        numbers[0],
        Limits(numbers[1], numbers[2], numbers[3]),
        Limits(numbers[4], numbers[5], numbers[6]),
        Fading(numbers[7], numbers[8], numbers[9], numbers[10] != 0),
        Fading(numbers[11], numbers[12], numbers[13], numbers[14] != 0),
        numbers[15],
        numbers[16],
        numbers[17] != 0,
        numbers[18] != 0,
        numbers[19],
        numbers[20],
        numbers[21],
        numbers[22] != 0,
        numbers[23],
        numbers[24] != 0,
    )


@numba.njit(cache=True)
def divided(value, bits, rounding):  # type: ignore[no-untyped-def]
    """The quotient value / 2^bits, rounded."""
    below = value >> bits
    rest = value - (below << bits)
    if rest == 0 or rounding == FLOOR:
        return below
    if rounding == TOWARD_ZERO:
        return below + 1 if value < 0 else below
    if rounding == AWAY:
        return below if value < 0 else below + 1
    if rounding == CEILING:
        return below + 1
    half = np.int64(1) << (bits - 1)
    if rest != half:
        return below + 1 if rest > half else below
    if rounding == NEAREST_AWAY:
        return below if value < 0 else below + 1
    if rounding == NEAREST_EVEN:
        return below + (below & 1)
    return below + 1


@numba.njit(cache=True)
def faded(value, amount, how):  # type: ignore[no-untyped-def]
    """A decay, see `Decay`."""
    if how.kind == NONE:
        return value
    if how.kind == MULTIPLY:
        return divided(value * ((np.int64(1) << how.bits) - amount), how.bits, how.rounding)
    if how.kind == SHIFT:
        lost = divided(value, amount, how.rounding)
        if how.least and lost == 0:
            lost = np.int64(value > 0) - np.int64(value < 0)
        return value - lost
    if how.kind == SUBTRACT:
        return value - amount
    return max(value - amount, 0) if value > 0 else min(value + amount, 0)


@numba.njit(cache=True)
def ranged(value, limits, tally):  # type: ignore[no-untyped-def]
    """A range, see `Overflow`; `tally` (2,) counts."""
    tally[1] = max(tally[1], abs(value))
    if limits.low <= value <= limits.high:
        return value
    tally[0] += 1
    if limits.overflow == SATURATE:
        return limits.low if value < limits.low else limits.high
    period = limits.high - limits.low + 1
    if limits.overflow == WRAP:
        return limits.low + (value - limits.low) % period
    if limits.overflow == WRAP_ONCE:
        return value - period if value > limits.high else value + period
    return value


@numba.njit(cache=True)
def fades(value, amount, how, limits, tally):  # type: ignore[no-untyped-def]
    """A decay, and the range where the decay can leave it."""
    found = faded(value, amount, how)
    return ranged(found, limits, tally) if how.kind == SUBTRACT else found


@numba.njit(cache=True)
def decided(n, v, spikes, numbers, law, tally):  # type: ignore[no-untyped-def]
    """What a decision leaves of the membrane v of neuron n; its spikes are added to spikes[n]."""
    room, threshold = law.max_spikes - spikes[n], numbers.threshold[n]
    if law.compare == NEVER or room <= 0:
        return v
    if v < threshold or (law.compare == ABOVE and v == threshold):
        return v
    count = np.int64(1)
    if room > 1 and law.compare_at != EVENT:
        whole = (v - 1) // threshold if law.compare == ABOVE else v // threshold
        count = min(whole, room)
    spikes[n] += count
    if law.reset == VALUE:
        return numbers.v_reset[n]
    if law.reset == KEPT:
        return v
    return ranged(v - count * threshold, law.membrane, tally)


@numba.njit(cache=True)
def leaked(n, v, spikes, numbers, law, tally):  # type: ignore[no-untyped-def]
    """The membrane's decay; where each event decides, the decision after it."""
    v = fades(v, numbers.membrane_decay[n], law.membrane_decay, law.membrane, tally)
    if law.compare_at == EVENT and law.membrane_decay.kind != NONE:
        v = decided(n, v, spikes, numbers, law, tally)
    return v


@numba.njit(cache=True)
def faded_current(s, n, current, numbers, law, tally):  # type: ignore[no-untyped-def]
    """The decay of a current."""
    return fades(current, numbers.current_decay[s, n], law.current_decay, law.current, tally)


@kernel
def advance(  # type: ignore[no-untyped-def]
    x,
    events,
    columns,
    currents,
    membrane,
    numbers,
    coded,
    block,
    emitted,
    decisions,
    after,
    summed,
    tally,
):
    """All steps of a layer, by blocks of so many neurons.

    x is used unless events are added one by one; else events (T, B, J), which do what `columns`
    says. `numbers` as `Numbers`, `coded` by `code`. summed: currents added up, after each step.
    """
    steps, batch, count = emitted.shape
    blocks = (count + block - 1) // block
    for k in prange(batch * blocks):
        law = law_of(coded)
        into_membrane = law.per_add and law.synapses == 0
        b, start = k // blocks, (k % blocks) * block
        end = min(start + block, count)
        of_membrane, of_current = tally[k, MEMBRANE], tally[k, CURRENT]
        for t in range(steps):
            spikes = emitted[t, b]
            if law.compare_at == START or law.per_add:
                for n in range(start, end):
                    v = membrane[b, n]
                    if law.compare_at == START:
                        if len(decisions):
                            decisions[t, b, n] = v
                        v = decided(n, v, spikes, numbers, law, of_membrane)
                        if law.reset_current and spikes[n] > 0:
                            for s in range(law.synapses):
                                currents[s, b, n] = 0
                    leaks = law.leak_on_spike or spikes[n] == 0
                    if into_membrane and law.decay_at == BEFORE and leaks:
                        v = leaked(n, v, spikes, numbers, law, of_membrane)
                    membrane[b, n] = v
                    if law.per_add and law.decay_current_at == BEFORE:
                        for s in range(law.synapses):
                            currents[s, b, n] = faded_current(
                                s, n, currents[s, b, n], numbers, law, of_current
                            )
            if law.per_add:
                for j in range(events.shape[2]):
                    given, s = events[t, b, j], columns.synapse[j]
                    sign = np.int64(1) if given > 0 else np.int64(-1)
                    for _ in range(abs(given)):
                        for q in range(columns.first[j], columns.first[j + 1]):
                            n = columns.targets[q]
                            added = sign * columns.weights[q] * numbers.gain[n]
                            if law.synapses > 0:
                                u = currents[s, b, n] + added
                                currents[s, b, n] = ranged(u, law.current, of_current)
                                continue
                            v = ranged(membrane[b, n] + added, law.membrane, of_membrane)
                            if law.compare_at == EVENT:
                                v = decided(n, v, spikes, numbers, law, of_membrane)
                            membrane[b, n] = v
            for n in range(start, end):
                v = membrane[b, n]
                leaks = law.leak_on_spike or law.compare_at != START or spikes[n] == 0
                kept = v
                if law.decay_at == BEFORE and leaks and not into_membrane:
                    kept = leaked(n, v, spikes, numbers, law, of_membrane)
                total = np.int64(0)
                if law.synapses == 0 and not law.per_add:
                    total = x[0, t, b, n] * numbers.gain[n]
                for s in range(law.synapses):
                    u = currents[s, b, n]
                    if not law.per_add:
                        if law.decay_current_at == BEFORE:
                            u = faded_current(s, n, u, numbers, law, of_current)
                        u = ranged(u + x[s, t, b, n] * numbers.gain[n], law.current, of_current)
                    if law.decay_current_at == AFTER:
                        u = faded_current(s, n, u, numbers, law, of_current)
                    currents[s, b, n] = u
                    total += u * numbers.current_gain[n]
                bias = numbers.bias[n]
                if law.increment:
                    change = ranged(total - (v - kept), law.membrane, of_membrane)
                    change = ranged(change + bias, law.membrane, of_membrane)
                    v = ranged(v + change, law.membrane, of_membrane)
                elif not into_membrane:
                    v = ranged(kept + total + bias, law.membrane, of_membrane)
                elif bias != 0:
                    v = ranged(v + bias, law.membrane, of_membrane)
                    if law.compare_at == EVENT:
                        v = decided(n, v, spikes, numbers, law, of_membrane)
                if law.decay_at == AFTER and leaks:
                    v = leaked(n, v, spikes, numbers, law, of_membrane)
                if len(decisions) and law.compare_at != START:
                    decisions[t, b, n] = v
                if law.compare_at == END:
                    before = spikes[n]
                    v = decided(n, v, spikes, numbers, law, of_membrane)
                    spiked, other = spikes[n] > before, numbers.alias[n]
                    leaks = law.leak_on_spike or not spiked
                    if spiked and law.reset_current:
                        for s in range(law.synapses):
                            currents[s, b, n] = 0
                    if other >= 0:
                        spikes[other] = min(law.max_spikes, spikes[other] + spikes[n])
                if law.decay_at == LAST and leaks:
                    v = leaked(n, v, spikes, numbers, law, of_membrane)
                membrane[b, n] = v
                if len(after):
                    after[t, b, n] = v
                if len(summed):
                    for s in range(law.synapses):
                        summed[t, b, n] += currents[s, b, n]
