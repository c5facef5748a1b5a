"""Which differences between engines rounding explains.

An engine may leave exact arithmetic at an uncertified decision; what follows from that is its
consequence. A decision that differs although nothing in its past does must be uncertified.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import nir
import numpy as np
import numpy.typing as npt

from msg_deploy.deployment import Deployment
from msg_deploy.graph import Plan, plan
from msg_deploy.parts import Parts, parts, split
from msg_deploy.primitives import primitive_of
from msg_deploy.sim.certificate import Certificate

Booleans = npt.NDArray[np.bool_]
Steps = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Past:
    """The spiking layers that a layer depends on.

    Attributes:
        now: those that act on it within a step.
        ever: those that act on it at a later step, too; itself, if it is on a cycle.
    """

    now: frozenset[str]
    ever: frozenset[str]


@dataclass(frozen=True)
class Rounding:
    """What rounding can change in one batch.

    Attributes:
        certificate: of the decisions, layers called as in traces.
        pasts: of all spiking layers.
        theirs: the same of the right side's graph, where that is another one.
    """

    certificate: Certificate
    pasts: Mapping[str, Past]
    theirs: Rounding | None = None

    def fitting(self, spikes: Mapping[str, npt.NDArray[Any]]) -> Rounding | None:
        """With the right side's layers in the shape of the left's, which a dialect may write flat.

        None if a graph does not speak of these very layers.
        """
        theirs = self.theirs and self.theirs._shaped(spikes)
        covered = all(
            name in r.certificate.certified
            and r.certificate.certified[name].shape == spikes[name].shape
            for r in (self, *([theirs] if theirs else []))
            for name in spikes
        )
        return replace(self, theirs=theirs) if covered else None

    def _shaped(self, spikes: Mapping[str, npt.NDArray[Any]]) -> Rounding:
        def shaped(arrays: Mapping[str, Any]) -> dict[str, Any]:
            return {
                name: array.reshape(spikes[name].shape)
                if name in spikes and array.size == spikes[name].size
                else array
                for name, array in arrays.items()
            }

        known = self.certificate
        fitted = replace(
            known,
            certified=shaped(known.certified),
            margins=shaped(known.margins),
            bounds=shaped(known.bounds),
        )
        return replace(self, certificate=fitted)

    @functools.cached_property
    def joint(self) -> Rounding:
        """What rounding can change on either side, as one."""
        if self.theirs is None:
            return self
        mine, theirs = self.certificate, self.theirs.certificate
        certified = {
            name: layer & theirs.certified[name]
            for name, layer in mine.certified.items()
            if name in theirs.certified
        }
        pasts = {
            name: Past(
                past.now | self.theirs.pasts[name].now, past.ever | self.theirs.pasts[name].ever
            )
            for name, past in self.pasts.items()
            if name in self.theirs.pasts
        }
        return Rounding(replace(mine, certified=certified), pasts)

    def between(
        self, a: Mapping[str, npt.NDArray[Any]], b: Mapping[str, npt.NDArray[Any]]
    ) -> Booleans:
        """Samples in which a side decides otherwise where rounding is no reason, (B,).

        Each side is held against exact arithmetic on its own graph; where both are certified, the
        right side against that of the left one, too.

        Args:
            a: spikes of the left side, per layer (T, B, *shape).
            b: of the right side.
        """
        if self.theirs is None:
            return self.unexplained(a) | self.unexplained(b)
        own = self.unexplained(a) | self.theirs.unexplained(b)
        return own | self.joint.unexplained(b)

    def unexplained(self, spikes: Mapping[str, npt.NDArray[Any]]) -> Booleans:
        """Samples in which an engine decides otherwise where rounding is no reason, (B,).

        Args:
            spikes: of an engine, per layer (T, B, *shape), of one layer or more.
        """
        expected = self.certificate.spikes
        differing = {name: _flat(spikes[name] != expected[name]) for name in spikes}
        found: Booleans = np.zeros(next(iter(spikes.values())).shape[1], np.bool_)
        if not any(where.any() for where in differing.values()):
            return found
        first = {name: _first(np.any(where, axis=2)) for name, where in differing.items()}
        for name, where in differing.items():
            each = _first(where)
            due = each < np.minimum(len(where), self._reached(name, first, len(where)))[:, None]
            certified = np.take_along_axis(
                _flat(self.certificate.certified[name]), np.minimum(each, len(where) - 1)[None], 0
            )[0]
            found |= (due & certified).any(axis=1)
        return found

    def _reached(self, name: str, first: Mapping[str, Steps], steps: int) -> Steps:
        """From which step on earlier differences of other decisions act on a layer, (B,)."""
        past, batch = self.pasts[name], len(first[name])
        now = [first[n] for n in past.now if n in first]
        later = [first[n] + 1 for n in past.ever if n in first]
        result: Steps = np.min([np.full(batch, steps), *now, *later], axis=0)
        return result


def _flat(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return values.reshape(*values.shape[:2], -1)


def _first(where: npt.NDArray[Any]) -> Steps:
    """The first step at which something holds, or the number of steps."""
    return np.where(where.any(axis=0), where.argmax(axis=0), len(where))


def rounding(deployment: Deployment, certificate: Certificate) -> Rounding:
    """With layers called, and cut, as in traces: as before branches were fused."""
    found = parts(deployment.graph)
    named = replace(
        certificate,
        certified=split(certificate.certified, found, axis=2),
        margins=split(certificate.margins, found, axis=2),
        bounds=split(certificate.bounds, found, axis=2),
    )
    return Rounding(named, _pasts(deployment.graph, plan(deployment.graph), found))


def _pasts(graph: nir.NIRGraph, known: Plan, found: Parts) -> dict[str, Past]:
    spiking = {n for n in known.order if primitive_of(graph.nodes[n]).spiking}
    now = _ancestors(known, cycles=False)
    ever = _ancestors(known, cycles=True)

    def named(layers: set[str]) -> frozenset[str]:
        return frozenset(n for layer in layers & spiking for n in found.get(layer, [layer]))

    return {
        name: Past(named(now[layer]), named(ever[layer]))
        for layer in spiking
        for name in found.get(layer, [layer])
    }


def _ancestors(known: Plan, cycles: bool) -> dict[str, set[str]]:
    """All nodes that lead to each node, along closing edges only if wanted."""
    result: dict[str, set[str]] = {name: set() for name in known.order}
    changed = True
    while changed:
        changed = False
        for name in known.order:
            for edge in known.incoming[name]:
                if cycles or not edge.previous:
                    more = {edge.source, *result[edge.source]} - result[name]
                    result[name] |= more
                    changed |= bool(more)
    return result
