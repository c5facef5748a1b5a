"""The command line. Heavy libraries are imported inside the commands, so that --help is quick."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from msg_deploy import __version__
from msg_deploy.errors import MsgDeployError, UsageError
from msg_deploy.options import Fold, Format, Precision, ResetMode, Surrogate, Where

if TYPE_CHECKING:
    from msg_deploy.data import Dataset
    from msg_deploy.exporters.nir import ForeignTiming
    from msg_deploy.networks import SpikingNetwork
    from msg_deploy.sim.compare import Verdict
    from msg_deploy.train import TrainingOptions

app = typer.Typer(
    name="msg-deploy",
    help="Train spiking networks with MSG and TWO, export them, and check the export spike for "
    "spike.\n\nExit codes: 0 done or equivalent, 1 not equivalent, 2 bad usage or bad input.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document for machines.")]
Seed = Annotated[int, typer.Option(help="Seed of everything random.")]
Dt = Annotated[
    float | None,
    typer.Option(help="Timestep in seconds, for a .nir without metadata. [default: 1e-4]"),
]
Steps = Annotated[
    int | None, typer.Option(help="Timesteps, for a .nir without metadata. [default: 100]")
]
Reset = Annotated[
    ResetMode | None,
    typer.Option(help="Reset mode, for a .nir without metadata. [default: zero]"),
]


def main() -> None:
    """The program msg-deploy."""
    _run(app)


def equivalence_check_main() -> None:
    """The program equivalence-check, which is `msg-deploy equivalence-check`."""
    alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    alone.command(name="equivalence-check")(equivalence_check)
    _run(alone)


def _run(program: typer.Typer) -> None:
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    try:
        program()
    except MsgDeployError as error:
        _fail(str(error))


def _fail(text: str) -> NoReturn:
    print(f"error: {text}", file=sys.stderr)
    raise SystemExit(2)


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        print(__version__)
        raise typer.Exit


@app.command()
def train(
    output: Annotated[Path, typer.Option("--output", "-o", help="Checkpoint to write.")] = Path(
        "model.pt"
    ),
    model: Annotated[str, typer.Option(help="Network: mlp or convnet.")] = "mlp",
    data: Annotated[str, typer.Option(help="Data set: digits.")] = "digits",
    steps: Annotated[int, typer.Option(min=1, help="Timesteps T.")] = 8,
    dt: Annotated[float, typer.Option(help="Length of a timestep in seconds.")] = 1e-3,
    tau: Annotated[
        float, typer.Option(help="Membrane time constant in timesteps; inf makes IF neurons.")
    ] = 2.0,
    threshold: Annotated[float, typer.Option(help="Firing threshold.")] = 0.5,
    reset: Annotated[ResetMode, typer.Option(help="Reset mode.")] = "zero",
    surrogate: Annotated[
        Surrogate,
        typer.Option(help="Surrogate."),
    ] = "arctan",
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the data.")] = 30,
    batch_size: Annotated[int, typer.Option(min=1, help="Samples per step.")] = 64,
    learning_rate: Annotated[float, typer.Option(help="Of AdamW, with cosine decay.")] = 5e-3,
    mask_prob: Annotated[float, typer.Option(help="MSG's p; 0 is plain surrogate gradient.")] = 0.5,
    mask_where: Annotated[
        Where,
        typer.Option(help="What MSG masks."),
    ] = "weight",
    mask_rescale: Annotated[
        bool, typer.Option("--mask-rescale", help="Divide kept gradients by 1 - p.")
    ] = False,
    beta: Annotated[float, typer.Option(help="Share of TWO's old weights kept per epoch.")] = 0.9,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Train a network with MSG and TWO and write a checkpoint.

    Example: msg-deploy train --model convnet --epochs 20 -o model.pt
    """
    from msg_deploy import checkpoint, console
    from msg_deploy.data import load_dataset
    from msg_deploy.files import check_writable
    from msg_deploy.train import TrainingOptions, evaluate

    check_writable(output)
    options = TrainingOptions(
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        mask_probability=mask_prob,
        mask_where=mask_where,
        mask_rescale=mask_rescale,
        seed=seed,
    )
    dataset = load_dataset(data)
    neuron = {"tau": tau, "v_threshold": threshold, "reset": reset, "surrogate": surrogate}
    network = _train(model, dataset, steps, dt, beta, options, neuron)
    accuracy = evaluate(network, dataset.test)
    checkpoint.save(network, output, training={"model": model, **vars(options)})
    if as_json:
        result = {"accuracy_two": accuracy.two, "accuracy_mean": accuracy.mean}
        console.print_json({"checkpoint": str(output), **result})
    else:
        print(f"test accuracy {accuracy.two:.2%} with TWO, {accuracy.mean:.2%} with the plain mean")
        print(f"wrote {output}")


def _train(
    model: str,
    dataset: Dataset,
    steps: int,
    dt: float,
    beta: float,
    options: TrainingOptions,
    neuron: dict[str, Any],
) -> SpikingNetwork:
    import torch

    from msg_deploy import console
    from msg_deploy.deployment import Provenance
    from msg_deploy.train import Epoch, train
    from msg_deploy.zoo import build

    torch.manual_seed(options.seed)
    provenance = Provenance(data=dataset.name, classes=dataset.classes)
    network = build(
        model, dataset.input, len(dataset.classes), steps, dt, beta, provenance, **neuron
    )
    with console.progress(f"train {model} on {dataset.name}") as move:

        def on_epoch(epoch: Epoch) -> None:
            note = f"loss {epoch.loss:.3f} accuracy {epoch.accuracy:.1%}"
            move(epoch.number, options.epochs, note)

        train(network, dataset, options, on_epoch)
    return network


@app.command()
def export(
    model: Annotated[Path, typer.Argument(help="Checkpoint (.pt) or graph (.nir).")],
    to: Annotated[Format, typer.Option("--to", help="Format.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write. [default: MODEL.nir]")
    ] = None,
    two_fold: Annotated[
        Fold,
        typer.Option(
            help="How TWO is folded: delay (exact, in the graph) or host (per-step outputs, the "
            "weights in the metadata).",
        ),
    ] = "delay",
    as_json: Json = False,
) -> None:
    """Export a checkpoint with the TWO weights folded in.

    Example: msg-deploy export model.pt --to nir
    """
    from msg_deploy import api, console

    target = output or model.with_suffix(f".{to}")
    deployment = api.export(model, target, two_fold)
    readout = deployment.readout
    if as_json:
        console.print_json({"file": str(target), **console.deployment_as_data(deployment)})
        return
    print(f"wrote {target}: {len(deployment.graph.nodes)} nodes")
    if readout:
        print(f"TWO folded by {readout.fold}, largest error of f {readout.error:.1e}")


@app.command(name="equivalence-check")
def equivalence_check(
    a: Annotated[Path, typer.Argument(help="What was trained: .pt or .nir.")],
    b: Annotated[Path, typer.Argument(help="What was exported: .pt or .nir.")],
    simulators: Annotated[
        list[str] | None,
        typer.Option(
            "--with",
            help="Simulator for B, may be repeated. [default: reference and norse]",
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(help="Data set whose held-out samples are run. [default: that of A]"),
    ] = None,
    samples: Annotated[
        int | None, typer.Option(min=0, help="Use at most this many samples of the data.")
    ] = None,
    random: Annotated[
        int | None, typer.Option(min=0, help="Random samples in addition. [default: 64]")
    ] = None,
    precision: Annotated[
        Precision,
        typer.Option(help="Arithmetic; float64 leaves no rounding to blame."),
    ] = "float64",
    dt: Dt = None,
    steps: Steps = None,
    reset: Reset = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Check that B spikes exactly as A does: every layer, step and neuron, outputs and decisions.

    Exit code 0: IDENTICAL. 1: DIVERGENT, with the first differing layer, step and neuron.
    2: INCOMPARABLE or bad input.

    Example: msg-deploy equivalence-check model.pt model.nir --with norse
    """
    from msg_deploy import api, console

    with console.progress("check") as move:
        verdict = api.check(
            a,
            b,
            data=data,
            simulators=simulators or api.DEFAULT_SIMULATORS,
            samples=samples,
            random=random,
            precision=precision,
            seed=seed,
            foreign=_foreign(dt, steps, reset),
            on_batch=lambda done, total: move(done, total, ""),
        )
    if as_json:
        console.print_json(console.verdict_as_data(verdict))
    else:
        console.print_verdict(verdict)
    raise typer.Exit(_exit_code(verdict))


def _exit_code(verdict: Verdict) -> int:
    return {"IDENTICAL": 0, "DIVERGENT": 1, "INCOMPARABLE": 2}[verdict.kind.value]


def _foreign(dt: float | None, steps: int | None, reset: ResetMode | None) -> ForeignTiming:
    from msg_deploy.exporters.nir import ForeignTiming

    return ForeignTiming(dt, steps, reset)


@app.command()
def inspect(
    model: Annotated[Path, typer.Argument(help="Checkpoint (.pt) or graph (.nir).")],
    dt: Dt = None,
    steps: Steps = None,
    reset: Reset = None,
    as_json: Json = False,
) -> None:
    """Show nodes, shapes, parameters, timing and the TWO readout.

    Example: msg-deploy inspect model.nir --json
    """
    from msg_deploy import api, console

    deployment = api.open_model(model, _foreign(dt, steps, reset)).deployment
    if as_json:
        console.print_json(console.deployment_as_data(deployment))
    else:
        console.print_deployment(deployment)


@app.command()
def demo(
    output_dir: Annotated[
        Path, typer.Option("--output-dir", "-o", help="Folder for the files; made if missing.")
    ] = Path("msg-deploy-demo"),
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the data.")] = 20,
    seed: Seed = 0,
) -> None:
    """Train on scikit-learn's digits, export to NIR, and check every held-out digit.

    Example: msg-deploy demo
    """
    from msg_deploy import api, checkpoint, console
    from msg_deploy.data import load_dataset
    from msg_deploy.files import check_writable, write_text
    from msg_deploy.train import TrainingOptions, evaluate

    try:
        output_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{output_dir}: cannot be made ({error.strerror}).") from error
    files = [output_dir / name for name in ("model.pt", "model.nir", "report.json")]
    model, graph, report = files
    check_writable(model)
    dataset = load_dataset("digits")
    print(f"1 train: {len(dataset.train)} digits, T = 8, MSG p = 0.5, TWO")
    options = TrainingOptions(epochs=epochs, seed=seed)
    network = _train("convnet", dataset, 8, 1e-3, 0.9, options, {})
    checkpoint.save(network, model, training={"model": "convnet", **vars(options)})
    accuracy = evaluate(network, dataset.test)
    print(
        f"  test accuracy {accuracy.two:.2%} with TWO, {accuracy.mean:.2%} with the plain mean "
        f"({len(dataset.test)} held-out digits)"
    )
    deployment = api.export(model, graph, "delay")
    print(f"2 export: {graph}, {len(deployment.graph.nodes)} nodes, TWO folded by delay")
    print("3 check: the trained torch module against the file, in our reference and in Norse")
    with console.progress("check") as move:
        verdict = api.check(
            model, graph, "digits", on_batch=lambda done, total: move(done, total, "")
        )
        rounded = api.check(model, graph, "digits", precision="float32")
    write_text(report, json.dumps(console.verdict_as_data(verdict), indent=1))
    print(f"  in float32 {rounded.mismatches} of {rounded.spikes} spikes differ")
    print("files: " + ", ".join(map(str, files)))
    console.print_verdict(verdict)
    raise typer.Exit(_exit_code(verdict))
