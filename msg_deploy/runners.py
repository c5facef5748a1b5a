"""What runs a side of a check: what it brings along, or simulators by name."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from msg_deploy.deployment import Deployment
from msg_deploy.errors import UsageError
from msg_deploy.options import Precision
from msg_deploy.parts import unfused
from msg_deploy.saved import SavedTrace
from msg_deploy.sim.framework import FrameworkModule
from msg_deploy.sim.simulator import FloatArray, Simulator, Trace, simulator
from msg_deploy.sim.simulator import simulators as known_simulators
from msg_deploy.sim.torch_core import TorchCore
from msg_deploy.subjects import Subject

logger = logging.getLogger(__name__)

DEFAULT_SIMULATORS = ("reference", "norse")
OWN_SIMULATORS = (TorchCore.name, FrameworkModule.name)
"""What a checkpoint or module brings along; others do not run in it."""
ONNX_SIMULATORS = ("onnxruntime", "onnx_reference")
"""Those that run .onnx files."""


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


def runners(
    side: Subject, names: Sequence[str] | None, precision: Precision, runtime: RuntimeOptions
) -> tuple[Runner, ...]:
    """A side in what runs it.

    Args:
        side: a model or recording.
        names: of simulators; None: what it brings along, or the usual ones.
        precision: of the arithmetic.
        runtime: of onnxruntime.

    Raises:
        UsageError: none of the simulators runs it.
    """
    if isinstance(side.content, SavedTrace):
        if names:
            raise UsageError(
                f"{side.name}: is a recording, which no simulator runs; leave out {names[0]!r}."
            )
        return (Runner(side.content.title, side.content),)
    return tuple(_runner(side, engine, precision) for engine in _engines(side, names, runtime))


def _engines(
    side: Subject, names: Sequence[str] | None, runtime: RuntimeOptions
) -> list[Simulator]:
    if side.own and not names:
        return [side.own]
    wanted = dict.fromkeys(names or (DEFAULT_SIMULATORS if side.has_graph else ONNX_SIMULATORS))
    for name in wanted:
        if name not in OWN_SIMULATORS and name not in known_simulators():
            simulator(name)  # says which there are
    own = side.own.name if side.own else None
    able = [n for n in wanted if n == own or (_runs(n, side) and n not in OWN_SIMULATORS)]
    left_out = [name for name in wanted if name not in able]
    if not able:
        others = (
            [*([own] if own else []), *known_simulators()] if side.has_graph else ONNX_SIMULATORS
        )
        raise UsageError(
            f"{side.name} does not run in {' or '.join(left_out)}; there are {', '.join(others)}."
        )
    if left_out:
        logger.warning("%s does not run in %s: left out.", side.name, " or ".join(left_out))
    return [side.own if side.own and n == own else _engine(n, runtime) for n in able]


def _runs(name: str, side: Subject) -> bool:
    """Whether a simulator is for this kind of file."""
    return side.has_graph or name in ONNX_SIMULATORS


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

    assert isinstance(engine, OnnxEngine) and not isinstance(content, SavedTrace)
    return Runner(engine.name, lambda inputs: engine.run_model(content, inputs))
