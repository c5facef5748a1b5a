"""Run a model and keep what it does as a trace in a .npz file, see `msg_deploy.saved`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msg_deploy.checking import stimulus_of
from msg_deploy.deployment import Deployment
from msg_deploy.errors import UsageError
from msg_deploy.exporters.inline import origins
from msg_deploy.exporters.nir import ForeignTiming
from msg_deploy.files import check_writable
from msg_deploy.options import Precision
from msg_deploy.runners import RuntimeOptions, runners
from msg_deploy.saved import About, SavedTrace, check_name, writing
from msg_deploy.sim.simulator import FloatArray
from msg_deploy.stimulus import batches
from msg_deploy.subjects import Model, batch_size, open_model


@dataclass(frozen=True)
class Recorded:
    """What was written.

    Attributes:
        path: the file.
        simulator: what ran.
        precision: of what ran.
        samples: their number.
        layers: spiking layers in the order of execution.
    """

    path: Path
    simulator: str
    precision: Precision
    samples: int
    layers: tuple[str, ...]


def record(
    model: Model,
    path: str | Path,
    simulator: str | None = None,
    data: str | FloatArray | None = None,
    samples: int | None = None,
    random: int | None = None,
    precision: Precision | None = None,
    seed: int = 0,
    foreign: ForeignTiming | None = None,
    options: Mapping[str, Any] | None = None,
    runtime: RuntimeOptions | None = None,
    membranes: bool = True,
    random_float: int = 0,
    on_batch: Callable[[int, int], None] = lambda done, total: None,
) -> Recorded:
    """Write spikes, membranes, currents and scores of a model, for `check` elsewhere or later.

    Memory is that of one batch.

    Args:
        model: as in `check`, but no recording.
        path: .npz file to write.
        simulator: that runs it; by default a checkpoint in torch, a graph in the reference, an
            .onnx file in onnxruntime.
        data: as in `check`.
        samples: as in `check`.
        random: as in `check`.
        precision: as in `check`, but of this model alone.
        seed: of the random samples.
        foreign: timing for .nir files that carry none.
        options: how the data set is found and read, see `DataOptions`.
        runtime: threads and providers of onnxruntime.
        membranes: keep membranes, too, which take 64 (float32: 32) times as much as spikes.
        random_float: as in `check`.
        on_batch: called with samples done and in total.

    Raises:
        FileError: a file cannot be read or written.
        UsageError: an argument is not accepted, or the simulator does not run the model.
    """
    path = Path(path)
    check_name(path)
    subject = open_model(model, foreign)
    if isinstance(subject.content, SavedTrace):
        raise UsageError(f"{subject.name}: is a recording already; name a model.")
    precision = precision or subject.precision or "float32"
    if precision == "float64" and subject.precision == "float32":
        raise UsageError(
            f"{subject.name}: .onnx files compute in float32; float64 is not possible."
        )
    wanted = None if simulator is None else (simulator,)
    runner = runners(subject, wanted, precision, runtime or RuntimeOptions())[0]
    if runner.gaps:
        raise UsageError(f"{subject.name}: {runner.name} cannot run it: {'; '.join(runner.gaps)}")
    check_writable(path)
    stimulus = stimulus_of(
        subject.metadata, data, samples, random, seed, options or {}, random_float
    )
    known = subject.layout
    about = About(runner.name, precision, subject.metadata, origins=_origins(subject.content))
    size = batch_size(subject)
    with writing(path, about, known, membranes) as add:
        for start, inputs in batches(subject.metadata, stimulus, size):
            add(stimulus[start : start + size], runner.run(inputs))
            on_batch(start + inputs.shape[1], len(stimulus))
    layers = tuple(name for name in known.order if name in known.thresholds)
    return Recorded(path, runner.name, precision, len(stimulus), layers)


def _origins(content: Any) -> dict[str, str]:
    """Of the nodes that are called otherwise."""
    found = origins(content.graph) if isinstance(content, Deployment) else {}
    return {name: origin for name, origin in found.items() if name != origin}
