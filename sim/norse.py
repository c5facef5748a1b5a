"""Norse as a simulator: its cells compute the dynamics, and every node is mapped here.

`norse.torch.from_nir` is not used: it drops LI, Scale and Delay, ignores r and v_reset, and orders
parallel branches wrongly. The cells themselves follow NIR's equations; the parameters that their
importer drops are handed to them here. To support another primitive, add a function decorated with
`builds`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import nir
import norse.torch as norse
import numpy as np
import torch
from norse.torch.functional.heaviside import heaviside
from torch import Tensor

from msg_deploy.deployment import Deployment
from msg_deploy.graph import plan
from msg_deploy.options import Precision, ResetMode
from msg_deploy.primitives import Emission, Law, stateless
from msg_deploy.primitives.delay import delay_steps
from msg_deploy.sim.simulator import FloatArray, Trace, check_inputs, register
from msg_deploy.sim.stepper import Backend, run
from msg_deploy.sim.torch_layers import LAYERS, Context

Builder = Callable[[Any, Context], Law]
BuilderType = TypeVar("BuilderType", bound=Builder)
BUILDERS: dict[type[nir.NIRNode], Builder] = {}


def builds(*kinds: type[nir.NIRNode]) -> Callable[[BuilderType], BuilderType]:
    """Decorator: the function makes the law of nodes of these types."""

    def add(builder: BuilderType) -> BuilderType:
        BUILDERS.update(dict.fromkeys(kinds, builder))
        return builder

    return add


@register
class Norse:
    """Norse's LIFBoxCell, LIFCell, IAFCell and LIBoxCell, with torch layers between them."""

    name = "norse"

    def unsupported(self, deployment: Deployment, precision: Precision = "float64") -> list[str]:
        """Nodes of types that are not mapped to Norse."""
        return [
            f"node {name!r}: {type(node).__name__} is not mapped to Norse"
            for name, node in deployment.graph.nodes.items()
            if type(node) not in BUILDERS
        ]

    @torch.no_grad()
    def run(
        self, deployment: Deployment, inputs: FloatArray, precision: Precision = "float64"
    ) -> Trace:
        """See `Simulator.run`."""
        check_inputs(deployment, inputs)
        known = plan(deployment.graph)
        dtype: torch.dtype = getattr(torch, precision)
        laws = {
            name: BUILDERS[type(node)](
                node, Context(deployment.timing, known.input_shapes[name], dtype)
            )
            for name, node in deployment.graph.nodes.items()
        }
        backend = Backend(
            zeros=lambda shape: torch.zeros(shape, dtype=dtype),
            to_numpy=lambda tensor: tensor.numpy(),
        )
        tensors = torch.tensor(inputs, dtype=dtype)
        return run(self.name, deployment, known, laws, tensors, backend)


@builds(*(kind for kind in LAYERS if kind is not nir.Threshold))
def _static(node: nir.NIRNode, context: Context) -> Law:
    layer: Any = LAYERS[type(node)](node, context)
    return stateless(layer)


@builds(nir.Delay)
def _delay(node: nir.Delay, context: Context) -> Law:
    steps = torch.from_numpy(delay_steps(node, context.timing))
    longest = min(int(steps.max()), context.timing.steps)

    def step(x: Tensor, past: Any) -> Emission:
        history = torch.cat([x[None], past])[: longest + 1]
        # What is delayed beyond the last step never arrives.
        index = steps.clamp(max=longest).expand(x.shape)[None]
        return Emission(torch.gather(history, 0, index)[0], history)

    return Law(step, lambda batch: torch.zeros(longest, batch, *context.shape, dtype=context.dtype))


class _Recorder:
    """A Norse reset method that also keeps the membrane as it was at the threshold decision."""

    def __init__(self, mode: ResetMode) -> None:
        self.method = norse.reset_subtract if mode == "subtract" else norse.reset_value
        self.membrane: Tensor | None = None

    def __call__(self, z: Tensor, v: Tensor, reset: Tensor, threshold: Tensor) -> Tensor:
        self.membrane = v
        result: Tensor = self.method(z, v, reset, threshold)
        return result


@builds(nir.LIF)
def _lif(node: nir.LIF, context: Context) -> Law:
    recorder = _Recorder(context.timing.reset)
    parameters = norse.LIFBoxParameters(
        tau_mem_inv=context.tensor(1 / np.asarray(node.tau, np.float64)),
        v_leak=context.tensor(node.v_leak),
        v_th=context.tensor(node.v_threshold),
        v_reset=context.tensor(node.v_reset),
        reset_method=recorder,
    )
    cell = norse.LIFBoxCell(parameters, dt=context.timing.dt)
    r, v_leak = context.tensor(node.r), parameters.v_leak

    def step(x: Tensor, state: Any) -> Emission:
        spikes, state = cell(r * x, state)
        return Emission(spikes, state, recorder.membrane)

    return Law(
        step, lambda batch: norse.LIFBoxFeedForwardState(v=v_leak.expand(batch, *context.shape))
    )


@builds(nir.IF)
def _if(node: nir.IF, context: Context) -> Law:
    threshold, r = context.tensor(node.v_threshold), context.tensor(node.r)
    v_reset = context.tensor(node.v_reset)
    cell = norse.IAFCell(norse.IAFParameters(v_th=threshold, v_reset=v_reset), dt=context.timing.dt)

    def step(x: Tensor, state: Any) -> Emission:
        membrane = state.v + r * x
        if context.timing.reset == "subtract":
            # IAFCell has no reset method; its reset value may be any tensor.
            cell.p = cell.p._replace(v_reset=membrane - threshold)
        spikes, state = cell(r * x, state)
        return Emission(spikes, state, membrane)

    def initial(batch: int) -> Any:
        zeros = torch.zeros(batch, *context.shape, dtype=context.dtype)
        return norse.IAFFeedForwardState(v=zeros)

    return Law(step, initial)


@builds(nir.CubaLIF)
def _cuba_lif(node: nir.CubaLIF, context: Context) -> Law:
    """LIFCell, whose current takes the input undamped; that scaling is done here."""
    threshold, v_reset = context.tensor(node.v_threshold), context.tensor(node.v_reset)
    tau_syn, tau_mem = (np.asarray(t, np.float64) for t in (node.tau_syn, node.tau_mem))
    dt = context.timing.dt
    gain = context.tensor(np.asarray(node.r, np.float64) * node.w_in * dt / tau_syn)
    cell = norse.LIFCell(
        norse.LIFParameters(
            tau_syn_inv=context.tensor(1 / tau_syn),
            tau_mem_inv=context.tensor(1 / tau_mem),
            v_leak=context.tensor(node.v_leak),
            v_th=threshold,
            v_reset=v_reset,
        ),
        dt=dt,
    )
    p = cell.p

    def step(x: Tensor, state: Any) -> Emission:
        arriving = gain * x
        membrane = state.v + dt * p.tau_mem_inv * ((p.v_leak - state.v) + (state.i + arriving))
        if context.timing.reset == "subtract":
            # LIFCell has no reset method; its reset value may be any tensor.
            cell.p = p._replace(v_reset=membrane - threshold)
        spikes, state = cell(arriving, state)
        return Emission(spikes, state, membrane)

    def initial(batch: int) -> Any:
        zeros = torch.zeros(batch, *context.shape, dtype=context.dtype)
        return norse.LIFFeedForwardState(v=p.v_leak.expand(batch, *context.shape), i=zeros)

    return Law(step, initial)


@builds(nir.CubaLI)
def _cuba_li(node: nir.CubaLI, context: Context) -> Law:
    """LICell, whose current takes the input undamped; that scaling is done here."""
    tau_syn, tau_mem = (np.asarray(t, np.float64) for t in (node.tau_syn, node.tau_mem))
    dt = context.timing.dt
    gain = context.tensor(np.asarray(node.r, np.float64) * node.w_in * dt / tau_syn)
    v_leak = context.tensor(node.v_leak)
    cell = norse.LICell(
        norse.LIParameters(
            tau_syn_inv=context.tensor(1 / tau_syn),
            tau_mem_inv=context.tensor(1 / tau_mem),
            v_leak=v_leak,
        ),
        dt=dt,
    )

    def step(x: Tensor, state: Any) -> Emission:
        return Emission(*cell(gain * x, state))

    def initial(batch: int) -> Any:
        zeros = torch.zeros(batch, *context.shape, dtype=context.dtype)
        return norse.LIState(v=v_leak.expand(batch, *context.shape), i=zeros)

    return Law(step, initial)


@builds(nir.Threshold)
def _threshold(node: nir.Threshold, context: Context) -> Law:
    threshold = context.tensor(node.threshold)
    return Law(lambda x, state: Emission(heaviside(x - threshold), membrane=x))


@builds(nir.I)
def _integrator(node: nir.I, context: Context) -> Law:
    """Norse has no integrator without leak: plain torch."""
    r = context.tensor(node.r)

    def step(x: Tensor, v: Any) -> Emission:
        membrane = v + r * x
        return Emission(membrane, membrane)

    return Law(step, lambda batch: torch.zeros(batch, *context.shape, dtype=context.dtype))


@builds(nir.LI)
def _li(node: nir.LI, context: Context) -> Law:
    parameters = norse.LIBoxParameters(
        tau_mem_inv=context.tensor(1 / np.asarray(node.tau, np.float64)),
        v_leak=context.tensor(node.v_leak),
    )
    cell = norse.LIBoxCell(parameters, dt=context.timing.dt)
    r, v_leak = context.tensor(node.r), parameters.v_leak

    def step(x: Tensor, state: Any) -> Emission:
        return Emission(*cell(r * x, state))

    return Law(step, lambda batch: norse.LIBoxState(v=v_leak.expand(batch, *context.shape)))
