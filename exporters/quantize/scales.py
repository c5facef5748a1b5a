"""What a 1 stands for at every node, and how the scales of weights are chosen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import nir
import numpy as np

from msg_deploy.deployment import Deployment
from msg_deploy.errors import GraphError
from msg_deploy.exporters.quantize.groups import Group, groups
from msg_deploy.exporters.quantize.nodes import (
    LEAKY,
    NEURONS,
    POOLS,
    Array,
    area,
    bias_of,
    by_input,
    rate_of,
    spiking,
)
from msg_deploy.exporters.quantize.options import DIGITS, QuantizeOptions
from msg_deploy.exporters.quantize.statistics import Statistics, spread, worst
from msg_deploy.exporters.quantize.thresholds import state_bits
from msg_deploy.graph import plan

RESERVE = 1.5
"""What is measured on samples may grow by so much on others."""
FEWEST = 16
"""Weights give up at most this factor of their range for float32's sake; else it is left be."""
RATIOS = np.linspace(1.0, 0.3, 29)
"""Where weights may be cut off, as shares of the largest."""
Choose = Callable[[Group, "Scales"], Array]


class Scales:
    """Scales by node; those of weights are chosen when they are first asked for.

    Args:
        deployment: as `prepared` gives it.
        choose: gives the scales of a group, of shape (1,) or (channels,).

    Attributes:
        loose: layers whose states would not fit the digits without giving up too much.
    """

    def __init__(self, deployment: Deployment, choose: Choose) -> None:
        self.deployment = deployment
        self.known = plan(deployment.graph)
        self.nodes: Mapping[str, Any] = deployment.graph.nodes
        self.groups = groups(self.nodes, self.known)
        self._group = {name: group for group in self.groups for name in group.members}
        self._choose = choose
        self._found: dict[str, Array] = {}
        self._open: set[str] = set()
        self.loose: set[str] = set()

    def output(self, name: str) -> Array:
        """What a 1 that a node gives stands for, of shape (1,) or (C,).

        Raises:
            GraphError: the node cannot be quantized.
        """
        if name not in self._found:
            if name in self._open:
                raise GraphError(f"node {name!r}: the cycle through it has no spiking neuron.")
            self._open.add(name)
            self._found[name] = self._output(name)
            self._open.discard(name)
        return self._found[name]

    def arriving(self, name: str) -> Array:
        """The same for the sum that arrives at a node, what is in other units multiplied."""
        sources = [e.source for e in self.known.incoming[name]]
        layers = [source for source in sources if source in self._group]
        if layers:
            return self.output(layers[0])
        found = np.broadcast_arrays(*(self.output(source) for source in sources))
        smallest: Array = np.min(found, axis=0)
        return smallest

    def gain(self, name: str) -> Array:
        """What a neuron multiplies its input with, of its shape."""
        node = self.nodes[name]
        gain: Array = np.asarray(node.r, np.float64) * np.asarray(getattr(node, "w_in", 1.0))
        if np.any(gain <= 0):
            raise GraphError(f"node {name!r}: r and w_in must be above 0 to be quantized.")
        return gain

    def membrane(self, name: str) -> Array:
        """What a 1 of a membrane stands for, of the shape of the node."""
        gain, arriving = self.gain(name), self.arriving(name)
        product: Array = gain * arriving.reshape(-1, *(1,) * (gain.ndim - 1))
        return product

    def takes_input(self, name: str) -> bool:
        """Whether what enters the network arrives at a node, summed up at most."""
        for edge in self.known.incoming[name]:
            node = self.nodes[edge.source]
            if isinstance(node, nir.Input):
                return True
            if isinstance(node, (nir.Flatten, nir.Delay, *POOLS)) and self.takes_input(edge.source):
                return True
        return False

    def _output(self, name: str) -> Array:
        node = self.nodes[name]
        if name in self._group:
            group = self._group[name]
            scales = self._choose(group, self)
            self._found |= dict.fromkeys(group.members, scales)
            return scales
        if isinstance(node, nir.Input) or spiking(node):
            return np.ones(1)
        arriving = self.arriving(name)
        if isinstance(node, nir.AvgPool2d):
            return arriving / area(node)
        if isinstance(node, nir.Flatten):
            return spread(arriving, self.known.input_shapes[name], self.known.shapes[name])
        if isinstance(node, nir.Scale):
            factor = self._by_channel(name, np.asarray(node.scale, np.float64))
            if np.any(factor <= 0):
                raise GraphError(f"node {name!r} (Scale): factors must be above 0 to be quantized.")
            return arriving * factor
        if isinstance(node, NEURONS):
            return arriving * self._by_channel(name, self.gain(name))
        return arriving

    def _by_channel(self, name: str, values: Array) -> Array:
        """Numbers of the neurons by channel; (1,) if all are equal."""
        rows = values.reshape(len(values), -1)
        if np.any(rows != rows[:, :1]):
            raise GraphError(
                f"node {name!r} ({type(self.nodes[name]).__name__}): its factors differ within a "
                "channel, so that what it gives has no common unit."
            )
        first: Array = rows[:, 0]
        return first[:1] if np.all(first == first[0]) else first


def fixed(deployment: Deployment, scales: Mapping[str, Array]) -> Scales:
    """Scales that were chosen before, by node."""
    return Scales(deployment, lambda group, _: scales[group.members[0]])


def chosen(deployment: Deployment, statistics: Statistics, options: QuantizeOptions) -> Scales:
    """Scales of the weights, as options say.

    Args:
        deployment: as `prepared` gives it.
        statistics: of it.
        options: bits, granularity, calibration and what must be exact.

    Raises:
        GraphError: a node cannot be quantized, or its sums do not fit the accumulator.
    """
    return Scales(deployment, _Chooser(deployment, statistics, options))


class _Chooser:
    def __init__(
        self, deployment: Deployment, statistics: Statistics, options: QuantizeOptions
    ) -> None:
        self.deployment, self.statistics, self.options = deployment, statistics, options
        self.worst = worst(deployment)

    def __call__(self, group: Group, scales: Scales) -> Array:
        """The scales of a group."""
        options = self.options
        rows, power = self._weights(group, scales)
        together = group.common or options.granularity != "channel"
        if together:
            shape = rows.shape
            rows, power = rows.reshape(1, -1), np.broadcast_to(power, shape).reshape(1, -1)
        partners = [float(scales.output(name).max()) for name in group.partners]
        least = max(partners, default=0.0) / options.largest
        scale = np.maximum(self._cut(rows, power) / options.largest, least)
        scale = np.where(scale > 0, scale, self._without_weights(group, scale))
        start = scale
        scale = np.maximum(scale, self._fitting(group, scales, rows, scale))
        scale = self._exact(group, scales, scale, start)
        if together:
            scale = scale.max(keepdims=True)
            if options.granularity == "power-of-two":
                scale = np.exp2(np.ceil(np.log2(scale)))
        return self._partnered(group, scales, scale)

    def _weights(self, group: Group, scales: Scales) -> tuple[Array, Array]:
        """Weights for integer inputs (channels, N), and the mean squares of those."""
        rows, power = [], []
        for name in group.members:
            node, unit = scales.nodes[name], scales.arriving(name)
            weight = np.asarray(node.weight, np.float64) * by_input(node, unit)
            squares = by_input(node, self.statistics.power[name] / unit**2)
            rows.append(weight.reshape(len(weight), -1))
            power.append(np.broadcast_to(squares, weight.shape).reshape(len(weight), -1))
        return np.concatenate(rows, axis=1), np.concatenate(power, axis=1)

    def _cut(self, rows: Array, power: Array) -> Array:
        """The largest magnitude that is kept, of each row."""
        largest = np.abs(rows).max(axis=1)
        if self.options.calibration == "max":
            return largest
        if self.options.calibration == "percentile":
            kept = np.percentile(np.abs(rows), self.options.percentile, axis=1)
            return np.where(kept > 0, kept, largest)
        # A channel that nothing has reached is judged by its weights alone.
        power = np.where(power.sum(axis=1, keepdims=True) > 0, power, 1.0)
        limit = self.options.largest
        best, error = largest, np.full(len(rows), np.inf)
        for ratio in RATIOS:
            step = np.where(largest > 0, largest * ratio / limit, 1.0)[:, None]
            difference = rows - step * np.clip(np.rint(rows / step), -limit, limit)
            found = (power * difference**2).sum(axis=1)
            # Ties are for the larger range.
            better = found < error * (1 - 1e-12)
            best = np.where(better, largest * ratio, best)
            error = np.where(better, found, error)
        return best

    def _without_weights(self, group: Group, scale: Array) -> Array:
        """For channels of zeros: the bias is then the largest weight."""
        found = np.zeros(len(self.worst[group.members[0]]))
        for name in group.members:
            found = np.maximum(found, np.abs(bias_of(self.deployment.graph.nodes[name])))
        found = found.max(keepdims=True) if len(scale) == 1 else found
        return np.where(found > 0, found / self.options.largest, 1.0)

    def _fitting(self, group: Group, scales: Scales, rows: Array, scale: Array) -> Array:
        """The smallest scales with which no sum can be too large, whatever is put in."""
        limit, least = self.options.largest_sum, np.zeros(len(scale))
        for consumer in group.consumers:
            sources = [e.source for e in scales.known.incoming[consumer]]
            reach: Array = np.sum(np.broadcast_arrays(*(self.worst[s] for s in sources)), axis=0)
            # Rounding may add half of each input.
            rounding = sum(
                self._rounding(scales, source)
                if source in group.members
                else self.worst[source] / scales.output(source) / 2
                for source in sources
            )
            left = np.where(np.isfinite(rounding), limit - rounding, limit)
            reach = np.where(np.isfinite(reach), reach, 0.0)
            with np.errstate(divide="ignore"):
                needed = np.where(left > 0, reach / np.maximum(left, 1e-300), np.inf)
            least = np.maximum(least, needed.max() if len(scale) == 1 else needed)
        kept = np.abs(rows).max(axis=1) / np.maximum(least, 1e-300)
        if np.median(kept) < 1 and np.any(least > scale):
            bits = self.options.accumulator_bits or DIGITS[self.options.exact] + 1
            names = " and ".join(map(repr, group.members))
            raise GraphError(
                f"node {names}: its sums do not fit an accumulator of {bits} bits with any "
                "integer weights; use wider accumulators, fewer levels of the input, or smaller "
                "layers."
            )
        return least

    def _rounding(self, scales: Scales, name: str) -> Array:
        """Half of the sum of the largest integers that arrive, and of the bias."""
        node = scales.nodes[name]
        sources = [e.source for e in scales.known.incoming[name]]
        found = [self.worst[source] for source in sources]
        arriving = np.sum(np.broadcast_arrays(*found), axis=0) / scales.arriving(name)
        weight = np.asarray(node.weight)
        ones = np.broadcast_to(by_input(node, arriving), weight.shape)
        total: Array = ones.reshape(len(weight), -1).sum(axis=1) / 2 + 1
        return total

    def _exact(self, group: Group, scales: Scales, scale: Array, start: Array) -> Array:
        """Larger scales, if states and sums then fit the digits, and enough weights are left.

        A state is exact where (1 + rate) |v| + rate s <= 2^(digits - bits), s the largest sum of
        magnitudes behind any neuron of the layer (docs/certificate.md).
        """
        for consumer in group.consumers:
            node, timing = scales.nodes[consumer], self.deployment.timing
            bits = state_bits(node, timing)
            if bits is None:
                continue
            limit = 2.0 ** (DIGITS[self.options.exact] - bits) / RESERVE
            rate = float(rate_of(node, timing.dt).max()) if isinstance(node, LEAKY) else 1.0
            reach = self.statistics.arriving(scales.known, consumer)
            potential = self._potential(scales, consumer)
            if len(scale) == 1:
                reach, potential = reach.max(keepdims=True), potential.max(keepdims=True)
            sums, states = float((reach / scale).max()), float((potential / scale).max())
            if (1 + rate) * states + rate * sums <= limit:
                continue
            # Half of the room for each; what one leaves is the other's.
            if rate * sums <= limit / 2:
                states = (limit - rate * sums) / (1 + rate)
            elif (1 + rate) * states <= limit / 2:
                sums = (limit - (1 + rate) * states) / rate
            else:
                sums, states = limit / 2 / rate, limit / 2 / (1 + rate)
            raised = scale
            for needed, most in ((reach, sums), (potential, states)):
                # 0: no sample has brought anything here.
                if most > 0:
                    raised = np.maximum(raised, needed / most)
            if np.median(raised / start) <= self._most_lost():
                scale = raised
            else:
                scales.loose |= set(group.members)
        return scale

    def _most_lost(self) -> float:
        """By what factor weights may become coarser; at least 3 steps to each side are kept."""
        return min(FEWEST, max(1.0, self.options.largest / 3))

    def _potential(self, scales: Scales, name: str) -> Array:
        """The largest membrane or twice the threshold, which has half a step more, by channel.

        In units of what arrives.
        """
        node, gain = scales.nodes[name], scales.gain(name)
        channels = len(gain)
        least = gain.reshape(channels, -1).min(axis=1)
        found = self.statistics.membrane[name] / least
        for field, digits in (("v_threshold", 1), ("v_reset", 0)):
            if hasattr(node, field):
                values = np.abs(np.asarray(getattr(node, field), np.float64)) / gain * 2**digits
                found = np.maximum(found, values.reshape(channels, -1).max(axis=1))
        return found

    def _partnered(self, group: Group, scales: Scales, scale: Array) -> Array:
        """What is added in fixed units shall be a whole number of steps."""
        units = {float(u) for name in group.partners for u in scales.output(name)}
        if len(units) != 1:
            return scale
        (unit,) = units
        whole: Array = unit / np.maximum(np.floor(unit / scale * (1 + 1e-12)), 1.0)
        return whole
