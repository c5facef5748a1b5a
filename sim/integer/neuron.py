"""A neuron in integers, as a chip computes it: every rule that chips differ in is a field."""

from __future__ import annotations

from dataclasses import dataclass as plain_dataclass
from dataclasses import fields
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from msg_deploy.errors import GraphError, UsageError
from msg_deploy.sim.integer.rules import (
    EXACT,
    LARGEST,
    NO_DECAY,
    STRICT,
    Bits,
    Decay,
    Range,
    WeightFormat,
)

Array = npt.NDArray[np.int64]

Compare = Literal[">", ">=", "never"]
CompareAt = Literal["start", "event", "end"]
Reset = Literal["value", "subtract", "none"]
DecayAt = Literal["before", "after", "last"]
CurrentDecayAt = Literal["before", "after"]

ANY = Range(-LARGEST, LARGEST)


@dataclass(frozen=True, config=STRICT)
class IntegerNeuron:
    """The law of a layer of neurons, step by step.

    Names: v membrane, u_k synaptic currents, x_k what arrives, D a decay, R a range (each state has
    its own); gains, decays, bias, threshold and v_reset are `Parameters` of each neuron. One step:

    1. `compare_at` "start": decide (see 5), on what the last step left.
    2. v <- D(v) if `decay_at` is "before".
    3. Input. Without currents i = gain x 2^input_shift; with them, for each k,
       u_k <- R(D(u_k) + gain x_k 2^input_shift), or with `decay_current_at` "after"
       u_k <- D(R(u_k + gain x_k 2^input_shift)); i = sum over k of current_gain u_k.
       v <- R(v + i + bias 2^bias_shift).
    4. v <- D(v) if `decay_at` is "after".
    5. `compare_at` "end": decide. With theta = threshold 2^threshold_shift, n spikes, the largest
       n up to `max_spikes` for which v > n theta (or >=); for one at most any theta will do. Where
       n > 0, v <- v_reset, or v <- R(v - n theta), or v stays.
    6. v <- D(v) if `decay_at` is "last".

    `per_add`: the x_k are not summed first. One event after the other adds its weight to u_k, or
    without currents to v, each time with R: in the order of the edges, of each in ascending order
    of the source; a source that gives n adds its weight n times (-n: subtracts it). The weights are
    those of the matrix or convolution that the edge comes from, and 1 if it comes from another
    node. Into v a bias comes after the events, if it is not 0. `compare_at` "event": decide, for
    one spike at most, after each event (also of weight 0), after a bias that is not 0, and after a
    D that is not "none"; up to `max_spikes` in the step.

    R follows a D only where D is "subtract"; other decays do not leave a range.

    Attributes:
        synapses: number of synaptic currents: 0 (input enters the membrane), 1 or 2.
        input_shift: see 3.
        current_decay: D of the currents.
        current: R of the currents.
        decay_current_at: before the input is added, or after.
        membrane_decay: D of the membrane.
        membrane: R of the membrane.
        decay_at: when the membrane decays.
        leak_on_spike: the membrane also decays in a step in which it has spiked before.
        increment: v <- R(v + d), d = R(R(i - (v - D(v))) + bias 2^bias_shift), in place of 2 and 3.
        bias_shift: see 3.
        compare: ">", ">=", or never.
        compare_at: when: at the start of a step, after each event, or at its end.
        threshold_shift: see 5.
        reset: what a spike leaves of the membrane: a "value", what it was minus theta ("subtract"),
            or all of it ("none").
        reset_current: a spike sets the currents to 0.
        max_spikes: of one neuron in one step.
        per_add: see above.
        latency: steps by which the edges into these neurons are late, unless they have a delay.
        threshold: thresholds that there are.
        bias: biases that there are.
        weights: weights that there are; None: any.

    Raises:
        UsageError: fields that do not go together.
    """

    synapses: Annotated[int, Field(ge=0, le=2)] = 0
    input_shift: Bits = 0
    current_decay: Decay = NO_DECAY
    current: Range = EXACT
    decay_current_at: CurrentDecayAt = "before"
    membrane_decay: Decay = NO_DECAY
    membrane: Range = EXACT
    decay_at: DecayAt = "before"
    leak_on_spike: bool = True
    increment: bool = False
    bias_shift: Bits = 0
    compare: Compare = ">"
    compare_at: CompareAt = "end"
    threshold_shift: Bits = 0
    reset: Reset = "value"
    reset_current: bool = False
    max_spikes: Annotated[int, Field(ge=1, le=2**31)] = 1
    per_add: bool = False
    latency: Annotated[int, Field(ge=0, lt=2**31)] = 0
    threshold: Range = ANY
    bias: Range = ANY
    weights: WeightFormat | None = None

    @model_validator(mode="after")
    def _consistent(self) -> IntegerNeuron:
        into_membrane = self.per_add and self.synapses == 0
        problems = {
            'increment needs decay_at "before", no per_add into the membrane, and a membrane that '
            "does not wrap": self.increment
            and (
                self.decay_at != "before"
                or into_membrane
                or self.membrane.overflow in ("wrap", "wrap_once")
            ),
            'compare_at "event" needs per_add and no synaptic current': self.compare_at == "event"
            and not into_membrane,
            "leak_on_spike can only be false where the decision comes before the decay: "
            'compare_at "start", or decay_at "last" with "end"': not self.leak_on_spike
            and self.compare_at != "start"
            and not (self.compare_at == "end" and self.decay_at == "last"),
            'max_spikes above 1 needs reset "subtract", unless compare_at is "event"': (
                self.max_spikes > 1 and self.reset != "subtract" and self.compare_at != "event"
            ),
            "current, current_decay, decay_current_at and reset_current need synapses": (
                self.synapses == 0
                and (self.current, self.current_decay, self.decay_current_at, self.reset_current)
                != (EXACT, NO_DECAY, "before", False)
            ),
        }
        found = [text for text, wrong in problems.items() if wrong]
        if found:
            raise UsageError(f"integer neuron: {'; '.join(found)}.")
        return self

    @property
    def spiking(self) -> bool:
        """Whether there is a threshold."""
        return self.compare != "never"


@plain_dataclass(frozen=True)
class Parameters:
    """Numbers of each neuron: integers up to 2^60, one for all or an array of the layer's shape.

    Attributes:
        threshold: in units of 2^threshold_shift.
        v_reset: membrane after a spike, of reset "value".
        bias: in units of 2^bias_shift.
        membrane_decay: amount of the membrane's decay.
        current_decay: amount of the decay of each current; with two, (2, *shape), or one for both.
        gain: factor of what arrives.
        current_gain: factor of the currents on their way into the membrane.
        start: membrane before the first step.
        alias: number (in C order) of another neuron that spikes along with this one, -1: none. What
            this one gives, aliases of others included, is added there, up to max_spikes together;
            neurons decide in their order.
    """

    threshold: Any = 0
    v_reset: Any = 0
    bias: Any = 0
    membrane_decay: Any = 0
    current_decay: Any = 0
    gain: Any = 1
    current_gain: Any = 1
    start: Any = 0
    alias: Any = -1


class Numbers(NamedTuple):
    """Parameters as kernels take them: shifted, int64 (N,); current_decay (2, N)."""

    threshold: Array
    v_reset: Array
    bias: Array
    membrane_decay: Array
    current_decay: Array
    gain: Array
    current_gain: Array
    start: Array
    alias: Array


def numbers(name: str, neuron: IntegerNeuron, given: Parameters, shape: tuple[int, ...]) -> Numbers:
    """Check parameters and bring them into the kernels' form.

    Args:
        name: of the layer.
        neuron: its law.
        given: its parameters.
        shape: of the layer, without batch.

    Raises:
        GraphError: naming the layer and the parameter: no integers, of another shape, or outside of
            what the law takes.
    """
    count = int(np.prod(shape))
    limits = {
        "threshold": _threshold_limits(neuron),
        "bias": (neuron.bias.low, neuron.bias.high),
        "membrane_decay": neuron.membrane_decay.accepts(),
        "current_decay": neuron.current_decay.accepts(),
        "v_reset": (neuron.membrane.low, neuron.membrane.high),
        "start": (neuron.membrane.low, neuron.membrane.high),
        "alias": (-1, count - 1),
    }
    shifts = {
        "threshold": neuron.threshold_shift,
        "bias": neuron.bias_shift,
        "gain": neuron.input_shift,
    }
    found = {}
    for parameter in (field.name for field in fields(given)):
        value = np.asarray(getattr(given, parameter))
        both = parameter == "current_decay" and value.ndim == len(shape) + 1
        expected = (2, *shape) if both else shape
        problem = _problem(value, expected, *limits.get(parameter, (-LARGEST, LARGEST)))
        bits, largest = shifts.get(parameter, 0), 0
        if not problem:
            largest = int(np.abs(value.astype(np.int64)).max(initial=0))
        if largest << bits > LARGEST:
            problem = f"shifted by {bits} bits is above 2^60"
        if problem:
            raise GraphError(f"node {name!r}: {parameter} {problem}.")
        whole = np.broadcast_to(value, expected).astype(np.int64) << bits
        found[parameter] = whole.reshape(-1, count) if both else whole.ravel()
    fades = np.broadcast_to(found["current_decay"], (2, count))
    ready = Numbers(**found | {"current_decay": np.ascontiguousarray(fades)})
    if np.any(ready.alias >= 0) and neuron.compare_at != "end":
        raise GraphError(f'node {name!r}: alias needs compare_at "end".')
    if np.any(ready.alias == np.arange(count)):
        raise GraphError(f"node {name!r}: alias must name another neuron.")
    return ready


def _threshold_limits(neuron: IntegerNeuron) -> tuple[int, int]:
    """Spikes of a threshold of 0 or less can not be counted; its subtraction adds at each event."""
    low, high = neuron.threshold.low, neuron.threshold.high
    if neuron.reset != "subtract" or not neuron.spiking:
        return low, high
    if neuron.compare_at == "event":
        return max(low, 0), high
    return (max(low, 1) if neuron.max_spikes > 1 else low), high


def _problem(value: npt.NDArray[Any], shape: tuple[int, ...], low: int, high: int) -> str | None:
    if value.dtype.kind not in "iu":
        return f"must be integers, not {value.dtype}"
    if value.shape not in ((), shape):
        return f"has shape {value.shape}, but must have {shape}"
    if value.size and (int(value.min()) < low or int(value.max()) > high):
        return f"must be within {low}..{high}, but goes from {value.min()} to {value.max()}"
    return None
