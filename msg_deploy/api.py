"""What the command line does, as functions: export, check, inspect."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from msg_deploy import checkpoint
from msg_deploy.data import data_options, datasets, load_dataset
from msg_deploy.deployment import Deployment, InputSpec, Timing
from msg_deploy.errors import UsageError
from msg_deploy.exporters import nir as nir_file
from msg_deploy.exporters.adapters import ForeignNetwork
from msg_deploy.exporters.dialects import in_dialect
from msg_deploy.exporters.fold import FoldEffect, cheapest, fold_effect, fold_two
from msg_deploy.exporters.trace import trace
from msg_deploy.graph import plan
from msg_deploy.networks import SpikingNetwork, encode
from msg_deploy.options import FoldChoice, Precision
from msg_deploy.primitives import primitive_of
from msg_deploy.sim.compare import (
    TOLERANCE,
    Comparison,
    Verdict,
    compare,
    compare_parameters,
    layout,
    merge_all,
)
from msg_deploy.sim.framework import FrameworkModule
from msg_deploy.sim.simulator import FloatArray, Simulator, simulator
from msg_deploy.sim.torch_core import TorchCore

Model = str | Path | SpikingNetwork | ForeignNetwork | Deployment
DEFAULT_SIMULATORS = ("reference", "norse")
DEFAULT_RANDOM = 64
LARGEST_BATCH = 128
TRACE_BYTES = 2**29
"""What the membranes of one trace may take; the batch is made to fit."""


@dataclass(frozen=True)
class Subject:
    """One side of a check.

    Attributes:
        name: file or type.
        deployment: its graph.
        own: the simulator that it brings along (the torch module of a checkpoint), if any.
    """

    name: str
    deployment: Deployment
    own: Simulator | None = None


def open_model(model: Model, foreign: nir_file.ForeignTiming | None = None) -> Subject:
    """Load a model of any kind.

    Args:
        model: a .pt or .nir file, a SpikingNetwork, a ForeignNetwork or a Deployment.
        foreign: timing for .nir files that carry none.

    Raises:
        FileError: the file cannot be used.
        UsageError: the file has another ending.
    """
    if isinstance(model, Deployment):
        return Subject("Deployment", model)
    if isinstance(model, SpikingNetwork):
        return Subject("SpikingNetwork", trace(model), TorchCore(model))
    if isinstance(model, ForeignNetwork):
        return Subject(type(model.module).__name__, trace(model), FrameworkModule(model))
    path = Path(model)
    if path.suffix == ".nir":
        return Subject(str(path), nir_file.read(path, foreign))
    if path.suffix in (".pt", ".pth"):
        network = checkpoint.load(path)
        provenance = replace(network.provenance, source=path.name, sha256=checkpoint.sha256(path))
        return Subject(str(path), trace(network, provenance=provenance), TorchCore(network))
    raise UsageError(f"{path}: unknown kind of file {path.suffix!r}; .pt and .nir are read.")


def export(
    model: Model,
    path: str | Path,
    fold: FoldChoice = "delay",
    tolerance: float = 1e-4,
    dialect: str = "nir",
) -> Deployment:
    """Write a model as .nir with TWO folded in.

    Args:
        model: to export.
        path: .nir file to write.
        fold: folding of TWO: "delay", "bank", "leak" or "host", or "auto": the cheapest in the
            graph whose error is within the tolerance. A model without TWO is written as it is.
        tolerance: for "auto", largest error of f as a share of the largest |f|.
        dialect: how the network is written, as in `msg_deploy.exporters.dialects`.

    Returns:
        The deployment as written.

    Raises:
        FileError: a file cannot be read or written.
        TraceError: a layer has no counterpart in NIR.
        GraphError: the dialect cannot express a node.
    """
    deployment = open_model(model).deployment
    readout = deployment.readout
    if readout and fold == "auto":
        deployment = cheapest(deployment, tolerance)
    elif readout and fold != "auto" and readout.fold != fold:
        deployment = fold_two(deployment, fold)
    deployment = in_dialect(deployment, dialect)
    nir_file.write(deployment, path)
    return deployment


def measure_fold(
    model: Model,
    folded: Deployment,
    data: str | FloatArray | None = None,
    samples: int | None = 100,
    random: int = 0,
    options: Mapping[str, Any] | None = None,
) -> FoldEffect:
    """What a folding does to scores and decisions, in float32.

    Args:
        model: what was exported, with its readout unfolded.
        folded: as `export` returned it.
        data: as in `check`.
        samples: use at most this many samples of the data.
        random: number of random samples in addition.
        options: as in `check`.

    Raises:
        UsageError: there is no data, or no TWO readout.
    """
    subject = open_model(model)
    stimulus = _stimulus(subject.deployment, data, samples, random, 0, options or {})
    mine = subject.own or simulator("reference")
    currents = [
        mine.run(subject.deployment, inputs, "float32").currents
        for _, inputs in _batches(subject.deployment, stimulus)
    ]
    return fold_effect(folded, np.concatenate(currents, axis=1))


def check(
    a: Model,
    b: Model,
    data: str | FloatArray | None = None,
    simulators: Sequence[str] = DEFAULT_SIMULATORS,
    samples: int | None = None,
    random: int | None = None,
    precision: Precision = "float64",
    seed: int = 0,
    foreign: nir_file.ForeignTiming | None = None,
    options: Mapping[str, Any] | None = None,
    on_batch: Callable[[int, int], None] = lambda done, total: None,
) -> Verdict:
    """Compare two models spike for spike.

    The left side runs as it is (a checkpoint in torch, a graph in the reference simulator), the
    right side in each of `simulators` (a checkpoint in torch).

    Args:
        a: left side, what was trained.
        b: right side, what was exported.
        data: name of a data set (its held-out samples), samples (N, *shape), or None: the data set
            that the checkpoint was trained on, if it is known.
        simulators: for the right side.
        samples: use at most this many samples of the data, drawn at random from a data set;
            0: none.
        random: number of uniformly random samples within the input range, in addition to the data;
            they reach inputs that are constant in the data. Default 64.
        precision: "float64" leaves no rounding to blame; "float32" is how most engines run.
        seed: of the random samples.
        foreign: timing for .nir files that carry none.
        options: how the data set is found and read, see `DataOptions`. What is not given is as it
            was when `a` was trained.
        on_batch: called with samples done and in total.

    Returns:
        A Verdict, true if and only if IDENTICAL.

    Raises:
        FileError: a file cannot be used.
        UsageError: an argument is not accepted, or the data do not fit the models.
    """
    if precision not in TOLERANCE:
        raise UsageError(f"precision must be {' or '.join(TOLERANCE)}, not {precision!r}.")
    left, right = open_model(a, foreign), open_model(b, foreign)
    parameters = compare_parameters(left.deployment, right.deployment)
    problems = _incomparable(left.deployment, right.deployment)
    if problems:
        # Different numbers of steps are a difference; different inputs leave nothing to compare.
        return Verdict((), parameters, problems, precision)
    stimulus = _stimulus(left.deployment, data, samples, random, seed, options or {})
    engines = [right.own] if right.own else [simulator(name) for name in simulators]
    comparisons = _run(left, right, engines, stimulus, precision, on_batch)
    return Verdict(comparisons, parameters, (), precision)


def _incomparable(a: Deployment, b: Deployment) -> tuple[str, ...]:
    problems = []
    if a.input.shape != b.input.shape:
        problems.append(f"inputs have shape {a.input.shape} against {b.input.shape}")
    if a.timing.steps != b.timing.steps:
        problems.append(f"timesteps are {a.timing.steps} against {b.timing.steps}")
    return tuple(problems)


def _stimulus(
    deployment: Deployment,
    data: str | FloatArray | None,
    samples: int | None,
    random: int | None,
    seed: int,
    options: Mapping[str, Any],
) -> FloatArray:
    """Samples (N, ...) to run: data first, then random ones."""
    for name, count in (("samples", samples), ("random", random)):
        if count is not None and count < 0:
            raise UsageError(f"{name} must not be negative, not {count}.")
    trained = deployment.provenance.data
    if data is None and samples != 0 and trained in datasets():
        try:
            data = _held_out(deployment, trained, samples, options)
        except UsageError as error:
            raise UsageError(f"{error} Or use random samples alone: --samples 0.") from error
    chosen = _held_out(deployment, data, samples, options) if isinstance(data, str) else data
    spec, timing = deployment.input, deployment.timing
    count = DEFAULT_RANDOM if random is None else random
    shape = spec.shape if spec.encoding == "direct" else (timing.steps, *spec.shape)
    noise = np.random.default_rng(seed).uniform(spec.low, spec.high, (count, *shape))
    parts = [noise.astype(np.float32)]
    if chosen is not None:
        _check_samples(chosen, spec, timing)
        parts.insert(0, np.asarray(chosen, np.float32)[:samples])
    stimulus = np.concatenate(parts)
    if not len(stimulus):
        raise UsageError("there is no sample to compare on; give data or a number of random ones.")
    return stimulus


def _held_out(
    deployment: Deployment, data: str, samples: int | None, options: Mapping[str, Any]
) -> FloatArray:
    """Held-out samples of a data set, read as in training."""
    trained = deployment.provenance
    kept = trained.data_options if trained.data == data else {}
    resolved = data_options(kept, {"limit": samples or None}, options)
    return load_dataset(data, resolved, deployment.timing.steps).test.samples


def _check_samples(samples: FloatArray, spec: InputSpec, timing: Timing) -> None:
    encode(torch.as_tensor(samples[:1]), spec, timing.steps)
    if not np.all(np.isfinite(samples)):
        raise UsageError("the data hold NaN or infinite numbers.")


def _run(
    left: Subject,
    right: Subject,
    engines: Sequence[Simulator],
    stimulus: FloatArray,
    precision: Precision,
    on_batch: Callable[[int, int], None],
) -> tuple[Comparison, ...]:
    mine = left.own or simulator("reference")
    known = layout(left.deployment)
    readouts = (left.deployment.readout, right.deployment.readout)
    rewritten = left.deployment.provenance.dialect != right.deployment.provenance.dialect
    theirs = layout(right.deployment) if rewritten else None
    fold = sum(readout.error for readout in readouts if readout)
    gaps = {e.name: tuple(e.unsupported(right.deployment)) for e in engines}
    parts: dict[str, list[Comparison]] = {
        name: [Comparison(mine.name, name, missing=gap)] for name, gap in gaps.items() if gap
    }
    for start, inputs in _batches(left.deployment, stimulus):
        expected = mine.run(left.deployment, inputs, precision)
        for engine in engines:
            if not gaps[engine.name]:
                found = engine.run(right.deployment, inputs, precision)
                compared = compare(
                    expected, found, known, TOLERANCE[precision], start, fold, theirs
                )
                parts.setdefault(engine.name, []).append(compared)
        on_batch(start + inputs.shape[1], len(stimulus))
    return tuple(merge_all(parts[engine.name]) for engine in engines)


def _batches(deployment: Deployment, stimulus: FloatArray) -> Iterator[tuple[int, FloatArray]]:
    """Index of the first sample, and inputs (T, B, ...), of batches that fit in memory."""
    size = _batch_size(deployment)
    for start in range(0, len(stimulus), size):
        batch = torch.from_numpy(stimulus[start : start + size])
        yield start, encode(batch, deployment.input, deployment.timing.steps).numpy()


def _batch_size(deployment: Deployment) -> int:
    """Samples that are run at once."""
    known = plan(deployment.graph)
    neurons = sum(
        math.prod(known.shapes[name])
        for name, node in deployment.graph.nodes.items()
        if primitive_of(node).spiking
    )
    a_sample = max(neurons, 1) * deployment.timing.steps * np.dtype(np.float64).itemsize
    return max(1, min(LARGEST_BATCH, TRACE_BYTES // a_sample))
