"""Nodes with state, over any number of steps at once; found by the type of the node."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import nir
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from msg_deploy.deployment import Shape, Timing
from msg_deploy.primitives.delay import delay_steps
from msg_deploy.sim.fast import kernels
from msg_deploy.sim.fast.kernels import Kernel
from msg_deploy.sim.fast.memory import Array, flat, ordered, shaped


class Emitted(NamedTuple):
    """What a node gives over some steps.

    Attributes:
        output: (T, B, *shape).
        membranes: at the threshold decision, before reset, of the same shape; None if not wanted
            or without a threshold.
    """

    output: Tensor
    membranes: Tensor | None = None


class Space:
    """Memory that is used again: asking the system for it takes as long as the neurons do."""

    def __init__(self) -> None:
        self._kept = np.empty(0)

    def take(self, shape: Shape, dtype: npt.DTypeLike) -> Array:
        """An array of any content."""
        if (self._kept.shape, self._kept.dtype) != (shape, np.dtype(dtype)):
            self._kept = np.empty(shape, dtype)
        return self._kept


class Stateful(Protocol):
    """A node whose state lies in arrays that are moved on in place."""

    def start(self, batch: int) -> Any:
        """The state before the first step."""
        ...

    def advance(
        self, x: Tensor, steps: int, state: Any, membranes: bool, space: Space | None = None
    ) -> Emitted:
        """Some steps.

        Args:
            x: (steps, B, *shape), or (1, B, *shape) for each of them.
            steps: how many.
            state: moved on.
            membranes: are wanted, too.
            space: for the output, which then holds until the next call.
        """
        ...


@dataclass(frozen=True)
class Context:
    """What a node needs to know beside itself.

    Attributes:
        timing: of the deployment.
        shape: of the input, without batch.
        dtype: of the computation.
        bytes: spikes are wanted as uint8, a quarter of the memory.
    """

    timing: Timing
    shape: Shape
    dtype: np.dtype[Any]
    bytes: bool = False

    def ordered(self, value: Any) -> Array:
        """A parameter (N,) in the order of memory."""
        return ordered(value, self.shape, self.dtype)

    def rate(self, tau: Any) -> Array:
        """dt/tau, as the reference rounds it."""
        return self.ordered(self.timing.dt / np.asarray(tau, np.float64))


Maker = Callable[[Any, Context], Stateful]
MAKERS: dict[type[nir.NIRNode], Maker] = {}


def makes(kind: type[nir.NIRNode]) -> Callable[[Maker], Maker]:
    """Decorator: the function makes nodes of this type."""

    def add(maker: Maker) -> Maker:
        MAKERS[kind] = maker
        return maker

    return add


@dataclass(frozen=True)
class Neuron:
    """A membrane, run by a kernel.

    Attributes:
        kernel: the law.
        parameters: (N,) each, in the kernel's order.
        rest: the states before the first step, (N,) each.
        context: of the node.
        spiking: the output is a threshold decision.
    """

    kernel: Kernel
    parameters: tuple[Array, ...]
    rest: tuple[Array, ...]
    context: Context
    spiking: bool

    def start(self, batch: int) -> tuple[Array, ...]:
        """(B, N) for each state."""
        return tuple(np.repeat(rest[None], batch, axis=0) for rest in self.rest)

    def advance(
        self,
        x: Tensor,
        steps: int,
        state: tuple[Array, ...],
        membranes: bool,
        space: Space | None = None,
    ) -> Emitted:
        """See `Stateful`."""
        shape, values = self.context.shape, flat(x, self.context.shape)
        dtype = np.uint8 if self.context.bytes and self.spiking else self.context.dtype
        emitted = (space or Space()).take((steps, *values.shape[1:]), dtype)
        arguments = (values, *state, *self.parameters)
        if not self.spiking:
            self.kernel(emitted.size, *arguments, emitted)
            return Emitted(shaped(emitted, shape))
        kept = np.empty((steps if membranes else 0, *values.shape[1:]), self.context.dtype)
        subtract = self.context.timing.reset == "subtract"
        self.kernel(emitted.size, *arguments, subtract, emitted, kept)
        return Emitted(shaped(emitted, shape), shaped(kept, shape) if membranes else None)


@makes(nir.LIF)
def _lif(node: nir.LIF, c: Context) -> Neuron:
    fields = (node.r, node.v_leak, node.v_threshold, node.v_reset)
    parameters = (c.rate(node.tau), *map(c.ordered, fields))
    return Neuron(kernels.lif, parameters, (c.ordered(node.v_leak),), c, spiking=True)


@makes(nir.IF)
def _if(node: nir.IF, c: Context) -> Neuron:
    parameters = tuple(map(c.ordered, (node.r, node.v_threshold, node.v_reset)))
    return Neuron(kernels.integrate_and_fire, parameters, (c.ordered(0.0),), c, spiking=True)


@makes(nir.CubaLIF)
def _cuba_lif(node: nir.CubaLIF, c: Context) -> Neuron:
    parameters = (*_current_based(node, c), *map(c.ordered, (node.v_threshold, node.v_reset)))
    rest = (c.ordered(0.0), c.ordered(node.v_leak))
    return Neuron(kernels.current_based_lif, parameters, rest, c, spiking=True)


def _current_based(node: Any, c: Context) -> tuple[Array, ...]:
    membrane = (c.rate(node.tau_mem), c.ordered(node.r), c.ordered(node.v_leak))
    return (c.rate(node.tau_syn), c.ordered(node.w_in), *membrane)


@makes(nir.LI)
def _li(node: nir.LI, c: Context) -> Neuron:
    parameters = (c.rate(node.tau), *map(c.ordered, (node.r, node.v_leak)))
    return Neuron(kernels.leaky_integrator, parameters, (c.ordered(node.v_leak),), c, spiking=False)


@makes(nir.CubaLI)
def _cuba_li(node: nir.CubaLI, c: Context) -> Neuron:
    rest = (c.ordered(0.0), c.ordered(node.v_leak))
    kernel, parameters = kernels.current_based_integrator, _current_based(node, c)
    return Neuron(kernel, parameters, rest, c, spiking=False)


@makes(nir.I)
def _i(node: nir.I, c: Context) -> Neuron:
    return Neuron(kernels.integrator, (c.ordered(node.r),), (c.ordered(0.0),), c, spiking=False)


@dataclass(frozen=True)
class Delay:
    """y[t] = x[t - d], zero before; d steps for each element.

    Attributes:
        steps: (*shape).
        longest: what is delayed further never arrives.
        dtype: of the values.
    """

    steps: Tensor
    longest: int
    dtype: torch.dtype

    def start(self, batch: int) -> list[Tensor]:
        """The last inputs, oldest first: (longest, B, *shape)."""
        return [torch.zeros(self.longest, batch, *self.steps.shape, dtype=self.dtype)]

    def advance(
        self,
        x: Tensor,
        steps: int,
        state: list[Tensor],
        membranes: bool,
        space: Space | None = None,
    ) -> Emitted:
        """See `Stateful`."""
        all_steps = torch.cat([state[0], x.expand(steps, *x.shape[1:])])
        state[0] = all_steps[len(all_steps) - self.longest :]
        first = self.longest - self.steps.clamp(max=self.longest)
        index = first + torch.arange(steps).view(-1, 1, *[1] * self.steps.ndim)
        given = all_steps.gather(0, index.expand(steps, *x.shape[1:]))
        return Emitted(given.masked_fill((self.steps > self.longest), 0))


@makes(nir.Delay)
def _delay(node: nir.Delay, c: Context) -> Delay:
    steps = torch.from_numpy(np.broadcast_to(delay_steps(node, c.timing), c.shape).copy())
    longest = min(int(steps.max()), c.timing.steps)
    dtype: torch.dtype = getattr(torch, np.dtype(c.dtype).name)
    return Delay(steps, longest, dtype)
