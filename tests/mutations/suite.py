"""Every bug on every network, in .nir and .onnx files and in torch modules: what a check says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from msg_deploy import api
from msg_deploy.deployment import Deployment
from msg_deploy.exporters import nir as nir_file
from msg_deploy.exporters.onnx import build as onnx_model
from msg_deploy.exporters.onnx import file as onnx_file
from msg_deploy.sim.verdict import Kind, Verdict
from tests.mutations.bugs import BUGS
from tests.mutations.modules import MODULE_BUGS
from tests.mutations.networks import TORCH, deployments, samples
from tests.mutations.operators import OPERATOR_BUGS

FILES = ("nir", "onnx")
OPERATORS = "operators"
SCORES = 1e-4
"""A larger difference of scores is a change, as that of a spike is."""
RIGHT = ("detected", "layer", "named", "listed")


@dataclass(frozen=True)
class Case:
    """One bug on one network.

    Attributes:
        bug: its name.
        network: its name.
        kind: "nir", "onnx", "operators" (of .onnx) or "torch".
        changes: whether any spike, or score, is another one.
        detected: whether the verdict is DIVERGENT, or TIES.
        layer: whether the layers found at fault are the right ones.
        named: whether a right cause comes first.
        listed: whether a right cause is among those that explain everything.
        found: causes as found, for people.
    """

    bug: str
    network: str
    kind: str
    changes: bool
    detected: bool
    layer: bool
    named: bool
    listed: bool
    found: str


def written(deployment: Deployment, kind: str, folder: Path) -> Path:
    """A graph as a file."""
    path = folder / f"mutant.{kind}"
    if kind == "nir":
        nir_file.write(deployment, path)
    else:
        onnx_file.write(onnx_model.build(deployment), path)
    return path


def graph_cases(folder: Path, quick: bool = False) -> Iterator[Case]:
    """Every bug on every network, in files.

    Args:
        folder: for the files.
        quick: each in one format, in turn, in place of both.
    """
    number = 0
    for network, deployment in deployments().items():
        for name, bug in BUGS.items():
            mutated = bug(deployment)
            if mutated is None:
                continue
            number += 1
            for kind in FILES[number % 2 :][:1] if quick else FILES:
                path = written(mutated.deployment, kind, folder)
                verdict = checked(deployment, path)
                yield case(name, network, kind, verdict, mutated.layers, mutated.causes)


def checked(deployment: Deployment, other: api.Model) -> Verdict:
    """The check that every case makes."""
    side = api.open_model(other)
    engines = ["reference"] if side.has_graph and not side.own else None
    engines = engines if side.has_graph else ["onnxruntime"]
    return api.check(deployment, other, samples(deployment), engines, random=0)


def operator_cases(folder: Path, quick: bool = False) -> Iterator[Case]:
    """Bugs in the operators of .onnx files.

    Args:
        folder: for the files.
        quick: each on at most two networks, in place of all.
    """
    path = folder / "edited.onnx"
    done: Counter[str] = Counter()
    for network, deployment in deployments().items():
        for name, edit in OPERATOR_BUGS.items():
            if quick and done[name] == 2:
                continue
            onnx_file.write(onnx_file.inlined(onnx_model.build(deployment)), path)
            model = onnx.load(path)
            edited = edit(model, deployment)
            if edited is None:
                continue
            done[name] += 1
            onnx.save(model, path)
            verdict = checked(deployment, path)
            yield case(name, network, OPERATORS, verdict, edited.layers, edited.causes)


def module_cases() -> Iterator[Case]:
    """Bugs in torch modules: the right side runs as it is."""
    for network, make in TORCH.items():
        deployment = api.open_model(make()).deployment
        for name, bug in MODULE_BUGS.items():
            module = make()
            target = bug(module)
            if target is None:
                continue
            layers, causes = target
            verdict = checked(deployment, module)
            yield case(name, network, "torch", verdict, layers, causes)


def case(
    bug: str,
    network: str,
    kind: str,
    verdict: Verdict,
    layers: frozenset[str],
    causes: tuple[str, ...],
) -> Case:
    """What a verdict says about a bug."""
    firsts = [c.first for c in verdict.comparisons if c.first]
    changes = bool(verdict.mismatches) or any(
        c.score_difference > 1e-4 for c in verdict.comparisons
    )
    faulty = verdict.diagnosis.faulty if verdict.diagnosis else ()
    named = bool(faulty) and all(f.causes and f.causes[0].name in causes for f in faulty)
    listed = bool(faulty) and all(any(c.name in causes for c in f.causes) for f in faulty)
    found = "; ".join(f"{f.node}: {[c.name for c in f.causes][:4]}" for f in faulty)
    return Case(
        bug=bug,
        network=network,
        kind=kind,
        changes=changes,
        detected=verdict.kind in (Kind.DIVERGENT, Kind.TIES) and bool(firsts),
        layer=bool(faulty) and {f.node for f in faulty} <= layers,
        named=named,
        listed=listed,
        found=found,
    )


def share(cases: list[Case], field: str) -> float:
    """Share of the cases that change something for which a field is true."""
    counted = [getattr(c, field) for c in cases if c.changes]
    return float(np.mean(counted)) if counted else 1.0


def table(cases: list[Case]) -> str:
    """A row for each bug: cases that change something, and how many of them are right."""
    lines = ["| bug | cases | detected | right layer | right cause first | right cause listed |"]
    lines.append("|---|---|---|---|---|---|")
    bugs = list(dict.fromkeys(c.bug for c in cases))
    rows = {bug: [c for c in cases if c.bug == bug and c.changes] for bug in bugs}
    for bug, mine in {**rows, "all": [c for c in cases if c.changes]}.items():
        counts = [sum(getattr(c, field) for c in mine) for field in RIGHT]
        lines.append(f"| {bug} | {len(mine)} | {' | '.join(map(str, counts))} |")
    return "\n".join(lines)
