"""How far any engine's states may be from the exact ones, over any number of steps.

To support another primitive, add a function decorated with `follows`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import nir
import numpy as np
import torch
from torch import Tensor

from msg_deploy.deployment import Shape
from msg_deploy.grid import dyadic_each
from msg_deploy.sim.certificate.arithmetic import (
    DIRECT,
    DRIVEN,
    LEAST,
    PARAMETER,
    SUBTRACTED,
    Arithmetic,
)
from msg_deploy.sim.certificate.kernels import follow
from msg_deploy.sim.certificate.rules import SLIGHT, Deviation, Place, most
from msg_deploy.sim.fast import stateful
from msg_deploy.sim.fast.memory import Array, flat, ordered, shaped
from msg_deploy.sim.fast.stateful import Emitted


class Decisions(NamedTuple):
    """Of a spiking node at some steps, each (steps, B, *shape).

    Attributes:
        certified: bool.
        margin: membrane - threshold, float32.
        bound: of the error of both, float32.
    """

    certified: Tensor
    margin: Tensor
    bound: Tensor


class Follower(Protocol):
    """A node with state or threshold, whose errors are followed step by step."""

    def start(self, batch: int) -> Any:
        """Errors before the first step."""
        ...

    def advance(
        self, x: Tensor, d: Deviation, emitted: Emitted, steps: int, state: Any
    ) -> tuple[Deviation, Decisions | None]:
        """Some steps on exact inputs (steps or 1, B, *shape) and their deviation."""
        ...


Maker = Callable[[Any, Place], Follower]
FOLLOWERS: dict[type[nir.NIRNode], Maker] = {}


def follows(kind: type[nir.NIRNode]) -> Callable[[Maker], Maker]:
    """Decorator: the function makes the followers of nodes of this type."""

    def add(maker: Maker) -> Maker:
        FOLLOWERS[kind] = maker
        return maker

    return add


@dataclass(frozen=True)
class Law:
    """v' = v + rate ((v_leak - v) + r x), or v' = v + r x without a rate.

    Attributes:
        rows: keep, drag, gain, rest as `kernels.follow` takes them, (4, N).
        grid: rate, |r| and step of v_leak, (3, N); rate 0 where engines may round.
        start: v_leak and its error and step before the first step, (3, N).
    """

    rows: Array
    grid: Array
    start: Array


def _is_power_of_two(values: Array) -> Array:
    result: Array = np.abs(np.frexp(values)[0]) == 0.5
    return result


def _alike(tau: Array, dt: float, arithmetic: Arithmetic) -> Array:
    """Where dt/tau comes out exact, however it is computed in this arithmetic."""
    rounded, rate = arithmetic.rounded, dt / tau
    with np.errstate(over="ignore", divide="ignore"):
        ways = (
            rounded(rounded(dt) / rounded(tau)),
            rounded(rounded(dt) * rounded(1 / tau)),
            rounded(1 / rounded(tau / dt)),
        )
    result: Array = np.logical_and.reduce([way == rate for way in ways])
    return result


def _law(place: Place, tau: Any, r: Any, v_leak: Any) -> Law:
    """The law of one state; tau None for IF and I."""
    arithmetic, dt = place.arithmetic, place.timing.dt
    r, rest = (ordered(value, place.shape, np.float64) for value in (r, v_leak))
    if tau is None:
        rate, drag, alike = np.ones_like(r), np.zeros_like(r), np.ones(r.shape, bool)
    else:
        tau = ordered(tau, place.shape, np.float64)
        rate = drag = dt / tau
        alike = _alike(tau, dt, arithmetic)
    representable = arithmetic.rounded(rest) == rest
    able = alike & representable & _is_power_of_two(rate) & _is_power_of_two(r)
    gain, step = rate * np.abs(r), dyadic_each(rest)
    begins = np.where(representable, 0.0, arithmetic.gamma(PARAMETER) * np.abs(rest))
    return Law(
        np.stack([np.abs(1 - drag), drag, gain, rate * np.abs(rest)]),
        np.stack([np.where(able, rate, 0.0), np.abs(r), step]),
        np.stack([rest, begins, np.where(able, step, 0.0)]),
    )


@dataclass(frozen=True)
class Rows:
    """Threshold and reset as `kernels.follow` takes them: (4, N) and (3, N)."""

    threshold: Array
    reset: Array


def _rows(threshold: Any, v_reset: Any, place: Place, able: Array) -> Rows:
    arithmetic = place.arithmetic
    limit, after = (ordered(value, place.shape, np.float64) for value in (threshold, v_reset))
    gamma = arithmetic.gamma(PARAMETER)
    exact = able & (arithmetic.rounded(after) == after)
    return Rows(
        np.stack(
            [
                limit,
                gamma * np.abs(limit) + LEAST,
                np.abs(limit - arithmetic.rounded(limit)),
                dyadic_each(limit),
            ]
        ),
        np.stack(
            [
                after,
                np.where(exact, 0.0, gamma * np.abs(after) + LEAST),
                np.where(exact, dyadic_each(after), 0.0),
            ]
        ),
    )


def _no_threshold(count: int) -> Rows:
    """A state that never spikes."""
    return Rows(np.tile([[np.inf], [0.0], [0.0], [np.inf]], count), np.zeros((3, count)))


@dataclass(frozen=True)
class Neuron:
    """One state, or a current and a membrane.

    Attributes:
        place: of the node.
        law: of the membrane.
        rows: threshold and reset.
        spiking: the output is a threshold decision.
        current: law of the current, if there is one, with its signed decay and w_in, (2, N).
    """

    place: Place
    law: Law
    rows: Rows
    spiking: bool
    current: tuple[Law, Array] | None = None

    def start(self, batch: int) -> tuple[Array, ...]:
        """v, e and h of each state, (B, N)."""
        laws = [self.law] + ([self.current[0]] if self.current else [])
        return tuple(np.repeat(row[None], batch, axis=0) for law in laws for row in law.start)

    def advance(
        self, x: Tensor, d: Deviation, emitted: Emitted, steps: int, state: Any
    ) -> tuple[Deviation, Decisions | None]:
        """See `Follower`."""
        shape = self.place.shape
        values = flat(x, shape)
        errors = _errors(d, values, shape)
        if self.current:
            law, signed = self.current
            values, d = _currents(self.place, law, signed, values, errors, d, steps, state[3:])
            nothing = _none(values)
            errors = nothing if d.error is None else d.error.numpy(), nothing
        membranes = flat(emitted.membranes if self.spiking else emitted.output, shape)  # type: ignore[arg-type]
        bound = np.empty((steps, *values.shape[1:]), np.float32)
        decided = np.empty((steps if self.spiking else 0, *values.shape[1:]), np.bool_)
        margin = np.empty(decided.shape, np.float32)
        _follow(
            self.place, self.law, self.rows, values, errors, d, membranes, state[:3],
            bound, margin, decided,
        )  # fmt: skip
        given = shaped(bound, shape)
        if not self.spiking:
            return _inexact(given, emitted.output), None
        decisions = Decisions(shaped(decided, shape), shaped(margin, shape), given)
        return spikes(steps, x.shape[1]), decisions


def _errors(d: Deviation, values: Array, shape: Shape) -> tuple[Array, Array]:
    """Errors of sums that end before the state, and of sums that go on with it, if others."""
    nothing = _none(values)
    if d.open is None:
        return nothing if d.error is None else flat(d.error, shape), nothing
    opened = flat(d.open, shape)
    return np.zeros_like(opened) if d.error is None else flat(d.error, shape), opened


def _none(values: Array) -> Array:
    return np.empty((0, *values.shape[1:]), np.float32)


def _inexact(error: Tensor, states: Tensor) -> Deviation:
    """Of a state: its steps differ from neuron to neuron, so that none is known."""
    reach = most(states.abs()).to(torch.float32) * (1 + SLIGHT) + most(error)
    unknown = torch.zeros(error.shape[:2], dtype=torch.float64)
    return Deviation(error, unknown, reach, torch.ones(error.shape[:2]))


def spikes(steps: int, batch: int) -> Deviation:
    """Of decisions that agree: 0 or 1, exactly."""
    each = torch.ones(steps, batch)
    return Deviation(None, each.to(torch.float64), each, each)


def _follow(
    place: Place,
    law: Law,
    rows: Rows,
    values: Array,
    errors: tuple[Array, Array],
    d: Deviation,
    membranes: Array,
    state: tuple[Array, ...],
    bound: Array,
    margin: Array,
    decided: Array,
) -> None:
    arithmetic, reach = place.arithmetic, d.reach.to(torch.float64).numpy()
    direct = arithmetic.gamma(d.terms.to(torch.float64) + DIRECT).numpy()
    follow(
        bound.size, values, *errors, d.step.numpy(), reach, direct, membranes, *state,
        law.rows, rows.threshold, rows.reset, law.grid, arithmetic.gamma(DRIVEN),
        arithmetic.gamma(SUBTRACTED), 2.0**arithmetic.bits, arithmetic.smallest,
        arithmetic.largest, LEAST, arithmetic.inflation, place.timing.reset == "subtract",
        bound, margin, decided,
    )  # fmt: skip


def _currents(
    place: Place,
    law: Law,
    signed: Array,
    values: Array,
    errors: tuple[Array, Array],
    d: Deviation,
    steps: int,
    state: tuple[Array, ...],
) -> tuple[Array, Deviation]:
    """The exact currents (steps, B, N) and their deviation, whose error is (steps, B, N)."""
    decay, w_in = signed
    currents = np.empty((steps, *values.shape[1:]))
    now = state[0]
    for t in range(steps):
        arriving = values[t if len(values) > 1 else 0]
        now = now + decay * (-now + w_in * arriving)
        currents[t] = now
    bound = np.empty(currents.shape, np.float32)
    nothing = _none(values)
    never = _no_threshold(values.shape[2])
    _follow(
        place, law, never, values, errors, d, currents, state, bound, nothing, nothing.astype(bool)
    )
    each = torch.ones(steps, values.shape[1])
    # Without decay a current is a multiple of the same step for ever.
    lasting = bool(np.all(law.grid[0] == 1))
    step = d.step * min(float(law.grid[1].min()), 1.0) if lasting else torch.zeros_like(d.step)
    largest = torch.from_numpy(np.abs(currents).max(axis=2)).float() * (1 + SLIGHT)
    reach = torch.maximum(d.reach * float(law.rows[2].max()) * (1 + SLIGHT), largest)
    exact_error = torch.from_numpy(bound) if bound.any() else None
    return currents, Deviation(exact_error, step, reach.expand(each.shape), each + d.terms)


def _able(law: Law) -> Array:
    result: Array = law.grid[0] > 0
    return result


def _leaky(node: Any, place: Place, spiking: bool) -> Neuron:
    law = _law(place, node.tau, node.r, node.v_leak)
    rows = _spiking_rows(node, place, law) if spiking else _no_threshold(law.rows.shape[1])
    return Neuron(place, law, rows, spiking)


def _spiking_rows(node: Any, place: Place, law: Law) -> Rows:
    return _rows(node.v_threshold, node.v_reset, place, _able(law))


def _current_based(node: Any, place: Place, spiking: bool) -> Neuron:
    law = _law(place, node.tau_mem, node.r, node.v_leak)
    rows = _spiking_rows(node, place, law) if spiking else _no_threshold(law.rows.shape[1])
    decay = ordered(place.timing.dt / np.asarray(node.tau_syn, np.float64), place.shape, np.float64)
    w_in = ordered(node.w_in, place.shape, np.float64)
    current = _law(place, node.tau_syn, node.w_in, 0.0)
    return Neuron(place, law, rows, spiking, (current, np.stack([decay, w_in])))


@follows(nir.LIF)
def _lif(node: nir.LIF, place: Place) -> Follower:
    return _leaky(node, place, spiking=True)


@follows(nir.LI)
def _li(node: nir.LI, place: Place) -> Follower:
    return _leaky(node, place, spiking=False)


@follows(nir.CubaLIF)
def _cuba_lif(node: nir.CubaLIF, place: Place) -> Follower:
    return _current_based(node, place, spiking=True)


@follows(nir.CubaLI)
def _cuba_li(node: nir.CubaLI, place: Place) -> Follower:
    return _current_based(node, place, spiking=False)


@follows(nir.IF)
def _if(node: nir.IF, place: Place) -> Follower:
    law = _law(place, None, node.r, 0.0)
    return Neuron(place, law, _spiking_rows(node, place, law), spiking=True)


@follows(nir.I)
def _i(node: nir.I, place: Place) -> Follower:
    law = _law(place, None, node.r, 0.0)
    return Neuron(place, law, _no_threshold(law.rows.shape[1]), spiking=False)


@dataclass(frozen=True)
class Threshold:
    """A decision on the input itself.

    Attributes:
        value: of the threshold, float64.
        error: of a threshold that is multiplied by other parameters.
        rounded: of a threshold that is only rounded.
        inflation: factor of the bounds.
    """

    value: Tensor
    error: Tensor
    rounded: Tensor
    inflation: float

    def start(self, batch: int) -> None:
        """None."""

    def advance(
        self, x: Tensor, d: Deviation, emitted: Emitted, steps: int, state: Any
    ) -> tuple[Deviation, Decisions]:
        """See `Follower`."""
        if d.error is None:
            bound = self.rounded.expand(x.shape)
        else:
            bound = torch.where(d.error == 0, self.rounded, d.error + self.error)
        bound = bound * self.inflation
        margin = x - self.value
        certified = (margin.abs() > bound) | (bound == 0)
        decisions = Decisions(certified, margin.to(torch.float32), bound.to(torch.float32))
        return spikes(len(x), x.shape[1]), decisions


@follows(nir.Threshold)
def _threshold(node: nir.Threshold, place: Place) -> Follower:
    value = np.asarray(node.threshold, np.float64)
    wide = place.arithmetic.gamma(PARAMETER) * np.abs(value) + LEAST
    rounded = np.abs(value - place.arithmetic.rounded(value))
    inflation, tensor = place.arithmetic.inflation, torch.as_tensor
    return Threshold(tensor(value), tensor(wide), tensor(rounded), inflation)


@dataclass(frozen=True)
class Delay:
    """Errors are delayed as values are; nothing is computed.

    Attributes:
        node: the same for float32 values.
        steps: longest delay that arrives.
    """

    node: stateful.Stateful

    def start(self, batch: int) -> Any:
        """The last errors of both kinds; the largest reach; most terms so far; the finest step."""
        nothing = torch.zeros(batch)
        coarse = torch.full((batch,), torch.inf, dtype=torch.float64)
        return [(self.node.start(batch), self.node.start(batch)), nothing, nothing, coarse]

    def advance(
        self, x: Tensor, d: Deviation, emitted: Emitted, steps: int, state: Any
    ) -> tuple[Deviation, None]:
        """See `Follower`."""
        error, opened = (
            self._delayed(e, x.shape, steps, last)
            for e, last in zip((d.error, d.going_on), state[0], strict=True)
        )
        batch = x.shape[1]
        reach, terms = (
            torch.cat([first[None], each.expand(steps, batch)]).cummax(0).values[1:]
            for first, each in ((state[1], d.reach), (state[2], d.terms))
        )
        finest = torch.cat([state[3][None], d.step.expand(steps, batch)]).cummin(0).values[1:]
        state[1:] = reach[-1], terms[-1], finest[-1]
        found = Deviation(error if bool(error.any()) else None, finest, reach, terms)
        return found if torch.equal(error, opened) else replace(found, open=opened), None

    def _delayed(self, error: Tensor | None, shape: torch.Size, steps: int, last: Any) -> Tensor:
        known = torch.zeros(shape, dtype=torch.float32) if error is None else error
        return self.node.advance(known.expand(shape), steps, last, False).output


@follows(nir.Delay)
def _delay(node: nir.Delay, place: Place) -> Follower:
    context = stateful.Context(place.timing, place.shape, np.dtype(np.float32))
    return Delay(stateful.MAKERS[nir.Delay](node, context))
