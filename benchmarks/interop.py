"""What other frameworks' own importers make of our files: mismatching spikes, or why they refuse.

Random networks of several kinds, over seeds and time constants, are written in a dialect, loaded by
each framework's stock importer in a process of its own, run, and compared with the reference.

Run: python benchmarks/interop.py --seeds 20 [--dialect portable] [-o docs/interop.md]
"""

from __future__ import annotations

import argparse
import importlib.metadata
import itertools
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nir
import numpy as np

from msg_deploy.deployment import Deployment, InputSpec, Timing
from msg_deploy.errors import GraphError
from msg_deploy.exporters import nir as nir_file
from msg_deploy.exporters.dialects import in_dialect
from msg_deploy.files import write_text
from msg_deploy.progress import progress
from msg_deploy.sim.reference import Reference

STEPS, BATCH, DT = 40, 4, 1e-3
TAUS = (1.5, 2.0, 5.0, 20.0)
FRAMEWORKS = ("norse", "snntorch", "spikingjelly")

WORKER = """
import contextlib, io, json, sys, warnings
import nir, numpy as np, torch
warnings.simplefilter("ignore")
framework, jobs = sys.argv[1], json.load(open(sys.argv[2]))
def load(path):
    if framework == "norse":
        import norse.torch
        return norse.torch.from_nir(nir.read(path), dt=1e-4)  # noqa: TID251
    if framework == "snntorch":
        from snntorch.import_nir import import_from_nir
        return import_from_nir(nir.read(path))
    from spikingjelly.activation_based.nir_exchange import import_from_nir
    return import_from_nir(path, dt=1e-4)
for job in jobs:
    result = {}
    try:
        with contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
            model, state, outputs = load(job["file"]), None, []
            for x in torch.from_numpy(np.load(job["inputs"])):
                y, state = model(x, state)
                outputs.append(y[0] if isinstance(y, tuple) else y)
        found, expected = torch.stack(outputs).numpy(), np.load(job["expected"])
        if found.shape == expected.shape:
            result["mismatches"] = int((found != expected).sum())
        else:
            result["problem"] = f"gives shape {found.shape}, not {expected.shape}"
    except Exception as error:
        text = str(error).strip().splitlines() or [""]
        result["problem"] = f"{type(error).__name__}: {text[0]}"
    print(json.dumps(result), flush=True)
"""


def row(nodes: list[nir.NIRNode], shape: tuple[int, ...], skips: list[Any]) -> Deployment:
    """Nodes one after the other, and skip edges by their numbers."""
    names = ["input", *(f"n{i}" for i in range(len(nodes))), "output"]
    terminals = {"input": nir.Input({"input": np.array(shape)})}
    inner = {f"n{i}": node for i, node in enumerate(nodes)}
    ends = {"output": nir.Output({"output": np.array([3])})}
    edges = [*itertools.pairwise(names), *((f"n{a}", f"n{b}") for a, b in skips)]
    graph = nir.NIRGraph(terminals | inner | ends, edges, metadata={}, type_check=False)
    return Deployment(graph, Timing(DT, STEPS), InputSpec(shape, "frames"))


class Networks:
    """Random networks of each kind; a seed and a time constant in steps give one."""

    def __init__(self, seed: int, tau: float) -> None:
        self.random = np.random.default_rng([seed, int(10 * tau)])
        self.tau = tau * DT

    def affine(self, inputs: int, outputs: int) -> nir.Affine:
        """Weights that make the layer behind fire now and then, at any time constant."""
        scale = 1.2 * (self.tau / DT) ** 0.5
        normal = self.random.normal
        return nir.Affine(normal(size=(outputs, inputs)) * scale, normal(size=outputs) * 0.3)

    def conv(self, outputs: int, inputs: int, groups: int = 1) -> nir.Conv2d:
        """3x3, the image's size kept."""
        scale = 0.8 * (self.tau / DT) ** 0.5
        weight = self.random.normal(size=(outputs, inputs // groups, 3, 3)) * scale
        bias = self.random.normal(size=outputs) * 0.3
        return nir.Conv2d(None, weight, 1, 1, 1, groups, bias)

    def lif(self, *shape: int) -> nir.LIF:
        """Threshold 1."""
        one, zero = np.ones(shape), np.zeros(shape)
        return nir.LIF(self.tau * one, one, zero, one, zero)

    def mlp(self) -> Deployment:
        """Two layers of LIF."""
        return row([self.affine(6, 12), self.lif(12), self.affine(12, 3), self.lif(3)], (6,), [])

    def integrate_and_fire(self) -> Deployment:
        """Two layers of IF."""

        def neuron(n: int) -> nir.IF:
            return nir.IF(np.ones(n), np.full(n, 2.0), np.zeros(n))

        return row([self.affine(6, 12), neuron(12), self.affine(12, 3), neuron(3)], (6,), [])

    def current_based(self) -> Deployment:
        """Two layers of CubaLIF."""

        def neuron(n: int) -> nir.CubaLIF:
            one, zero = np.ones(n), np.zeros(n)
            return nir.CubaLIF(3e-3 * one, self.tau * one, 2 * one, zero, one, zero, 1.5 * one)

        return row([self.affine(6, 12), neuron(12), self.affine(12, 3), neuron(3)], (6,), [])

    def convolutions(self) -> Deployment:
        """Convolution, groups, both poolings, flatten."""
        two, none = np.array([2, 2]), np.array([0, 0])
        return row(
            [
                self.conv(4, 2),
                self.lif(4, 8, 8),
                nir.AvgPool2d(two, two, none),
                self.conv(4, 4, groups=2),
                self.lif(4, 4, 4),
                nir.SumPool2d(two, two, none),
                nir.Flatten({"input": np.array([4, 2, 2])}, 0, -1),
                self.affine(16, 3),
                self.lif(3),
            ],
            (2, 8, 8),
            [],
        )

    def residual(self) -> Deployment:
        """A skip past one layer."""
        nodes = [self.affine(6, 12), self.lif(12), self.affine(12, 12), self.lif(12)]
        return row([*nodes, self.affine(12, 3), self.lif(3)], (6,), [(1, 4)])

    def quantized(self) -> Deployment:
        """Weights of 8 bits on a grid of 1/8, so that membranes hit the threshold exactly."""
        deployment = self.mlp()
        for node in deployment.graph.nodes.values():
            if isinstance(node, nir.Affine):
                node.weight = np.clip(np.rint(node.weight * 8), -128, 127) / 8
                node.bias = np.rint(node.bias * 8) / 8
        return deployment

    def recurrent(self) -> Deployment:
        """A layer that feeds back into itself."""
        back = nir.Linear(self.random.normal(size=(12, 12)) * 0.8)
        nodes = [self.affine(6, 12), self.lif(12), self.affine(12, 3), self.lif(3)]
        deployment = row(nodes, (6,), [])
        deployment.graph.nodes["back"] = back
        deployment.graph.edges += [("n1", "back"), ("back", "n1")]
        return deployment


KINDS: dict[str, Callable[[Networks], Deployment]] = {
    "MLP, LIF": Networks.mlp,
    "MLP, IF": Networks.integrate_and_fire,
    "MLP, CubaLIF": Networks.current_based,
    "conv, pool, flatten": Networks.convolutions,
    "residual": Networks.residual,
    "recurrent": Networks.recurrent,
    "MLP, LIF, int8 on 1/8": Networks.quantized,
}


def jobs(
    make: Callable[[Networks], Deployment], dialect: str, seeds: int, folder: Path
) -> Iterator[dict[str, Any]]:
    """Files to load, inputs, and the spikes that the reference gives."""
    for number, (seed, tau) in enumerate(itertools.product(range(seeds), TAUS)):
        deployment = make(Networks(seed, tau))
        shape = (STEPS, BATCH, *deployment.input.shape)
        inputs = (np.random.default_rng(seed).random(shape) < 0.5).astype(np.float32)
        expected = Reference().run(deployment, inputs).outputs
        paths = {n: str(folder / f"{number}.{n}") for n in ("nir", "inputs.npy", "expected.npy")}
        nir_file.write(in_dialect(deployment, dialect), paths["nir"])
        np.save(paths["inputs.npy"], inputs)
        np.save(paths["expected.npy"], expected.astype(np.float32))
        yield {
            "file": paths["nir"],
            "inputs": paths["inputs.npy"],
            "expected": paths["expected.npy"],
            "fired": int(expected.sum()),
            "spikes": expected.size,
        }


def imported(framework: str, listed: list[dict[str, Any]], folder: Path) -> str:
    """A cell of the table."""
    (folder / "jobs.json").write_text(json.dumps(listed))
    command = [sys.executable, "-c", WORKER, framework, str(folder / "jobs.json")]
    result = subprocess.run(command, capture_output=True, text=True)
    answers = [json.loads(line) for line in result.stdout.splitlines() if line.startswith("{")]
    if len(answers) != len(listed):
        return f"ended: {(result.stderr.strip().splitlines() or ['no reason'])[-1]}"
    problems = sorted({a["problem"] for a in answers if "problem" in a})
    if problems:
        return f"refuses: {problems[0]}"
    return str(sum(a["mismatches"] for a in answers))


def table(dialect: str, seeds: int) -> str:
    """Mismatching spikes by kind of network and framework, Markdown."""
    versions = [f"{name} {importlib.metadata.version(name)}" for name in FRAMEWORKS]
    lines = [
        f"| network | spikes compared | fired | {' | '.join(versions)} |",
        f"|---|---|---|{'---|' * len(FRAMEWORKS)}",
    ]
    with progress("interop") as move:
        for done, (kind, make) in enumerate(KINDS.items()):
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name)
                try:
                    listed = list(jobs(make, dialect, seeds, folder))
                except GraphError as error:
                    lines.append(f"| {kind} | | | not written: {error} |")
                    continue
                spikes, fired = (sum(job[n] for job in listed) for n in ("spikes", "fired"))
                cells = [imported(framework, listed, folder) for framework in FRAMEWORKS]
                lines.append(f"| {kind} | {spikes} | {fired} | {' | '.join(cells)} |")
            move(done + 1, len(KINDS), kind)
    return "\n".join(lines)


INTRODUCTION = """# Interoperability

<!-- Written by `make interop`; do not edit. -->

The same networks, written by us and loaded by the stock importer of each framework in a process of
its own: how many output spikes differ from the reference simulator. {networks} networks of a kind
({seeds} seeds, tau of {taus} steps), random float weights unless it says int8, T = {steps},
batch {batch}, dt = 1e-3 s. Norse is told dt = 1e-4; snnTorch assumes it and spikingjelly
defaults to it, which is why a plain file means something else to them without a word.

"""


def main() -> None:
    """Print the tables, or write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--dialect", action="append")
    parser.add_argument("--output", "-o", type=Path)
    arguments = parser.parse_args()
    text = INTRODUCTION.format(
        networks=arguments.seeds * len(TAUS),
        seeds=arguments.seeds,
        taus=", ".join(map(str, TAUS)),
        steps=STEPS,
        batch=BATCH,
    )
    for dialect in arguments.dialect or ["portable", "nir"]:
        text += f"## Dialect `{dialect}`\n\n{table(dialect, arguments.seeds)}\n\n"
    if arguments.output:
        write_text(arguments.output, text.rstrip("\n") + "\n")
    else:
        print(text)


if __name__ == "__main__":
    main()
