"""A network made ready: what does not change from batch to batch."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from msg_deploy.deployment import Deployment
from msg_deploy.graph import plan
from msg_deploy.options import Precision
from msg_deploy.sim.activity import Counter, fans_out
from msg_deploy.sim.fast.engine import Engine
from msg_deploy.sim.fast.watchers import Scores


class Prepared:
    """One network in one precision.

    Args:
        deployment: to run.
        precision: of the computation.

    Raises:
        GraphError: the graph is not valid.
    """

    def __init__(self, deployment: Deployment, precision: Precision) -> None:
        self.deployment = deployment
        self.precision = precision
        self.dtype: torch.dtype = getattr(torch, precision)
        self.known = plan(deployment.graph)

    def is_of(self, deployment: Deployment, precision: Precision) -> bool:
        """Whether it is this network, in this precision."""
        mine = self.deployment
        same = mine is deployment or (
            mine.graph is deployment.graph
            and (mine.timing, mine.input, mine.readout)
            == (deployment.timing, deployment.input, deployment.readout)
        )
        return same and self.precision == precision

    def engine(self, skipped: frozenset[str] = frozenset()) -> Engine:
        """The engine, of all nodes or without those that the scores do not need."""
        return self._short if skipped else self._whole

    @cached_property
    def scores(self) -> Scores:
        """A watcher for class scores; its matrix is left out where it can be."""
        return Scores(self.deployment, self.known, self.dtype)

    def counter(self) -> Counter:
        """A new watcher for spikes and synaptic operations."""
        return Counter(self.deployment, self.known, self._fans)

    @cached_property
    def _whole(self) -> Engine:
        return Engine(self.deployment, self.known, self.dtype)

    @cached_property
    def _short(self) -> Engine:
        return Engine(self.deployment, self.known, self.dtype, self.scores.skipped)

    @cached_property
    def _fans(self) -> dict[str, Tensor]:
        return fans_out(self.deployment, self.known)
