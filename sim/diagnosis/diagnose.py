"""Which layers are at fault, and why."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from msg_deploy.deployment import Deployment, InputSpec
from msg_deploy.options import Precision
from msg_deploy.parts import parts
from msg_deploy.samples import Samples
from msg_deploy.sim.compare import REWRITTEN, TOLERANCE, Layout, apart, as_written, folded_away
from msg_deploy.sim.diagnosis.evidence import (
    Evidence,
    agreement,
    forced,
    give,
    inputs_of,
    is_recorded,
    recorded,
    together,
)
from msg_deploy.sim.diagnosis.findings import Diagnosis, Fault, Quantity, Side
from msg_deploy.sim.diagnosis.hypotheses import Setting
from msg_deploy.sim.diagnosis.reduce import Mask, reduce
from msg_deploy.sim.diagnosis.segments import Segment, segments
from msg_deploy.sim.diagnosis.testing import Deadline, Tester
from msg_deploy.sim.simulator import FloatArray, Trace
from msg_deploy.sim.verdict import READOUT, Difference

MOST_SAMPLES = 16
"""Samples that a diagnosis takes unless told otherwise."""
Run = Callable[[FloatArray], Trace]
"""Inputs (T, B, *input shape) to what they cause."""


@dataclass(frozen=True)
class Party:
    """One side of a check.

    Attributes:
        run: in its simulator.
        graph: if it has one.
        layout: its layers in the order of execution.
        recorded: whether it runs on the samples of the check only, as recordings do.
    """

    run: Run
    graph: Deployment | None
    layout: Layout
    recorded: bool = False


def diagnose(
    a: Party,
    b: Party,
    stimulus: FloatArray,
    precision: Precision,
    fold: float = 0.0,
    seconds: float = 20.0,
) -> Diagnosis:
    """Tell faulty layers from those that are merely downstream, and test what explains them.

    The graph of one side, A's if it reproduces what A itself does, says how layers should behave.
    Each of its layers is fed with what the other side's layer received, and, if that has a graph
    as well, the other's layer with what this one's received; a layer that differs is faulty.

    Args:
        a: left side.
        b: right side.
        stimulus: inputs (T, B, *input shape), among them some that make a difference.
        precision: of both runs.
        fold: stated error of TWO's weights on both sides together.
        seconds: after which no further change is tested.
    """
    traces = {"a": a.run(stimulus), "b": b.run(stimulus)}
    explained = folded_away(fold, traces["a"].currents)
    different = _different(traces["a"], traces["b"], a.layout, precision, explained)
    subject = _subject(a, b, traces, stimulus, precision)
    simulator = traces["b"].simulator
    if subject is None:
        return _unforced(simulator, different)
    mine, theirs = (a, b) if subject == "b" else (b, a)
    own, other = (traces["a"], traces["b"]) if subject == "b" else (traces["b"], traces["a"])
    assert mine.graph is not None
    explained = folded_away(fold, own.currents)
    deadline = Deadline(seconds)
    settings = _settings(mine.graph, theirs.graph, own, other, stimulus, precision, explained)
    faulty = tuple(Tester(s, precision, explained, deadline).fault() for s in settings)
    if not faulty and (own.partial or other.partial):
        # What was recorded is too little to feed a layer that differs.
        return _unforced(simulator, different)
    names = {fault.node for fault in faulty}
    downstream = tuple(name for name, _ in different if name not in names)
    complete = not deadline.passed
    return Diagnosis(simulator, faulty, downstream, subject, True, complete)


def _subject(
    a: Party, b: Party, traces: Mapping[str, Trace], stimulus: FloatArray, precision: Precision
) -> Side | None:
    """The side to be explained: B, unless only B's graph reproduces its own trace."""
    sides: tuple[tuple[Side, Party, Trace], ...] = (("b", a, traces["a"]), ("a", b, traces["b"]))
    able = [(subject, x, trace) for subject, x, trace in sides if x.graph and _usable(x.graph)]
    for subject, party, trace in able:
        assert party.graph is not None
        if not any(True for _ in _faults(party.graph, trace, stimulus, precision)):
            return subject
    return able[0][0] if able else None


def _usable(graph: Deployment) -> bool:
    """Whether layers are called as in traces."""
    return not parts(graph.graph)


def _faults(
    graph: Deployment, trace: Trace, stimulus: FloatArray, precision: Precision
) -> list[Segment]:
    """Layers that do not do what the graph says."""
    entering = inputs_of(graph, stimulus)
    found = []
    for segment in segments(graph, currents=len(trace.currents) > 0):
        if not is_recorded(segment, trace, entering):
            continue
        evidence = recorded(segment, trace, entering)
        if not agreement(segment, give(segment, evidence.received), evidence, precision).spikes:
            found.append(segment)
    return found


def _settings(
    graph: Deployment,
    other: Deployment | None,
    own: Trace,
    theirs: Trace,
    stimulus: FloatArray,
    precision: Precision,
    explained: float,
) -> list[Setting]:
    """Faulty layers with the evidence that shows it."""
    currents = len(theirs.currents) > 0
    comparable = other is not None and _comparable(graph, other)
    behind = {s.node: s for s in segments(other, currents)} if other and comparable else {}
    if not comparable:
        # A dialect measures membranes in other units.
        theirs = theirs if other is None else replace(theirs, membranes={})
    entering = inputs_of(graph, stimulus)
    found = []
    for segment in segments(graph, currents):
        evidence = (
            [recorded(segment, theirs, entering)] if is_recorded(segment, theirs, entering) else []
        )
        twin = behind.get(segment.node)
        needed = (segment, twin) if twin else ()
        feedable = all(is_recorded(s, own, entering) for s in needed)
        if twin and feedable and twin.quantity == segment.quantity != "score":
            evidence.append(forced(segment, twin, own, entering))
        showing = [e for e in evidence if _differs(segment, e, precision, explained)]
        if showing:
            found.append(Setting(segment, graph, twin, together(showing)))
    return found


def _comparable(graph: Deployment, other: Deployment) -> bool:
    """Whether nodes of both graphs may be compared one by one."""
    same = graph.provenance.dialect == other.provenance.dialect
    return same and not parts(other.graph) and graph.input.shape == other.input.shape


def _differs(segment: Segment, evidence: Evidence, precision: Precision, explained: float) -> bool:
    given = give(segment, evidence.received)
    return not agreement(segment, given, evidence, precision, explained).whole


def _different(
    a: Trace, b: Trace, layout: Layout, precision: Precision, explained: float
) -> list[tuple[str, Quantity]]:
    """Layers that differ and in what, in the order of execution; the scores last."""
    found: list[tuple[str, Quantity]] = []
    for name in layout.order:
        both = name in a.spikes and name in b.spikes
        if both and not np.array_equal(a.spikes[name].ravel(), b.spikes[name].ravel()):
            found.append((name, "spike"))
        elif name in layout.sources and a.currents.shape == b.currents.shape:
            x, y = (trace.currents[..., layout.sources[name]] for trace in (a, b))
            if not _close(x, y, TOLERANCE[precision]):
                found.append((name, "current"))
    scored = a.scored and b.scored
    same = not scored or _close(a.scores[None], b.scores[None], TOLERANCE[precision], explained)
    return found if same else [*found, (READOUT, "score")]


def _close(x: FloatArray, y: FloatArray, tolerance: float, explained: float = 0.0) -> bool:
    return len(apart(x, y, tolerance, explained)) == 0


def _unforced(simulator: str, different: Sequence[tuple[str, Quantity]]) -> Diagnosis:
    """Where the first difference is; what follows from what is not known."""
    first = tuple(Fault(name, quantity, 0, 0, 0) for name, quantity in different[:1])
    return Diagnosis(simulator, first, tuple(name for name, _ in different[1:]), forced=False)


def chosen(differing: Sequence[int], total: int, most: int) -> list[int]:
    """Samples for a diagnosis: those that differ, then others, at most so many.

    Args:
        differing: samples known to differ, the first one first.
        total: number of samples.
        most: how many to take.
    """
    others = np.linspace(0, total - 1, min(most, total)).astype(int).tolist()
    return list(dict.fromkeys([*differing, *others]))[:most]


def differs(
    a: Trace,
    b: Trace,
    first: Difference,
    layout: Layout,
    precision: Precision,
    other: Layout | None = None,
    fold: float = 0.0,
) -> Mask:
    """Whether each sample differs in the layer and quantity of a difference, (B,).

    Args:
        a: left side.
        b: right side.
        first: the difference.
        layout: of the left side.
        precision: of both.
        other: the layout of the right side, if it is written in another dialect.
        fold: as in `diagnose`.
    """
    node, tolerance = first.node, TOLERANCE[precision]
    if other:
        b = as_written(a, b, layout, other)
    if first.quantity == "decision":
        return np.asarray(a.decisions != b.decisions)
    if first.quantity == "score":
        return _samples_apart(
            a.scores[None], b.scores[None], tolerance, folded_away(fold, a.currents)
        )
    if first.quantity == "current":
        part = layout.sources[node]
        return _samples_apart(a.currents[..., part], b.currents[..., part], tolerance)
    if first.quantity == "membrane":
        near = max(tolerance, REWRITTEN) if other else tolerance
        return _samples_apart(a.membranes[node], b.membranes[node], near)
    x = a.spikes[node]
    return np.asarray((x != b.spikes[node].reshape(x.shape)).any(axis=(0, *range(2, x.ndim))))


def _samples_apart(x: FloatArray, y: FloatArray, tolerance: float, explained: float = 0.0) -> Mask:
    found = np.zeros(x.shape[1], np.bool_)
    found[apart(x, y, tolerance, explained)[:, 1]] = True
    return found


def _rewritten(a: Party, b: Party) -> bool:
    """Whether the sides are written in different dialects."""
    if a.graph is None or b.graph is None:
        return False
    return a.graph.provenance.dialect != b.graph.provenance.dialect


Encode = Callable[[FloatArray], FloatArray]
"""Samples (N, *shape) to inputs (T, N, *shape of a step)."""


def explain(
    a: Party,
    b: Party,
    samples: Samples,
    first: Difference,
    spec: InputSpec,
    encode: Encode,
    precision: Precision,
    fold: float = 0.0,
    most: int = MOST_SAMPLES,
) -> Diagnosis:
    """Diagnose a difference and reduce the sample on which it shows.

    Args:
        a: left side.
        b: right side.
        samples: all that were compared, (N, *shape); only some of them are read.
        first: the first difference.
        spec: of the input.
        encode: samples to inputs.
        precision: of both runs.
        fold: as in `diagnose`.
        most: samples that the diagnosis takes.
    """
    numbers = chosen([first.sample], len(samples), most)
    diagnosis = diagnose(a, b, encode(samples[numbers]), precision, fold)
    if a.recorded or b.recorded:
        return diagnosis

    other = b.layout if _rewritten(a, b) else None

    def failing(candidates: FloatArray) -> Mask:
        inputs = encode(candidates)
        return differs(a.run(inputs), b.run(inputs), first, a.layout, precision, other, fold)

    sample = samples[[first.sample]][0]
    reduced = reduce(sample, first.sample, first.node, spec, failing)
    return replace(diagnosis, reduced=reduced)
