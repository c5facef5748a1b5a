"""The equivalence check: two sides on the same samples, compared, certified, diagnosed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from msg_deploy import saved
from msg_deploy.data import datasets
from msg_deploy.deployment import Deployment, Metadata
from msg_deploy.errors import GraphError, UsageError
from msg_deploy.exporters import nir as nir_file
from msg_deploy.options import Precision
from msg_deploy.pairs import paired
from msg_deploy.report import illustrate as illustrations
from msg_deploy.runners import Runner, RuntimeOptions, runners
from msg_deploy.samples import Finite, Joined, Samples, limited
from msg_deploy.saved import SavedTrace
from msg_deploy.scale import executors
from msg_deploy.scale.job import job
from msg_deploy.scale.running import Plan, compare_all
from msg_deploy.scale.state import kept
from msg_deploy.scale.work import Work
from msg_deploy.sim.compare import TOLERANCE
from msg_deploy.sim.parameters import compare_metadata, compare_parameters, same_law
from msg_deploy.sim.simulator import FloatArray, Trace
from msg_deploy.sim.verdict import Kind, ParameterDifference, Verdict
from msg_deploy.stimulus import DEFAULT_RANDOM, encoded, held_out, loaded, noise
from msg_deploy.subjects import Model, Subject, batch_size, open_model

if TYPE_CHECKING:
    from msg_deploy.sim.diagnosis.findings import Diagnosis
    from msg_deploy.sim.explanation import Rounding


@dataclass(frozen=True)
class Settings:
    """What a check does with two models and samples; sent to whoever computes a part of it.

    Attributes:
        simulators: for the right side; None: the usual ones.
        precision: of both sides.
        foreign: timing for .nir files that carry none.
        runtime: threads and providers of onnxruntime.
        certify: find out what rounding can change.
        left_simulator: for the left side; None: the usual one.
        mapping: names of the left side and those of the right that stand for the same node.
    """

    simulators: tuple[str, ...] | None
    precision: Precision
    foreign: nir_file.ForeignTiming | None
    runtime: RuntimeOptions
    certify: bool
    left_simulator: str | None = None
    mapping: tuple[tuple[str, str], ...] = ()


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
    workers: int | None = None,
    scheduler: str | None = None,
    state: str | Path | None = None,
    illustrate: bool = False,
    mapping: Mapping[str, str] | None = None,
    left_simulator: str | None = None,
    random_float: int = 0,
) -> Verdict:
    """Compare two models spike for spike.

    The left side runs as it is (a checkpoint in torch, a graph in the reference simulator, an .onnx
    file in onnxruntime), the right side in each of `simulators` (a checkpoint in torch). A
    recording (.npz, docs/equivalence.md) is not run; the other side is, on the samples it holds.

    Args:
        a: left side, what was trained.
        b: right side, what was exported.
        data: name of a data set (its held-out samples), a .npz file of samples, samples
            (N, *shape), or None: the data set that the checkpoint was trained on, if it is known.
        simulators: for the right side; by default the reference and Norse, for an .onnx file
            onnxruntime and the reference evaluator of ONNX, for a checkpoint torch. Those that do
            not run that kind of file are left out, with a warning, unless there is no other.
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
        workers: processes of this machine that share the work, one thread each; None: this process
            does it.
        scheduler: address of a dask.distributed scheduler whose workers share the work, such as
            "tcp://host:8786".
        state: file that keeps what is done; an interrupted check with the same arguments goes on
            from there. It is removed in the end.
        illustrate: run one batch again and keep what a report shows of it, `Verdict.illustration`.
        mapping: names of nodes of the left side to names of the right, where they are called
            otherwise and no origin is recorded.
        left_simulator: for the left side, in place of the usual one.
        random_float: as `random`, but any float32 numbers in place of a grid of powers of two, on
            which networks of integers compute without rounding.

    Returns:
        A Verdict, true if and only if PROVEN or IDENTICAL.

    Raises:
        FileError: a file cannot be used.
        UsageError: an argument is not accepted, or the data do not fit the models.
    """
    if precision is not None and precision not in TOLERANCE:
        raise UsageError(f"precision must be {' or '.join(TOLERANCE)}, not {precision!r}.")
    left, right = paired(open_model(a, foreign), open_model(b, foreign), mapping)
    precision = _precision(left, right, precision)
    parameters = _parameters(left, right)
    problems = _incomparable(left, right)
    if problems:
        # Different numbers of steps are a difference; different inputs leave nothing to compare.
        shown = illustrations.described(left, right) if illustrate else None
        return Verdict((), parameters, problems, precision, illustration=shown)
    runtime = runtime or RuntimeOptions()
    settings = Settings(
        None if simulators is None else tuple(simulators),
        precision,
        foreign,
        runtime,
        certify,
        left_simulator,
        tuple((mapping or {}).items()),
    )
    work = ready(left, right, settings)
    used = {runner.name for runner in (work.mine, *work.others)}
    if runtime != RuntimeOptions() and "onnxruntime" not in used:
        raise UsageError("threads and providers are for onnxruntime, which does not run here.")
    chosen = {"data": data, "random": random, "random_float": random_float or None}
    if isinstance(left.content, SavedTrace) or isinstance(right.content, SavedTrace):
        stimulus = _recorded(left, right, chosen | {"adversarial": adversarial or None}, samples)
    else:
        stimulus = stimulus_of(
            left.metadata, data, samples, random, seed, options or {}, random_float
        )
    if adversarial:
        searched = _searched(left, right, adversarial, precision, seed)
        stimulus = Joined((stimulus, searched))
    task = executors.Task(work, lambda content: job(a, b, settings, content))
    plan = Plan(stimulus, batch_size(left))
    execute = executors.chosen({"workers": workers, "scheduler": scheduler})
    with kept(Path(state) if state else None, task, plan) as finished:
        comparisons = compare_all(task, plan, execute, finished, on_batch)
        verdict = Verdict(comparisons, parameters, (), precision)
        if diagnose and verdict.kind in (Kind.DIVERGENT, Kind.TIES):
            found = _diagnosis(left, right, work, stimulus, verdict)
            verdict = replace(verdict, diagnosis=found)
        if illustrate:
            shown = illustrations.illustrate(left, right, work, stimulus, plan.size, verdict)
            verdict = replace(verdict, illustration=shown)
        return verdict


def ready(left: Subject, right: Subject, settings: Settings) -> Work:
    """Two sides, ready to be compared on any samples.

    Raises:
        UsageError: a simulator is not known, or does not run the file.
    """
    precision, runtime = settings.precision, settings.runtime
    wanted = None if settings.left_simulator is None else (settings.left_simulator,)
    readouts = (left.metadata.readout, right.metadata.readout)
    rewritten = left.metadata.provenance.dialect != right.metadata.provenance.dialect
    return Work(
        mine=runners(left, wanted, precision, runtime)[0],
        others=runners(right, settings.simulators, precision, runtime),
        metadata=left.metadata,
        layout=left.layout,
        theirs=right.layout if rewritten or _own_units(left) or _own_units(right) else None,
        fold=sum(readout.error for readout in readouts if readout),
        precision=precision,
        rounding=_rounding(left, right, precision) if settings.certify else None,
    )


def _own_units(side: Subject) -> bool:
    """Whether it is a recording whose membranes may be in units of its own."""
    return isinstance(side.content, SavedTrace) and side.content.own_units


def _without_membranes(runner: Runner) -> Callable[[FloatArray], Trace]:
    return lambda inputs: replace(runner.run(inputs), membranes={})


def _rounding(
    left: Subject, right: Subject, precision: Precision
) -> Callable[[FloatArray], Rounding] | None:
    """From inputs to what rounding can change; None if neither side has a graph.

    Graphs that are not the same are both certified.
    """
    from msg_deploy.sim import explanation
    from msg_deploy.sim.certificate import Certifier

    graphs = [s.content for s in (left, right) if isinstance(s.content, Deployment)]
    if not graphs:
        return None
    if len(graphs) > 1 and same_law(*graphs):
        graphs = graphs[:1]
    try:
        certifiers = [Certifier(graph, precision) for graph in graphs]
    except GraphError:  # a primitive that somebody added without a rule for its errors
        return None

    def rounding(inputs: FloatArray) -> Rounding:
        mine, *theirs = (
            explanation.rounding(certifier.deployment, certifier(inputs))
            for certifier in certifiers
        )
        return replace(mine, theirs=theirs[0] if theirs else None)

    return rounding


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
    work: Work,
    stimulus: Samples,
    verdict: Verdict,
) -> Diagnosis | None:
    """Of the first simulator in which something differs; None if only parameters do."""
    from msg_deploy.sim.diagnosis.diagnose import MOST_SAMPLES, Party, explain

    pairs = zip(work.others, verdict.comparisons, strict=True)
    differing = ((runner, c.first) for runner, c in pairs if c.first)
    runner, first = next(differing, (None, None))
    if runner is None or first is None:
        return None

    def party(ran: Runner, side: Subject) -> Party:
        graph = side.deployment if side.has_graph else None
        if _own_units(side):
            return Party(_without_membranes(ran), None, side.layout, recorded=True)
        return Party(ran.run, graph, side.layout, isinstance(side.content, SavedTrace))

    return explain(
        party(work.mine, left),
        party(runner, right),
        stimulus,
        first,
        work.metadata.input,
        lambda samples: encoded(work.metadata, samples),
        verdict.precision,
        work.fold,
        min(MOST_SAMPLES, batch_size(left)),
    )


def _precision(left: Subject, right: Subject, wanted: Precision | None) -> Precision:
    single = [side for side in (left, right) if side.precision == "float32"]
    if single and wanted == "float64":
        recorded = isinstance(single[0].content, SavedTrace)
        what = "was recorded in float32" if recorded else ".onnx files compute in float32"
        raise UsageError(f"{single[0].name}: {what}; float64 is not possible.")
    unknown = any(side.precision is None for side in (left, right))
    return wanted or ("float32" if single or unknown else "float64")


def _parameters(left: Subject, right: Subject) -> tuple[ParameterDifference, ...]:
    if left.has_graph and right.has_graph:
        return compare_parameters(left.deployment, right.deployment)
    return compare_metadata(left.metadata, right.metadata)


def _incomparable(left: Subject, right: Subject) -> tuple[str, ...]:
    a, b = left.metadata, right.metadata
    problems = []
    if a.input.shape != b.input.shape:
        problems.append(f"inputs have shape {a.input.shape} against {b.input.shape}")
    if a.timing.steps != b.timing.steps:
        problems.append(f"timesteps are {a.timing.steps} against {b.timing.steps}")
    recorded = any(isinstance(side.content, SavedTrace) for side in (left, right))
    if a.input.levels != b.input.levels and not recorded:
        problems.append(
            f"inputs enter as {_entering(a)} against {_entering(b)} (quantized networks take whole "
            "numbers)"
        )
    return tuple(problems)


def _entering(metadata: Metadata) -> str:
    levels = metadata.input.levels
    return "they are" if levels is None else f"{levels} levels"


def stimulus_of(
    metadata: Metadata,
    data: str | FloatArray | None,
    samples: int | None,
    random: int | None,
    seed: int,
    options: Mapping[str, Any],
    random_float: int = 0,
) -> Samples:
    """Samples (N, ...) to run: data first, then random ones."""
    counts = {"samples": samples, "random": random, "random_float": random_float}
    for name, count in counts.items():
        if count is not None and count < 0:
            raise UsageError(f"{name} must not be negative, not {count}.")
    trained = metadata.provenance.data
    given = loaded(data)
    chosen: Samples | None
    if given is None and samples != 0 and trained in datasets():
        try:
            chosen = _held_out(metadata, trained, samples, options)
        except UsageError as error:
            raise UsageError(f"{error} Or use random samples alone: --samples 0.") from error
    elif isinstance(given, str):
        chosen = _held_out(metadata, given, samples, options)
    else:
        chosen = given
    parts: list[Samples] = [
        noise(metadata, DEFAULT_RANDOM if random is None else random, seed),
        noise(metadata, random_float, seed, fine=True),
    ]
    if chosen is not None:
        encoded(metadata, np.asarray(chosen[:1]))
        parts.insert(0, Finite(limited(chosen, samples)))
    stimulus = Joined(tuple(parts))
    if not len(stimulus):
        raise UsageError("there is no sample to compare on; give data or a number of random ones.")
    return stimulus


def _recorded(
    left: Subject, right: Subject, given: Mapping[str, Any], samples: int | None
) -> Samples:
    """The samples that a recording holds, the first ones if not all are wanted.

    Raises:
        UsageError: others are asked for, or two recordings hold different ones.
    """
    sides = [(s.name, s.content) for s in (left, right) if isinstance(s.content, SavedTrace)]
    name, recording = sides[0]
    none = (value is None or (isinstance(value, int) and value == 0) for value in given.values())
    others = [
        f"--{option.replace('_', '-')}"
        for option, absent in zip(given, none, strict=True)
        if not absent
    ]
    if others:
        raise UsageError(
            f"{name}: is a recording, so its own samples are compared; leave out "
            f"{' and '.join(others)}, or name the model that was recorded."
        )
    for _, content in sides[1:]:
        saved.check_same_samples(recording, content)
    if samples == 0:
        raise UsageError(
            f"there is no sample to compare on; {name} holds {len(recording.samples)}."
        )
    stimulus = recording.samples[:samples]
    encoded(left.metadata, stimulus[:1])
    return stimulus


def _held_out(
    metadata: Metadata, data: str, samples: int | None, options: Mapping[str, Any]
) -> Samples:
    """Held-out samples of a data set, read as in training."""
    return held_out(metadata, data, samples, options).samples("test")
