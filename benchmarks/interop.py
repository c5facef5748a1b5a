"""What other frameworks' own importers make of our files: mismatching spikes, or why they refuse.

Random networks of every kind, over seeds and time constants, are written in a dialect, loaded by
each framework's own importer in a process and an environment of its own, run, and compared with the
reference simulator. A difference in a dialect that is meant for a framework is a failure (exit 1).

Run: python benchmarks/interop.py --seeds 20 -o docs/interop.md
"""

from __future__ import annotations

import argparse
import copy
import functools
import importlib.util
import itertools
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from environments import BuildError, environment
from interop_networks import BATCH, DT, NETWORKS, STEPS, TAUS, WEIGHTS, Kind

from msg_deploy.deployment import Deployment
from msg_deploy.errors import GraphError
from msg_deploy.exporters import nir as nir_file
from msg_deploy.exporters.dialects import in_dialect
from msg_deploy.files import write_text
from msg_deploy.progress import progress
from msg_deploy.sim.reference import Reference
from msg_deploy.sim.simulator import FloatArray

HERE = Path(__file__).resolve().parent
WORKER = HERE / "interop_worker.py"
ENVIRONMENTS = HERE.parent / "build" / "interop"
PORTABLE = ("norse", "snntorch", "spikingjelly")
SUBTRACTING = ("sinabs", "rockpool", "spyx")
RESETTING = ("lava", "snn_mlir")
OURS = "by us: "
Pythons = dict[str, Path | str]
"""Of each framework, or why there is none."""
MEMORYLESS = Kind("MLP, LIF with tau = dt", tamed=True)


def kinds(**fields: Any) -> list[Kind]:
    """Every network with every sort of weights."""
    return [Kind(n, w, **fields) for w, n in itertools.product(WEIGHTS, NETWORKS)]


@dataclass(frozen=True)
class Table:
    """One table of the page.

    Attributes:
        title: its heading.
        text: what it shows.
        frameworks: its columns, modules of benchmarks/frameworks.
        kinds: its rows.
        dialect: of all files; None: of each framework its own, where differences are failures.
    """

    title: str
    text: str
    frameworks: tuple[str, ...]
    kinds: list[Kind]
    dialect: str | None = None


TABLES = [
    Table(
        "Dialect `portable`",
        "One file for three frameworks. Reset to zero; reset by subtraction is refused, because "
        "their importers reset to zero.",
        PORTABLE,
        kinds(),
    ),
    Table(
        "Dialects `sinabs`, `rockpool`, `spyx`",
        "These subtract the threshold, and the first two spike several times in a step. The "
        "networks are such that no membrane can reach two thresholds within the range of the "
        "input, which the dialects prove or refuse; reset to zero is refused unless tau = dt. "
        "spyx is late by one step for each layer of neurons, as the metadata of the file say; that "
        "is taken into account.",
        SUBTRACTING,
        [*kinds(reset="subtract", tamed=True), MEMORYLESS],
    ),
    Table(
        "Dialects `lava`, `snn-mlir`",
        "Reset to zero. lava-nc has no NIR importer: what is compared is its Dense and LIF "
        "processes as a loader of ours sets them up, late by one step for each matrix. snn-mlir "
        "parses and exports; to execute takes a compiler that is not on PyPI, so its parameters "
        "are compared (decay of current and membrane, threshold), and no spikes.",
        RESETTING,
        kinds(),
    ),
    Table(
        "Plain `nir`",
        "Why there are dialects: the same networks written as they are, each importer told the "
        "right dt where it can be told. Differences here are what `msg-deploy inspect` warns of.",
        (*PORTABLE, *SUBTRACTING),
        [Kind(n, reset=r, tamed=r == "subtract") for r in ("zero", "subtract") for n in NETWORKS],
        dialect="nir",
    ),
]


@dataclass
class Cell:
    """What one framework made of one kind.

    Attributes:
        mismatches: spikes that differ.
        spikes: that were compared.
        ran: networks that were run.
        parsed: networks of which only parameters were compared.
        refused: reason -> number of networks; by us, or by the framework's own error.
    """

    mismatches: int = 0
    spikes: int = 0
    ran: int = 0
    parsed: int = 0
    refused: dict[str, int] = field(default_factory=dict)

    def refuse(self, reason: str) -> None:
        """Count one refusal."""
        self.refused[reason] = self.refused.get(reason, 0) + 1

    @property
    def failed(self) -> bool:
        """Differs, or the framework refuses what its own dialect wrote."""
        return self.mismatches > 0 or any(not r.startswith(OURS) for r in self.refused)

    def text(self, note: Callable[[str], int], compared: int) -> str:
        """Mismatching spikes, or footnotes that say why there are none.

        Args:
            note: the number of a footnote.
            compared: spikes that the others compare; fewer are told.
        """
        fewer = "" if self.spikes == compared else f" of {self.spikes}"
        parts = [f"{self.mismatches}{fewer}"] if self.ran else []
        parts += ["parameters equal"] if self.parsed else []
        for reason, times in self.refused.items():
            share = f" ({times} networks)" if parts or len(self.refused) > 1 else ""
            parts.append(f"refused{share} [{note(reason)}]")
        return "; ".join(parts)


def framework(name: str) -> Any:
    """A module of benchmarks/frameworks; it imports its framework only when it loads."""
    spec = importlib.util.spec_from_file_location(name, HERE / "frameworks" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def meant(deployment: Deployment) -> dict[str, list[float]]:
    """(decay of the current, decay of the membrane, threshold) of each layer, with gains of one."""
    dt, layers = deployment.timing.dt, {}
    for name, node in deployment.graph.nodes.items():
        if not hasattr(node, "v_threshold"):
            continue
        threshold, gain = node.v_threshold.flat[0], node.r.flat[0]
        syn = dt / node.tau_syn.flat[0] if hasattr(node, "tau_syn") else 1.0
        tau = getattr(node, "tau_mem", getattr(node, "tau", None))
        mem = 0.0 if tau is None else dt / tau.flat[0]
        gain *= (mem or 1.0) * (syn * node.w_in.flat[0] if hasattr(node, "w_in") else 1.0)
        layers[name] = [float(1 - syn), float(1 - mem), float(threshold / gain)]
    return layers


Jobs = list[tuple[int, dict[str, Any]]]
"""(number of the kind, what the worker is told)."""


def written(
    table: Table, dialect: str, seeds: int, folder: Path, moved: Callable[[str], None]
) -> tuple[Jobs, list[Cell]]:
    """Files to load, inputs and the spikes of the reference; and the refusals of each kind."""
    listed: Jobs = []
    cells = [Cell() for _ in table.kinds]
    for i, kind in enumerate(table.kinds):
        for seed, tau in itertools.product(range(seeds), TAUS):
            try:
                path = folder / f"{i}-{seed}-{tau}"
                listed.append((i, job(kind, seed, tau, dialect, str(path))))
            except GraphError as error:
                cells[i].refuse(f"{OURS}{error}")
        moved(f"writing {dialect}")
    return listed, cells


@functools.cache
def simulated(kind: Kind, seed: int, tau: float) -> tuple[Deployment, FloatArray, FloatArray]:
    """A network, inputs, and what the reference gives."""
    deployment = kind.build(seed, tau)
    shape = (STEPS, BATCH, *deployment.input.shape)
    inputs = (np.random.default_rng(seed).random(shape) < 0.5).astype(np.float32)
    return deployment, inputs, Reference().run(deployment, inputs).outputs.astype(np.float32)


def job(kind: Kind, seed: int, tau: float, dialect: str, path: str) -> dict[str, Any]:
    """One network in a dialect.

    Raises:
        GraphError: the dialect refuses it.
    """
    deployment, inputs, expected = simulated(kind, seed, tau)
    rewritten = in_dialect(deployment, dialect)
    nir_file.write(rewritten, f"{path}.nir")
    np.save(f"{path}.inputs.npy", inputs)
    np.save(f"{path}.expected.npy", expected)
    return {
        "seed": seed,
        "file": f"{path}.nir",
        "inputs": f"{path}.inputs.npy",
        "expected": f"{path}.expected.npy",
        "dt": rewritten.timing.dt,
        "latency": rewritten.provenance.latency,
        "meant": meant(deployment),
        "fired": int(expected.sum()),
        "spikes": expected.size,
    }


def column(name: str, python: Path, listed: Jobs, refused: list[Cell], folder: Path) -> list[Cell]:
    """What a framework makes of the jobs, in a process of its own."""
    cells = copy.deepcopy(refused)
    most = getattr(framework(name), "SEEDS", math.inf)
    listed = [(i, told) for i, told in listed if told["seed"] < most]
    path = folder / f"{name}.json"
    path.write_text(json.dumps([told for _, told in listed]))
    for (i, told), found in zip(listed, answers(name, python, path), strict=False):
        if "problem" in found:
            cells[i].refuse(found["problem"])
        else:
            cells[i].parsed += "parsed" in found
            cells[i].ran += "mismatches" in found
            cells[i].spikes += told["spikes"] if "mismatches" in found else 0
            cells[i].mismatches += found.get("mismatches", 0)
    return cells


def answers(name: str, python: Path, path: Path) -> Iterator[dict[str, Any]]:
    """What the worker prints, one answer for each job; if it ends early, why, for ever."""
    command = [str(python), str(WORKER), str(HERE / "frameworks" / f"{name}.py"), str(path)]
    quiet = os.environ | {"OMP_NUM_THREADS": "1", "JAX_PLATFORMS": "cpu"}
    result = subprocess.run(command, capture_output=True, text=True, env=quiet)
    yield from (json.loads(line) for line in result.stdout.splitlines() if line.startswith("{"))
    last = (result.stderr.strip().splitlines() or ["no reason"])[-1]
    yield from itertools.repeat({"problem": f"ended: {last}"})


@dataclass
class Results:
    """Of one table.

    Attributes:
        counts: (spikes compared, fired) of each kind.
        columns: cells by framework, as they come.
    """

    counts: list[tuple[int, int]]
    columns: dict[str, Future[list[Cell]]]


def started(
    table: Table,
    pythons: Pythons,
    seeds: int,
    folder: Path,
    pool: ThreadPoolExecutor,
    moved: Callable[[str], None],
) -> Results:
    """Write the files of a table, and let the frameworks run them, each in a process."""
    names = [name for name in table.frameworks if name in pythons]
    results = Results([(0, 0)] * len(table.kinds), {})

    def run(name: str, listed: Jobs, refused: list[Cell]) -> list[Cell]:
        python = pythons[name]
        if isinstance(python, str):
            return [Cell(refused={f"{OURS}{python}": 1}) for _ in table.kinds]
        return column(name, python, listed, refused, folder)

    for dialect in dict.fromkeys(table.dialect or framework(name).DIALECT for name in names):
        inside = folder / dialect
        inside.mkdir(parents=True)
        listed, refused = written(table, dialect, seeds, inside, moved)
        for i in range(len(table.kinds)):
            own = [told for number, told in listed if number == i]
            spikes, fired = (sum(told[n] for told in own) for n in ("spikes", "fired"))
            results.counts[i] = max(results.counts[i], (spikes, fired))
        for name in names:
            if dialect == (table.dialect or framework(name).DIALECT):
                results.columns[name] = pool.submit(run, name, listed, refused)
    return results


def markdown(table: Table, found: dict[str, list[Cell]], counts: list[tuple[int, int]]) -> str:
    """A table and its footnotes.

    Args:
        table: what was to be compared.
        found: cells by framework.
        counts: (spikes compared, fired) of each kind.
    """
    notes: list[str] = []

    def note(reason: str) -> int:
        if reason not in notes:
            notes.append(reason)
        return notes.index(reason) + 1

    titles = [framework(name).TITLE for name in found]
    lines = [
        f"## {table.title}\n\n{table.text}\n",
        f"| network | weights | reset | spikes compared | fired | {' | '.join(titles)} |",
        f"|---|---|---|---|---|{'---|' * len(titles)}",
    ]
    for i, kind in enumerate(table.kinds):
        cells = [found[name][i].text(note, counts[i][0]) for name in found]
        head = [kind.network, kind.weights, kind.reset, *map(str, counts[i])]
        lines.append(f"| {' | '.join([*head, *cells])} |")
    lines += ["", *(f"{i + 1}. {reason}" for i, reason in enumerate(notes))] if notes else []
    lines += ["", *(f"- {framework(name).TITLE}: {framework(name).NOTE}" for name in found)]
    return "\n".join(lines)


INTRODUCTION = """# Interoperability

<!-- Written by `make interop`; do not edit. -->

The same networks, written by us and loaded by each framework's own importer in an environment and a
process of its own: how many output spikes differ from the reference simulator, or the exact reason
why a dialect or an importer refuses. {networks} networks of a kind ({seeds} seeds, tau of {taus}
steps), random weights: float, int8 on a grid of 1/8, or int8 where the largest weight of a layer is
127. T = {steps}, batch {batch}, dt = {dt:g} s. [Destinations](destinations.md) says how to load a
file where.

"""


def interpreters(names: list[str], root: Path, here: bool) -> Pythons:
    """A Python for each framework, or why there is none."""
    if here:
        return dict.fromkeys(names, Path(sys.executable))
    found: Pythons = {}
    with progress("environments") as move:
        for done, name in enumerate(names):
            move(done, len(names), name)
            try:
                found[name] = environment(root / name, framework(name).INSTALL)
            except BuildError as error:
                found[name] = f"its environment cannot be built: {error}"
    return found


def main() -> None:
    """Print the tables, or write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--framework", action="append", help="only this one; may be repeated")
    parser.add_argument("--environments", type=Path, default=ENVIRONMENTS)
    parser.add_argument("--here", action="store_true", help="use the Python that runs this")
    parser.add_argument("--output", "-o", type=Path)
    arguments = parser.parse_args()
    names = arguments.framework or [*PORTABLE, *SUBTRACTING, *RESETTING]
    pythons = interpreters(names, arguments.environments, arguments.here)
    text = INTRODUCTION.format(
        networks=arguments.seeds * len(TAUS),
        seeds=arguments.seeds,
        taus=", ".join(map(str, TAUS)),
        steps=STEPS,
        batch=BATCH,
        dt=DT,
    )
    wanted = [table for table in TABLES if any(name in pythons for name in table.frameworks)]
    total = sum(
        len(table.kinds)
        * len({table.dialect or framework(n).DIALECT for n in table.frameworks if n in pythons})
        + sum(name in pythons for name in table.frameworks)
        for table in wanted
    )
    with (
        tempfile.TemporaryDirectory() as kept,
        ThreadPoolExecutor(os.cpu_count()) as pool,
        progress("interop") as move,
    ):
        done = itertools.count(1)

        def moved(note: str) -> None:
            move(next(done), total, note)

        folders = (Path(kept) / str(i) for i in itertools.count())
        running = [
            started(table, pythons, arguments.seeds, next(folders), pool, moved) for table in wanted
        ]
        failed = False
        for table, results in zip(wanted, running, strict=True):
            found: dict[str, list[Cell]] = {}
            for name in table.frameworks:
                if name in results.columns:
                    found[name] = results.columns[name].result()
                    moved(f"{name}, {table.title}")
            text += f"{markdown(table, found, results.counts)}\n\n"
            own = table.dialect is None
            failed |= own and any(cell.failed for cells in found.values() for cell in cells)
    if arguments.output:
        write_text(arguments.output, text.rstrip("\n") + "\n")
    else:
        print(text)
    raise SystemExit(int(failed))


if __name__ == "__main__":
    main()
