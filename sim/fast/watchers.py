"""What is kept of a run: everything, for a comparison; or class scores alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import nir
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from msg_deploy.deployment import Deployment, Shape
from msg_deploy.graph import Plan
from msg_deploy.primitives import primitive_of
from msg_deploy.sim.fast.engine import Watcher
from msg_deploy.sim.fast.stateful import Emitted
from msg_deploy.terminals import join

Array = npt.NDArray[Any]


class Recorder(Watcher):
    """Spikes and membranes of the spiking nodes, and values of others, of all samples.

    Args:
        deployment: that is run.
        known: its plan.
        values: names of nodes whose values are kept.
        shape: T and B.
        dtype: of the computation.
    """

    def __init__(
        self,
        deployment: Deployment,
        known: Plan,
        values: set[str],
        shape: Shape,
        dtype: npt.DTypeLike,
    ) -> None:
        nodes = deployment.graph.nodes
        ordered = [name for name in known.order if primitive_of(nodes[name]).spiking]
        self.spikes = {n: np.empty((*shape, *known.shapes[n]), np.uint8) for n in ordered}
        self.potentials = {n: np.empty((*shape, *known.shapes[n]), dtype) for n in ordered}
        self.values = {n: np.empty((*shape, *known.shapes[n]), dtype) for n in values}
        self.samples = slice(None)

    def arrivals(self, name: str) -> bool:
        """Not looked at."""
        return False

    def wants(self, name: str) -> bool:
        """See `Watcher`."""
        return name in self.spikes or name in self.values

    def membranes(self, name: str) -> bool:
        """All of them."""
        return True

    def begin(self, samples: slice) -> None:
        """Where the next values belong."""
        self.samples = samples

    def see(self, name: str, first: int, steps: int, arriving: Tensor, emitted: Emitted) -> None:
        """Copy."""
        place = (slice(first, first + steps), self.samples)
        if name in self.spikes:
            assert emitted.membranes is not None
            self.spikes[name][place] = emitted.output.numpy()
            self.potentials[name][place] = emitted.membranes.numpy()
        if name in self.values:
            self.values[name][place] = emitted.output.numpy()


class Scores(Watcher):
    """Class scores (B, C) of some samples: sum_t f_t I_L[t], or the output of the last step.

    Where a matrix W, b gives I_L, and only the output needs it, that is
    W sum_t f_t s_t + b sum_t f_t: one product in place of T, and the matrix is not run at all.

    Args:
        deployment: whose scores are wanted.
        known: its plan.
        dtype: of the computation.
        folded: leave that matrix out.

    Attributes:
        skipped: nodes that need not be run.
    """

    def __init__(
        self, deployment: Deployment, known: Plan, dtype: torch.dtype, folded: bool = True
    ) -> None:
        readout, steps = deployment.readout, deployment.timing.steps
        weights = readout.weights if readout else (1.0,) * steps
        if readout and readout.fold != "host":
            weights = (0.0,) * (steps - 1) + (1.0,)
        self.weights = torch.tensor(weights, dtype=dtype)
        self.names = known.outputs
        self.matrix: Callable[[Tensor], Tensor] | None = None
        self.skipped: frozenset[str] = frozenset()
        last = _last_matrix(deployment, known) if folded else None
        if last:
            self.matrix = _weighted(deployment.graph.nodes[last], sum(weights), dtype)
            self.names = (known.incoming[last][0].source,)
            self.skipped = frozenset((last, known.output))
        self.totals: dict[str, Tensor] = {}

    def begin(self, samples: slice) -> None:
        """Forget what a run that was interrupted left behind."""
        self.totals = {}

    def arrivals(self, name: str) -> bool:
        """Not looked at."""
        return False

    def wants(self, name: str) -> bool:
        """See `Watcher`."""
        return name in self.names

    def see(self, name: str, first: int, steps: int, arriving: Tensor, emitted: Emitted) -> None:
        """Add what these steps weigh."""
        # Spikes may come as bytes, in a computation of float32.
        values = emitted.output.to(self.weights.dtype)
        share = self.weights[first : first + steps]
        if len(values) == 1:
            share = share.sum(0, keepdim=True)
        added = (share @ values.reshape(len(values), -1)).view(values.shape[1:])
        self.totals[name] = self.totals[name] + added if name in self.totals else added

    def take(self) -> Array:
        """The scores, (B, C); several outputs joined. The next samples start anew."""
        totals, self.totals = [self.totals[name] for name in self.names], {}
        if self.matrix is None:
            return join([total.numpy() for total in totals], 1)
        return np.asarray(self.matrix(totals[0]).numpy())


def _weighted(node: Any, total: float, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    """sum_t f_t s_t, (B, N), to sum_t f_t (W s_t + b)."""
    weight = torch.as_tensor(node.weight, dtype=dtype)
    bias = torch.as_tensor(getattr(node, "bias", np.zeros(len(weight))), dtype=torch.float64)
    scaled = (bias * total).to(dtype)
    return lambda weighted: nn.functional.linear(weighted, weight, scaled)


class Several(Watcher):
    """Several watchers of one run.

    Args:
        watchers: each sees what it wants.
    """

    def __init__(self, watchers: Sequence[Watcher]) -> None:
        self.watchers = watchers

    def arrivals(self, name: str) -> bool:
        """See `Watcher`."""
        return any(watcher.arrivals(name) for watcher in self.watchers)

    def wants(self, name: str) -> bool:
        """See `Watcher`."""
        return any(watcher.wants(name) for watcher in self.watchers)

    def membranes(self, name: str) -> bool:
        """See `Watcher`."""
        return any(watcher.membranes(name) for watcher in self.watchers)

    def begin(self, samples: slice) -> None:
        """See `Watcher`."""
        for watcher in self.watchers:
            watcher.begin(samples)

    def see(self, name: str, first: int, steps: int, arriving: Tensor, emitted: Emitted) -> None:
        """See `Watcher`."""
        for watcher in self.watchers:
            if watcher.wants(name):
                watcher.see(name, first, steps, arriving, emitted)


def _last_matrix(deployment: Deployment, known: Plan) -> str | None:
    """The matrix that alone gives the only output and is used by nothing else, if there is one."""
    if len(known.outputs) > 1:
        return None
    into = known.incoming[known.output]
    if len(into) != 1 or into[0].previous:
        return None
    name = into[0].source
    users = [n for n in known.order for e in known.incoming[n] if e.source == name]
    entering = known.incoming[name]
    matrix = isinstance(deployment.graph.nodes[name], (nir.Affine, nir.Linear))
    alone = users == [known.output] and len(entering) == 1 and not entering[0].previous
    return name if matrix and alone else None
