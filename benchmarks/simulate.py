"""The fast simulator against other frameworks, onnxruntime and the floor, as ratios in one run.

The same weights everywhere, LIF (tau = 2, reset to zero), float32, inputs (T, B, ...):
784-512-512-10 (T = 16), `convnet` (1x28x28, T = 8), `vggsnn` (2x48x48, T = 10), `sew_resnet34`
(3x64x64, T = 4), and a recurrent 700-128-20 (T = 250). The floor is the convolutions and matrix
products alone, all steps at once, without neurons. "fast, int8" and "fast, the same in float" run
the same network with its weights rounded to 8 bits on a grid of a power of two, and averages
replaced by sums. Each round times every engine, in turn, so that a busy machine disturbs all
alike; printed are medians, their ratio to `fast`, and the memory that making an engine and its
first run take at most (Linux).

--growth measures how time and memory grow with T, batch, width and the number of samples instead,
and draws it. --events compares products event by event with dense ones. --report does everything,
with one thread and with all, and writes a page.

Run: python benchmarks/simulate.py [--network vggsnn] [--batch 64] [--rounds 7] [--threads 2]
     python benchmarks/simulate.py --growth docs/growth.svg
     python benchmarks/simulate.py --events
     python benchmarks/simulate.py --report docs/speed.md
"""

from __future__ import annotations

import argparse
import ctypes
import itertools
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import engines
import nir
import numpy as np
import onnxruntime
import torch

from msg_deploy import Deployment, InputSpec, Timing, trace
from msg_deploy.files import replacing
from msg_deploy.graph import plan
from msg_deploy.sim.fast import Fast, events
from msg_deploy.sim.fast.memory import is_image
from msg_deploy.sim.fast.packed import dense
from msg_deploy.sim.torch_layers import Context

BATCHES = {
    "mlp": (1, 64, 512),
    "convnet": (1, 64),
    "vggsnn": (1, 4),
    "sew_resnet34": (1, 4),
    "recurrent": (1, 64),
}
ROUNDS = {"mlp": 9, "convnet": 9, "vggsnn": 3, "sew_resnet34": 3, "recurrent": 9}
WEIGHTED = (nir.Affine, nir.Linear, nir.Conv2d)


def recurrent(steps: int = 250, width: int = 128) -> Deployment:
    """700 inputs, a layer that feeds back into itself, 20 outputs."""
    random = np.random.default_rng(0)

    def affine(inputs: int, outputs: int, scale: float) -> nir.Affine:
        weight = random.normal(0, scale / inputs**0.5, (outputs, inputs)).astype(np.float32)
        return nir.Affine(weight, np.zeros(outputs, np.float32))

    one, zero = np.ones(width), np.zeros(width)
    nodes = {
        "input": nir.Input({"input": np.array([700])}),
        "first": affine(700, width, 2.0),
        "neuron": nir.LIF(2e-3 * one, one, zero, 0.8 * one, zero),
        "back": affine(width, width, 1.0),
        "last": affine(width, 20, 1.0),
        "output": nir.Output({"output": np.array([20])}),
    }
    edges = [
        ("input", "first"),
        ("first", "neuron"),
        ("neuron", "back"),
        ("back", "neuron"),
        ("neuron", "last"),
        ("last", "output"),
    ]
    graph = nir.NIRGraph(nodes, edges, metadata={}, type_check=False)
    return Deployment(graph, Timing(1e-3, steps), InputSpec((700,), "frames"))


def floor(deployment: Deployment) -> engines.Engine:
    """The layers with weights, each on a random input of its shape for all steps."""
    known = plan(deployment.graph)
    layers: list[tuple[Any, tuple[int, ...]]] = []
    for name in known.order:
        node, shape = deployment.graph.nodes[name], known.input_shapes[name]
        if isinstance(node, WEIGHTED):
            context = Context(deployment.timing, shape, torch.float32)
            layers.append((dense(node, context), shape))
    kept: dict[int, list[torch.Tensor]] = {}

    @torch.no_grad()
    def run(inputs: engines.Array) -> engines.Array:
        rows = inputs.shape[0] * inputs.shape[1]
        if rows not in kept:
            kept[rows] = [_random(rows, shape) for _, shape in layers]
        for (layer, _), x in zip(layers, kept[rows], strict=True):
            layer(x)
        return inputs

    return run


def _random(rows: int, shape: tuple[int, ...]) -> torch.Tensor:
    x = (torch.rand(rows, *shape) < 0.2).float()
    return x.contiguous(memory_format=torch.channels_last) if is_image(shape) else x


def fast(deployment: Deployment, threads: int) -> engines.Engine:
    """Class scores alone."""
    simulator = Fast(threads=threads)
    return lambda inputs: simulator.scores(deployment, inputs)


def integral(deployment: Deployment) -> Deployment:
    """Weights as int8 multiples of a power of two, sums in place of averages."""
    nodes = dict(deployment.graph.nodes)
    for name, node in nodes.items():
        if isinstance(node, nir.AvgPool2d):
            nodes[name] = nir.SumPool2d(node.kernel_size, node.stride, node.padding)
        elif isinstance(node, WEIGHTED):
            step = 2.0 ** np.ceil(np.log2(np.abs(node.weight).max() / 127))
            bias = np.rint(getattr(node, "bias", 0.0) / step) * step
            nodes[name] = replace(node, weight=np.rint(node.weight / step) * step, bias=bias)
    graph = nir.NIRGraph(nodes, deployment.graph.edges, metadata={}, type_check=False)
    return deployment.with_graph(graph)


def without_integers(deployment: Deployment, threads: int) -> engines.Engine:
    """`fast`, told not to use int8."""
    from msg_deploy.sim.fast import int8

    simulator = Fast(threads=threads)

    def run(inputs: engines.Array) -> engines.Array:
        available, int8.available = int8.available, lambda: False
        try:
            return simulator.scores(deployment, inputs)
        finally:
            int8.available = available

    return run


Maker = Callable[[], engines.Engine]


def makers_of(name: str, threads: int) -> tuple[dict[str, Maker], Deployment]:
    """What makes each engine for one network."""
    network = None if name == "recurrent" else engines.network_of(name)
    deployment = trace(network) if network else recurrent()
    whole = integral(deployment)
    found: dict[str, Maker] = {
        "fast": lambda: fast(deployment, threads),
        "floor": lambda: floor(deployment),
        "fast, int8": lambda: fast(whole, threads),
        "fast, the same in float": lambda: without_integers(whole, threads),
        "onnxruntime": lambda: engines.exported(deployment, "sequence", threads),
    }
    if network:
        found["torch core"] = lambda: engines.core(network)
        for framework in engines.SEQUENCES:
            found[f"{framework}, by layer"] = partial(engines.by_layer, deployment, framework)
    for framework in engines.STEPS:
        found[f"{framework}, by step"] = partial(engines.by_step, deployment, framework)
    return found, deployment


def stimulus(deployment: Deployment, batch: int) -> engines.Array:
    """Random inputs (T, B, ...)."""
    shape = (deployment.timing.steps, batch, *deployment.input.shape)
    return np.random.default_rng(0).uniform(0, 1, shape).astype(np.float32)


def engines_of(
    makers: Mapping[str, Maker], inputs: engines.Array
) -> tuple[dict[str, engines.Engine], dict[str, int]]:
    """All engines, and the memory that making each one and its first run take, in bytes.

    Frameworks that are not installed are left out.
    """
    found, added = {}, {}
    fast(chain(8, 2), 1)(np.ones((2, 1, 8), np.float32))  # libraries are not counted
    for name, make in makers.items():
        before = resident()
        try:
            found[name] = make()
        except ImportError:
            print(f"{name}: not installed, left out", file=sys.stderr)
            continue
        found[name](inputs)
        added[name] = most_resident() - before
    return found, added


def resident() -> int:
    """Bytes in memory now, freed ones given back; the count of the most starts anew. Linux."""
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def most_resident() -> int:
    """Bytes in memory at most since the last `resident`."""
    return _status("VmHWM")


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


@dataclass(frozen=True)
class Measured:
    """All engines on one network and batch.

    Attributes:
        name: of the network.
        batch: samples at once.
        steps: timesteps T.
        seconds: medians.
        memory: that making each engine and its first run took, in bytes.
        difference: of scores, relative to the largest, at most.
    """

    name: str
    batch: int
    steps: int
    seconds: dict[str, float]
    memory: dict[str, int]
    difference: float

    def table(self) -> str:
        """Markdown."""
        lines = [
            f"{self.name}, T = {self.steps}, batch {self.batch}; scores differ by at most "
            f"{self.difference:.1e} of the largest.\n",
            "| engine | ms | times `fast` | memory, MiB |",
            "|---|---|---|---|",
        ]
        for engine, median in self.seconds.items():
            ratio = median / self.seconds["fast"]
            memory = self.memory[engine] / 2**20
            lines.append(f"| {engine} | {median * 1e3:.2f} | {ratio:.2f} | {memory:.0f} |")
        return "\n".join(lines)


def measured(name: str, batch: int, rounds: int, threads: int) -> Measured:
    """Time all engines on one network."""
    makers, deployment = makers_of(name, threads)
    inputs = stimulus(deployment, batch)
    found, added = engines_of(makers, inputs)
    others = {"floor", "fast, int8", "fast, the same in float"}
    difference = engines.check({n: e for n, e in found.items() if n not in others}, inputs)
    medians = engines.measure(found, inputs, rounds)
    return Measured(name, batch, deployment.timing.steps, medians, added, difference)


def side_by_side(found: list[Measured], cell: Callable[[Measured, str], str]) -> str:
    """A table of engines by networks; Markdown."""
    names = list(dict.fromkeys(engine for m in found for engine in m.seconds))
    headings = ["engine", *(f"{m.name}, batch {m.batch}" for m in found)]
    lines = [f"| {' | '.join(headings)} |", "|---" * len(headings) + "|"]
    for engine in names:
        cells = [cell(m, engine) if engine in m.seconds else "" for m in found]
        lines.append(f"| {' | '.join([engine, *cells])} |")
    return "\n".join(lines)


def ratio(found: Measured, engine: str) -> str:
    """Time as a multiple of `fast`."""
    if engine == "fast":
        return f"1 ({found.seconds['fast'] * 1e3:.2f} ms)"
    return f"{found.seconds[engine] / found.seconds['fast']:.2f}"


def mebibytes(found: Measured, engine: str) -> str:
    """Memory."""
    return f"{found.memory[engine] / 2**20:.0f}"


def report(path: Path, picture: Path, threads: list[int]) -> None:
    """Measure everything and write it as one page and a picture."""
    parts = [f"# Speed of the simulator\n\n{HEAD}\n\n```text\nmake benchmark\n```"]
    for count in threads:
        torch.set_num_threads(count)
        found: list[Measured] = []
        for name, batch in [(n, size) for n, sizes in BATCHES.items() for size in sizes]:
            found.append(measured(name, batch, ROUNDS[name], count))
            print(f"\n{count} threads, {found[-1].table()}", file=sys.stderr, flush=True)
        plural = "" if count == 1 else "s"
        parts.append(f"## {count} thread{plural}\n\n{side_by_side(found, ratio)}")
        if count == threads[0]:
            parts.append(f"## Memory, in MiB\n\n{side_by_side(found, mebibytes)}")
    torch.set_num_threads(threads[0])
    grown = "\n".join(f"- {line}" for line in growth(picture, 5, threads[0]))
    parts.append(f"## Growth, {threads[0]} thread\n\n{grown}\n\n![Growth]({picture.name})")
    parts.append(f"## Events, {threads[0]} thread\n\n{EVENTS}\n\n{by_events(5)}")
    with replacing(path) as temporary:
        temporary.write_text("\n\n".join(parts) + "\n")


HEAD = f"""Written by benchmarks/simulate.py on {os.cpu_count()} cores, torch {torch.__version__}, \
onnxruntime {onnxruntime.__version__}: medians as multiples of `fast`, and its milliseconds. Every
layer of neurons fires at 15 % of all steps. The floor is the convolutions and matrix products
alone. "fast, int8" and "fast, the same in float" run the network with weights of 8 bits."""
EVENTS = """Products event by event against dense ones, by the share of values other than 0; above 1
events are faster."""


def seconds(deployment: Deployment, batch: int, rounds: int, threads: int) -> float:
    """Median of `fast`."""
    found = {"fast": fast(deployment, threads)}
    return engines.measure(found, stimulus(deployment, batch), rounds)["fast"]


def growth(path: Path, rounds: int, threads: int) -> Iterator[str]:
    """Slopes of log(time) over log(size), which are drawn, too; then memory by samples."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    sizes = {
        "T": [32, 64, 128, 256, 512],
        "batch": [16, 32, 64, 128, 256],
        "width": [128, 256, 512, 1024, 2048],
    }
    makers: dict[str, Callable[[int], tuple[Deployment, int]]] = {
        "T": lambda n: (chain(512, n), 16),
        "batch": lambda n: (chain(512, 32), n),
        "width": lambda n: (chain(n, 32), 16),
    }
    figure, axes = pyplot.subplots(1, 3, figsize=(9, 3), sharey=True)
    for axis, (name, values) in zip(axes, sizes.items(), strict=True):
        times = [seconds(*makers[name](n), rounds, threads) for n in values]
        slope = np.polyfit(np.log(values), np.log(times), 1)[0]
        yield f"{name}: time grows as {name}^{slope:.2f} from {values[0]} to {values[-1]}"
        axis.loglog(values, np.array(times) * 1e3, "o-")
        axis.set(xlabel=name, title=f"slope {slope:.2f}")
    axes[0].set(ylabel="milliseconds")
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    for samples in (1_000, 10_000, 100_000):
        yield f"{samples} samples: peak memory {peak(samples) / 2**20:.0f} MiB"


def chain(width: int, steps: int) -> Deployment:
    """Two layers of neurons, fully connected."""
    random = np.random.default_rng(0)
    nodes: dict[str, nir.NIRNode] = {"input": nir.Input({"input": np.array([width])})}
    one, zero = np.ones(width), np.zeros(width)
    for i in range(2):
        weight = random.normal(0, 2 / width**0.5, (width, width)).astype(np.float32)
        nodes[f"affine{i}"] = nir.Affine(weight, np.zeros(width, np.float32))
        nodes[f"lif{i}"] = nir.LIF(2e-3 * one, one, zero, 0.5 * one, zero)
    nodes["output"] = nir.Output({"output": np.array([width])})
    names = list(nodes)
    edges = list(itertools.pairwise(names))
    graph = nir.NIRGraph(nodes, edges, metadata={}, type_check=False)
    return Deployment(graph, Timing(1e-3, steps), InputSpec((width,), "frames"))


def peak(samples: int) -> int:
    """Peak memory in bytes of a process of its own that runs this many samples in batches."""
    command = [sys.executable, __file__, "--samples", str(samples)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def run_samples(samples: int) -> int:
    """Stream samples through a network; the peak memory of this process."""
    deployment, simulator = chain(256, 16), Fast()
    for start in range(0, samples, 250):
        simulator.scores(deployment, stimulus(deployment, min(250, samples - start)))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def by_events(rounds: int) -> str:
    """Products event by event against dense ones, by density; Markdown."""
    random = np.random.default_rng(0)
    lines = ["| layer | density | dense ms | events ms | gain |", "|---|---|---|---|---|"]
    matrix = nir.Affine(random.normal(size=(512, 512)), np.zeros(512))
    kernels = random.normal(size=(256, 256, 3, 3))
    convolution = nir.Conv2d(None, kernels, 1, 1, 1, 1, np.zeros(256))
    layers = {
        "matrix 512x512, 16 rows": (matrix, (16, 512), (512,)),
        "matrix 512x512, 1024 rows": (matrix, (1024, 512), (512,)),
        "convolution 3x3, 256 channels, 12x12": (convolution, (10, 256, 12, 12), (256, 12, 12)),
    }
    for name, (node, shape, output) in layers.items():
        context = Context(Timing(), shape[1:], torch.float32)
        both = {"dense": dense(node, context)}
        make: Any = events._matrix if isinstance(node, nir.Affine) else events._convolution
        arguments = (torch.float32,) if isinstance(node, nir.Affine) else (output, torch.float32)
        both["events"] = make(node, *arguments)
        for density in (0.005, 0.01, 0.02, 0.05, 0.1, 0.2):
            x = torch.from_numpy((random.random(shape) < density).astype(np.float32))
            if x.ndim == 4:
                x = x.contiguous(memory_format=torch.channels_last)
            timed = {n: (lambda _, layer=layer, x=x: layer(x)) for n, layer in both.items()}
            medians = engines.measure(timed, x.numpy(), rounds)
            gain = medians["dense"] / medians["events"]
            lines.append(
                f"| {name} | {density:.1%} | {medians['dense'] * 1e3:.3f} "
                f"| {medians['events'] * 1e3:.3f} | {gain:.2f} |"
            )
    return "\n".join(lines)


def main() -> None:
    """Print what is asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, help="[default: 9, large networks 3]")
    parser.add_argument("--network", action="append", choices=BATCHES)
    parser.add_argument("--batch", action="append", type=int)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--growth", type=Path, help="SVG to draw")
    parser.add_argument("--events", action="store_true")
    parser.add_argument("--report", type=Path, help="page to write, with growth.svg beside it")
    parser.add_argument("--samples", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.samples:
        print(run_samples(arguments.samples))
    elif arguments.report:
        threads = sorted({1, arguments.threads})
        report(arguments.report, arguments.report.with_name("growth.svg"), threads)
    elif arguments.growth:
        print("\n".join(growth(arguments.growth, arguments.rounds or 7, arguments.threads)))
    elif arguments.events:
        print(by_events(arguments.rounds or 7))
    else:
        for name in arguments.network or BATCHES:
            for batch in arguments.batch or BATCHES[name]:
                rounds = arguments.rounds or ROUNDS[name]
                found = measured(name, batch, rounds, arguments.threads)
                print(
                    f"\n{arguments.threads} threads, {rounds} rounds, {found.table()}", flush=True
                )


if __name__ == "__main__":
    main()
