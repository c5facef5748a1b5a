"""The commands about chips; heavy libraries are imported inside them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from msg_deploy.onchip.prepare import Job

Approximate = Annotated[
    bool,
    typer.Option(
        "--approximate",
        help="Chips: allow stated approximations, and say what they cost in accuracy and spikes.",
    ),
]

Vendors = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Chips: environments of the vendors' models. [default: $MSG_DEPLOY_VENDORS, else "
        "build/chips]",
    ),
]
Estimated = Annotated[
    bool,
    typer.Option(
        "--estimate",
        help="loihi2: also energy and latency by SANA-FE, which must be installed (--vendors).",
    ),
]
ChangedDecisions = Annotated[
    float | None,
    typer.Option(
        metavar="SHARE",
        help="Chips: accept spikes that differ while no larger share of the decisions does. "
        "[default: no spike may differ]",
    ),
]


def targets(
    name: Annotated[
        str | None, typer.Argument(help="One of them, with its limits and their sources.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document for machines.")
    ] = False,
) -> None:
    """List the chips that `fit`, `export --to` and `equivalence-check --target` know.

    Example: msg-deploy targets

    Example: msg-deploy targets loihi2
    """
    from msg_deploy import console
    from msg_deploy.exporters import targets as known
    from msg_deploy.onchip import show

    chosen = list(known.targets().values()) if name is None else [known.target(name)]
    if as_json:
        console.print_json([target.as_data() for target in chosen])
    elif name is None:
        show.print_targets(chosen)
    else:
        show.print_target(chosen[0])


def export_to(model: Path, name: str, output: Path | None, job: Job, as_json: bool) -> None:
    """The command `export` for a chip."""
    from msg_deploy import console
    from msg_deploy.onchip import show
    from msg_deploy.onchip.export import DoesNotFitError, export_to_chip
    from msg_deploy.onchip.fit import fit_as_data
    from msg_deploy.progress import progress

    folder = output or model.with_name(f"{model.stem}-{name}")
    try:
        with progress(f"export to {name}") as move:
            written = export_to_chip(model, job, folder, move)
    except DoesNotFitError as error:
        if as_json:
            console.print_json({"folder": None, **fit_as_data(error.fit)})
        else:
            show.print_fit(error.fit)
        raise typer.Exit(1) from None
    if as_json:
        data = fit_as_data(written.fit)
        console.print_json({"folder": str(written.path), "files": list(written.files), **data})
        return
    for approximation in written.fit.chip.approximations:
        where = f"node {approximation.node!r}: " if approximation.node else ""
        console.out.print(f"approximated: {where}{approximation.text}", markup=False)
    if written.fit.effect:
        show.print_effect(written.fit.effect)
    print(f"wrote {written.path}: {', '.join(written.files)}")


def check_against(
    model: Path,
    job: Job,
    vendors: Path | None,
    allowed: float | None,
    html: Path | None,
    as_json: bool,
) -> None:
    """The command `equivalence-check` for a chip."""
    from msg_deploy import console
    from msg_deploy.onchip import show
    from msg_deploy.onchip.check import check_on_chip, verdict_as_data
    from msg_deploy.progress import progress

    with progress(f"check on {job.target}") as move:
        verdict = check_on_chip(model, job, vendors, allowed, move)
    if html:
        _write_page(html, verdict)
    if as_json:
        console.print_json(verdict_as_data(verdict))
    else:
        show.print_chip_verdict(verdict)
        if html:
            print(f"wrote {html}")
    raise typer.Exit(0 if verdict else 1)


def fit_on(
    model: Path,
    job: Job,
    measure: bool,
    estimate: bool,
    vendors: Path | None,
    html: Path | None,
    as_json: bool,
) -> None:
    """The command `fit`."""
    from msg_deploy import console
    from msg_deploy.onchip import show
    from msg_deploy.onchip.fit import fit, fit_as_data
    from msg_deploy.progress import progress

    with progress(f"fit on {job.target}") as move:
        found = fit(model, job, measure, move, estimate, vendors)
    if html:
        _write_page(html, found)
    if as_json:
        console.print_json(fit_as_data(found))
    else:
        show.print_fit(found)
        if html:
            print(f"wrote {html}")
    raise typer.Exit(0 if found else 1)


def _write_page(path: Path, found: Any) -> None:
    from msg_deploy.files import write_text
    from msg_deploy.report.chip import chip_as_html

    write_text(path, chip_as_html(found))
