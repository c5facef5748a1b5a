"""The command line. Heavy libraries are imported inside the commands, so that --help is quick."""

from __future__ import annotations

import contextlib
import logging
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from msg_deploy import __version__, chip_commands
from msg_deploy.chip_commands import Approximate, ChangedDecisions, Estimated, Vendors
from msg_deploy.errors import MsgDeployError, UsageError
from msg_deploy.options import (
    Augment,
    Broken,
    Calibration,
    FoldChoice,
    Granularity,
    InputKind,
    Layout,
    Leak,
    Loss,
    Norm,
    Precision,
    ResetMode,
    SliceBy,
    Surrogate,
    Where,
)

if TYPE_CHECKING:
    from msg_deploy.config import Config
    from msg_deploy.data import Dataset
    from msg_deploy.exporters.fold import FoldEffect
    from msg_deploy.exporters.nir import ForeignTiming
    from msg_deploy.exporters.onnx.file import OnnxModel
    from msg_deploy.networks import SpikingNetwork
    from msg_deploy.onchip.prepare import Job
    from msg_deploy.saved import SavedTrace
    from msg_deploy.sim.verdict import Verdict
    from msg_deploy.train import Accuracy, Epoch

app = typer.Typer(
    name="msg-deploy",
    help="Train spiking networks with MSG and TWO, export them, and check the export spike for "
    "spike.\n\nExit codes: 0 done or equivalent, 1 not equivalent or does not fit, "
    "2 bad usage, bad input or nothing to compare; 130 interrupted, 143 terminated.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document for machines.")]
Seed = Annotated[int, typer.Option(help="Seed of everything random.")]
Dt = Annotated[
    float | None,
    typer.Option(
        help="Timestep in seconds, in place of a .nir file's own. [default: its own or 1e-4]"
    ),
]
Steps = Annotated[
    int | None,
    typer.Option(help="Timesteps, in place of a .nir file's own. [default: its own or 100]"),
]
Reset = Annotated[
    ResetMode | None,
    typer.Option(help="Reset mode, in place of a .nir file's own. [default: its own or zero]"),
]


RandomFloat = Annotated[
    int, typer.Option(min=0, help="Random samples of any float32 numbers, in addition.")
]
DataDir = Annotated[
    str | None,
    typer.Option(help="Folder or file of the data set. [default: where docs/data.md says]"),
]
Broke = Annotated[
    Broken | None,
    typer.Option(help="Files that cannot be read: fail, or skip them. [default: fail]"),
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
    with contextlib.suppress(ValueError):  # not in the main thread
        signal.signal(signal.SIGTERM, _terminated)
    try:
        program()
    except MsgDeployError as error:
        _fail(str(error))


def _terminated(number: int, frame: object) -> NoReturn:
    """End as after an error, so that half-written files are removed."""
    raise SystemExit(128 + number)


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
    config: Annotated[
        Path | None,
        typer.Option(help="TOML or YAML with sections model, neuron, data, training."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Network: mlp, convnet, cifarnet, vggsnn, resnet18, sew_resnet34. [default: mlp]"
        ),
    ] = None,
    width: Annotated[
        int | None, typer.Option(min=1, help="Channels of the first layer of a paper's network.")
    ] = None,
    norm: Annotated[Norm | None, typer.Option(help="Normalisation: batch or td.")] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="Data set: cifar10, cifar100, cifar10dvs, digit_rows, digits, events, "
            "fashion_mnist, images, mnist, ncaltech101, nmnist, npz. [default: digits]"
        ),
    ] = None,
    data_dir: DataDir = None,
    slice_by: Annotated[
        SliceBy | None,
        typer.Option(help="Frames of a recording: equal in events or in time. [default: count]"),
    ] = None,
    window: Annotated[
        int | None, typer.Option(min=1, help="Microseconds of a frame, with --slice-by time.")
    ] = None,
    sensor: Annotated[
        str | None, typer.Option(help="HEIGHTxWIDTH, where recordings do not say.")
    ] = None,
    size: Annotated[
        str | None, typer.Option(help="HEIGHTxWIDTH to scale images or events to.")
    ] = None,
    broken: Broke = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Use at most so many samples of each part.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Timesteps T. [default: 8]")] = None,
    dt: Annotated[
        float | None, typer.Option(help="Length of a timestep in seconds. [default: 1e-3]")
    ] = None,
    tau: Annotated[
        float | None,
        typer.Option(help="Membrane time constant in timesteps; inf: IF. [default: 2]"),
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(help="Firing threshold. [default: 0.5]")
    ] = None,
    reset: Annotated[ResetMode | None, typer.Option(help="Reset mode. [default: zero]")] = None,
    surrogate: Annotated[
        Surrogate | None, typer.Option(help="Surrogate. [default: arctan]")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Passes over the data. [default: 30]")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Samples per step. [default: 64]")
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="Of AdamW, with cosine decay. [default: 5e-3]")
    ] = None,
    loss: Annotated[
        Loss | None, typer.Option(help="Of the TWO output, or TET's per step. [default: two]")
    ] = None,
    clip_norm: Annotated[float | None, typer.Option(help="Largest norm of the gradient.")] = None,
    autocast: Annotated[
        bool | None, typer.Option("--autocast", help="Compute layers in bfloat16.")
    ] = None,
    augment: Annotated[
        Augment | None, typer.Option(help="How samples are varied. [default: none]")
    ] = None,
    validation: Annotated[
        float | None, typer.Option(help="Share of the training samples kept out. [default: 0]")
    ] = None,
    patience: Annotated[
        int | None, typer.Option(min=1, help="Stop after so many epochs without improvement.")
    ] = None,
    mask_prob: Annotated[
        float | None, typer.Option(help="MSG's p; 0: plain surrogate gradient. [default: 0.5]")
    ] = None,
    mask_where: Annotated[
        Where | None, typer.Option(help="What MSG masks. [default: weight]")
    ] = None,
    mask_rescale: Annotated[
        bool | None, typer.Option("--mask-rescale", help="Divide kept gradients by 1 - p.")
    ] = None,
    beta: Annotated[
        float | None, typer.Option(help="Share of TWO's old weights kept. [default: 0.9]")
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            help="Of the training; the division of data has its own, data.seed. [default: 0]"
        ),
    ] = None,
    log: Annotated[Path | None, typer.Option(help="CSV file with a row per epoch.")] = None,
    tensorboard: Annotated[Path | None, typer.Option(help="Folder for TensorBoard logs.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on where an interrupted training stopped.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Train a network with MSG and TWO and write a checkpoint, anew after every epoch.

    Options override the values of the config file. An interrupted training leaves OUTPUT as it was
    after the last whole epoch, and OUTPUT.resume, from which --resume goes on exactly. Under
    torchrun several processes train together.

    Example: msg-deploy train --model convnet --epochs 20 -o model.pt
    """
    from msg_deploy import config as configs
    from msg_deploy import console

    options = {"width": width, "norm": norm}
    given: dict[str, dict[str, Any]] = {
        "model": {"name": model, "steps": steps, "dt": dt, "beta": beta},
        "neuron": {"tau": tau, "v_threshold": threshold, "reset": reset, "surrogate": surrogate},
        "data": {
            "name": data,
            "directory": data_dir,
            "slice_by": slice_by,
            "window": window,
            "sensor": _pixels("sensor", sensor),
            "size": _pixels("size", size),
            "broken": broken,
            "limit": limit,
        },
        "training": {
            "epochs": epochs,
            "batch_size": batch_size,
            "learning_rate": learning_rate,
            "loss": loss,
            "clip_norm": clip_norm,
            "autocast": autocast,
            "augment": augment,
            "validation": validation,
            "patience": patience,
            "mask_probability": mask_prob,
            "mask_where": mask_where,
            "mask_rescale": mask_rescale,
            "seed": seed,
        },
    }
    layers = [configs.read_config(config)] if config else []
    layers.append({name: _set(values) for name, values in given.items()})
    chosen = configs.resolve(*layers)
    if _set(options):
        merged = {"model": {"options": chosen.model.options | _set(options)}}
        chosen = configs.resolve(*layers, merged)
    accuracy = _train(chosen, output, log, tensorboard, resume)
    if accuracy is None:
        return
    if as_json:
        result = {"accuracy_two": accuracy.two, "accuracy_mean": accuracy.mean}
        console.print_json({"checkpoint": str(output), **result})
    else:
        print(f"test accuracy {accuracy.two:.2%} with TWO, {accuracy.mean:.2%} with the plain mean")
        print(f"wrote {output}")


def _pixels(name: str, text: str | None) -> tuple[int, int] | None:
    """HEIGHTxWIDTH as two numbers."""
    if text is None:
        return None
    height, cross, width = text.partition("x")
    if not (cross and height.isdecimal() and width.isdecimal()):
        raise UsageError(f"--{name} must be HEIGHTxWIDTH, such as 34x34, not {text!r}.")
    return int(height), int(width)


def _set(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _train(
    config: Config,
    output: Path,
    log: Path | None = None,
    tensorboard: Path | None = None,
    resume: bool = False,
) -> Accuracy | None:
    """Train and write; the accuracy, in the first of several processes."""
    from msg_deploy import processes
    from msg_deploy.files import check_writable
    from msg_deploy.train import evaluate, train

    for path in filter(None, (output, log)):
        check_writable(path)
    state = output.with_name(f"{output.name}.resume")
    with processes.group(), contextlib.ExitStack() as stack:
        dataset, network = _build(config)
        first = processes.rank() == 0
        watch = stack.enter_context(_watch(config, network, output, log, tensorboard, resume))
        try:
            train(network, dataset, config.training, watch, state, resume)
        except KeyboardInterrupt:
            stack.close()
            _interrupted(output, state)
        if not first:
            return None
        state.unlink(missing_ok=True)
        return evaluate(network, dataset.test)


def _interrupted(output: Path, state: Path) -> NoReturn:
    kept = f"{output} is that of the last whole epoch" if state.exists() else "no epoch was whole"
    print(f"interrupted: {kept}; --resume goes on.", file=sys.stderr)
    raise SystemExit(130)


BUILT = ("name", "input_spec", "classes", "steps", "dt", "beta", "provenance")
"""Parameters of `zoo.build` that options of a network may not replace."""


def _build(config: Config) -> tuple[Dataset, SpikingNetwork]:
    import torch

    from msg_deploy.data import load_dataset
    from msg_deploy.deployment import Provenance
    from msg_deploy.zoo import build

    dataset = load_dataset(config.data.name, config.data, config.model.steps)
    torch.manual_seed(config.training.seed)
    model = config.model
    taken = sorted(model.options.keys() & {*vars(config.neuron), *BUILT})
    if taken:
        raise UsageError(f"model.options.{taken[0]}: is set elsewhere, in [neuron] or [model].")
    network = build(
        model.name,
        dataset.input,
        len(dataset.classes),
        model.steps,
        model.dt,
        model.beta,
        Provenance(data=dataset.name, data_options=config.data.lasting(), classes=dataset.classes),
        **model.options,
        **vars(config.neuron),
    )
    return dataset, network


@contextlib.contextmanager
def _watch(
    config: Config,
    network: SpikingNetwork,
    output: Path,
    log: Path | None,
    tensorboard: Path | None,
    resume: bool,
) -> Iterator[Callable[[Epoch], None]]:
    """What happens after each epoch: progress, logs, checkpoint; in the first process only."""
    from msg_deploy import checkpoint, logs, processes
    from msg_deploy.progress import progress

    if processes.rank() != 0:
        yield lambda epoch: None
        return
    with contextlib.ExitStack() as stack:
        label = f"train {config.model.name} on {config.data.name}"
        move = stack.enter_context(progress(label))
        written = [logs.csv_log(log, resume)] if log else []
        if tensorboard:
            written.append(stack.enter_context(logs.tensorboard_log(tensorboard)))

        def on_epoch(epoch: Epoch) -> None:
            checkpoint.save(network, output, training=config.as_data())
            for write in written:
                write(epoch)
            note = f"loss {epoch.loss:.3f} accuracy {epoch.accuracy:.1%}"
            move(epoch.number, config.training.epochs, note)

        yield on_epoch


@app.command()
def export(
    model: Annotated[Path, typer.Argument(help="Checkpoint (.pt) or graph (.nir).")],
    to: Annotated[
        str,
        typer.Option(
            "--to",
            metavar="FORMAT",
            help="nir, onnx, or a chip of msg-deploy targets, such as loihi2.",
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="File to write; for chips, a folder. [default: MODEL.nir, MODEL.onnx, MODEL-CHIP]",
        ),
    ] = None,
    two_fold: Annotated[
        FoldChoice | None,
        typer.Option(
            help="NIR: how TWO is folded: delay (exact, in the graph), bank (LI and Linear only), "
            "leak (one LI per class, approximate), host (per-step outputs, the weights in the "
            "metadata), or auto (the cheapest in the graph within --fold-tolerance). "
            "[default: delay]",
        ),
    ] = None,
    dialect: Annotated[
        str | None,
        typer.Option(
            help="NIR: how the network is written: nir; portable, which Norse, snnTorch and "
            "spikingjelly import to the same spikes; or for one destination lava, rockpool, "
            "sinabs, snn-mlir, spyx. All but nir take --two-fold host. [default: nir]"
        ),
    ] = None,
    fold_tolerance: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="NIR, for auto: error of f, as a share of the largest f. [default: 1e-4]",
        ),
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="NIR: held-out samples on which the folding is measured, if the data are found; "
            "chips: on which an approximation is measured. [default: 100]",
        ),
    ] = None,
    data_dir: DataDir = None,
    layout: Annotated[
        Layout | None,
        typer.Option(
            help="ONNX: sequence (all steps in one run, Scan), step (one step a run, states as "
            "inputs and outputs) or unrolled (all steps, no Scan). [default: sequence]"
        ),
    ] = None,
    inline: Annotated[
        bool, typer.Option("--inline", help="ONNX: standard operators in place of functions.")
    ] = False,
    opset: Annotated[
        int | None, typer.Option(help="ONNX: version of the standard operators. [default: 20]")
    ] = None,
    int8: Annotated[
        bool | None,
        typer.Option(
            "--int8/--no-int8",
            help="ONNX: products of spikes in 8-bit integers; needs weights on a grid. "
            "[default: for quantized models]",
        ),
    ] = None,
    no_step_outputs: Annotated[
        bool,
        typer.Option("--no-step-outputs", help="ONNX: put out scores and decision only."),
    ] = False,
    approximate: Approximate = False,
    as_json: Json = False,
) -> None:
    """Export a checkpoint with the TWO weights folded in.

    For a chip a folder is written: what its tools read, decode.py (class scores from what the chip
    gives) and target.json. Exit code 1: it does not fit, with every reason. See docs/chips.md.

    Example: msg-deploy export model.pt --to nir

    Example: msg-deploy export model.pt --to onnx --layout step

    Example: msg-deploy export model.pt --to loihi2
    """
    for_nir = _set(
        {
            "two_fold": two_fold,
            "dialect": dialect,
            "fold_tolerance": fold_tolerance,
            "samples": samples,
            "data_dir": data_dir,
        }
    )
    for_onnx = _set(
        {
            "layout": layout,
            "inline": inline or None,
            "opset": opset,
            "int8": int8,
            "no_step_outputs": no_step_outputs or None,
        }
    )
    for_chip = _set({"approximate": approximate or None})
    if to == "nir":
        _only_for(to, for_onnx | for_chip)
        _export_nir(model, output or model.with_suffix(".nir"), as_json, **for_nir)
    elif to == "onnx":
        _only_for(to, for_nir | for_chip)
        _export_onnx(model, output or model.with_suffix(".onnx"), as_json, **for_onnx)
    else:
        shared = {name: for_nir.pop(name) for name in ("samples", "data_dir") if name in for_nir}
        _only_for(to, for_nir | for_onnx)
        _check_format(to)
        job = _job(to, shared.get("samples"), approximate, {"directory": shared.get("data_dir")})
        chip_commands.export_to(model, job.target, output, job, as_json)


def _check_format(to: str) -> None:
    from msg_deploy.exporters.targets import targets

    if not any(name.startswith(to) for name in targets()):
        known = ", ".join(("nir", "onnx", *targets()))
        raise UsageError(f"--to: unknown format {to!r}; there are {known}.")


def _only_for(to: str, given: dict[str, Any]) -> None:
    if given:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise UsageError(f"{names}: not for --to {to}; see msg-deploy export --help.")


def _job(
    name: str,
    samples: int | None,
    approximate: bool,
    options: dict[str, Any],
    data: str | None = None,
    random: int | None = None,
    seed: int = 0,
    foreign: ForeignTiming | None = None,
) -> Job:
    """What is asked about a chip.

    Raises:
        UsageError: there is no such chip.
    """
    from msg_deploy.exporters.targets import target
    from msg_deploy.onchip.prepare import Job
    from msg_deploy.stimulus import DEFAULT_RANDOM

    return Job(
        target(name).name,
        data,
        samples,
        DEFAULT_RANDOM if random is None else random,
        approximate=approximate,
        seed=seed,
        options=_set(options),
        foreign=foreign,
    )


def _export_nir(
    model: Path,
    target: Path,
    as_json: bool,
    two_fold: FoldChoice = "delay",
    dialect: str = "nir",
    fold_tolerance: float = 1e-4,
    samples: int = 100,
    data_dir: str | None = None,
) -> None:
    from msg_deploy import api, console

    deployment = api.export(model, target, two_fold, fold_tolerance, dialect)
    readout = deployment.readout
    effect: FoldEffect | None = None
    problem = ""
    if readout and samples:
        try:
            options = _set({"directory": data_dir})
            effect = api.measure_fold(model, deployment, samples=samples, options=options)
        except MsgDeployError as error:
            problem = str(error)
    if as_json:
        measured = effect and vars(effect)
        data = console.deployment_as_data(deployment)
        console.print_json({"file": str(target), "fold_effect": measured, **data})
        return
    print(f"wrote {target}: {len(deployment.graph.nodes)} nodes")
    if readout:
        print(f"TWO folded by {readout.fold}, largest error of f {readout.error:.1e}")
    if effect:
        print(
            f"  on {effect.samples} held-out samples: {effect.flips} decisions changed, largest "
            f"error of scores {effect.error:.1e} of {effect.scale:.2g}"
        )
    elif problem:
        print(f"  not measured on data: {problem}")


def _export_onnx(
    model: Path,
    target: Path,
    as_json: bool,
    inline: bool = False,
    no_step_outputs: bool = False,
    **options: Any,
) -> None:
    from msg_deploy import api, console
    from msg_deploy.exporters.onnx.build import OnnxOptions
    from msg_deploy.exporters.onnx.describe import describe
    from msg_deploy.exporters.onnx.file import read

    chosen = OnnxOptions(step_outputs=not no_step_outputs, **options)
    files = [str(path) for path in api.export_onnx(model, target, chosen, inline)]
    written = read(target)
    data = describe(written)
    if as_json:
        metadata = console.metadata_as_data(written.metadata)
        console.print_json({"files": files, **data, **metadata})
        return
    operators = sum(data["operators"].values())
    print(f"wrote {' and '.join(files)}: {operators} operators, layout {data['layout']}")


@app.command()
def quantize(
    model: Annotated[Path, typer.Argument(help="Checkpoint (.pt) or graph (.nir).")],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="File to write, .pt or .nir. [default: MODEL-intBITS.pt]"
        ),
    ] = None,
    bits: Annotated[int, typer.Option(min=2, max=8, help="Of a weight, sign included.")] = 8,
    granularity: Annotated[
        Granularity,
        typer.Option(
            help="A scale for each channel, for each layer, or a power of two for each layer."
        ),
    ] = "channel",
    calibration: Annotated[
        Calibration, typer.Option(help="How the range of weights is chosen.")
    ] = "mse",
    percentile: Annotated[
        float, typer.Option(help="Of the weights' magnitudes, for --calibration percentile.")
    ] = 99.9,
    inputs: Annotated[
        InputKind,
        typer.Option(help="Samples enter as levels of their range, or as the counts they are."),
    ] = "auto",
    levels: Annotated[
        int | None,
        typer.Option(min=1, max=255, help="Of the input. [default: its own, or up to 255]"),
    ] = None,
    leak: Annotated[
        Leak, typer.Option(help="Keep dt/tau, or round it to the nearest power of two.")
    ] = "keep",
    exact: Annotated[
        Precision, typer.Option(help="Precision in which no engine may round anything.")
    ] = "float32",
    accumulator_bits: Annotated[
        int | None,
        typer.Option(min=2, max=54, help="Every sum must fit so many. [default: what is exact]"),
    ] = None,
    samples: Annotated[
        int,
        typer.Option(
            min=0, help="For calibration, of the data, and as many random ones; 0: only those."
        ),
    ] = 256,
    finetune: Annotated[
        int, typer.Option(min=0, help="Epochs of training with rounded weights; 0: none.")
    ] = 0,
    learning_rate: Annotated[float, typer.Option(help="Of the fine-tuning.")] = 1e-3,
    batch_size: Annotated[int, typer.Option(min=1, help="Of the fine-tuning.")] = 64,
    mask_prob: Annotated[float, typer.Option(help="MSG's p in the fine-tuning.")] = 0.5,
    data: Annotated[
        str | None,
        typer.Option(help="Data set, or a .npz file of samples. [default: that of MODEL]"),
    ] = None,
    data_dir: DataDir = None,
    broken: Broke = None,
    test_samples: Annotated[
        int | None, typer.Option(min=1, help="Held-out samples to measure on. [default: all]")
    ] = None,
    dt: Dt = None,
    steps: Steps = None,
    reset: Reset = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Turn weights, biases and inputs into integers, thresholds off their grid.

    The result runs, exports and is checked as any model; checks of it find PROVEN, since nothing is
    rounded. See docs/quantization.md.

    Example: msg-deploy quantize model.pt --bits 8 -o model-int8.pt

    Example: msg-deploy quantize model.pt --bits 4 --finetune 5 -o model-int4.pt
    """
    from msg_deploy import console
    from msg_deploy.exporters.quantize.options import QuantizeOptions
    from msg_deploy.progress import progress
    from msg_deploy.quantization import quantize
    from msg_deploy.train import TrainingOptions

    target = output or model.with_name(f"{model.stem}-int{bits}{model.suffix}")
    options = QuantizeOptions(
        bits,
        granularity,
        calibration,
        percentile,
        inputs,
        levels,
        leak,
        exact,
        accumulator_bits,
    )
    training = None
    if finetune:
        training = TrainingOptions(
            epochs=finetune,
            batch_size=batch_size,
            learning_rate=learning_rate,
            mask_probability=mask_prob,
            seed=seed,
        )
    with progress("quantize") as move:
        result = quantize(
            model,
            target,
            options,
            data,
            samples,
            training,
            seed,
            test_samples,
            _set({"directory": data_dir, "broken": broken}),
            _foreign(dt, steps, reset),
            on_progress=move,
        )
    if as_json:
        console.print_json({"file": str(target), **console.quantization_as_data(result)})
    else:
        console.print_quantization(result)
        print(f"wrote {target}")


@app.command(name="equivalence-check")
def equivalence_check(
    context: typer.Context,
    a: Annotated[
        Path, typer.Argument(help="What was trained: .pt, .nir, .onnx or a recording (.npz).")
    ],
    b: Annotated[
        Path | None,
        typer.Argument(
            help="What was exported: .pt, .nir, .onnx or a recording (.npz). Not with --target."
        ),
    ] = None,
    simulators: Annotated[
        list[str] | None,
        typer.Option(
            "--with",
            help="Simulator for B, may be repeated. [default: reference and norse; for .onnx "
            "onnxruntime and onnx_reference; for .pt torch]",
        ),
    ] = None,
    left_simulator: Annotated[
        str | None,
        typer.Option(
            "--left-with",
            metavar="NAME",
            help="Simulator for A. [default: torch for .pt, reference for .nir, onnxruntime for "
            ".onnx]",
        ),
    ] = None,
    mapping: Annotated[
        list[str] | None,
        typer.Option(
            "--map",
            metavar="A=B",
            help="Node A of the left side is B on the right, may be repeated. [default: by name, "
            "or by the name under which a node was exported first]",
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="Data set whose held-out samples are run, or a .npz file of samples. "
            "[default: that of A]"
        ),
    ] = None,
    data_dir: DataDir = None,
    broken: Broke = None,
    samples: Annotated[
        int | None,
        typer.Option(min=0, help="Use at most this many samples of the data, 0: none."),
    ] = None,
    random: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Random samples in addition, on a grid of 2^-8 of the input range. [default: 64]",
        ),
    ] = None,
    random_float: RandomFloat = 0,
    precision: Annotated[
        Precision | None,
        typer.Option(
            help="Arithmetic; float64 leaves no rounding to blame, .onnx files are float32. "
            "[default: float64, with an .onnx file float32]"
        ),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of onnxruntime. [default: all cores]")
    ] = None,
    providers: Annotated[
        list[str] | None,
        typer.Option(
            "--provider",
            help="Execution provider of onnxruntime, may be repeated. [default: the CPU]",
        ),
    ] = None,
    dt: Dt = None,
    steps: Steps = None,
    reset: Reset = None,
    seed: Seed = 0,
    diagnosis: Annotated[
        bool,
        typer.Option(
            "--diagnosis/--no-diagnosis",
            help="Where B differs, find the faulty layers and what they do.",
        ),
    ] = True,
    certificate: Annotated[
        bool,
        typer.Option(
            "--certificate/--no-certificate",
            help="Find out which decisions rounding can change; without that there are no verdicts "
            "PROVEN and TIES.",
        ),
    ] = True,
    accept_ties: Annotated[
        bool, typer.Option("--accept-ties", help="Exit code 0 for TIES, too.")
    ] = False,
    adversarial: Annotated[
        int,
        typer.Option(
            min=0,
            help="Also run this many samples, searched within the input range so that a decision "
            "is on the edge.",
        ),
    ] = 0,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1, help="Processes that share the work, one thread each. [default: this process]"
        ),
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(
            metavar="tcp://HOST:PORT",
            help="Scheduler of a dask.distributed cluster whose workers share the work.",
        ),
    ] = None,
    state: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Keep what is done here; when interrupted, the same command goes on from there.",
        ),
    ] = None,
    save_failure: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.npz", help="Write the smallest input on which B differs, if it does."
        ),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.html",
            help="Write a page that shows the verdict, the layers, spikes of both sides and more.",
        ),
    ] = None,
    junit: Annotated[
        Path | None,
        typer.Option(metavar="FILE.xml", help="Write JUnit XML, for continuous integration."),
    ] = None,
    tolerance_report: Annotated[
        bool,
        typer.Option(
            "--tolerance-report",
            help="Also tell how near membranes are to each other, and decisions to a threshold.",
        ),
    ] = False,
    target: Annotated[
        str | None,
        typer.Option(
            metavar="CHIP",
            help="In place of B: A on this chip, simulated to the bit, and in the vendor's model "
            "where it is installed.",
        ),
    ] = None,
    approximate: Approximate = False,
    vendors: Vendors = None,
    changed_decisions: ChangedDecisions = None,
    as_json: Json = False,
) -> None:
    """Check that B spikes exactly as A does: every layer, step and neuron, outputs and decisions.

    Exit code 0: PROVEN (no rounding can change any of these spikes) or IDENTICAL (some it could).
    1: TIES (the first differences are all such that rounding explains them) or DIVERGENT, with the
    first differing layer, step and neuron. 2: INCOMPARABLE or bad input. See docs/certificate.md.

    A recording (msg-deploy record, or made by hand) is compared on its own samples; see
    docs/equivalence.md.

    A difference is diagnosed: layers at fault are told from those that only receive something else,
    and changes are tested under which a layer does what B does; see docs/diagnosis.md.

    Large checks: --workers and --scheduler share the work, --state keeps what is done; the result
    stays the same. See docs/scale.md.

    Example: msg-deploy equivalence-check model.pt model.nir --with norse

    Example: msg-deploy equivalence-check model.pt model.onnx --threads 1

    With --target, A is put on a chip: exit code 0 if every spike there is that of the model in
    whole numbers (or no more decisions change than --changed-decisions), and the vendor's model, if
    installed, agrees with the simulation; 1 if not, or if A does not fit. See docs/chips.md.

    Example: msg-deploy equivalence-check chip.npz model.nir --with fast

    Example: msg-deploy equivalence-check model.pt --target loihi2
    """
    if target is not None:
        _check_target_options(b, context)
        job = _job(
            target,
            samples,
            approximate,
            {"directory": data_dir, "broken": broken},
            data,
            random,
            seed,
            _foreign(dt, steps, reset),
        )
        chip_commands.check_against(a, job, vendors, changed_decisions, html, as_json)
    for name in _set(
        {
            "approximate": approximate or None,
            "vendors": vendors,
            "changed-decisions": changed_decisions,
        }
    ):
        raise UsageError(f"--{name}: is for a --target only.")
    if b is None:
        raise UsageError("name what was exported (B), or a chip: --target.")
    from msg_deploy import api, console
    from msg_deploy.files import check_writable, write_text
    from msg_deploy.matching import parsed
    from msg_deploy.progress import progress
    from msg_deploy.report import tolerance
    from msg_deploy.report.data import verdict_as_text
    from msg_deploy.sim.diagnosis.failure import check_name

    if save_failure:
        check_name(save_failure)
    for path in filter(None, (html, junit)):
        check_writable(path)
    with _resumable(state), progress("check") as move:
        verdict = api.check(
            a,
            b,
            data=data,
            simulators=simulators,
            samples=samples,
            random=random,
            precision=precision,
            seed=seed,
            foreign=_foreign(dt, steps, reset),
            options=_set({"directory": data_dir, "broken": broken}),
            runtime=api.RuntimeOptions(threads, tuple(providers or ())),
            on_batch=lambda done, total: move(done, total, ""),
            diagnose=diagnosis,
            certify=certificate,
            adversarial=adversarial,
            workers=workers,
            scheduler=scheduler,
            state=state,
            illustrate=html is not None,
            mapping=parsed(mapping or ()),
            left_simulator=left_simulator,
            random_float=random_float,
        )
    if html:
        from msg_deploy.report.html import verdict_as_html

        write_text(html, verdict_as_html(verdict))
    if junit:
        from msg_deploy.report.junit import verdict_as_junit

        write_text(junit, verdict_as_junit(verdict, accept_ties))
    if as_json:
        more = {"tolerance_report": tolerance.as_data(verdict)} if tolerance_report else {}
        print(verdict_as_text(verdict, more))
    else:
        for table in tolerance.tables(verdict) if tolerance_report else ():
            console.out.print(table)
        console.print_verdict(verdict)
        for path in filter(None, (html, junit)):
            print(f"wrote {path}")
    if save_failure and verdict.diagnosis and verdict.diagnosis.reduced:
        given: dict[str, Any] = {"--dt": dt, "--steps": steps, "--reset": reset}
        given |= {"--left-with": left_simulator, "--with": simulators, "--map": mapping}
        _save_failure(save_failure, verdict, [str(a), str(b)], given, as_json)
    raise typer.Exit(_exit_code(verdict, accept_ties))


WITH_TARGET = {
    "a",
    "data",
    "data_dir",
    "broken",
    "samples",
    "random",
    "dt",
    "steps",
    "reset",
    "seed",
    "html",
    "target",
    "approximate",
    "vendors",
    "changed_decisions",
    "as_json",
}
"""Options of a check that go together with a chip."""


def _check_target_options(b: Path | None, context: typer.Context) -> None:
    """What a check on a chip does not take."""
    if b is not None:
        raise UsageError(f"{b}: with --target there is no B; the chip takes its place.")
    given = [
        name
        for name in context.params
        if name not in WITH_TARGET
        and getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"
    ]
    if given:
        called = {str(p.name): p.opts[0] for p in context.command.params}
        names = ", ".join(called[name] for name in given)
        raise UsageError(f"{names}: not together with --target.")


@contextlib.contextmanager
def _resumable(state: Path | None) -> Iterator[None]:
    """Say how to go on after an interruption."""
    try:
        yield
    except KeyboardInterrupt:
        if state and state.exists():
            text = f"what is done is kept in {state}; the same command goes on from there."
        else:
            text = "nothing is kept; with --state FILE a check goes on where it stopped."
        print(f"interrupted: {text}", file=sys.stderr)
        raise SystemExit(130) from None


def _save_failure(
    path: Path, verdict: Verdict, models: list[str], given: dict[str, Any], quiet: bool
) -> None:
    """Write the failing input and say how to run it again."""
    import shlex

    from msg_deploy.sim.diagnosis.failure import write_failure

    write_failure(path, verdict)
    if quiet:
        return
    words = ["msg-deploy", "equivalence-check", *models, "--data", str(path), "--random", "0"]
    words += ["--precision", verdict.precision]
    for name, value in _set(given).items():
        for each in value if isinstance(value, list) else [value]:
            words += [name, str(each)]
    print(f"wrote {path}; run it again: {shlex.join(words)}")


def _exit_code(verdict: Verdict, accept_ties: bool = False) -> int:
    if verdict.kind.value == "INCOMPARABLE":
        return 2
    return 0 if verdict or (accept_ties and verdict.kind.value == "TIES") else 1


def _foreign(dt: float | None, steps: int | None, reset: ResetMode | None) -> ForeignTiming:
    from msg_deploy.exporters.nir import ForeignTiming

    return ForeignTiming(dt, steps, reset)


app.command()(chip_commands.targets)


@app.command()
def fit(
    model: Annotated[Path, typer.Argument(help="Checkpoint (.pt) or graph (.nir).")],
    target: Annotated[
        str, typer.Option(metavar="CHIP", help="One of msg-deploy targets, such as loihi2.")
    ],
    approximate: Approximate = False,
    measure: Annotated[
        bool,
        typer.Option("--measure", help="Also run it: accuracy, spikes, operations on the chip."),
    ] = False,
    estimate: Estimated = False,
    vendors: Vendors = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="Data set for calibration and measurement, or a .npz file of samples. "
            "[default: that of MODEL, else random samples]"
        ),
    ] = None,
    data_dir: DataDir = None,
    broken: Broke = None,
    samples: Annotated[
        int | None, typer.Option(min=1, help="Measure on at most so many. [default: all]")
    ] = None,
    random: Annotated[
        int | None,
        typer.Option(min=1, help="Random samples, where there are no data. [default: 64]"),
    ] = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE.html", help="Write a page that shows it all.")
    ] = None,
    dt: Dt = None,
    steps: Steps = None,
    reset: Reset = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Show a network as a chip would hold it, and every limit that it exceeds.

    A model of real numbers is quantized first, as the chip needs it. Exit code 0: it fits, 1: not.
    See docs/chips.md.

    Example: msg-deploy fit model.pt --target loihi2

    Example: msg-deploy fit model.pt --target speck2f --json
    """
    options = {"directory": data_dir, "broken": broken}
    foreign = _foreign(dt, steps, reset)
    job = _job(target, samples, approximate, options, data, random, seed, foreign)
    chip_commands.fit_on(model, job, measure, estimate, vendors, html, as_json)


@app.command()
def record(
    model: Annotated[
        Path, typer.Argument(help="Checkpoint (.pt), graph (.nir) or ONNX model (.onnx).")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Recording to write, .npz.")],
    simulator: Annotated[
        str | None,
        typer.Option(
            "--with",
            metavar="NAME",
            help="Simulator. [default: torch for .pt, reference for .nir, onnxruntime for .onnx]",
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="Data set whose held-out samples are run, or a .npz file of samples. "
            "[default: that of MODEL]"
        ),
    ] = None,
    data_dir: DataDir = None,
    broken: Broke = None,
    samples: Annotated[
        int | None,
        typer.Option(min=0, help="Use at most this many samples of the data, 0: none."),
    ] = None,
    random: Annotated[
        int | None, typer.Option(min=0, help="Random samples in addition. [default: 64]")
    ] = None,
    random_float: RandomFloat = 0,
    precision: Annotated[
        Precision | None,
        typer.Option(help="Arithmetic. [default: float64, of .onnx files float32]"),
    ] = None,
    membranes: Annotated[
        bool,
        typer.Option(
            "--membranes/--no-membranes", help="Keep membranes, too; they are most of the file."
        ),
    ] = True,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of onnxruntime. [default: all cores]")
    ] = None,
    dt: Dt = None,
    steps: Steps = None,
    reset: Reset = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Run a model and write what it does: samples, spikes, membranes, currents, scores.

    A recording is a side of equivalence-check; docs/equivalence.md says how to make one by hand.

    Example: msg-deploy record model.pt -o trace.npz --samples 100
    """
    from msg_deploy import api, console
    from msg_deploy.progress import progress
    from msg_deploy.recorder import record as run

    with progress("record") as move:
        recorded = run(
            model,
            output,
            simulator,
            data,
            samples,
            random,
            precision,
            seed,
            _foreign(dt, steps, reset),
            _set({"directory": data_dir, "broken": broken}),
            api.RuntimeOptions(threads),
            membranes,
            random_float,
            on_batch=lambda done, total: move(done, total, ""),
        )
    if as_json:
        console.print_json({**vars(recorded), "path": str(recorded.path)})
        return
    print(
        f"wrote {recorded.path}: {recorded.samples} samples, {len(recorded.layers)} spiking "
        f"layers, {recorded.simulator} in {recorded.precision}"
    )


@app.command()
def simulate(
    model: Annotated[Path, typer.Argument(help="Checkpoint (.pt) or graph (.nir).")],
    data: Annotated[
        str | None,
        typer.Option(
            help="Data set whose held-out samples are run, or a .npz file of samples. "
            "[default: that of MODEL]"
        ),
    ] = None,
    data_dir: DataDir = None,
    broken: Broke = None,
    samples: Annotated[
        int | None, typer.Option(min=1, help="Use at most this many samples of the data.")
    ] = None,
    random: Annotated[
        int, typer.Option(min=1, help="Random samples, where there are no data.")
    ] = 64,
    activity: Annotated[
        bool, typer.Option(help="Count spikes and synaptic operations, too.")
    ] = True,
    memory: Annotated[
        str, typer.Option(help="For the values between the layers, such as 500MiB or 2GiB.")
    ] = "2GiB",
    threads: Annotated[int | None, typer.Option(min=1, help="[default: all cores]")] = None,
    precision: Annotated[Precision, typer.Option(help="Arithmetic.")] = "float32",
    dt: Dt = None,
    steps: Steps = None,
    reset: Reset = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Run a network: accuracy, firing rates, synaptic operations per layer and step.

    Synaptic operations are counted as NeuroBench does: products in which neither the weight nor
    what arrives is 0, as accumulates (AC) where only -1, 0 and 1 arrive, else as MAC.

    Example: msg-deploy simulate model.pt --samples 100
    """
    from msg_deploy import console
    from msg_deploy.progress import progress
    from msg_deploy.simulation import simulate as run

    with progress("simulate") as move:
        simulation = run(
            model,
            data,
            samples,
            random,
            seed,
            activity,
            _bytes(memory),
            threads,
            precision,
            _foreign(dt, steps, reset),
            _set({"directory": data_dir, "broken": broken}),
            on_batch=lambda done, total: move(done, total, ""),
        )
    if as_json:
        console.print_json(console.simulation_as_data(simulation))
    else:
        console.print_simulation(simulation)


UNITS = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


def _bytes(text: str) -> int:
    """A number of bytes with a unit."""
    number, unit = text[:-3], text[-3:]
    try:
        found = float(number) * UNITS[unit]
    except (ValueError, KeyError):
        found = 0.0
    if not 1 <= found < 2**60:
        raise UsageError(
            f"--memory must be a number with KiB, MiB or GiB, such as 2GiB, not {text!r}."
        )
    return int(found)


@app.command()
def inspect(
    model: Annotated[
        Path,
        typer.Argument(
            help="Checkpoint (.pt), graph (.nir), ONNX model (.onnx) or recording (.npz)."
        ),
    ],
    dt: Dt = None,
    steps: Steps = None,
    reset: Reset = None,
    svg: Annotated[Path | None, typer.Option(help="Write a drawing of the graph here.")] = None,
    as_json: Json = False,
) -> None:
    """Show nodes, shapes, parameters, timing and the TWO readout; of .onnx inputs and outputs.

    Lines that begin with "others:" name what the importers of other frameworks would misread.

    Example: msg-deploy inspect model.nir --json
    """
    from msg_deploy import api, console
    from msg_deploy.saved import SavedTrace

    subject = api.open_model(model, _foreign(dt, steps, reset))
    if isinstance(subject.content, SavedTrace) and not svg:
        _inspect_recording(subject.content, as_json)
        return
    if not subject.has_graph and not svg:
        _inspect_onnx(subject.onnx, as_json)
        return
    deployment = subject.deployment
    if svg:
        from msg_deploy.drawing import draw
        from msg_deploy.files import write_text

        write_text(svg, draw(deployment))
    if as_json:
        console.print_json(console.deployment_as_data(deployment))
    else:
        console.print_deployment(deployment)


def _inspect_recording(recording: SavedTrace, as_json: bool) -> None:
    from msg_deploy import console
    from msg_deploy.saved import described

    data, own = described(recording), recording.about.metadata
    if as_json:
        console.print_json({**data, **(console.metadata_as_data(own) if own else {})})
        return
    print(f"recording of {data['simulator']}, precision {data['precision'] or 'unknown'}")
    print(f"samples: {data['samples']}, {data['steps']} steps")
    for name, layer in data["layers"].items():
        print(f"{name}: {layer['shape']}{', with membranes' if layer['membranes'] else ''}")
    print(f"currents: {data['currents']}; scores: {data['scores']}")
    if own:
        console.print_metadata(own)


def _inspect_onnx(model: OnnxModel, as_json: bool) -> None:
    from msg_deploy import console
    from msg_deploy.exporters.onnx.describe import describe

    data = describe(model)
    if as_json:
        console.print_json({**data, **console.metadata_as_data(model.metadata)})
    else:
        console.print_onnx(data, model.metadata)


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
    from msg_deploy import api, console
    from msg_deploy.config import resolve
    from msg_deploy.files import write_text
    from msg_deploy.progress import progress
    from msg_deploy.report.data import verdict_as_text
    from msg_deploy.report.html import verdict_as_html

    try:
        output_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{output_dir}: cannot be made ({error.strerror}).") from error
    files = [output_dir / name for name in ("model.pt", "model.nir", "report.json", "report.html")]
    model, graph, report, page = files
    print("1 train: a convolutional network on the digits, T = 8, MSG p = 0.5, TWO")
    training = {"epochs": epochs, "seed": seed}
    accuracy = _train(resolve({"model": {"name": "convnet"}, "training": training}), model)
    assert accuracy is not None
    print(
        f"  test accuracy {accuracy.two:.2%} with TWO, {accuracy.mean:.2%} with the plain mean "
        "(360 held-out digits)"
    )
    deployment = api.export(model, graph, "delay")
    print(f"2 export: {graph}, {len(deployment.graph.nodes)} nodes, TWO folded by delay")
    print("3 check: the trained torch module against the file, in our reference and in Norse")
    with progress("check") as move:
        verdict = api.check(
            model,
            graph,
            "digits",
            on_batch=lambda done, total: move(done, total, ""),
            illustrate=True,
        )
        rounded = api.check(model, graph, "digits", precision="float32")
    write_text(report, verdict_as_text(verdict))
    write_text(page, verdict_as_html(verdict))
    print(
        f"  in float32 {rounded.mismatches} of {rounded.spikes} spikes differ, and rounding could "
        f"change {rounded.uncertified}"
    )
    print("files: " + ", ".join(map(str, files)))
    console.print_verdict(verdict)
    raise typer.Exit(_exit_code(verdict))
