"""The fast simulator: the reference's laws, layer by layer, in compiled passes over memory.

See `engine` for the order of execution, `kernels` for the neurons, `chunks` for the memory.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import nir
import numpy as np
import torch

from msg_deploy.deployment import Deployment
from msg_deploy.options import Precision
from msg_deploy.sim.simulator import FloatArray, Trace, check_inputs, register, repeats, scores
from msg_deploy.terminals import join

if TYPE_CHECKING:
    from msg_deploy.sim.activity import Activity
    from msg_deploy.sim.fast.engine import Engine, Watcher
    from msg_deploy.sim.fast.prepared import Prepared

DEFAULT_MEMORY = 2**31


@register
class Fast:
    """Layer by layer, all steps at once wherever the graph is not cyclic.

    Args:
        memory: bytes for the values between the layers; weights and what is recorded come on top.
        threads: None: as many as torch uses.
    """

    name = "fast"

    def __init__(self, memory: int = DEFAULT_MEMORY, threads: int | None = None) -> None:
        self.memory = memory
        self.threads = threads
        self._prepared: Prepared | None = None

    def unsupported(self, deployment: Deployment, precision: Precision = "float64") -> list[str]:
        """Nodes of types without a layer."""
        from msg_deploy.sim.fast.stateful import MAKERS
        from msg_deploy.sim.torch_layers import LAYERS

        return [
            f"node {name!r}: {type(node).__name__} has no layer in the fast simulator"
            for name, node in deployment.graph.nodes.items()
            if type(node) not in (nir.Input, *LAYERS, *MAKERS)
        ]

    def run(
        self, deployment: Deployment, inputs: FloatArray, precision: Precision = "float64"
    ) -> Trace:
        """See `Simulator.run`."""
        from msg_deploy.sim.fast.watchers import Recorder

        check_inputs(deployment, inputs)
        known, readout = self._ready(deployment, precision).known, deployment.readout
        sources = (readout.source,) if readout else known.outputs
        kept = {*known.outputs, *sources}
        recorder = Recorder(deployment, known, kept, inputs.shape[:2], np.dtype(precision))
        self.watch(deployment, inputs, recorder, precision)
        outputs = join([recorder.values[name] for name in known.outputs], 2)
        return Trace(
            simulator=self.name,
            spikes=recorder.spikes,
            membranes=recorder.potentials,
            outputs=outputs,
            currents=join([recorder.values[name] for name in sources], 2),
            scores=scores(deployment, outputs),
        )

    def scores(
        self, deployment: Deployment, inputs: FloatArray, precision: Precision = "float32"
    ) -> FloatArray:
        """Class scores (B, C) alone, by TWO or the sum over time; nothing else is kept.

        Args:
            deployment: to run.
            inputs: (T, B, *input shape).
            precision: of the computation.

        Raises:
            GraphError: the graph is not valid.
            UsageError: the inputs have another shape.
        """
        watcher = self._ready(deployment, precision).scores
        parts = self._watched(deployment, inputs, precision, watcher, watcher.skipped)
        return np.concatenate([watcher.take() for _ in parts])

    def activity(
        self, deployment: Deployment, inputs: FloatArray, precision: Precision = "float32"
    ) -> Activity:
        """Spikes and synaptic operations; arguments and errors as those of `scores`."""
        counter = self._ready(deployment, precision).counter()
        self.watch(deployment, inputs, counter, precision)
        return counter.activity(inputs.shape[1])

    def scores_and_activity(
        self, deployment: Deployment, inputs: FloatArray, precision: Precision = "float32"
    ) -> tuple[FloatArray, Activity]:
        """Both in one run; arguments and errors as those of `scores`."""
        from msg_deploy.sim.fast.watchers import Scores, Several

        prepared = self._ready(deployment, precision)
        counter = prepared.counter()
        watcher = Scores(deployment, prepared.known, prepared.dtype, folded=False)
        parts = self._watched(deployment, inputs, precision, Several((watcher, counter)))
        scores = np.concatenate([watcher.take() for _ in parts])
        return scores, counter.activity(inputs.shape[1])

    def watch(
        self,
        deployment: Deployment,
        inputs: FloatArray,
        watcher: Watcher,
        precision: Precision = "float64",
    ) -> None:
        """Run everything for a watcher's sake; other arguments and errors as those of `scores`."""
        for _ in self._watched(deployment, inputs, precision, watcher):
            pass

    def _watched(
        self,
        deployment: Deployment,
        inputs: FloatArray,
        precision: Precision,
        watcher: Watcher,
        skipped: frozenset[str] = frozenset(),
    ) -> Iterator[slice]:
        """Run everything; yields the samples that have run all their steps."""
        check_inputs(deployment, inputs)
        engine = self._ready(deployment, precision).engine(skipped)
        with using(self.threads), torch.no_grad():
            yield from self._advance(engine, deployment, inputs, watcher)

    def _ready(self, deployment: Deployment, precision: Precision) -> Prepared:
        """The network made ready; the last one is kept for the next batch."""
        from msg_deploy.sim.fast.prepared import Prepared

        if self._prepared is None or not self._prepared.is_of(deployment, precision):
            self._prepared = Prepared(deployment, precision)
        return self._prepared

    def _advance(
        self, engine: Engine, deployment: Deployment, inputs: FloatArray, watcher: Watcher
    ) -> Iterator[slice]:
        """Chunk by chunk, as `_watched`."""
        from msg_deploy.sim.fast.chunks import chunks

        constant = deployment.input.encoding == "direct" and repeats(inputs)
        steps, each = len(inputs), engine.most_values * engine.dtype.itemsize
        for samples, times in chunks(inputs.shape[1], steps, each, self.memory):
            if times.start == 0:
                state = engine.start(samples.stop - samples.start)
                watcher.begin(samples)
            part = inputs[:1, samples] if constant else inputs[times, samples]
            entering = torch.from_numpy(np.ascontiguousarray(part)).to(engine.dtype)
            engine.advance(entering, len(range(*times.indices(steps))), state, watcher)
            if times.stop >= steps:
                yield samples


def most_threads() -> int:
    """As many as numba has started."""
    import numba

    most: int = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
    return most


@contextlib.contextmanager
def using(threads: int | None) -> Iterator[None]:
    """As many threads in torch and numba, which never work at the same time; as before, after."""
    import numba

    before = torch.get_num_threads(), numba.get_num_threads()
    wanted = (threads or before[0], min(threads or before[0], most_threads()))
    if wanted == before:  # setting them takes as long as a small layer
        yield
        return
    torch.set_num_threads(wanted[0])
    numba.set_num_threads(wanted[1])
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        numba.set_num_threads(before[1])
