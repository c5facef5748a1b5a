"""Whole-number networks for tests of chip targets, and the vendors' models."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest

from msg_deploy.deployment import Deployment
from msg_deploy.exporters.targets import target
from msg_deploy.onchip import vendor as vendors
from msg_deploy.onchip.export import files_of
from msg_deploy.onchip.simulator import ChipSimulator
from msg_deploy.onchip.vendor import VendorComparison
from tests.helpers import chain

ROOT = Path(__file__).resolve().parents[1]


def neurons(kind: str, *shape: int, threshold: float, **values: float) -> Any:
    """IF, LIF or CubaLIF without gains, in seconds; dt is 1 ms."""
    full: dict[str, float] = {"r": 1.0, "v_threshold": threshold, "v_reset": 0.0}
    if kind == "LIF":
        full |= {"tau": 2e-3, "v_leak": 0.0}
    if kind == "CubaLIF":
        full |= {"tau_mem": 2e-3, "tau_syn": 4e-3, "w_in": 1.0, "v_leak": 0.0}
    return getattr(nir, kind)(**{k: np.full(shape, v) for k, v in (full | values).items()})


class Draw:
    """Whole weights and inputs.

    Args:
        seed: of all of them.
    """

    def __init__(self, seed: int = 0) -> None:
        self.random = np.random.default_rng(seed)

    def matrix(self, outputs: int, inputs: int, largest: int = 60) -> Any:
        return self.random.integers(-largest, largest + 1, (outputs, inputs)).astype(float)

    def linear(self, outputs: int, inputs: int, largest: int = 60) -> nir.Linear:
        return nir.Linear(self.matrix(outputs, inputs, largest))

    def affine(self, outputs: int, inputs: int, largest: int = 60) -> nir.Affine:
        bias = self.random.integers(-largest, largest + 1, outputs).astype(float)
        return nir.Affine(self.matrix(outputs, inputs, largest), bias)

    def conv(
        self, outputs: int, inputs: int, kernel: int, bias: bool = False, **options: Any
    ) -> nir.Conv2d:
        weight = self.random.integers(-40, 41, (outputs, inputs, kernel, kernel)).astype(float)
        offset = self.random.integers(-9, 10, outputs) * float(bias)
        known = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1} | options
        return nir.Conv2d(None, weight, **known, bias=offset)

    def inputs(self, deployment: Deployment, samples: int, rate: float = 0.3) -> Any:
        """(T, B, *shape) in the range of the input."""
        shape = (deployment.timing.steps, samples, *deployment.input.shape)
        most = int(deployment.input.entering[1])
        return (self.random.random(shape) < rate) * self.random.integers(1, most + 1, shape)


def pool(size: int) -> nir.SumPool2d:
    """Sums of windows side by side."""
    both = np.array([size, size])
    return nir.SumPool2d(both, both, np.array([0, 0]))


def flatten(*shape: int) -> nir.Flatten:
    """In C order."""
    return nir.Flatten({"input": np.array(shape)}, 0, -1)


def looped(deployment: Deployment, node: str, weight: Any) -> Deployment:
    """With a matrix from a layer of neurons back to itself."""
    graph = deployment.graph
    nodes = dict(graph.nodes) | {"back": nir.Linear(np.asarray(weight))}
    edges = [*graph.edges, (node, "back"), ("back", node)]
    return deployment.with_graph(nir.NIRGraph(nodes, edges, type_check=False))


def problems(name: str, deployment: Deployment, approximate: bool = False) -> list[str]:
    """Why a network does not fit."""
    return [str(p) for p in target(name).fit(deployment, approximate).problems]


def environments(vendor: str) -> Path:
    """The folder with a vendor's environment, which must be there, else the test is skipped."""
    folder = Path(os.environ.get(vendors.VENDORS) or ROOT / "build" / "chips")
    if not (folder / vendor / "bin" / "python").is_file():
        pytest.skip(f"{vendors.title(vendor)} is not installed; `make chips` does it")
    return folder


def vendor_python(vendor: str) -> Path:
    """Its Python."""
    python = vendors.python_of(vendor, environments(vendor))
    assert python is not None
    return python


def against_vendor(
    name: str, deployment: Deployment, inputs: Any, approximate: bool = False
) -> VendorComparison:
    """Our simulation against the vendor's model, which must be installed."""
    vendor = target(name).vendor
    python = vendor_python(vendor)
    chip = target(name).fit(deployment, approximate)
    assert chip.problems == ()
    theirs = vendors.run(vendor, python, files_of(chip), inputs)
    return vendors.compared(vendor, ChipSimulator(chip).run(inputs), theirs)


def row(*nodes: Any, inputs: Sequence[int], outputs: Sequence[int], **options: Any) -> Deployment:
    """A chain of nodes of 1 ms steps, see `tests.helpers.chain`."""
    return chain(*nodes, inputs=inputs, outputs=outputs, dt=1e-3, **options)
