"""What other frameworks' importers would misread in a graph.

Measured on Norse 1.1.0, snnTorch 1.0.0, spikingjelly 2.0.0, sinabs 3.1.3, rockpool 3.1.0, spyx
1.0.0 and the parser of snn-mlir 1.0.0, graph by graph, against the written laws (docs/interop.md).
"refuses" is an error; everything else happens without a word.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import nir
import numpy as np

from msg_deploy.deployment import Deployment, Timing
from msg_deploy.graph import Incoming, plan

ASSUMED_DT = 1e-4
SHOWN = 3
SHARED = ("nir", "portable")
"""Dialects that are not for one destination alone."""
Check = Callable[[Any, Timing], Iterator[str]]
CHECKS: dict[type[nir.NIRNode], list[Check]] = {}
ELSEWHERE: dict[type[nir.NIRNode], list[Check]] = {}
"""As CHECKS, for frameworks that `portable` is not meant for."""


def hazards(deployment: Deployment) -> tuple[str, ...]:
    """Sentences about the graph, then about its nodes in the order of execution.

    Nodes of one type of which the same is true share a sentence.
    """
    dialect = deployment.provenance.dialect
    if dialect not in SHARED:
        return (f"written for {dialect} alone; what others make of it was not measured",)
    known = plan(deployment.graph)
    kinds = (CHECKS, ELSEWHERE) if dialect == "nir" else (CHECKS,)
    about: dict[tuple[str, str], list[str]] = {}
    for name in known.order:
        node = deployment.graph.nodes[name]
        own = [check for registry in kinds for check in registry.get(type(node), [])]
        texts = [text for check in own for text in check(node, deployment.timing)]
        incoming = known.incoming[name]
        if dialect == "portable":
            # Its files hold recurrence nested, in the form that all read alike.
            incoming = tuple(edge for edge in incoming if not edge.previous)
        for text in (*texts, *_edges(node, incoming)):
            about.setdefault((type(node).__name__, text), []).append(name)
    return (
        *_whole(deployment),
        *(f"{_listed(names)} ({kind}): {text}" for (kind, text), names in about.items()),
    )


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:SHOWN])
    return shown if len(names) <= SHOWN else f"{shown} and {len(names) - SHOWN} more"


def _edges(node: nir.NIRNode, incoming: tuple[Incoming, ...]) -> Iterator[str]:
    if any(edge.previous for edge in incoming):
        yield (
            "recurrence in a flat graph; snnTorch wires it differently, sinabs and rockpool ignore "
            "it, and spikingjelly's multi-step mode runs it wrong"
        )
    elif len(incoming) > 1 and isinstance(node, nir.Output):
        yield "several edges; snnTorch, spikingjelly and snn-mlir refuse them, spyx keeps one"
    elif len(incoming) > 1:
        yield (
            "branches meet; Norse, sinabs and rockpool run them out of order unless one is a skip "
            "that is listed last, spyx keeps one of them, snn-mlir refuses them"
        )


def _whole(deployment: Deployment) -> Iterator[str]:
    if not np.isclose(deployment.timing.dt, ASSUMED_DT, rtol=1e-9):
        yield (
            f"dt is {deployment.timing.dt:g} s: snnTorch computes with 1e-4 s whatever the file "
            "says, Norse (1e-3) and spikingjelly (1e-4) unless they are told"
        )
    if deployment.timing.reset == "subtract":
        yield (
            "reset by subtraction: NIR cannot say so, and Norse, snnTorch, spikingjelly and "
            "snn-mlir reset to zero"
        )
    elif deployment.provenance.dialect == "nir":
        yield "reset to zero: sinabs, rockpool and spyx subtract the threshold instead"


def checks(
    *kinds: type[nir.NIRNode], among: dict[type[nir.NIRNode], list[Check]] = CHECKS
) -> Callable[[Check], Check]:
    """Decorator: the function looks at nodes of these types."""

    def add(check: Check) -> Check:
        for kind in kinds:
            among.setdefault(kind, []).append(check)
        return check

    return add


@checks(nir.LI, nir.CubaLI)
def _integrator(node: Any, timing: Timing) -> Iterator[str]:
    yield "Norse drops it; snnTorch and spikingjelly refuse it"


@checks(nir.Scale, nir.Delay, nir.Threshold, nir.I)
def _dropped(node: Any, timing: Timing) -> Iterator[str]:
    yield "Norse passes its input through; snnTorch and spikingjelly refuse it"


@checks(nir.Conv1d)
def _conv1d(node: Any, timing: Timing) -> Iterator[str]:
    yield "Norse refuses it"


@checks(nir.AvgPool2d)
def _average(node: Any, timing: Timing) -> Iterator[str]:
    yield "Norse sums instead of averaging, or refuses it"


@checks(nir.Conv2d)
def _groups(node: nir.Conv2d, timing: Timing) -> Iterator[str]:
    if int(node.groups) > 1:
        yield "nir's own type check refuses groups, and with it all importers"
    height, width = node.weight.shape[2:]
    if height != width:
        yield "nir's own type check works out wrong shapes for kernels that are not square"


@checks(nir.Flatten)
def _flatten(node: nir.Flatten, timing: Timing) -> Iterator[str]:
    if int(node.start_dim) >= 0:
        yield "Norse and snnTorch count the batch among the dimensions; write them from the end"


@checks(nir.LIF)
def _lif(node: nir.LIF, timing: Timing) -> Iterator[str]:
    if np.any(np.asarray(node.r) != 1):
        yield "Norse ignores r"
    if np.ptp(np.asarray(node.tau)) > 0:
        yield "tau varies: snnTorch scales all thresholds by the first; spikingjelly refuses it"
    yield from _resting(node)


@checks(nir.IF)
def _if(node: nir.IF, timing: Timing) -> Iterator[str]:
    yield "snnTorch makes a leaky neuron of it, or fails"
    if not np.allclose(node.r, 1 / ASSUMED_DT):
        yield "spikingjelly refuses it unless r = 1/dt; Norse ignores r"
    yield from _resting(node)


@checks(nir.CubaLIF)
def _cuba_lif(node: nir.CubaLIF, timing: Timing) -> Iterator[str]:
    if not np.allclose(node.r, np.asarray(node.tau_mem) / timing.dt):
        yield "snnTorch and spikingjelly refuse it unless r = tau_mem/dt"
    yield from _resting(node)


def _resting(node: Any) -> Iterator[str]:
    v_reset, v_leak = (np.asarray(getattr(node, n, 0.0)) for n in ("v_reset", "v_leak"))
    if np.any(v_reset != 0):
        yield "Norse and snnTorch reset to 0, not to v_reset"
    if np.any(v_leak != 0):
        yield "snnTorch refuses a v_leak, spikingjelly one that is not v_reset"
    if np.ptp(np.asarray(node.v_threshold)) > 0:
        yield "thresholds vary: snnTorch and spikingjelly refuse that"


@checks(nir.LIF, among=ELSEWHERE)
def _lif_elsewhere(node: nir.LIF, timing: Timing) -> Iterator[str]:
    if np.ndim(node.tau) > 1:
        yield "sinabs refuses neurons of more than one dimension"
    else:
        yield "sinabs takes tau for steps, ignores r and may give several spikes in a step"
    yield "rockpool refuses it; spyx ignores r, subtracts after the leak and is a step late"
    if not np.allclose(node.r, np.asarray(node.tau) / timing.dt):
        yield "snn-mlir takes tau/r for dt"


@checks(nir.IF, among=ELSEWHERE)
def _if_elsewhere(node: nir.IF, timing: Timing) -> Iterator[str]:
    yield (
        "sinabs may give several spikes in a step and stays above -v_threshold; rockpool refuses "
        "it; spyx is a step late"
    )
    if np.any(np.asarray(node.r) != 1):
        yield "sinabs and spyx ignore r; snn-mlir refuses it unless it is 1"


@checks(nir.CubaLIF, among=ELSEWHERE)
def _cuba_lif_elsewhere(node: nir.CubaLIF, timing: Timing) -> Iterator[str]:
    yield (
        "rockpool takes the least tau_mem/(1 + r) for dt and may give several spikes in a step; "
        "sinabs refuses it; spyx is a step late"
    )
    dt = np.asarray(node.tau_mem) / node.r
    if not np.allclose(node.w_in * timing.dt, node.tau_syn) or not np.allclose(dt, timing.dt):
        yield "spyx ignores r and w_in; snn-mlir takes tau_mem/r for dt"


@checks(nir.LI, nir.CubaLI, among=ELSEWHERE)
def _integrator_elsewhere(node: Any, timing: Timing) -> Iterator[str]:
    if isinstance(node, nir.CubaLI):
        yield "sinabs passes its input through; rockpool refuses it; spyx leaves it out"
    else:
        yield "sinabs takes tau for steps; rockpool gives zeros; spyx refuses it"


@checks(nir.Scale, nir.Delay, nir.Threshold, nir.I, among=ELSEWHERE)
def _dropped_elsewhere(node: Any, timing: Timing) -> Iterator[str]:
    yield "sinabs and spyx pass its input through; rockpool and snn-mlir refuse it"


@checks(nir.Conv2d, among=ELSEWHERE)
def _conv2d_elsewhere(node: nir.Conv2d, timing: Timing) -> Iterator[str]:
    yield "rockpool refuses it; spyx wants images with their channels last"
    if np.any(np.asarray(node.dilation) != 1):
        yield "spyx ignores dilation"


@checks(nir.AvgPool2d, among=ELSEWHERE)
def _average_elsewhere(node: nir.AvgPool2d, timing: Timing) -> Iterator[str]:
    yield "spyx leaves it out; sinabs and rockpool refuse it"


@checks(nir.SumPool2d, among=ELSEWHERE)
def _sum_elsewhere(node: nir.SumPool2d, timing: Timing) -> Iterator[str]:
    if np.any(np.asarray(node.padding) != 0):
        yield "sinabs ignores padding; spyx takes it for 'same'"
