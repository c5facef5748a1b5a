"""What a diagnosis says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from msg_deploy.sim.diagnosis.reduce import Reduction

Quantity = Literal["spike", "current", "score"]
"""What a layer gives: spikes, the currents of the output layer, or class scores."""
Side = Literal["a", "b"]

ROUNDING = "rounding"
"""The cause where all decisions that differ first are as close to a threshold as rounding comes."""


@dataclass(frozen=True)
class Cause:
    """A change under which a layer does what the faulty side did.

    Attributes:
        name: of the hypothesis, as in `msg_deploy.sim.diagnosis.hypotheses.hypotheses`.
        node: the node that it changes, or the border that it changes on the way in.
        sentence: what the faulty side behaves like: "the membrane is reset by subtraction".
        parameters: parameters that still differ from the faulty side's own graph under this change;
            None if it has no graph to compare with.
        membranes: whether membranes agree as well; None if they are not recorded.
    """

    name: str
    node: str
    sentence: str
    parameters: int | None = None
    membranes: bool | None = None


@dataclass(frozen=True)
class Fault:
    """A layer that differs although it is fed alike on both sides.

    Attributes:
        node: the spiking layer, the output layer whose currents differ, or "readout".
        quantity: what it gives.
        compared: values compared under teacher forcing.
        mismatches: those that differ, but for neurons whose first difference may be rounding.
        ties: neurons whose first difference is as close to the threshold as rounding comes.
        causes: changes under which nothing differs, the likeliest first; empty if none does.
        closest: without a cause, the change that leaves the fewest differences, if any helps.
        remaining: mismatches under `closest`.
        tested: how many changes were tested.
    """

    node: str
    quantity: Quantity
    compared: int
    mismatches: int
    ties: int
    causes: tuple[Cause, ...] = ()
    closest: Cause | None = None
    remaining: int = 0
    tested: int = 0


@dataclass(frozen=True)
class Diagnosis:
    """Why two sides of a check differ.

    Attributes:
        simulator: of the right side that was diagnosed.
        faulty: layers at fault, in the order of execution.
        downstream: layers that differ only because of what they receive.
        subject: the side that is said to behave otherwise: "b", unless only its graph explains what
            it does itself.
        forced: whether layers were fed alike; without a graph on either side only the first one
            that differs is named.
        complete: whether all changes were tested within the time allowed.
        reduced: the smallest input found on which the first faulty layer differs.
    """

    simulator: str
    faulty: tuple[Fault, ...] = ()
    downstream: tuple[str, ...] = ()
    subject: Side = "b"
    forced: bool = True
    complete: bool = True
    reduced: Reduction | None = None
