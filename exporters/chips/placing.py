"""Neurons onto cores of equal size, layer after layer, each layer split where a core is full."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from msg_deploy.exporters.chips.target import Core, Use


@dataclass(frozen=True)
class Demand:
    """What a population needs.

    Attributes:
        name: of the population.
        neurons: their number.
        each: by resource, what one neuron takes, such as synapse words.
        shared: by resource, what each core takes that holds any of them, such as kernels.
    """

    name: str
    neurons: int
    each: Mapping[str, int]
    shared: Mapping[str, int]


def packed(
    demands: Sequence[Demand], capacity: Mapping[str, int], name: str = "core"
) -> tuple[Core, ...] | None:
    """Cores in order, each filled before the next; None if one neuron is too large for a core.

    Args:
        demands: in order; "neurons" is a resource of itself.
        capacity: of a core, by resource, "neurons" included.
        name: of a core, before its number.
    """
    cores: list[Core] = []
    free: dict[str, int] = dict(capacity)
    held: list[tuple[str, int, int]] = []

    def close() -> None:
        uses = tuple(Use(what, most - free[what], most) for what, most in capacity.items())
        cores.append(Core(f"{name} {len(cores)}", tuple(held), uses))

    for demand in demands:
        each = {**demand.each, "neurons": 1}
        start = 0
        while start < demand.neurons:
            left = {what: free[what] - demand.shared.get(what, 0) for what in capacity}
            room = min(left[what] // count for what, count in each.items() if count)
            room = min(room, 0) if min(left.values()) < 0 else room
            count = min(demand.neurons - start, room)
            if count <= 0 and not held:
                return None
            if count <= 0:
                close()
                free, held = dict(capacity), []
                continue
            held.append((demand.name, start, start + count))
            for what in capacity:
                free[what] = left[what] - count * each.get(what, 0)
            start += count
    if held:
        close()
    return tuple(cores)
