"""lava-nc 0.10.0, which has no NIR importer: a loader of ours that builds its processes."""

from __future__ import annotations

import dataclasses
from typing import Any

import nir
import numpy as np

TITLE = "lava-nc 0.10.0 (our loader)"
DIALECT = "lava"
# lava-nc asks for Python 3.10 and older numpy and networkx; its LIF and Dense run without.
INSTALL = (
    ("--no-deps", "--ignore-requires-python", "lava-nc==0.10.0"),
    ("numpy==2.4.6", "scipy==1.17.1", "networkx==3.6.1", "asteval==1.0.10", "nir==1.0.8"),
)
NOTE = (
    "our loader (benchmarks/frameworks/lava.py), lava-nc's Dense and LIF processes in floating "
    "point; one step later for each matrix; the first 5 seeds of each kind, because every run "
    "starts a dozen operating system processes."
)
SEEDS = 5


def load(path: str, dt: float) -> Any:
    """The graph, flat, in the order of its row: matrices, neurons and their recurrent matrices."""
    graph = nir.read(path)
    edges = [(str(a), str(b)) for a, b in graph.edges]
    inner = {b for a, b in edges if (b, a) in edges and isinstance(graph.nodes[b], nir.Affine)}
    row, here = [], "input"
    while here != "output":
        here = next(b for a, b in edges if a == here and b not in inner)
        row.append((here, graph.nodes[here]))
    back = {a: graph.nodes[b] for a, b in edges if b in inner}
    return row, back


def run(model: Any, inputs: np.ndarray) -> np.ndarray:
    """(T, B, ...) -> (T, B, N); the samples of a batch are blocks of one network."""
    _patch_for_python_311()
    from lava.magma.core.run_conditions import RunSteps
    from lava.magma.core.run_configs import Loihi2SimCfg
    from lava.proc.dense.process import Dense
    from lava.proc.io.sink import RingBuffer as Sink
    from lava.proc.io.source import RingBuffer as Source
    from lava.proc.lif.process import LIF

    row, back = model
    steps, batch = inputs.shape[:2]

    def matrix(node: Any) -> Any:
        return Dense(weights=np.kron(np.eye(batch), node.weight), num_message_bits=24)

    end = Source(data=inputs.reshape(steps, -1).T.astype(float)).s_out
    latency, pending = 0, None
    for name, node in row:
        if isinstance(node, nir.Affine):
            latency += 1
            dense = matrix(node)
            end.connect(dense.s_in)
            # On from the first step at which a spike can arrive.
            on = np.arange(steps) >= latency
            bias = Source(data=np.outer(np.tile(node.bias, batch), on))
            end, pending = dense.a_out, bias.s_out
        elif isinstance(node, nir.CubaLIF):
            numbers = {
                "du": 1 / node.tau_syn[0],
                "dv": 1 / node.tau_mem[0],
                "vth": node.v_threshold[0],
            }
            neurons = LIF(shape=(batch * node.tau_mem.size,), **numbers)
            end.connect(neurons.a_in)
            if pending is not None:
                pending.connect(neurons.a_in)
            if name in back:
                again = matrix(back[name])
                neurons.s_out.connect(again.s_in)
                again.a_out.connect(neurons.a_in)
            end, pending = neurons.s_out, None
    sink = Sink(shape=end.shape, buffer=steps)
    end.connect(sink.a_in)
    sink.run(RunSteps(num_steps=steps), Loihi2SimCfg(select_tag="floating_pt"))
    outputs = sink.data.get()
    sink.stop()
    return outputs.T.reshape(steps, batch, -1)


def _patch_for_python_311() -> None:
    """lava-nc has a dataclass instance as a default, which Python 3.11 takes only if hashable."""
    original = dataclasses.dataclass

    def patched(cls: Any = None, /, **options: Any) -> Any:
        def wrap(made: type) -> type:
            if made.__module__.startswith("lava.") and made.__name__ == "ByteEncoder":
                options.setdefault("unsafe_hash", True)
            return original(made, **options)

        return wrap if cls is None else wrap(cls)

    dataclasses.dataclass = patched
