"""The neurons as ONNX functions of our domain, each made of standard operators.

They are what `msg_deploy.primitives.integrators` says, in the same order of operations, so that
float32 gives the same bits; only operations that change nothing are left out. `x` has been
multiplied by r (or w_in) where that is not 1, `rate` is dt/tau, and v_leak is 0 where a function
does not take it. To add one, write its body here, decorated with `defines`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence

import onnx_ir as ir

from msg_deploy.exporters.onnx.builder import DOMAIN, Builder, Model, function

Values = tuple[ir.Value, ...]
Body = Callable[..., Values]
BODIES: dict[str, Body] = {}


def defines(name: str) -> Callable[[Body], Body]:
    """Decorator: the body (builder, *inputs) -> outputs defines the operator of this name."""

    def add(body: Body) -> Body:
        BODIES[name] = body
        return body

    return add


def definition(name: str, model: Model) -> ir.Function:
    """The function of this name for the model's type and opset."""
    body = BODIES[name]
    inputs = list(inspect.signature(body).parameters)[1:]
    return function(name, inputs, body, model)


def call(build: Builder, name: str, *inputs: ir.Value, names: Sequence[str]) -> Values:
    """A node that calls a function, which the model then carries."""
    if name not in build.model.functions:
        build.model.functions[name] = definition(name, build.model)
    return build.several(name, *inputs, names=names, domain=DOMAIN)


def _leak(op: Builder, x: ir.Value, v: ir.Value, rate: ir.Value) -> ir.Value:
    return op("Add", v, op("Mul", rate, op("Sub", x, v)), name="membrane")


def _leak_to(op: Builder, x: ir.Value, v: ir.Value, rate: ir.Value, v_leak: ir.Value) -> ir.Value:
    drive = op("Add", op("Sub", v_leak, v), x)
    return op("Add", v, op("Mul", rate, drive), name="membrane")


def _spike(op: Builder, membrane: ir.Value, threshold: ir.Value) -> Values:
    fired = op("Greater", membrane, threshold, name="fired")
    return fired, op("Cast", fired, to=int(op.model.element), name="spikes")


def _to_reset(op: Builder, membrane: ir.Value, threshold: ir.Value, v_reset: ir.Value) -> Values:
    fired, spikes = _spike(op, membrane, threshold)
    return spikes, op("Where", fired, v_reset, membrane, name="next")


def _subtract(op: Builder, membrane: ir.Value, threshold: ir.Value) -> Values:
    fired, spikes = _spike(op, membrane, threshold)
    return spikes, op("Where", fired, op("Sub", membrane, threshold), membrane, name="next")


@defines("Threshold")
def _threshold(op: Builder, x: ir.Value, threshold: ir.Value) -> Values:
    """S = [x > threshold]."""
    return (_spike(op, x, threshold)[1],)


@defines("LI")
def _li(op: Builder, x: ir.Value, v: ir.Value, rate: ir.Value) -> Values:
    """V += rate (x - v)."""
    return (_leak(op, x, v, rate),)


@defines("LI_leak")
def _li_leak(op: Builder, x: ir.Value, v: ir.Value, rate: ir.Value, v_leak: ir.Value) -> Values:
    """V += rate ((v_leak - v) + x)."""
    return (_leak_to(op, x, v, rate, v_leak),)


@defines("LIF")
def _lif(
    op: Builder, x: ir.Value, v: ir.Value, rate: ir.Value, threshold: ir.Value, v_reset: ir.Value
) -> Values:
    """V += rate (x - v); s = [v > threshold]; v = v_reset where s."""
    return _to_reset(op, _leak(op, x, v, rate), threshold, v_reset)


@defines("LIF_subtract")
def _lif_subtract(
    op: Builder, x: ir.Value, v: ir.Value, rate: ir.Value, threshold: ir.Value
) -> Values:
    """V += rate (x - v); s = [v > threshold]; v -= threshold where s."""
    return _subtract(op, _leak(op, x, v, rate), threshold)


@defines("LIF_leak")
def _lif_leak(
    op: Builder,
    x: ir.Value,
    v: ir.Value,
    rate: ir.Value,
    v_leak: ir.Value,
    threshold: ir.Value,
    v_reset: ir.Value,
) -> Values:
    """V += rate ((v_leak - v) + x); s = [v > threshold]; v = v_reset where s."""
    return _to_reset(op, _leak_to(op, x, v, rate, v_leak), threshold, v_reset)


@defines("LIF_leak_subtract")
def _lif_leak_subtract(
    op: Builder, x: ir.Value, v: ir.Value, rate: ir.Value, v_leak: ir.Value, threshold: ir.Value
) -> Values:
    """V += rate ((v_leak - v) + x); s = [v > threshold]; v -= threshold where s."""
    return _subtract(op, _leak_to(op, x, v, rate, v_leak), threshold)


@defines("IF")
def _if(op: Builder, x: ir.Value, v: ir.Value, threshold: ir.Value, v_reset: ir.Value) -> Values:
    """V += x; s = [v > threshold]; v = v_reset where s."""
    return _to_reset(op, op("Add", v, x, name="membrane"), threshold, v_reset)


@defines("IF_subtract")
def _if_subtract(op: Builder, x: ir.Value, v: ir.Value, threshold: ir.Value) -> Values:
    """V += x; s = [v > threshold]; v -= threshold where s."""
    return _subtract(op, op("Add", v, x, name="membrane"), threshold)


@defines("I")
def _i(op: Builder, x: ir.Value, v: ir.Value) -> Values:
    """V += x."""
    return (op("Add", v, x, name="membrane"),)


def _current_based(
    op: Builder,
    x: ir.Value,
    current: ir.Value,
    v: ir.Value,
    decay: ir.Value,
    rate: ir.Value,
    r: ir.Value,
    v_leak: ir.Value,
) -> Values:
    """(x, i, v) -> i and v one step later, before any reset."""
    moved = op("Mul", decay, op("Sub", x, current))
    current = op("Add", current, moved, name="next_current")
    return current, _leak_to(op, op("Mul", r, current), v, rate, v_leak)


@defines("CubaLI")
def _cuba_li(
    op: Builder,
    x: ir.Value,
    current: ir.Value,
    v: ir.Value,
    decay: ir.Value,
    rate: ir.Value,
    r: ir.Value,
    v_leak: ir.Value,
) -> Values:
    """I += decay (x - i); v += rate ((v_leak - v) + r i)."""
    return _current_based(op, x, current, v, decay, rate, r, v_leak)


@defines("CubaLIF")
def _cuba_lif(
    op: Builder,
    x: ir.Value,
    current: ir.Value,
    v: ir.Value,
    decay: ir.Value,
    rate: ir.Value,
    r: ir.Value,
    v_leak: ir.Value,
    threshold: ir.Value,
    v_reset: ir.Value,
) -> Values:
    """I += decay (x - i); v += rate ((v_leak - v) + r i); s = [v > threshold]; v = v_reset."""
    current, membrane = _current_based(op, x, current, v, decay, rate, r, v_leak)
    spikes, after = _to_reset(op, membrane, threshold, v_reset)
    return spikes, current, after


@defines("CubaLIF_subtract")
def _cuba_lif_subtract(
    op: Builder,
    x: ir.Value,
    current: ir.Value,
    v: ir.Value,
    decay: ir.Value,
    rate: ir.Value,
    r: ir.Value,
    v_leak: ir.Value,
    threshold: ir.Value,
) -> Values:
    """I += decay (x - i); v += rate ((v_leak - v) + r i); s = [v > threshold]; v -= threshold."""
    current, membrane = _current_based(op, x, current, v, decay, rate, r, v_leak)
    spikes, after = _subtract(op, membrane, threshold)
    return spikes, current, after
