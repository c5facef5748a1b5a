"""Every chip target with the networks of chip_networks.py: fits, accuracy, spikes, exactness.

For each target whose vendor has a model that runs, the environment is built under build/chips if it
is missing, and every spike and membrane of our simulation is compared with the vendor's. Writes
docs/targets.md. Run: make chips, or python benchmarks/chips.py --only loihi2 --samples 100
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from chip_networks import NETWORKS, Recipe
from environments import BuildError, clone, environment

from msg_deploy.errors import MsgDeployError
from msg_deploy.exporters.chips.target import Target
from msg_deploy.exporters.targets import targets
from msg_deploy.files import write_text
from msg_deploy.onchip.check import ChipKind, ChipVerdict, check_on_chip
from msg_deploy.onchip.prepare import Job
from msg_deploy.onchip.vendor import title

HEAD = """# Chip targets

Written by `make chips` (benchmarks/chips.py); what the words mean is said in [Chips](chips.md).

Each network is trained for the chip by the recipe below and run on {samples} held-out samples at
most. "On the chip" is our simulation of it, to the bit. "Spikes changed": decisions of its neurons
that differ from those of the network in whole numbers. A dash: it does not fit, so nothing is run.
"""

NOTHING = "\N{EN DASH}"


@dataclass(frozen=True)
class Row:
    """One network on one chip.

    Attributes:
        network: its recipe.
        target: the chip.
        verdict: what was found; None: nothing could be.
        problem: why.
        approximate: only with stated approximations.
    """

    network: Recipe
    target: Target
    verdict: ChipVerdict | None
    problem: str = ""
    approximate: bool = False


def measured(network: Recipe, target: Target, arguments: argparse.Namespace) -> Row:
    """A network on a chip, exactly if possible, else with the approximations that it knows."""
    try:
        path = network.make(target.name, arguments.folder, arguments.data_dir)
    except FileNotFoundError as error:
        return Row(network, target, None, str(error))
    row = Row(network, target, None)
    for approximate in (False, True):
        job = Job(
            target.name,
            samples=arguments.samples,
            approximate=approximate,
            options=network.options(arguments.data_dir),
        )
        try:
            verdict = check_on_chip(path, job, arguments.environments)
        except MsgDeployError as error:
            return Row(network, target, None, str(error))
        row = Row(network, target, verdict, approximate=approximate)
        if verdict.kind is not ChipKind.DOES_NOT_FIT:
            return row
    return row


def table(rows: list[Row]) -> Iterator[str]:
    """A line for each row, as Markdown."""
    yield (
        "| chip | network | fits | accuracy float, % | whole, % | on the chip, % "
        "| spikes changed | spikes a sample | synaptic operations a sample | exactness |"
    )
    yield f"|{'---|' * 10}"
    for row in rows:
        yield f"| {' | '.join([row.target.name, row.network.name, *_cells(row)])} |"


def _cells(row: Row) -> list[str]:
    verdict = row.verdict
    if verdict is None:
        return [f"not run: {row.problem}", *[NOTHING] * 7]
    if verdict.kind is ChipKind.DOES_NOT_FIT:
        problems = verdict.fit.chip.problems
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        return [f"no: {problems[0]}{more}".replace("|", "/"), *[NOTHING] * 7]
    fits = "approximately" if row.approximate else "yes"
    effect = verdict.fit.effect
    if effect is None:
        return [fits, *[NOTHING] * 6, row.target.evidence]
    shares = (effect.accuracy, effect.accuracy_whole, effect.accuracy_chip)
    accuracies = [NOTHING if share is None else f"{100 * share:.2f}" for share in shares]
    changed = f"{effect.changed:,} of {effect.decisions:,}"
    counts = [f"{effect.operations[name]:,.0f}" for name in ("spike", "synaptic operation")]
    return [fits, *accuracies, changed, *counts, exactness(row)]


def exactness(row: Row) -> str:
    """What stands behind our simulation."""
    verdict = row.verdict
    if verdict is None or verdict.vendor is None:
        return row.target.evidence
    found = verdict.vendor
    return (
        f"{found.title}: {found.spikes_differ} of {found.spikes:,} spikes, "
        f"{found.membranes_differ} of {found.membranes:,} membranes differ, {found.samples} samples"
    )


def notes(rows: list[Row]) -> Iterator[str]:
    """Approximations and all problems, by chip and network."""
    for row in rows:
        if row.verdict is None:
            continue
        chip = row.verdict.fit.chip
        said = [f"approximated, {a.node or 'network'}: {a.text}" for a in chip.approximations]
        said += [str(problem) for problem in chip.problems]
        if said:
            yield f"**{row.target.name}, {row.network.name}**\n"
            yield from (f"- {line}" for line in said)
            yield ""


def limits(known: list[Target]) -> Iterator[str]:
    """Each target with its limits and their sources."""
    for target in known:
        yield f"### {target.name}: {target.title}\n"
        yield f"Runs: {'; '.join(target.runs)}.\n"
        yield f"Not: {'; '.join(target.lacks)}.\n"
        yield f"Export: {target.format or 'none'}.\n"
        yield f"Evidence: {target.evidence}, {target.evidence_text}\n"
        if target.energy:
            yield f"Energy: {target.energy.source}.\n"
        yield "| limit | most | of what | source |"
        yield "|---|---|---|---|"
        for name, limit in target.limits.items():
            yield f"| {name} | {limit.most:,} | {limit.unit} | {limit.source} |"
        yield ""


def build_environments(folder: Path, known: list[Target]) -> None:
    """Those of the vendors' models, and SANA-FE's; what cannot be built is told."""
    names = {target.vendor for target in known if target.vendor}
    if "loihi2" in names:
        names |= {"sanafe"}
    for name in sorted(names):
        module = import_module(f"msg_deploy.onchip.vendors.{name}")
        print(f"environment of {title(name)}", file=sys.stderr, flush=True)
        try:
            environment(folder / name, module.INSTALL)
            for place, repository, commit in getattr(module, "CLONES", ()):
                clone(folder / name / place, repository, commit)
        except BuildError as error:
            print(f"  not built: {error}", file=sys.stderr, flush=True)


def main() -> None:
    """Build, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", default=[], help="targets")
    parser.add_argument("--networks", nargs="+", default=[], help="names of networks")
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--data-dir", help="folder of N-MNIST; without it that network is left out")
    parser.add_argument("--environments", type=Path, default=Path("build", "chips"))
    parser.add_argument("--folder", type=Path, default=Path("build", "chip-networks"))
    parser.add_argument("--output", "-o", type=Path, help="Markdown; without it nothing is written")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    known = [t for name, t in targets().items() if not arguments.only or name in arguments.only]
    chosen = [n for n in NETWORKS if not arguments.networks or n.name in arguments.networks]
    build_environments(arguments.environments, known)
    rows: list[Row] = []
    for target in known:
        for network in chosen:
            print(f"{target.name}, {network.name}", file=sys.stderr, flush=True)
            rows.append(measured(network, target, arguments))
            print("  " + " | ".join(_cells(rows[-1])), file=sys.stderr, flush=True)
    recipes = [f"- **{n.name}**: {n.text}" for n in chosen]
    page = [HEAD.format(samples=arguments.samples), *table(rows), "", "## The networks\n", *recipes]
    page += ["", "## Why not, and what is approximated\n", *notes(rows)]
    page += ["## The chips\n", *limits(known)]
    text = "\n".join(page).rstrip() + "\n"
    print(text)
    if arguments.output:
        write_text(arguments.output, text)


if __name__ == "__main__":
    main()
