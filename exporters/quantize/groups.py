"""Which layers must share their scales: those whose outputs are added up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import nir

from msg_deploy.errors import GraphError
from msg_deploy.exporters.quantize.nodes import spiking, weighted
from msg_deploy.graph import Plan


@dataclass(frozen=True)
class Group:
    """Layers with the same scales.

    Attributes:
        members: names of the layers, in the order of execution.
        consumers: nodes that take what they give.
        partners: what else leads into those, in units that are fixed before.
        common: all channels have one scale, since classes must stay comparable.
    """

    members: tuple[str, ...]
    consumers: tuple[str, ...]
    partners: tuple[str, ...]
    common: bool


def groups(nodes: Mapping[str, nir.NIRNode], known: Plan) -> tuple[Group, ...]:
    """The groups of all weighted nodes, each of which is in exactly one."""
    leader = {name: name for name in known.order if weighted(nodes[name])}

    def of(name: str) -> str:
        while leader[name] != name:
            name = leader[name]
        return name

    meetings = [[e.source for e in known.incoming[n] if e.source in leader] for n in known.order]
    # Several Outputs are classes of one decision; those of other shapes cannot share scales.
    heads = [e.source for n in known.outputs for e in known.incoming[n] if e.source in leader]
    if len({known.shapes[name] for name in heads}) == 1:
        meetings.append(heads)
    for meeting in meetings:
        for other in meeting[1:]:
            leader[of(other)] = of(meeting[0])
    found: dict[str, list[str]] = {}
    for name in leader:
        found.setdefault(of(name), []).append(name)
    return tuple(_group(members, nodes, known) for members in found.values())


def _group(members: list[str], nodes: Mapping[str, nir.NIRNode], known: Plan) -> Group:
    consumers = tuple(
        name for name in known.order if any(e.source in members for e in known.incoming[name])
    )
    partners = dict.fromkeys(
        e.source for name in consumers for e in known.incoming[name] if e.source not in members
    )
    shapes = {known.shapes[name] for name in members}
    if len(shapes) > 1:
        raise GraphError(f"nodes {', '.join(members)}: add up to one value of different shapes.")
    return Group(
        tuple(members),
        consumers,
        tuple(partners),
        any(_leads_out(name, nodes, known) for name in consumers),
    )


def _leads_out(name: str, nodes: Mapping[str, nir.NIRNode], known: Plan) -> bool:
    """Whether what arrives at a node is what the network puts out, in other units at most."""
    waiting, seen = [name], set[str]()
    while waiting:
        here = waiting.pop()
        node = nodes[here]
        if isinstance(node, nir.Output):
            return True
        if here in seen or spiking(node) or weighted(node):
            continue
        seen.add(here)
        waiting += [n for n in known.order if any(e.source == here for e in known.incoming[n])]
    return False
