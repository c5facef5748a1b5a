"""What the command line does, as functions: export, check, inspect."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from msg_deploy import checkpoint
from msg_deploy.data import datasets
from msg_deploy.data.npz import samples_npz
from msg_deploy.deployment import Deployment, InputSpec, Metadata, Timing
from msg_deploy.errors import GraphError, UsageError
from msg_deploy.exporters import nir as nir_file
from msg_deploy.exporters.adapters import ForeignNetwork
from msg_deploy.exporters.branches import unfused
from msg_deploy.exporters.dialects import in_dialect
from msg_deploy.exporters.fold import FoldEffect, cheapest, fold_effect, fold_two
from msg_deploy.exporters.trace import trace
from msg_deploy.networks import SpikingNetwork, encode
from msg_deploy.options import FoldChoice, Precision
from msg_deploy.sim.compare import (
    TOLERANCE,
    Comparison,
    Kind,
    Layout,
    ParameterDifference,
    Verdict,
    compare,
    compare_metadata,
    compare_parameters,
    layout,
    merge_all,
)
from msg_deploy.sim.framework import FrameworkModule
from msg_deploy.sim.simulator import FloatArray, Simulator, Trace, simulator
from msg_deploy.sim.torch_core import TorchCore
from msg_deploy.stimulus import DEFAULT_RANDOM, batches, held_out, noise

if TYPE_CHECKING:
    from msg_deploy.exporters.onnx.build import OnnxOptions
    from msg_deploy.exporters.onnx.file import OnnxModel
    from msg_deploy.sim.diagnosis.findings import Diagnosis
    from msg_deploy.sim.explanation import Rounding

Model = str | Path | SpikingNetwork | ForeignNetwork | Deployment
DEFAULT_SIMULATORS = ("reference", "norse")
ONNX_SIMULATORS = ("onnxruntime", "onnx_reference")
"""Those that run .onnx files."""
LARGEST_BATCH = 128
TRACE_BYTES = 2**29
"""What the membranes of one trace may take; the batch is made to fit."""


@dataclass(frozen=True)
class Subject:
    """One side of a check.

    Attributes:
        name: file or type.
        content: its graph, or the ONNX model that it is.
        own: the simulator that it brings along (the torch module of a checkpoint), if any.
    """

    name: str
    content: Deployment | OnnxModel
    own: Simulator | None = None

    @property
    def has_graph(self) -> bool:
        """Whether there is a graph of NIR."""
        return isinstance(self.content, Deployment)

    @property
    def deployment(self) -> Deployment:
        """Its graph.

        Raises:
            UsageError: an .onnx file, which has none.
        """
        if not isinstance(self.content, Deployment):
            raise UsageError(
                f"{self.name}: has no graph of NIR; a .pt or .nir file is needed here."
            )
        return self.content

    @property
    def onnx(self) -> OnnxModel:
        """Its ONNX model.

        Raises:
            UsageError: it is not an .onnx file.
        """
        if isinstance(self.content, Deployment):
            raise UsageError(f"{self.name}: is no ONNX model; an .onnx file is needed here.")
        return self.content

    @property
    def metadata(self) -> Metadata:
        """Timing, input, readout and provenance."""
        return self.content.metadata

    @property
    def layout(self) -> Layout:
        """What a comparison needs to know."""
        if isinstance(self.content, Deployment):
            return layout(self.content)
        from msg_deploy.sim.onnx_engine import layout_of

        return layout_of(self.content)


@dataclass(frozen=True)
class Runner:
    """One side of a check in one simulator.

    Attributes:
        name: of the simulator.
        run: inputs (T, B, *input shape) to what they cause.
        gaps: why it cannot be run; empty if it can.
    """

    name: str
    run: Callable[[FloatArray], Trace]
    gaps: tuple[str, ...] = ()


@dataclass(frozen=True)
class RuntimeOptions:
    """How onnxruntime works.

    Attributes:
        threads: that one operator may use; None: as many as the machine has cores.
        providers: execution providers in the order of preference; none: the CPU.
    """

    threads: int | None = None
    providers: tuple[str, ...] = ()


def open_model(model: Model, foreign: nir_file.ForeignTiming | None = None) -> Subject:
    """Load a model of any kind.

    Args:
        model: a .pt, .nir or .onnx file, a SpikingNetwork, a ForeignNetwork or a Deployment.
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
    if path.suffix == ".onnx":
        from msg_deploy.exporters.onnx import file as onnx_file

        return Subject(str(path), onnx_file.read(path))
    if path.suffix in (".pt", ".pth"):
        network = checkpoint.load(path)
        provenance = replace(network.provenance, source=path.name, sha256=checkpoint.sha256(path))
        return Subject(str(path), trace(network, provenance=provenance), TorchCore(network))
    raise UsageError(f"{path}: unknown kind of file {path.suffix!r}; .pt, .nir and .onnx are read.")


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


def export_onnx(
    model: Model,
    path: str | Path,
    options: OnnxOptions | None = None,
    inline: bool = False,
) -> tuple[Path, ...]:
    """Write a model as .onnx. TWO is folded by algebra, unless the graph itself has folded it.

    Args:
        model: to export.
        path: .onnx file to write.
        options: layout, opset, int8 and what is put out, see `OnnxOptions`.
        inline: neurons as standard operators in place of functions.

    Returns:
        The files written: PATH, and PATH.data with the weights if they are larger than 2 GB.

    Raises:
        FileError: a file cannot be read or written.
        TraceError: a layer has no counterpart in NIR.
        GraphError: a node cannot be written, or int8 finds no weights on a grid.
    """
    from msg_deploy.exporters.onnx import build as onnx_model
    from msg_deploy.exporters.onnx import file as onnx_file

    built = onnx_model.build(open_model(model).deployment, options)
    return onnx_file.write(onnx_file.inlined(built) if inline else built, path)


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
    stimulus = _stimulus(subject.metadata, data, samples, random, 0, options or {})
    mine = subject.own or simulator("reference")
    currents = [
        mine.run(subject.deployment, inputs, "float32").currents
        for _, inputs in _batches(subject, stimulus)
    ]
    return fold_effect(folded, np.concatenate(currents, axis=1))


def check(
    a: Model,
    b: Model,
    data: str | FloatArray | None = None,
    simulators: Sequence[str] | None = None,
    samples: int | None = None,
    random: int | None = None,
    precision: Precision | None = None,
    seed: int = 0,
    foreign: nir_file.ForeignTiming | None = None,
    options: Mapping[str, Any] | None = None,
    runtime: RuntimeOptions | None = None,
    on_batch: Callable[[int, int], None] = lambda done, total: None,
    diagnose: bool = True,
    certify: bool = True,
    adversarial: int = 0,
) -> Verdict:
    """Compare two models spike for spike.

    The left side runs as it is (a checkpoint in torch, a graph in the reference simulator, an .onnx
    file in onnxruntime), the right side in each of `simulators` (a checkpoint in torch).

    Args:
        a: left side, what was trained.
        b: right side, what was exported.
        data: name of a data set (its held-out samples), a .npz file of samples, samples
            (N, *shape), or None: the data set that the checkpoint was trained on, if it is known.
        simulators: for the right side; by default the reference and Norse, for an .onnx file
            onnxruntime and the reference evaluator of ONNX.
        samples: use at most this many samples of the data, drawn at random from a data set;
            0: none.
        random: number of uniformly random samples within the input range, in addition to the data;
            they reach inputs that are constant in the data. Default 64.
        precision: "float64" leaves no rounding to blame; "float32" is how most engines run, and the
            only one for .onnx files. By default float32 with an .onnx file, float64 without.
        seed: of the random samples.
        foreign: timing for .nir files that carry none.
        options: how the data set is found and read, see `DataOptions`. What is not given is as it
            was when `a` was trained.
        runtime: threads and providers of onnxruntime.
        on_batch: called with samples done and in total.
        diagnose: find out which layers are at fault and why, if the verdict is DIVERGENT or TIES.
        certify: find out which threshold decisions no rounding can change, see docs/certificate.md;
            without that there are no verdicts PROVEN and TIES.
        adversarial: number of samples in addition that are searched so that a decision is as close
            to its threshold as the input range allows.

    Returns:
        A Verdict, true if and only if PROVEN or IDENTICAL.

    Raises:
        FileError: a file cannot be used.
        UsageError: an argument is not accepted, or the data do not fit the models.
    """
    if precision is not None and precision not in TOLERANCE:
        raise UsageError(f"precision must be {' or '.join(TOLERANCE)}, not {precision!r}.")
    left, right = open_model(a, foreign), open_model(b, foreign)
    precision = _precision(left, right, precision)
    parameters = _parameters(left, right)
    problems = _incomparable(left.metadata, right.metadata)
    if problems:
        # Different numbers of steps are a difference; different inputs leave nothing to compare.
        return Verdict((), parameters, problems, precision)
    runtime = runtime or RuntimeOptions()
    mine = _engines(left, None, runtime)[0]
    others = _engines(right, simulators, runtime)
    if runtime != RuntimeOptions() and not any(e.name == "onnxruntime" for e in (mine, *others)):
        raise UsageError("threads and providers are for onnxruntime, which does not run here.")
    stimulus = _stimulus(left.metadata, data, samples, random, seed, options or {})
    if adversarial:
        searched = _searched(left, right, adversarial, precision, seed)
        stimulus = np.concatenate([stimulus, searched])
    runners = _runner(left, mine, precision), [_runner(right, e, precision) for e in others]
    rounding = _rounding(left, right, precision) if certify else None
    comparisons = _run(left, right, *runners, stimulus, precision, on_batch, rounding)
    verdict = Verdict(comparisons, parameters, (), precision)
    if diagnose and verdict.kind in (Kind.DIVERGENT, Kind.TIES):
        return replace(verdict, diagnosis=_diagnosis(left, right, *runners, stimulus, verdict))
    return verdict


def _rounding(
    left: Subject, right: Subject, precision: Precision
) -> Callable[[FloatArray], Rounding] | None:
    """From inputs to what rounding can change; None if neither side has a graph."""
    from msg_deploy.sim import explanation
    from msg_deploy.sim.certificate import Certifier

    if not (left.has_graph or right.has_graph):
        return None
    deployment = _with_graph(left, right).deployment
    try:
        certify = Certifier(deployment, precision)
    except GraphError:  # a primitive that somebody added without a rule for its errors
        return None
    return lambda inputs: explanation.rounding(deployment, certify(inputs))


def _searched(
    left: Subject, right: Subject, count: int, precision: Precision, seed: int
) -> FloatArray:
    """Samples on which a decision is on the edge."""
    from msg_deploy.sim.adversarial import search

    if count < 0:
        raise UsageError(f"adversarial must not be negative, not {count}.")
    return search(_with_graph(left, right).deployment, count, precision, seed)


def _with_graph(left: Subject, right: Subject) -> Subject:
    """The left side, if it has a graph."""
    return left if left.has_graph else right


def _diagnosis(
    left: Subject,
    right: Subject,
    mine: Runner,
    others: Sequence[Runner],
    stimulus: FloatArray,
    verdict: Verdict,
) -> Diagnosis | None:
    """Of the first simulator in which something differs; None if only parameters do."""
    from msg_deploy.sim.diagnosis.diagnose import MOST_SAMPLES, Party, explain

    differing = ((r, c.first) for r, c in zip(others, verdict.comparisons, strict=True) if c.first)
    runner, first = next(differing, (None, None))
    if runner is None or first is None:
        return None
    spec, steps = left.metadata.input, left.metadata.timing.steps
    readouts = (left.metadata.readout, right.metadata.readout)
    return explain(
        Party(mine.run, left.deployment if left.has_graph else None, left.layout),
        Party(runner.run, right.deployment if right.has_graph else None, right.layout),
        stimulus,
        first,
        spec,
        lambda samples: encode(torch.from_numpy(samples), spec, steps).numpy(),
        verdict.precision,
        sum(readout.error for readout in readouts if readout),
        min(MOST_SAMPLES, _batch_size(left)),
    )


def _precision(left: Subject, right: Subject, wanted: Precision | None) -> Precision:
    files = [side.name for side in (left, right) if not side.has_graph]
    if files and wanted == "float64":
        raise UsageError(f"{files[0]}: .onnx files compute in float32; float64 is not possible.")
    return wanted or ("float32" if files else "float64")


def _parameters(left: Subject, right: Subject) -> tuple[ParameterDifference, ...]:
    if left.has_graph and right.has_graph:
        return compare_parameters(left.deployment, right.deployment)
    return compare_metadata(left.metadata, right.metadata)


def _engines(
    side: Subject, names: Sequence[str] | None, runtime: RuntimeOptions
) -> list[Simulator]:
    """What runs a side: what it brings along, or simulators by name."""
    if side.own:
        return [side.own]
    default = DEFAULT_SIMULATORS if side.has_graph else ONNX_SIMULATORS
    for name in names or ():
        if not side.has_graph and name not in ONNX_SIMULATORS:
            raise UsageError(
                f"{name} does not run .onnx files; {' and '.join(ONNX_SIMULATORS)} do."
            )
    return [_engine(name, runtime) for name in names or default]


def _engine(name: str, runtime: RuntimeOptions) -> Simulator:
    if name == "onnxruntime":
        from msg_deploy.sim.onnxruntime import OnnxRuntime

        return OnnxRuntime(runtime.threads, runtime.providers)
    return simulator(name)


def _runner(side: Subject, engine: Simulator, precision: Precision) -> Runner:
    content = side.content
    if isinstance(content, Deployment):
        gaps = tuple(engine.unsupported(content, precision))

        def run(inputs: FloatArray) -> Trace:
            return unfused(engine.run(content, inputs, precision), content.graph)

        return Runner(engine.name, run, gaps)
    from msg_deploy.sim.onnx_engine import OnnxEngine

    assert isinstance(engine, OnnxEngine)
    return Runner(engine.name, lambda inputs: engine.run_model(content, inputs))


def _incomparable(a: Metadata, b: Metadata) -> tuple[str, ...]:
    problems = []
    if a.input.shape != b.input.shape:
        problems.append(f"inputs have shape {a.input.shape} against {b.input.shape}")
    if a.timing.steps != b.timing.steps:
        problems.append(f"timesteps are {a.timing.steps} against {b.timing.steps}")
    return tuple(problems)


def _stimulus(
    metadata: Metadata,
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
    trained = metadata.provenance.data
    if data is None and samples != 0 and trained in datasets():
        try:
            data = _held_out(metadata, trained, samples, options)
        except UsageError as error:
            raise UsageError(f"{error} Or use random samples alone: --samples 0.") from error
    chosen = _held_out(metadata, data, samples, options) if isinstance(data, str) else data
    parts = [noise(metadata, DEFAULT_RANDOM if random is None else random, seed)]
    if chosen is not None:
        _check_samples(chosen, metadata.input, metadata.timing)
        parts.insert(0, np.asarray(chosen, np.float32)[:samples])
    stimulus = np.concatenate(parts)
    if not len(stimulus):
        raise UsageError("there is no sample to compare on; give data or a number of random ones.")
    return stimulus


def _held_out(
    metadata: Metadata, data: str, samples: int | None, options: Mapping[str, Any]
) -> FloatArray:
    """Held-out samples of a data set, read as in training, or those of a .npz file."""
    if data.endswith(".npz"):
        return samples_npz(Path(data))
    return held_out(metadata, data, samples, options).samples


def _check_samples(samples: FloatArray, spec: InputSpec, timing: Timing) -> None:
    encode(torch.as_tensor(samples[:1]), spec, timing.steps)
    if not np.all(np.isfinite(samples)):
        raise UsageError("the data hold NaN or infinite numbers.")


def _run(
    left: Subject,
    right: Subject,
    mine: Runner,
    others: Sequence[Runner],
    stimulus: FloatArray,
    precision: Precision,
    on_batch: Callable[[int, int], None],
    rounding: Callable[[FloatArray], Rounding] | None,
) -> tuple[Comparison, ...]:
    known = left.layout
    readouts = (left.metadata.readout, right.metadata.readout)
    rewritten = left.metadata.provenance.dialect != right.metadata.provenance.dialect
    theirs = right.layout if rewritten else None
    fold = sum(readout.error for readout in readouts if readout)
    parts: dict[str, list[Comparison]] = {
        r.name: [Comparison(mine.name, r.name, missing=mine.gaps or r.gaps)]
        for r in others
        if mine.gaps or r.gaps
    }
    able = [runner for runner in others if runner.name not in parts]
    for start, inputs in _batches(left, stimulus) if able else ():
        expected, found = mine.run(inputs), rounding and rounding(inputs)
        for runner in able:
            compared = compare(
                expected,
                runner.run(inputs),
                known,
                TOLERANCE[precision],
                start,
                fold,
                theirs,
                found,
            )
            parts.setdefault(runner.name, []).append(compared)
        on_batch(start + inputs.shape[1], len(stimulus))
    return tuple(merge_all(parts[runner.name]) for runner in others)


def _batches(side: Subject, stimulus: FloatArray) -> Iterator[tuple[int, FloatArray]]:
    """Index of the first sample, and inputs (T, B, ...), of batches that fit in memory."""
    return batches(side.metadata, stimulus, _batch_size(side))


def _batch_size(side: Subject) -> int:
    """Samples that are run at once."""
    neurons = sum(threshold.size for threshold in side.layout.thresholds.values())
    a_sample = max(neurons, 1) * side.metadata.timing.steps * np.dtype(np.float64).itemsize
    return max(1, min(LARGEST_BATCH, TRACE_BYTES // a_sample))
