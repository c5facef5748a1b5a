"""Threshold, LIF, IF, CubaLIF, LI, CubaLI and I, as calls of our ONNX functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import nir
import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from msg_deploy.exporters.onnx.builder import Builder
from msg_deploy.exporters.onnx.functions import call
from msg_deploy.exporters.onnx.writers import (
    Cell,
    Place,
    State,
    Values,
    stateless,
    writes,
    zeros,
)


@writes(nir.Threshold)
def _threshold(node: nir.Threshold, place: Place) -> Cell:
    def decide(build: Builder, x: ir.Value, name: str) -> ir.Value:
        threshold = build.model.constant(_shared(node.threshold), f"{place.name}.threshold")
        return call(build, "Threshold", x, threshold, names=[name])[0]

    return stateless(decide)


def _shared(value: npt.ArrayLike) -> npt.NDArray[Any]:
    """One number in place of equal ones."""
    array = np.asarray(value)
    return array.flat[0] if array.size and np.all(array == array.flat[0]) else array


def _rate(node: Any, field: str, place: Place) -> npt.NDArray[Any]:
    return np.asarray(place.timing.dt / np.asarray(getattr(node, field), np.float64))


def _gained(
    gain: npt.ArrayLike, place: Place, field: str
) -> Callable[[Builder, ir.Value], ir.Value]:
    """The input times r or w_in; left out where it is 1."""
    shared = _shared(gain)

    def drive(build: Builder, x: ir.Value) -> ir.Value:
        if shared.ndim == 0 and shared == 1:
            return x
        factor = build.model.constant(shared, f"{place.name}.{field}")
        return build("Mul", factor, x, name=f"{place.name}.driven")

    return drive


def _cell(
    function: str,
    parameters: dict[str, npt.ArrayLike],
    states: tuple[State, ...],
    place: Place,
    drive: Callable[[Builder, ir.Value], ir.Value],
    spiking: bool,
) -> Cell:
    """A call of one of our functions: (input, states, parameters) -> [spikes,] new states.

    Without a threshold the output is the membrane, which is the last state.
    """

    def step(build: Builder, x: ir.Value, before: Values, name: str) -> tuple[ir.Value, Values]:
        values = [
            build.model.constant(_shared(value), f"{place.name}.{field}")
            for field, value in parameters.items()
        ]
        after = [f"{place.name}.{state.name}.next" for state in states]
        names = [name, *after] if spiking else [*after[:-1], name]
        results = call(build, function, x, *before, *values, names=names)
        return (results[0], results[1:]) if spiking else (results[-1], results)

    return Cell(step, states, drive)


def _resting(node: Any) -> dict[str, npt.ArrayLike]:
    return {"v_leak": node.v_leak} if np.any(node.v_leak) else {}


def _resetting(node: Any, place: Place) -> dict[str, npt.ArrayLike]:
    threshold = {"threshold": node.v_threshold}
    return threshold if place.timing.reset == "subtract" else threshold | {"v_reset": node.v_reset}


def _variant(kind: str, parameters: dict[str, npt.ArrayLike], always: bool = False) -> str:
    """The name of the function that takes just these parameters."""
    rest = "_leak" if "v_leak" in parameters and not always else ""
    subtract = "_subtract" if "threshold" in parameters and "v_reset" not in parameters else ""
    return f"{kind}{rest}{subtract}"


def _membrane(start: npt.ArrayLike, place: Place) -> State:
    return State("membrane", place.shape, np.broadcast_to(np.asarray(start), place.shape))


@writes(nir.LIF)
def _lif(node: nir.LIF, place: Place) -> Cell:
    parameters = {"rate": _rate(node, "tau", place)} | _resting(node) | _resetting(node, place)
    states = (_membrane(node.v_leak, place),)
    drive = _gained(node.r, place, "r")
    return _cell(_variant("LIF", parameters), parameters, states, place, drive, spiking=True)


@writes(nir.LI)
def _li(node: nir.LI, place: Place) -> Cell:
    parameters = {"rate": _rate(node, "tau", place)} | _resting(node)
    states = (_membrane(node.v_leak, place),)
    drive = _gained(node.r, place, "r")
    return _cell(_variant("LI", parameters), parameters, states, place, drive, spiking=False)


@writes(nir.IF)
def _if(node: nir.IF, place: Place) -> Cell:
    parameters = _resetting(node, place)
    drive = _gained(node.r, place, "r")
    states = (_membrane(0, place),)
    return _cell(_variant("IF", parameters), parameters, states, place, drive, spiking=True)


@writes(nir.I)
def _i(node: nir.I, place: Place) -> Cell:
    return _cell("I", {}, (_membrane(0, place),), place, _gained(node.r, place, "r"), spiking=False)


def _current_based(node: Any, place: Place) -> tuple[dict[str, npt.ArrayLike], tuple[State, ...]]:
    parameters = {
        "decay": _rate(node, "tau_syn", place),
        "rate": _rate(node, "tau_mem", place),
        "r": node.r,
        "v_leak": node.v_leak,
    }
    return parameters, (zeros("current", place.shape), _membrane(node.v_leak, place))


@writes(nir.CubaLIF)
def _cuba_lif(node: nir.CubaLIF, place: Place) -> Cell:
    parameters, states = _current_based(node, place)
    parameters |= _resetting(node, place)
    function = _variant("CubaLIF", parameters, always=True)
    drive = _gained(node.w_in, place, "w_in")
    return _cell(function, parameters, states, place, drive, spiking=True)


@writes(nir.CubaLI)
def _cuba_li(node: nir.CubaLI, place: Place) -> Cell:
    parameters, states = _current_based(node, place)
    drive = _gained(node.w_in, place, "w_in")
    return _cell("CubaLI", parameters, states, place, drive, spiking=False)
