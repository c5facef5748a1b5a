"""The second pass: a watcher of the fast simulator that carries error bounds along with the values.

The fast simulator runs the law in float64; at every node this watcher turns the bounds of what
arrives into bounds of what leaves, and decides which threshold decisions are certified.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import nir
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from msg_deploy.components import closes, components
from msg_deploy.deployment import Deployment, Shape
from msg_deploy.errors import GraphError
from msg_deploy.graph import Incoming, Plan, plan
from msg_deploy.options import Precision
from msg_deploy.primitives import pair, primitive_of
from msg_deploy.sim.certificate.arithmetic import ARITHMETIC, LEAST, PARAMETER
from msg_deploy.sim.certificate.kernels import finest
from msg_deploy.sim.certificate.neurons import FOLLOWERS, Follower
from msg_deploy.sim.certificate.rules import RULES, Deviation, Place, Rule, broadcast, most, settled
from msg_deploy.sim.fast.engine import Watcher
from msg_deploy.sim.fast.memory import is_image
from msg_deploy.sim.fast.stateful import Emitted
from msg_deploy.sim.simulator import FloatArray


@dataclass(frozen=True)
class Record:
    """What is found out, per spiking node, each (T, B, *shape).

    Attributes:
        certified: bool.
        margins: membrane - threshold, float32.
        bounds: of their error, float32.
    """

    certified: dict[str, npt.NDArray[np.bool_]]
    margins: dict[str, FloatArray]
    bounds: dict[str, FloatArray]


class Propagation(Watcher):
    """Watches runs, each announced by `record`; see `Watcher`.

    Args:
        deployment: that is run.
        precision: of the engines that the certificate is about.
    """

    def __init__(self, deployment: Deployment, precision: Precision) -> None:
        self.known = plan(deployment.graph)
        self.arithmetic = ARITHMETIC[precision]
        self.samples = slice(None)
        nodes = deployment.graph.nodes
        self.spiking = [n for n in self.known.order if primitive_of(nodes[n]).spiking]
        self.found = self.record((0, 0))
        self.cyclic = {n for c in components(self.known) if closes(c, self.known) for n in c}
        # What an engine may add up term by term with what other edges bring.
        sums = Sums(nodes, self.known)
        self.summands = {name: sums.within(name) for name in self.known.order}
        self.beside = {name: sums.beside(name) for name in self.known.order}
        self.rules: dict[str, Rule] = {}
        self.followers: dict[str, Follower] = {}
        for name in self.known.order:
            node = nodes[name]
            place = Place(
                deployment.timing, self.known.input_shapes[name], self.arithmetic, self.beside[name]
            )
            if type(node) in FOLLOWERS:
                self.followers[name] = FOLLOWERS[type(node)](node, place)
            elif type(node) in RULES:
                self.rules[name] = RULES[type(node)](node, place)
            elif name not in self.known.inputs:
                raise GraphError(f"node {name!r}: {type(node).__name__} cannot be certified.")
        self.states: dict[str, Any] = {}
        # Where several edges meet, the magnitudes of all of them are needed.
        self.meeting = {
            e.source for edges in self.known.incoming.values() if len(edges) > 1 for e in edges
        }
        self.given: dict[str, list[Given]] = {}
        self.last = _last_users(self.known, self.cyclic)

    def record(self, shape: tuple[int, ...]) -> Record:
        """Start a run of T steps and B samples; the record is filled as it goes."""
        self.found = Record(
            self._arrays(shape, np.bool_),
            self._arrays(shape, np.float32),
            self._arrays(shape, np.float32),
        )
        return self.found

    def _arrays(self, shape: tuple[int, ...], dtype: Any) -> dict[str, FloatArray]:
        return {n: _empty(shape, self.known.shapes[n], dtype) for n in self.spiking}

    def wants(self, name: str) -> bool:
        """All nodes."""
        return True

    def membranes(self, name: str) -> bool:
        """All of them."""
        return True

    def begin(self, samples: slice) -> None:
        """See `Watcher`."""
        self.samples = samples

    def see(self, name: str, first: int, steps: int, arriving: Tensor, emitted: Emitted) -> None:
        """Carry the bounds through one node."""
        if name in self.known.inputs:
            given = self._entering(emitted.output)
        else:
            incoming = self._arriving(name, first, steps)
            given = self._through(name, first, steps, arriving, incoming, emitted)
        magnitudes = emitted.output.abs().to(torch.float32) if name in self.meeting else None
        before = self.given[name] if name in self.cyclic and first > 0 else []
        self.given[name] = [*before, Given(first, given, magnitudes)]
        for source in self.last.get(name, ()):
            del self.given[source]

    def _entering(self, x: Tensor) -> Deviation:
        rounded, error = torch.from_numpy(self.arithmetic.rounded(x.numpy())), None
        if not torch.equal(x, rounded):
            error = (x - rounded).abs().to(torch.float32)
            # Where inputs are rounded, the smallest error in float32 must not become none.
            error = torch.where(x != rounded, error.clamp(min=2.0**-126), error)
        rows = rounded.reshape(x.shape[0] * x.shape[1], -1).numpy()
        steps = np.empty(len(rows))
        finest(rows.size, rows.view(np.int64), steps)
        reach = most(x.abs()).float() * 1.001
        return Deviation(
            error, torch.from_numpy(steps).view(reach.shape), reach, torch.ones_like(reach)
        )

    def _through(
        self,
        name: str,
        first: int,
        steps: int,
        x: Tensor,
        incoming: Deviation,
        emitted: Emitted,
    ) -> Deviation:
        if name in self.rules:
            return self.rules[name](x, incoming, emitted.output)
        follower = self.followers[name]
        if first == 0:
            self.states[name] = follower.start(x.shape[1])
        given, decisions = follower.advance(x, incoming, emitted, steps, self.states[name])
        if decisions:
            place = (slice(first, first + steps), self.samples)
            self.found.certified[name][place] = decisions.certified.numpy()
            self.found.margins[name][place] = decisions.margin.numpy()
            self.found.bounds[name][place] = decisions.bound.numpy()
        return given

    def _arriving(self, name: str, first: int, steps: int) -> Deviation:
        """The deviation of the sum of what arrives; an edge back never leads into a node alone."""
        edges = [e for e in self.known.incoming[name] if not (e.previous and first == 0)]
        given = [self._given(e, first, steps) for e in edges]
        found = [g.deviation for g in given]
        if len(found) == 1:
            return found[0]
        step, reach, terms = found[0].step, found[0].reach, found[0].terms
        exact = found[0].exact
        for d in found[1:]:
            step = torch.minimum(step, d.step)
            reach, terms, exact = reach + d.reach, terms + d.terms, exact & d.exact
        exact = exact & (reach <= self.arithmetic.exactly(step))
        error = self._summed(name, edges, given, terms)
        return settled(error, broadcast(exact, error), step, reach, terms)

    def _summed(
        self, name: str, edges: list[Incoming], given: list[Given], terms: Tensor
    ) -> Tensor:
        """The errors of values that are summed, and that of their sum.

        An engine may take the terms of all edges in any order. Edges of several terms count those
        of the others themselves (`Place.beside`); a value of one term meets all of them.
        """
        total = torch.tensor(LEAST)
        for edge, (_, d, magnitudes) in zip(edges, given, strict=True):
            assert magnitudes is not None
            single = self.summands[edge.source] == 1
            roundings = terms + self.beside[name] if single else len(given)
            gamma = self.arithmetic.gamma(roundings + PARAMETER)
            if isinstance(gamma, Tensor):
                gamma = broadcast(gamma, magnitudes)
            total = total + gamma * magnitudes
            if d.going_on is not None:
                total = total + (1 + gamma) * d.going_on
        return total

    def _given(self, edge: Incoming, first: int, steps: int) -> Given:
        """What an edge carries at some steps."""
        found = self.given[edge.source]
        if edge.previous:
            return found[-1]
        if len(found) > 1:
            return joined([g for g in found if first <= g.first < first + steps])
        return found[0].part(slice(first - found[0].first, first - found[0].first + steps))


def _empty(leading: tuple[int, ...], shape: Shape, dtype: Any) -> FloatArray:
    """(*leading, *shape), in memory with the channels of images last, as they come."""
    if not is_image(shape):
        return np.empty((*leading, *shape), dtype)
    return np.moveaxis(np.empty((*leading, *shape[1:], shape[0]), dtype), -1, len(leading))


class Given(NamedTuple):
    """What a node gave at some steps.

    Attributes:
        first: number of the first of these steps.
        deviation: of its values.
        magnitudes: float32 (steps or 1, B, *shape), if they are needed.
    """

    first: int
    deviation: Deviation
    magnitudes: Tensor | None

    def part(self, steps: slice) -> Given:
        """Some of the steps, counted from the first."""
        values = self.magnitudes
        if values is not None and len(values) > 1:
            values = values[steps]
        return Given(self.first + steps.start, self.deviation.part(steps), values)


def joined(steps: list[Given]) -> Given:
    """Several single steps as one."""
    if len(steps) == 1:
        return steps[0]
    found = [g.deviation for g in steps]
    error, opened = _together([d.error for d in found]), None
    if any(d.open is not None for d in found):
        opened = _together([d.going_on for d in found])
    magnitudes = None
    values = [g.magnitudes for g in steps if g.magnitudes is not None]
    if values:
        magnitudes = torch.cat(values)
    reach, terms = torch.cat([d.reach for d in found]), torch.cat([d.terms for d in found])
    deviation = Deviation(error, torch.cat([d.step for d in found]), reach, terms, opened)
    return Given(steps[0].first, deviation, magnitudes)


def _together(errors: list[Tensor | None]) -> Tensor | None:
    """Of single steps; None where all are 0."""
    like = next((e for e in errors if e is not None), None)
    if like is None:
        return None
    return torch.cat([torch.zeros_like(like) if e is None else e for e in errors])


def _last_users(known: Plan, cyclic: set[str]) -> dict[str, list[str]]:
    """After which node what others gave is not needed any more; cycles need all of theirs."""
    last: dict[str, str] = {}
    kept = set(cyclic)
    # The order of the simulator, which may differ from that of `known.order` around cycles.
    for name in (n for component in components(known) for n in component):
        for edge in known.incoming[name]:
            last[edge.source] = name
            kept |= {edge.source} if name in cyclic else set()
    users: dict[str, list[str]] = {}
    for source, user in last.items():
        if source not in kept:
            users.setdefault(user, []).append(source)
    return users


class Sums:
    """How many terms a value is summed of, and how many are summed with it in one go.

    A Scale may be multiplied into what is before it, and Flatten and Output do nothing, so that the
    terms before them are the terms behind them. No cycle is of such nodes alone: each has a state.
    """

    def __init__(self, nodes: Mapping[str, nir.NIRNode], known: Plan) -> None:
        self.nodes, self.known = nodes, known
        # Each count is made once, however many ways lead to it.
        self.counted: dict[str, int] = {}
        self.met: dict[str, int] = {}
        self.users: dict[str, list[str]] = {}
        for name in known.order:
            for edge in known.incoming[name]:
                self.users.setdefault(edge.source, []).append(name)

    def _passes(self, name: str) -> bool:
        return isinstance(self.nodes[name], (nir.Scale, nir.Flatten, nir.Output))

    def within(self, name: str) -> int:
        """Most terms of a node's value."""
        if name not in self.counted:
            self.counted[name] = self._within(name)
        return self.counted[name]

    def _within(self, name: str) -> int:
        node: Any = self.nodes[name]
        if isinstance(node, (nir.SumPool2d, nir.AvgPool2d)):
            return math.prod(pair(node, "kernel_size", 1)) + 1
        if self._passes(name):
            return sum(self.within(edge.source) for edge in self.known.incoming[name])
        if primitive_of(node).weighted:
            return math.prod(node.weight.shape[1:]) + 1
        return 1

    def beside(self, name: str) -> int:
        """Most terms of other edges that are summed with those of a node."""
        if name not in self.met:
            others = (self._with(user) - self.within(name) for user in self.users.get(name, ()))
            self.met[name] = max(others, default=0)
        return self.met[name]

    def _with(self, user: str) -> int:
        """Terms that meet in a node, and those that meet their sum later."""
        counts = sum(self.within(edge.source) for edge in self.known.incoming[user])
        return counts + (self.beside(user) if self._passes(user) else 0)
