"""Neurons of other frameworks: what they compute, exactly, as NIR nodes.

One module per framework, named like the package it is for; it is imported when that package is.
To add one, write a module with classes decorated by `adapts`.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import nir
from torch import nn

from msg_deploy.deployment import InputSpec
from msg_deploy.exporters.layers import CONVERTERS, Context, Part
from msg_deploy.options import ResetMode
from msg_deploy.readout import TWO


@dataclass(frozen=True)
class ForeignNetwork:
    """A network built from neurons of Norse, snnTorch or spikingjelly, and what it leaves open.

    Attributes:
        module: makes one timestep, forward(x, *states) with x (B, *input shape), and returns the
            output or the output and the states; or, of multi-step layers of spikingjelly, all of
            them, (T, B, *input shape) to (T, B, C). Hidden states are reset before it is run.
        input_spec: what a sample looks like.
        steps: number of timesteps T.
        dt: length of a timestep in seconds; None: that of Norse's cells, otherwise 1e-3.
        readout: TWO, if the outputs are decoded by it; otherwise they are summed over time.
    """

    module: nn.Module
    input_spec: InputSpec
    steps: int
    dt: float | None = None
    readout: TWO | None = None


class Neuron(ABC):
    """What is known of one type of neuron of another framework."""

    def reset(self, layer: Any) -> ResetMode | None:
        """What follows a spike; None if the nodes it becomes need no reset.

        Raises:
            TraceError: another law than NIR's.
        """
        return "zero"

    def dt(self, layer: Any) -> float | None:
        """Length of a timestep in seconds, where the neuron knows it."""
        return None

    @abstractmethod
    def convert(self, layer: Any, context: Context) -> nir.NIRNode | Part:
        """The nodes.

        Raises:
            TraceError: naming the option whose law cannot be expressed.
        """

    def spiking(self, layer: Any) -> bool:
        """The output is a threshold decision."""
        return True

    def returns_state(self, layer: Any) -> bool:
        """The output is a pair of spikes and state."""
        return False

    def multi_step(self, layer: Any) -> bool:
        """The layer takes all timesteps at once."""
        return False

    def start(self, layer: Any) -> None:
        """Back to the state before the first step."""
        return

    def widen(self, layer: Any) -> None:
        """Make a layer of a float32 network ready to be run in float64."""
        return


ADAPTERS: dict[type[nn.Module], Neuron] = {}
CONTAINERS: dict[type[nn.Module], bool] = {}
"""Containers that call their children in a row, and whether they return (output, states)."""
NeuronType = TypeVar("NeuronType", bound=type[Neuron])


def adapts(*kinds: type[nn.Module]) -> Callable[[NeuronType], NeuronType]:
    """Class decorator: the adapter is for neurons of these types."""

    def add(adapter: NeuronType) -> NeuronType:
        for kind in kinds:
            ADAPTERS[kind] = adapter()
            CONVERTERS[kind] = ADAPTERS[kind].convert
        return adapter

    return add


def adapter_of(layer: nn.Module) -> Neuron | None:
    """The adapter of a neuron; None for every other module."""
    load()
    return next((ADAPTERS[kind] for kind in type(layer).__mro__ if kind in ADAPTERS), None)


def adapters(module: nn.Module) -> dict[str, tuple[Neuron, nn.Module]]:
    """All neurons of other frameworks in a module, with their adapters, by path."""
    found = {path: (adapter_of(layer), layer) for path, layer in module.named_modules()}
    return {path: (adapter, layer) for path, (adapter, layer) in found.items() if adapter}


def load() -> None:
    """Import the adapters of frameworks that are imported."""
    for name in _frameworks():
        if name in sys.modules:
            importlib.import_module(f"{__name__}.{name}")


@functools.cache
def _frameworks() -> tuple[str, ...]:
    return tuple(module.name for module in pkgutil.iter_modules(__path__))
