"""Mistakes in the neurons' law: reset, threshold, time constants, gain."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import nir
import numpy as np

from msg_deploy.sim.diagnosis.hypotheses import (
    Change,
    Family,
    Setting,
    Variant,
    changed,
    factor,
    hypothesis,
    number,
    ratio,
)
from msg_deploy.sim.diagnosis.segments import Segment

SPIKING = (nir.LIF, nir.IF, nir.CubaLIF)
LEAKY = (nir.LIF, nir.LI, nir.CubaLIF, nir.CubaLI)
MEMBRANES = (*LEAKY, nir.IF, nir.I)
CURRENTS = (nir.CubaLIF, nir.CubaLI)
FACTORS = (2.0, 0.5, 4.0, 0.25, 1.5, 0.75, 3.0, 1 / 3, 8.0, 0.125, 10.0, 0.1, 1.1, 0.9)
PARAMETERS = (
    "tau",
    "tau_mem",
    "tau_syn",
    "r",
    "w_in",
    "v_leak",
    "v_threshold",
    "v_reset",
    "threshold",
)
NO_LEAK = 2.0**40
"""Time constants, in steps, that leave a membrane as it was."""


def target(setting: Setting) -> Iterator[tuple[str, Any]]:
    """The neurons that the segment is for, if they have a membrane."""
    node = setting.segment.nodes.get(setting.segment.node)
    if isinstance(node, SPIKING):
        yield setting.segment.node, node


@hypothesis(cost=1)
def reset_mode(setting: Setting) -> Iterator[Change]:
    """The membrane is reset to v_reset in place of subtraction, or the reverse."""
    deployment = setting.segment.deployment
    reset = "subtract" if deployment.timing.reset == "zero" else "zero"
    done = {"subtract": "by subtraction of the threshold", "zero": "to v_reset"}[reset]
    for name, _ in target(setting):
        yield Variant(name, f"the membrane is reset {done}", _timed(setting.segment, reset=reset))


@hypothesis(cost=1)
def at_threshold(setting: Setting) -> Iterator[Change]:
    """Neurons spike at the threshold (>=), not only above it."""
    node = setting.segment.nodes.get(setting.segment.node)
    field = "threshold" if isinstance(node, nir.Threshold) else "v_threshold"
    if node is not None and hasattr(node, field):
        below = np.nextafter(np.asarray(getattr(node, field), np.float64), -np.inf)
        segment = changed(setting.segment, setting.segment.node, **{field: below})
        yield Variant(setting.segment.node, "neurons spike at the threshold (>=)", segment)


@hypothesis(cost=2)
def v_reset(setting: Setting) -> Iterator[Change]:
    """The membrane is reset to another value than v_reset."""
    for name, node in target(setting):
        own = np.asarray(node.v_reset, np.float64)
        others = {"0": np.zeros_like(own), "-v_reset": -own}
        if hasattr(node, "v_leak"):
            others["v_leak"] = np.broadcast_to(node.v_leak, own.shape)
        found = setting.theirs(name, "v_reset")
        if found is not None:
            others = {number(found): found} | others
        for text, value in others.items():
            if not np.array_equal(value, own):
                segment = changed(setting.segment, name, v_reset=np.asarray(value))
                yield Variant(name, f"the membrane is reset to {text}, not {number(own)}", segment)


@hypothesis(cost=2)
def threshold(setting: Setting) -> Iterator[Change]:
    """Thresholds are scaled, or another number."""
    node = setting.segment.nodes.get(setting.segment.node)
    field = "threshold" if isinstance(node, nir.Threshold) else "v_threshold"
    if node is None or not hasattr(node, field):
        return
    yield from _scaled(setting, setting.segment.node, (field,), field)


@hypothesis(cost=2)
def uniform_threshold(setting: Setting) -> Iterator[Change]:
    """All neurons of a layer get one threshold."""
    for name, node in target(setting):
        own = np.asarray(node.v_threshold, np.float64)
        if own.size and np.ptp(own) > 0:
            values = {"first": own.flat[0], "mean": own.mean(), "largest": own.max()}
            for text, value in {**values, "smallest": own.min()}.items():
                segment = changed(setting.segment, name, v_threshold=np.full_like(own, value))
                yield Variant(name, f"all thresholds are the {text}, {value:.6g}", segment)


@hypothesis(cost=2)
def time_constant(setting: Setting) -> Iterator[Change]:
    """Dt or a time constant is scaled, given in steps, or its decay is exp(-dt/tau)."""
    dt = setting.segment.deployment.timing.dt
    for name, node in setting.nodes(*LEAKY):
        fields = tuple(f for f in ("tau", "tau_mem", "tau_syn") if hasattr(node, f))
        for chosen in (fields, *((f,) for f in fields)) if len(fields) > 1 else (fields,):
            decays = {f: dt / -np.expm1(-dt / np.asarray(getattr(node, f))) for f in chosen}
            listed = " and ".join(chosen)
            segment = changed(setting.segment, name, **decays)
            yield Variant(name, f"the decay of {listed} is exp(-dt/tau), not 1 - dt/tau", segment)
            yield from _scaled(setting, name, chosen, listed, (*FACTORS, dt, 1 / dt))
    if setting.other and setting.other.deployment.timing.dt != dt:
        yield from _other_dt(setting, setting.other.deployment.timing.dt)


def _other_dt(setting: Setting, dt: float) -> Iterator[Change]:
    own = setting.segment.deployment.timing.dt
    nodes: dict[str, nir.NIRNode] = {}
    for name, node in setting.nodes(*LEAKY):
        fields = [f for f in ("tau", "tau_mem", "tau_syn") if hasattr(node, f)]
        nodes[name] = replace(node, **{f: getattr(node, f) * (own / dt) for f in fields})
    if nodes:
        segment = setting.segment.with_nodes(nodes)
        yield Variant(next(iter(nodes)), f"a step is {ratio(own, dt)} s", segment)


@hypothesis(cost=2)
def leak(setting: Setting) -> Iterator[Change]:
    """The leak is missing, or v_leak is 0."""
    dt = setting.segment.deployment.timing.dt
    for name, node in setting.nodes(*LEAKY):
        tau = "tau" if hasattr(node, "tau") else "tau_mem"
        own = np.asarray(getattr(node, tau), np.float64)
        none = np.full_like(own, NO_LEAK * dt)
        for text, gain in (
            ("the membrane does not leak", np.asarray(node.r) * none / own),
            ("the membrane does not leak and its input has no factor dt/tau", node.r * none / dt),
        ):
            yield Variant(name, text, changed(setting.segment, name, **{tau: none, "r": gain}))
        if np.any(node.v_leak):
            segment = changed(setting.segment, name, v_leak=np.zeros_like(node.v_leak))
            yield Variant(name, "v_leak is 0", segment)


@hypothesis(cost=2)
def input_gain(setting: Setting) -> Iterator[Change]:
    """The input's factor r or w_in is missing, or dt/tau is taken into or out of it."""
    dt = setting.segment.deployment.timing.dt
    for name, node in setting.nodes(*MEMBRANES):
        own = np.asarray(node.r, np.float64)
        if np.any(own != 1):
            yield Variant(name, "r is missing", changed(setting.segment, name, r=np.ones_like(own)))
        tau = getattr(node, "tau", getattr(node, "tau_mem", None))
        if tau is not None:
            rate = dt / np.asarray(tau, np.float64)
            for text, gain in (
                ("dt/tau is missing", own / rate),
                ("dt/tau acts twice", own * rate),
            ):
                yield Variant(
                    name, f"the input's factor {text}", changed(setting.segment, name, r=gain)
                )
            without = changed(setting.segment, name, r=1 / rate)
            yield Variant(name, "the input's factors r and dt/tau are missing", without)
        yield from _scaled(setting, name, ("r",), "r")
        if isinstance(node, CURRENTS):
            if np.any(np.asarray(node.w_in) != 1):
                segment = changed(setting.segment, name, w_in=np.ones_like(node.w_in))
                yield Variant(name, "w_in is missing", segment)
            rate = dt / np.asarray(node.tau_syn, np.float64)
            segment = changed(setting.segment, name, w_in=node.w_in / rate)
            yield Variant(name, "the current's factor dt/tau_syn is missing", segment)
            yield from _scaled(setting, name, ("w_in",), "w_in")


@hypothesis(cost=2)
def synapse(setting: Setting) -> Iterator[Change]:
    """The synaptic current has no memory, or its time constant is exchanged with the membrane's."""
    dt = setting.segment.deployment.timing.dt
    for name, node in setting.nodes(*CURRENTS):
        swapped = changed(setting.segment, name, tau_syn=node.tau_mem, tau_mem=node.tau_syn)
        yield Variant(name, "tau_syn and tau_mem are exchanged", swapped)
        short = np.full_like(np.asarray(node.tau_syn, np.float64), dt)
        segment = changed(setting.segment, name, tau_syn=short)
        yield Variant(name, "the synaptic current has no memory", segment)
        rate = dt / np.asarray(node.tau_syn, np.float64)
        segment = changed(setting.segment, name, tau_syn=short, w_in=node.w_in * rate)
        yield Variant(name, "the synaptic current has no memory but its factor dt/tau_syn", segment)


@hypothesis(cost=4)
def neuron_values(setting: Setting) -> Iterator[Change]:
    """Neurons have other parameters, which the file states."""
    for name, node in setting.nodes(*MEMBRANES, nir.Threshold):
        fields = [f for f in PARAMETERS if hasattr(node, f)]
        known = {f: setting.theirs(name, f) for f in fields}
        stated = {f: value for f, value in known.items() if value is not None}
        for chosen in (*({f: value} for f, value in stated.items()), stated):
            if chosen:
                text = " and ".join(f"{f} is {ratio(getattr(node, f), chosen[f])}" for f in chosen)
                yield Variant(name, text, changed(setting.segment, name, **chosen))


def _scaled(
    setting: Setting,
    name: str,
    fields: tuple[str, ...],
    listed: str,
    listed_factors: tuple[float, ...] = FACTORS,
) -> Iterator[Change]:
    """What the other side's graph says of these parameters; then all of them by one factor."""
    node = setting.segment.nodes[name]
    own = {f: np.asarray(getattr(node, f), np.float64) for f in fields}
    other = {f: setting.theirs(name, f) for f in fields}
    known = {f: value for f, value in other.items() if value is not None}
    factors = {f: factor(own[f], value) for f, value in known.items()}
    if len(known) == len(fields) and None not in factors.values():
        text = ratio(own[fields[0]], known[fields[0]])
        yield Variant(name, f"{listed} is {text}", changed(setting.segment, name, **known))

    def at(by: float) -> Variant:
        values = {f: value * by for f, value in own.items()}
        text = f"{listed} is {by:.6g} times {number(own[fields[0]])}"
        return Variant(name, text, changed(setting.segment, name, **values))

    if any(np.any(value) for value in own.values()):
        yield Family(at, listed_factors)


def _timed(segment: Segment, **timing: Any) -> Segment:
    deployment = segment.deployment
    return replace(
        segment, deployment=replace(deployment, timing=replace(deployment.timing, **timing))
    )
