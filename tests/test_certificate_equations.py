"""The bounds of the certificate against docs/certificate.md, whose equations are written out again.

Everything here is plain float64; the code computes in float32 and rounds upward, so that its bounds
may be larger by a few units in the last place, and never smaller.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import nir
import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from msg_deploy.deployment import Deployment, InputSpec, Shape, Timing
from msg_deploy.errors import GraphError
from msg_deploy.graph import Incoming, Plan
from msg_deploy.grid import dyadic_each
from msg_deploy.options import Precision
from msg_deploy.sim.certificate import Certificate, Certifier, certify
from msg_deploy.sim.certificate.arithmetic import ARITHMETIC
from msg_deploy.sim.certificate.kernels import finest
from msg_deploy.sim.certificate.neurons import FOLLOWERS, _alike, _currents, _law
from msg_deploy.sim.certificate.propagation import Given, Propagation, Sums, joined
from msg_deploy.sim.certificate.rules import RULES, Deviation, Place
from msg_deploy.sim.fast.kernels import BLOCK
from msg_deploy.sim.fast.stateful import Emitted
from msg_deploy.sim.torch_layers import LAYERS, Context
from tests.helpers import chain

Array = npt.NDArray[Any]
UNIT = {"float32": 2.0**-24 * (1 + 2.0**-28), "float64": 2.0**-53 * (1 + 2.0**-10)}
INFLATION = {"float32": 1 + UNIT["float64"] / UNIT["float32"] + 2.0**-10, "float64": 2 + 2.0**-10}
LEAST = 2.0**-120
PRECISIONS: Sequence[Precision] = ("float32", "float64")


def gamma(roundings: Any, precision: Precision = "float32") -> Any:
    share = np.asarray(roundings, np.float64) * UNIT[precision]
    return share / (1 - share)


def place(shape: Shape, precision: Precision = "float32", beside: int = 0, **timing: Any) -> Place:
    given = {"dt": 1e-3, "steps": 4} | timing
    return Place(Timing(**given), shape, ARITHMETIC[precision], beside)


def each(*values: float) -> Tensor:
    """One sample's numbers, (T, 1)."""
    return torch.tensor(values)[:, None]


def deviation(x: Tensor, error: Tensor | None = None, **changed: Any) -> Deviation:
    ones = torch.ones(x.shape[:2])
    known = {"step": ones.double() * 2.0**-9, "reach": ones * 3, "terms": ones * 2} | changed
    return Deviation(error, **known)


def follow(node: nir.NIRNode, where: Place, x: Tensor, d: Deviation) -> tuple[Array, Deviation]:
    """Exact outputs, and what the rule says of them, for one step and one sample."""
    layer = LAYERS[type(node)](node, Context(where.timing, where.shape, torch.float64))
    y = layer(x.double().flatten(0, 1)).unflatten(0, x.shape[:2])
    return y.numpy(), RULES[type(node)](node, where)(x.double(), d, y)


def close(found: Tensor | None, expected: Any, rtol: float = 1e-6) -> None:
    """Equal but for the rounding of float32, whose sums were multiplied to stay above."""
    assert found is not None
    expected = np.asarray(expected, np.float64)
    np.testing.assert_allclose(found.double().numpy(), expected, rtol=rtol, atol=0)


def upward(count: int) -> float:
    """The factor of sums of magnitudes that are computed in float32."""
    return float(1 + 2 * (count + 4) * 2.0**-24)


def sums_of_products(
    sums: Array, y: Array, terms: Any, fan_in: int, beside: int, heaviest: float, x: Array
) -> Array:
    """docs/certificate.md, "Linear, Affine, Conv1d, Conv2d", for inputs without error."""
    together = terms + beside
    larger = (np.abs(y) + sums) / 2
    least = LEAST * (fan_in + 1) * (1 + heaviest + np.abs(x).max())
    rounded = gamma(together) * (larger + gamma(together + 10) * sums)
    return np.asarray(rounded + gamma(10) * sums + least)


def weights(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=shape)


def stimulus(*shape: int) -> Tensor:
    random = np.random.default_rng(9)
    values = random.normal(size=shape) * random.integers(0, 2, shape)
    return torch.from_numpy(values.astype(np.float32))[None, None]


@pytest.mark.parametrize("beside", [0, 5])
@pytest.mark.parametrize("biased", [True, False])
def test_matrices(biased: bool, beside: int) -> None:
    weight, bias, x = weights(3, 300), weights(3, seed=1) * biased, stimulus(300)
    node = nir.Affine(weight, bias) if biased else nir.Linear(weight)
    y, found = follow(node, place((300,), beside=beside), x, deviation(x))
    sums = (np.abs(weight) @ np.abs(x[0, 0].numpy()) + np.abs(bias)) * upward(300)
    terms = int((x != 0).sum()) + 1
    heaviest = np.abs(weight).max()
    expected = sums_of_products(sums, y[0, 0], terms, 300, beside, heaviest, x.numpy())
    close(found.error, expected[None, None])
    close(found.reach, [[sums.max()]], rtol=2e-7)
    close(found.terms, [[terms]])
    assert found.open is None
    assert found.error is not None
    assert found.error.dtype == found.reach.dtype == found.terms.dtype == torch.float32


def test_sums_of_positive_terms_are_their_own_largest_partial_sum() -> None:
    weight, x = np.abs(weights(2, 300)), torch.ones(1, 1, 300)
    y, found = follow(nir.Linear(weight), place((300,)), x, deviation(x))
    sums = weight.sum(axis=1) * upward(300)
    larger = (np.abs(y[0, 0]) * (1 + 2.0**-20) + sums) / 2
    expected = gamma(301) * (larger + gamma(311) * sums) + gamma(10) * sums
    close(found.error, expected[None, None], rtol=4e-7)


def test_inputs_with_an_error_count_the_whole_fan_in() -> None:
    weight, bias, x = weights(3, 300), weights(3, seed=1), stimulus(300)
    error = torch.rand(x.shape, generator=torch.Generator().manual_seed(1)) * 1e-4
    y, found = follow(nir.Affine(weight, bias), place((300,)), x, deviation(x, error))
    sums = (np.abs(weight) @ np.abs(x[0, 0].numpy()) + np.abs(bias)) * upward(300)
    own = sums_of_products(sums, y[0, 0], 301, 300, 0, np.abs(weight).max(), x.numpy())
    carried = (np.abs(weight) @ error[0, 0].numpy()) * upward(300)
    close(found.error, (own + (1 + gamma(311)) * carried)[None, None])
    close(found.terms, [[301]])


def test_steps_of_one_batch_are_counted_for_themselves() -> None:
    """Samples without an error beside some with one, several steps at once."""
    weight = weights(2, 6)
    x = torch.tensor([[[1, 0, 0, 2, 0, 0], [1, 1, 1, 1, 1, 1]], [[0] * 6, [3, 0, 0, 0, 0, 0]]])
    error = torch.zeros(2, 2, 6)
    error[0, 0, 1] = 1e-3
    _, found = follow(nir.Linear(weight), place((6,)), x.float(), deviation(x, error))
    close(found.terms, [[7, 7], [1, 2]])


def test_nothing_arrives() -> None:
    """Each operation and each operand may still be flushed to zero; off the grid nothing is 0."""
    none, images = torch.zeros(1, 1, 3), torch.zeros(1, 1, 1, 2, 2)
    window, zero = np.array([2, 2]), np.array([0, 0])
    nodes: list[tuple[nir.NIRNode, Tensor, float]] = [
        (nir.Linear(np.array([[0.3, 5.0, -0.1]])), none, (3 + 1) * (1 + 5.0)),
        (nir.Scale(np.array([0.3, 5.0, -0.1])), none, 1 + 5.0),
        (nir.SumPool2d(window, window, zero), images, 4 + 1),
    ]
    for node, x, operations in nodes:
        error = torch.full_like(x, 2.0**-149)
        d = deviation(x, error, step=torch.zeros(1, 1).double())
        _, found = follow(node, place(x.shape[2:]), x, d)
        assert found.error is not None
        tiny = float(found.error.double().max())
        assert 0 <= tiny - LEAST * operations < LEAST * 2.0**-10, type(node)
    x = torch.tensor([[[0.0, 0.0, 2.0]]])
    d = deviation(x, torch.full_like(x, 2.0**-149))
    _, found = follow(nir.Linear(np.array([[0.0, 2.0**-130, 0.0]])), place((3,)), x, d)
    close(found.error, [[[LEAST * (3 + 1) * (1 + 2.0)]]])


def test_spread_over_large_windows() -> None:
    """The sums themselves are computed in float32, and multiplied to stay above."""
    size, none = np.array([16, 16]), np.array([0, 0])
    x = torch.ones(1, 1, 1, 16, 16)
    _, found = follow(nir.SumPool2d(size, size, none), place((1, 16, 16)), x, deviation(x))
    expected = gamma(256 + 10) * 256 * upward(256) + LEAST * 257
    close(found.open, [[[[[expected]]]]], rtol=2e-7)
    close(found.reach, [[3 * 256 * (1 + 2.0**-20)]], rtol=1e-7)
    close(found.terms, [[512]])


@pytest.mark.parametrize("groups", [1, 2])
def test_convolutions(groups: int) -> None:
    """Against the same convolution as a matrix: only what the kernel covers is counted."""
    weight, bias = weights(4, 4 // groups, 3, 3), weights(4, seed=1)
    node = nir.Conv2d((5, 5), weight, 1, 1, 1, groups, bias)
    x = stimulus(4, 5, 5)
    y, found = follow(node, place((4, 5, 5), beside=2), x, deviation(x))

    def over(kernel: Array, shift: Array, values: Array) -> Array:
        result = torch.nn.functional.conv2d(
            torch.from_numpy(values)[None], torch.from_numpy(kernel), torch.from_numpy(shift),
            padding=1, groups=groups,
        )  # fmt: skip
        return result[0].numpy()

    values, fan_in = np.abs(x[0, 0].double().numpy()), 36 // groups
    sums = over(np.abs(weight), np.abs(bias), values) * upward(fan_in)
    terms = over(np.ones_like(weight), np.ones(4), (values != 0).astype(float))
    heaviest = np.abs(weight).max()
    expected = sums_of_products(sums, y[0, 0], terms, fan_in, 2, heaviest, x.numpy())
    close(found.error, expected[None, None])
    close(found.terms, [[terms.max()]])
    assert len(np.unique(terms)) > 3


def test_sums_on_a_grid() -> None:
    """Exact up to 2^24 steps, and the bound where the sum goes on, too."""
    x, grid = torch.tensor([[[2.0, 4.0]]]), 2.0**-9
    for heavy, exact in ((2.0**14, True), (2.0**15, False)):
        node = nir.Affine(np.array([[heavy, 2.0]]), np.array([1.0]))
        d = deviation(x, step=torch.full((1, 1), grid, dtype=torch.float64))
        y, found = follow(node, place((2,)), x, d)
        sums = (2 * heavy + 8 + 1) * upward(2)
        bound = sums_of_products(sums, y[0, 0], 3, 2, 0, heavy, x.numpy())
        assert exact == (sums <= 2.0**24 * 2 * grid)
        assert (found.error is None) == exact
        close(found.open if exact else found.error, bound[None, None])
        assert (found.open is None) != exact
        close(found.step, [[2 * grid]])
        assert bool(found.exact.all()) == exact


def test_the_bias_has_a_grid_of_its_own() -> None:
    x = torch.ones(1, 1, 2)
    _, found = follow(
        nir.Affine(np.ones((1, 2)), np.array([2.0**-12])), place((2,)), x, deviation(x)
    )
    close(found.step, [[2.0**-12]])
    assert found.error is None
    # A bias, or a weight, that float32 does not hold: what is rounded is on no grid.
    for weight, bias in ((1.0, 1 + 2.0**-30), (1 + 2.0**-30, 1.0)):
        _, found = follow(
            nir.Affine(np.full((1, 2), weight), np.array([bias])), place((2,)), x, deviation(x)
        )
        assert found.error is not None
        assert found.open is None
    _, found = follow(
        nir.Affine(np.ones((1, 2)), np.array([1.0])),
        place((2,)),
        x,
        deviation(x, step=torch.zeros(1, 1).double()),
    )
    assert found.error is not None


def test_numbers_that_may_overflow() -> None:
    for weight, finite in ((2.0**4, True), (2.0**6, False)):
        for node, shape in (
            (nir.Linear(np.full((1, 2), weight / 2)), (2,)),
            (nir.Scale(np.full(2, weight)), (2,)),
            (nir.SumPool2d(*np.full((2, 2), int(weight)), np.array([0, 0])), (1, 64, 64)),
        ):
            large = 2.0**120 if len(shape) == 1 else 2.0**120 / weight
            x = torch.full((1, 1, *shape), large)
            d = deviation(x, reach=torch.full((1, 1), 2.0**121))
            _, found = follow(node, place(shape), x, d)
            error = found.going_on
            assert error is not None
            assert bool(error.isfinite().all()) == finite, (node, error)


def test_scales() -> None:
    scale, x = np.array([0.3, -5.0]), torch.tensor([[[2.0, 3.0]]])
    values = np.abs(scale) * x.numpy()
    least = LEAST * (1 + 5.0)
    _, found = follow(nir.Scale(scale), place((2,)), x, deviation(x))
    close(found.error, gamma(4) * values + least)
    close(found.reach, [[15.0 * (1 + 2.0**-20)]], rtol=1e-7)
    close(found.terms, [[2.0]])
    error, opened = torch.tensor([[[0.0, 1e-3]]]), torch.tensor([[[1e-4, 2e-3]]])
    d = deviation(x, error, open=opened)
    _, found = follow(nir.Scale(scale), place((2,)), x, d)
    close(found.error, np.abs(scale) * opened.numpy() * (1 + gamma(4)) + gamma(4) * values + least)
    assert found.error is not None
    assert found.error.dtype == found.reach.dtype == torch.float32
    _, found = follow(nir.Scale(scale), place((2,)), x, deviation(x, opened * 1e6))
    wide = np.abs(scale) * opened.double().numpy() * 1e6 * (1 + gamma(4)) + gamma(4) * values
    close(found.error, wide, rtol=2e-7)


def test_scales_by_powers_of_two() -> None:
    scale, x = np.array([0.5, -4.0]), torch.tensor([[[2.0, 3.0]]])
    _, found = follow(nir.Scale(scale), place((2,)), x, deviation(x))
    assert found.error is None
    close(found.open, gamma(4) * np.abs(scale) * x.numpy() + LEAST * 5)
    close(found.step, [[2.0**-10]])
    error = torch.tensor([[[0.0, 1e-3]]])
    _, found = follow(nir.Scale(scale), place((2,)), x, deviation(x, error))
    assert found.error is not None
    assert found.error[0, 0, 0] == 0
    assert found.error[0, 0, 1] > 4e-3
    reach = each(2.0**13 * (1 + 2.0**-10))
    _, found = follow(nir.Scale(scale), place((2,)), x, deviation(x, reach=reach))
    assert found.error is not None


def test_the_largest_number_that_is_certified() -> None:
    x = torch.full((1, 1, 1), 2.0**120)
    d = deviation(x, reach=torch.full((1, 1), 2.0**124))
    for scale, finite in ((2.0**5, True), (2.0**5 + 1, False)):
        _, found = follow(nir.Scale(np.full(1, scale)), place((1,)), x, d)
        assert found.going_on is not None
        assert bool(found.going_on.isfinite().all()) == finite


@pytest.mark.parametrize("mean", [True, False])
def test_pools(mean: bool) -> None:
    size, none = np.array([2, 2]), np.array([0, 0])
    node = (nir.AvgPool2d if mean else nir.SumPool2d)(size, size, none)
    x, error = stimulus(1, 4, 4).abs(), torch.zeros(1, 1, 1, 4, 4)
    error[..., 0, 0] = 1e-3
    divisor = 4 if mean else 1
    sums = x[0, 0, 0].double().numpy().reshape(2, 2, 2, 2).sum(axis=(1, 3)) / divisor * upward(4)
    own = gamma(4 + 3 + 10) * sums + LEAST * 5
    _, found = follow(node, place((1, 4, 4), beside=3), x, deviation(x, error))
    carried = np.array([[1e-3, 0], [0, 0]]) / divisor * upward(4)
    expected = own + (1 + gamma(17)) * carried
    close(found.open, expected[None, None, None])
    # Windows without an error are exact for themselves.
    close(found.error, np.where(carried, expected, 0)[None, None, None])
    close(found.step, [[2.0**-9 / divisor]])
    close(found.reach, [[3 * 4 / divisor]], rtol=2e-6)
    close(found.terms, [[8]])
    assert found.open is not None
    assert found.open.dtype == torch.float32
    _, found = follow(node, place((1, 4, 4), beside=3), x, deviation(x))
    assert found.error is None
    close(found.open, own[None, None, None])
    reach = each(2.0**13 * (1 + 2.0**-10) * divisor)
    _, found = follow(node, place((1, 4, 4)), x, deviation(x, reach=reach))
    assert found.error is not None


def test_means_of_nine_are_no_power_of_two() -> None:
    size, none = np.array([3, 3]), np.array([0, 0])
    x = torch.ones(1, 1, 1, 3, 3)
    _, found = follow(nir.AvgPool2d(size, size, none), place((1, 3, 3)), x, deviation(x))
    close(found.error, [[[[[gamma(19) * upward(9) + LEAST * 10]]]]])
    assert found.open is None


def test_moving_moves_errors() -> None:
    x, error = torch.zeros(1, 1, 2, 2), torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    flatten = nir.Flatten({"input": np.array([2, 2])}, 0, -1)
    _, found = follow(flatten, place((2, 2)), x, deviation(x, error, open=error * 2))
    close(found.error, [[[1, 2, 3, 4]]])
    close(found.open, [[[2, 4, 6, 8]]])
    close(found.terms, [[2]])
    _, found = follow(flatten, place((2, 2)), x, deviation(x))
    assert found.error is None
    assert found.open is None


@dataclass
class State:
    """One state, as docs/certificate.md has it: its value, bound and step."""

    rate: float | None
    r: float
    leak: float
    precision: Precision
    value: float = 0.0
    error: float = 0.0

    def __post_init__(self) -> None:
        """ "Start": all states begin at v_leak."""
        self.value = self.leak
        if self.precision == "float32" and float(np.float32(self.leak)) != self.leak:
            self.error = gamma(4) * abs(self.leak)

    def move(self, x: float, error: float, terms: float) -> None:
        """ "States", and the law of docs/contract.md."""
        rate, drag = (1.0, 0.0) if self.rate is None else (self.rate, self.rate)
        v, gain = abs(self.value), rate * abs(self.r)
        before = v + self.error
        self.error = (
            abs(1 - drag) * self.error
            + gain * error
            + gamma(terms + 6, self.precision) * before
            + gamma(14, self.precision)
            * (drag * before + rate * abs(self.leak) + gain * (abs(x) + error))
            + LEAST * (1 + gain + v + abs(x))
        )
        self.value += drag * (self.leak - self.value) + rate * self.r * x

    def decide(self, threshold: float, reset: float, subtract: bool) -> float:
        """The bound of the decision; the state goes on after its reset."""
        wide = gamma(4, self.precision) * abs(threshold) + LEAST
        bound = (self.error + wide) * INFLATION[self.precision]
        if self.value > threshold:
            if subtract:
                both = abs(self.value) + abs(threshold)
                self.error += wide + gamma(2, self.precision) * (both + self.error) + LEAST
                self.value -= threshold
            else:
                self.error = gamma(4, self.precision) * abs(reset) + LEAST
                self.value = reset
        return float(bound)


INPUTS = (-0.9, 0.7, -3.1, -0.4, -2.2, 1.3)
ERRORS = (1e-4, 0.0, 3e-4, 2e-5, 0.0, 1e-4)
TERMS = (3.0, 7.0, 4.0, 9.0, 2.0, 5.0)


def advanced(
    node: nir.NIRNode, where: Place, values: Sequence[float], steps: int = 6
) -> tuple[Deviation, Any]:
    """The follower on `INPUTS`; `values` are the exact membranes, or states."""
    x = torch.tensor(INPUTS, dtype=torch.float64)[:, None, None]
    d = Deviation(
        torch.tensor(ERRORS)[:, None, None],
        each(*[0.0] * 6).double(),
        each(*[9.0] * 6),
        each(*TERMS),
    )
    follower = FOLLOWERS[type(node)](node, where)
    given = torch.tensor(values, dtype=torch.float64)[:, None, None]
    return follower.advance(x, d, Emitted(given, given), steps, follower.start(1))


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("reset", ["zero", "subtract"])
@pytest.mark.parametrize("kind", ["lif", "if"])
def test_spiking_neurons(kind: str, reset: str, precision: Precision) -> None:
    r, leak, threshold, after = -1.7, 0.13, 0.4, -0.21
    one = np.ones(1)
    if kind == "lif":
        node = nir.LIF(3.3e-3 * one, r * one, leak * one, threshold * one, after * one)
        state = State(1e-3 / 3.3e-3, r, leak, precision)
    else:
        node = nir.IF(r * one, threshold * one, after * one)
        state = State(None, r, 0.0, precision)
    membranes, bounds = [], []
    for x, error, terms in zip(INPUTS, ERRORS, TERMS, strict=True):
        state.move(x, error, terms)
        membranes.append(state.value)
        bounds.append(state.decide(threshold, after, reset == "subtract"))
    assert any(v > threshold for v in membranes[:-1])
    found, decisions = advanced(node, place((1,), precision, reset=reset), membranes)
    close(decisions.bound[:, 0, 0], bounds)
    close(decisions.margin[:, 0, 0], np.array(membranes) - threshold, rtol=1e-5)
    assert decisions.certified.all()
    assert found.error is None
    assert found.step.dtype == torch.float64
    close(found.step, np.ones((6, 1)))
    close(found.reach, np.ones((6, 1)))
    close(found.terms, np.ones((6, 1)))


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("kind", ["li", "i"])
def test_states_without_a_threshold(kind: str, precision: Precision) -> None:
    r, leak, one = 1.7, -0.3, np.ones(1)
    if kind == "li":
        node = nir.LI(3.3e-3 * one, r * one, leak * one)
        state = State(1e-3 / 3.3e-3, r, leak, precision)
    else:
        node, state = nir.I(r * one), State(None, r, 0.0, precision)
    states, errors = [], []
    for x, error, terms in zip(INPUTS, ERRORS, TERMS, strict=True):
        state.move(x, error, terms)
        states.append(state.value)
        errors.append(state.error)
    found, decisions = advanced(node, place((1,), precision), states)
    assert decisions is None
    # A state that has no threshold is inflated as one that has.
    expected = np.array(errors) * INFLATION[precision]
    assert found.error is not None
    close(found.error[:, 0, 0], expected)
    close(found.reach[:, 0], np.abs(states) * (1 + 2.0**-20) + expected, rtol=3e-7)
    assert found.error.dtype == found.reach.dtype == torch.float32
    assert found.step.dtype == torch.float64
    close(found.step, np.zeros((6, 1)))
    close(found.terms, np.ones((6, 1)))


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("spiking", [True, False])
def test_current_based_neurons(spiking: bool, precision: Precision) -> None:
    r, leak, w_in, threshold, after, one = 1.2, 0.05, -1.9, 0.4, -0.21, np.ones(1)
    rates = 1.7e-3 * one, 3.3e-3 * one
    if spiking:
        node = nir.CubaLIF(*rates, r * one, leak * one, threshold * one, after * one, w_in * one)
    else:
        node = nir.CubaLI(*rates, r * one, leak * one, w_in * one)
    current = State(1e-3 / 1.7e-3, w_in, 0.0, precision)
    state = State(1e-3 / 3.3e-3, r, leak, precision)
    membranes, bounds = [], []
    for x, error, terms in zip(INPUTS, ERRORS, TERMS, strict=True):
        current.move(x, error, terms)
        # The current's own bound is inflated on its way; it is one more summand of the membrane.
        state.move(current.value, current.error * INFLATION[precision], terms + 1)
        membranes.append(state.value)
        bounds.append(
            state.decide(threshold, after, False) if spiking else state.error * INFLATION[precision]
        )
    assert any(v > threshold for v in membranes[:-1])
    found, decisions = advanced(node, place((1,), precision), membranes)
    bound = decisions.bound if spiking else found.error
    close(bound[:, 0, 0], bounds)


@pytest.mark.parametrize("kind", ["lif", "cuba"])
def test_inputs_that_stay_the_same_are_given_once(kind: str) -> None:
    """One row of values and errors for all steps; and the same in two pieces."""
    one, where = np.ones(1), place((1,))
    node: nir.NIRNode = nir.LIF(3e-3 * one, 0.7 * one, 0 * one, 0.9 * one, 0 * one)
    if kind == "cuba":
        node = nir.CubaLIF(2e-3 * one, 3e-3 * one, one, 0 * one, 0.9 * one, 0 * one, 0.7 * one)
    follower: Any = FOLLOWERS[type(node)](node, where)
    x, error = torch.full((1, 2, 1), 1.3).double(), torch.full((1, 2, 1), 1e-5)
    d = deviation(x, error)
    membranes = torch.linspace(0.1, 0.8, 4).double()[:, None, None].expand(4, 2, 1)

    def bounds(x: Tensor, d: Deviation, *pieces: slice) -> Tensor:
        state, found = follower.start(2), []
        for s in pieces:
            part = membranes[s].contiguous()
            cut = x[s] if len(x) > 1 else x
            result = follower.advance(cut, d.part(s), Emitted(part, part), len(part), state)
            found.append(result[1].bound)
        return torch.cat(found)

    once = bounds(x, d, slice(0, 4))
    every = Deviation(error.expand(4, 2, 1), *(v.expand(4, 2) for v in (d.step, d.reach, d.terms)))
    assert torch.equal(bounds(x.expand(4, 2, 1).contiguous(), every, slice(0, 4)), once)
    assert torch.equal(bounds(x, d, slice(0, 3), slice(3, 4)), once)
    assert (once[1:] != once[:-1]).all()


def test_currents_by_hand() -> None:
    """Three neurons, two samples: exact currents, their steps, and the magnitudes behind them."""
    one, where = np.ones(3), place((3,))
    decay, w_in = np.array([0.5, 1.0, 0.5]), np.array([2.0, -3.0, 0.5])
    law = _law(where, 1e-3 / decay, w_in, 0 * one)
    x = np.array([[[1.0, 2.0, 0.0], [0.5, 0.0, 1.0]], [[0.0, 1.0, 1.0], [1.0, 1.0, 1.0]]])
    d = deviation(torch.from_numpy(x), terms=torch.full((2, 2), 5.0))
    nothing = np.empty((0, 2, 3), np.float32)

    def rest() -> tuple[Array, ...]:
        """0, without an error, on any grid."""
        return np.zeros((2, 3)), np.zeros((2, 3)), np.full((2, 3), np.inf)

    signed, empty = np.stack([decay, w_in]), (nothing, nothing)
    currents, found = _currents(where, law, signed, x, empty, d, 2, rest())
    expected = [[[1, -6, 0], [0.5, 0, 0.25]], [[0.5, -3, 0.25], [1.25, -3, 0.375]]]
    np.testing.assert_array_equal(currents, expected)
    # All of what decays is off the grid in the end, so no step is told.
    close(found.step, np.zeros((2, 2)))
    close(found.terms, np.full((2, 2), 6.0))
    assert found.error is not None
    assert found.error.dtype == found.reach.dtype == torch.float32
    # The largest gain is 3, of magnitudes of 3; no current is larger.
    close(found.reach, np.full((2, 2), 9 * (1 + 2.0**-20)), rtol=1e-7)
    d = replace(d, reach=torch.full((2, 2), 0.25))
    _, found = _currents(where, law, signed, x, empty, d, 2, rest())
    close(found.reach, np.array([[6, 0.75], [3, 3]]) * (1 + 2.0**-20), rtol=1e-7)
    # Without decay a current is a multiple of w_in times the step of what arrives.
    for gains, step in (([0.5, 4.0, 2.0], 0.5), ([2.0, 4.0, 2.0], 1.0)):
        law = _law(where, 1e-3 * one, np.array(gains), 0 * one)
        signed = np.stack([one, np.array(gains)])
        _, found = _currents(where, law, signed, x, empty, d, 2, rest())
        close(found.step, np.full((2, 2), step * 2.0**-9))
        assert found.error is None


def grid_state(
    node: nir.NIRNode,
    x: Sequence[float],
    membranes: Sequence[float],
    *,
    step: float = 1.0,
    reach: float = 0.0,
    error: Tensor | None = None,
    opened: Tensor | None = None,
    precision: Precision = "float32",
    reset: str = "zero",
) -> Array:
    """The bounds of one neuron on inputs that stand on a grid."""
    values = torch.tensor(x, dtype=torch.float64)[:, None, None]
    ones = torch.ones(len(x), 1)
    d = Deviation(
        error, ones.double() * step, torch.maximum(values.abs()[..., 0], ones * reach), ones, opened
    )
    follower = FOLLOWERS[type(node)](node, place((1,), precision, reset=reset))
    given = torch.tensor(membranes, dtype=torch.float64)[:, None, None]
    emitted = Emitted(given, given)
    _, decisions = follower.advance(values, d, emitted, len(x), follower.start(1))
    return np.asarray(decisions.bound[:, 0, 0])


def neuron(**changed: float) -> nir.LIF:
    """Halves its membrane at each step of 1 ms; everything is representable."""
    known = {"tau": 2e-3, "r": 1.0, "v_leak": 0.0, "v_threshold": 1e3, "v_reset": 0.0} | changed
    return nir.LIF(**{name: np.full(1, value) for name, value in known.items()})


def test_states_on_a_grid() -> None:
    """Without an error up to 2^24 steps; each step of the neuron halves the grid."""
    x, membranes = (3.0, 1.0, 1.0), (1.5, 1.25, 1.125)
    assert grid_state(neuron(), x, membranes).tolist() == [0, 0, 0]
    # After 23 halvings 1 is 2^24 steps or more.
    zeros = [1.0, *[0.0] * 29]
    bounds = grid_state(neuron(), zeros, [2.0**-t for t in range(1, 31)])
    assert (bounds == 0).all()
    bounds = grid_state(neuron(), [1.0] * 30, [1 - 2.0**-t for t in range(1, 31)])
    assert (bounds[:23] == 0).all()
    assert (bounds[24:] > 0).all()
    # So does an input on a finer grid, and one that is large behind its own sum.
    fine = grid_state(neuron(), [1.0] * 30, [1 - 2.0**-t for t in range(1, 31)], step=2.0**-9)
    assert (fine[:14] == 0).all()
    assert (fine[15:] > 0).all()
    assert grid_state(neuron(), [1.0], [0.5], reach=2.0**23).tolist() == [0]
    assert (grid_state(neuron(), [1.0], [0.5], reach=2.0**25) > 0).all()


@pytest.mark.parametrize(
    ("changed", "exact"),
    [
        ({}, True),
        ({"r": 2.0}, True),
        ({"r": -0.5}, True),
        ({"r": 3.0}, False),
        ({"r": 0.0}, False),
        ({"tau": 3e-3}, False),
        ({"tau": 1e-3}, True),
        ({"v_leak": 0.25}, True),
        ({"v_leak": 0.1}, False),
        ({"v_threshold": 1e3 + 2.0**-7}, True),
    ],
)
def test_which_states_stay_on_their_grid(changed: dict[str, float], exact: bool) -> None:
    """Powers of two, and a leak that float32 holds."""
    bounds = grid_state(neuron(**changed), [3.0, 1.0], [0.1, 0.2])
    assert (bounds == 0).all() == exact
    assert (bounds > 0).all() != exact


def test_sums_that_go_on_with_a_state_off_the_grid() -> None:
    """Their error is that of a sum that goes on, and 0 for a state that stays on the grid."""
    opened = torch.full((1, 1, 1), 1e-2)
    on, off = (grid_state(neuron(r=r), [3.0], [1.5], opened=opened) for r in (1.0, 3.0))
    assert on.tolist() == [0]
    # A sum with an error is on no grid, wherever it ends.
    wrong = grid_state(neuron(), [3.0], [1.5], error=opened / 2, opened=opened)
    state = State(0.5, 1.0, 0.0, "float32")
    state.move(3.0, 1e-2, 1.0)
    np.testing.assert_allclose(wrong, state.decide(1e3, 0.0, subtract=False), rtol=1e-6)
    without = grid_state(neuron(r=3.0), [3.0], [1.5])
    np.testing.assert_allclose(
        off - without, 1.5 * 1e-2 * (1 + gamma(14)) * INFLATION["float32"], rtol=1e-6
    )


def test_the_last_integers_that_are_exact() -> None:
    """2^24 steps of the grid, and not one more; the smallest normal number, and no smaller one."""
    assert grid_state(neuron(), [2.0**24], [2.0**23]).tolist() == [0]
    assert (grid_state(neuron(), [2.0**24 + 2], [2.0**23]) > 0).all()
    for step, exact in ((2.0**-125, True), (2.0**-126, False)):
        (bound,) = grid_state(neuron(), [step], [0.5 * step], step=step)
        assert (bound == 0) == exact


@pytest.mark.parametrize(
    ("changed", "largest"),
    [
        # v + rate (v + |v_leak| + |r| x), where v is v_leak before the first step.
        ({"v_leak": 2.0**20}, 2.0**24 - 2 * (2.0**20 + 2.0**19 + 2.0**19)),
        ({"v_leak": -(2.0**20)}, 2.0**24 - 2 * (2.0**20 + 2.0**19 + 2.0**19)),
        ({"r": -2.0}, 2.0**24),
    ],
)
def test_all_that_is_added_up_has_to_fit(changed: dict[str, float], largest: float) -> None:
    node = neuron(**changed)
    assert grid_state(node, [largest], [0.0], step=1.0).tolist() == [0]
    assert (grid_state(node, [largest + 4], [0.0], step=1.0) > 0).all()


def test_a_leak_makes_the_grid_finer_after_each_reset() -> None:
    """v_leak = 2^-20: from 8 on, half of a step of that takes more than 24 bits."""
    node = neuron(v_leak=2.0**-20, v_threshold=1.0)
    bounds = grid_state(node, [1.0, 4.0, 16.0], [1.5, 2.0, 8.0])
    assert (bounds == 0).tolist() == [True, True, False]


def test_each_step_has_its_own_grid_and_its_own_terms() -> None:
    x = torch.tensor([1.0, 1.0], dtype=torch.float64)[:, None, None]
    follower = FOLLOWERS[nir.LIF](neuron(), place((1,)))
    membranes = torch.tensor([0.5, 0.75], dtype=torch.float64)[:, None, None]
    for steps, exact in (((1.0, 2.0**-40), [True, False]), ((2.0**-40, 1.0), [False, False])):
        d = Deviation(None, each(*steps).double(), each(1, 1), each(1, 1))
        _, found = follower.advance(x, d, Emitted(membranes, membranes), 2, follower.start(1))
        assert found is not None
        assert (found.bound[:, 0, 0] == 0).tolist() == exact
    follower = FOLLOWERS[nir.LIF](neuron(r=3.0), place((1,)))
    for reach, terms in ((each(1, 1), each(1, 9)), (each(1, 2.0**126), each(1, 1))):
        d = Deviation(None, each(1, 1).double(), reach, terms)
        same = Deviation(None, each(1, 1).double(), each(1, 1), each(1, 1))
        bounds = []
        for given in (d, same):
            emitted = Emitted(membranes, membranes)
            _, found = follower.advance(x, given, emitted, 2, follower.start(1))
            assert found is not None
            bounds.append(found.bound[:, 0, 0])
        assert (bounds[0] > bounds[1]).tolist() == [False, True]


def test_nothing_arrives_at_a_neuron() -> None:
    """What may be flushed to zero: the state's way, and a threshold of 0."""
    (bound,) = grid_state(neuron(r=3.0, v_threshold=0.0), [0.0], [0.0], step=0.0)
    expected = (LEAST * (1 + 1.5) + LEAST) * INFLATION["float32"]
    np.testing.assert_allclose(bound, expected, rtol=1e-6)


def test_a_membrane_at_its_threshold_does_not_spike() -> None:
    """Strictly above: its error goes on, and is not that of a reset."""
    state, node = State(None, 1.5, 0.0, "float32"), nir.IF(*np.array([[1.5], [0.75], [0.0]]))
    bounds = []
    for x in (0.5, 0.25):
        state.move(x, 0.0, 1.0)
        bounds.append(state.decide(0.75, 0.0, subtract=False))
    found = grid_state(node, [0.5, 0.25], [0.75, 1.125])
    np.testing.assert_allclose(found, bounds, rtol=1e-6)


def test_decisions_within_their_bounds_are_not_certified() -> None:
    for r, certified in ((3.0, [False, True]), (1.0, [True, True])):
        follower = FOLLOWERS[nir.LIF](neuron(r=r, v_threshold=1.5), place((1,)))
        x = torch.tensor([[1.0, 2.0]], dtype=torch.float64)[..., None]
        membranes = torch.tensor([[1.5, 1.51]], dtype=torch.float64)[..., None]
        ones = torch.ones(1, 2)
        d = Deviation(None, ones.double(), ones * 2, ones)
        emitted = Emitted(membranes, membranes)
        given, found = follower.advance(x, d, emitted, 1, follower.start(2))
        assert given.terms.shape == given.step.shape == given.reach.shape == (1, 2)
        assert found is not None
        assert found.certified[0, :, 0].tolist() == certified
    x = np.full((3, 1, 1), 0.1, np.float32)
    deployment = graph_of("input if, if output", **{"if": neurons()})
    assert certify(deployment, x).certified["if"].all()


def test_more_neurons_than_a_block() -> None:
    """All alike, so that all bounds are."""
    count = 2 * BLOCK + 1
    node = nir.LIF(*np.full((5, count), [[3e-3], [0.7], [0.0], [0.9], [0.0]]))
    deployment = chain(node, inputs=(count,), outputs=(count,), dt=1e-3, steps=3)
    bounds = certify(deployment, np.full((3, 1, count), 1.3, np.float32)).bounds["n0"]
    assert (bounds == bounds[:, :, :1]).all()
    assert (bounds > 0).all()


def test_thresholds_that_are_rounded() -> None:
    """By itself an error, even where the membrane has none."""
    threshold = 1e3 + 2.0**-16
    assert float(np.float32(threshold)) == 1e3
    (bound,) = grid_state(neuron(v_threshold=threshold), [3.0], [1.5])
    np.testing.assert_allclose(bound, 2.0**-16 * INFLATION["float32"], rtol=1e-6)
    assert grid_state(
        neuron(v_threshold=threshold), [3.0], [1.5], precision="float64"
    ).tolist() == [0]


@pytest.mark.parametrize(
    ("reset", "changed", "exact"),
    [
        ("zero", {"v_reset": 0.25}, True),
        ("zero", {"v_reset": 0.1}, False),
        ("subtract", {"v_threshold": 1.25}, True),
        ("subtract", {"v_threshold": 1.25 + 2.0**-30}, False),
        # On the grid, but of more than 2^24 of its steps.
        ("subtract", {"v_threshold": 1.0 + 2.0**-23}, False),
    ],
)
def test_resets_on_a_grid(reset: str, changed: dict[str, float], exact: bool) -> None:
    node = neuron(**{"v_threshold": 1.0} | changed)
    x, membranes = [8.0, 1.0, 1.0], [4.0, 0.6, 0.5]
    bounds = grid_state(node, x, membranes, reset=reset)
    assert (bounds[1:] == 0).all() == exact
    assert (bounds[1:] > 0).all() != exact


def test_membranes_that_may_overflow() -> None:
    huge = 2.0**125
    bounds = [grid_state(neuron(), [x], [0.0])[0] for x in (huge, 4 * huge)]
    assert np.isfinite(bounds).tolist() == [True, False]


def test_engines_compute_the_rate_in_several_ways() -> None:
    """dt/tau is a power of two in float64, but not where dt and tau are rounded to float32."""
    one = np.ones(1)
    for dt, tau in ((1e-4, 4e-4), (0.1, 0.2), (1.0, 8.0)):
        ways = {
            float(np.float32(dt) / np.float32(tau)),
            float(np.float32(dt) * np.float32(1 / tau)),
            float(np.float32(1) / np.float32(tau / dt)),
        }
        node = nir.LIF(tau * one, one, 0 * one, 9 * one, 0 * one)
        follower: Any = FOLLOWERS[nir.LIF](node, place((1,), dt=dt))
        assert (follower.law.grid[0] > 0).all() == (ways == {dt / tau}), (dt, tau, ways)


def test_currents_without_decay_keep_their_step() -> None:
    """tau_syn = dt: the current is w_in x, on a grid of its own, and its membrane may be exact."""
    one, x = np.ones(1), [3.0, 5.0]
    for w_in, tau, exact in ((0.5, 1e-3, True), (0.5, 2e-3, False), (3.0, 1e-3, False)):
        node = nir.CubaLIF(tau * one, 2e-3 * one, one, 0 * one, 99 * one, 0 * one, w_in * one)
        bounds = grid_state(node, x, [0.0, 0.0])
        assert (bounds == 0).all() == exact
    node = nir.CubaLIF(1e-3 * one, 2e-3 * one, one, 0 * one, 99 * one, 0 * one, 0.5 * one)
    assert grid_state(node, x, [0.0, 0.0], reach=2.0**21).tolist() == [0, 0]
    assert (grid_state(node, x, [0.0, 0.0], reach=2.0**27) > 0).all()
    assert (grid_state(node, [2.0**26 + 1, 0.0], [0.0, 0.0]) > 0).all()


@pytest.mark.parametrize("precision", PRECISIONS)
def test_decisions_on_the_input_itself(precision: Precision) -> None:
    """Threshold: the bound of the input, and of the threshold."""
    threshold = 0.3 + 2.0**-40
    x = torch.tensor([0.3, 0.3 + 1e-3, threshold], dtype=torch.float64)[:, None, None]
    x = x.expand(3, 2, 1)
    node = nir.Threshold(np.array([threshold]))
    follower = FOLLOWERS[nir.Threshold](node, place((1,), precision))
    error = torch.tensor([1e-4, 1e-4, 0.0])[:, None, None].expand(3, 2, 1)
    d = deviation(x, error)
    emitted = Emitted(x, x)
    given, decisions = follower.advance(x, d, emitted, 3, follower.start(1))
    assert decisions is not None
    wide = gamma(4, precision) * threshold + LEAST
    rounded = 0 if precision == "float64" else abs(float(np.float32(threshold)) - threshold)
    expected = np.array([1e-4 + wide, 1e-4 + wide, rounded]) * INFLATION[precision]
    close(decisions.bound[:, 0, 0], expected, rtol=3e-7)
    close(decisions.margin[:, 0, 0], (x[:, 0, 0] - threshold).numpy().astype(np.float32))
    assert decisions.certified[:, 0, 0].tolist() == [False, True, precision == "float64"]
    assert given.error is None
    close(given.terms, np.ones((3, 2)))
    assert decisions.margin.dtype == decisions.bound.dtype == torch.float32
    _, decisions = follower.advance(x, deviation(x), emitted, 3, None)
    assert decisions is not None
    close(decisions.bound[:, 0, 0], [rounded * INFLATION[precision]] * 3, rtol=3e-7)


def test_delays_move_errors() -> None:
    """Two neurons, late by one and by two steps; nothing arrives before."""
    x = torch.zeros(4, 1, 2, dtype=torch.float64)
    error = torch.arange(1, 9, dtype=torch.float32).reshape(4, 1, 2)
    node = nir.Delay(np.array([1e-3, 2e-3]))
    follower = FOLLOWERS[nir.Delay](node, place((2,)))
    d = Deviation(error, each(8, 2, 4, 1).double(), each(1, 5, 2, 3), each(2, 1, 4, 3), 10 * error)
    found, decisions = follower.advance(x, d, Emitted(x), 4, follower.start(1))
    assert decisions is None
    late = np.array([[0, 0], [1, 0], [3, 2], [5, 4]], float)
    assert found.error is not None
    assert found.error.dtype == torch.float32
    close(found.error[:, 0], late)
    close(found.open[:, 0], 10 * late)
    # What is under way is of the finest step so far, of the largest sums, of the most terms.
    close(found.step[:, 0], [8, 2, 2, 1])
    close(found.reach[:, 0], [1, 5, 5, 5])
    close(found.terms[:, 0], [2, 2, 4, 4])
    # In two pieces, as it is run where memory is short.
    state = follower.start(1)
    pieces = [
        follower.advance(x[s], d.part(s), Emitted(x[s]), len(x[s]), state)[0]
        for s in (slice(0, 3), slice(3, 4))
    ]
    for name in ("error", "open", "step", "reach", "terms"):
        whole = getattr(found, name)
        assert torch.equal(torch.cat([getattr(p, name) for p in pieces]), whole), name
    exact, _ = follower.advance(
        x, replace(d, error=None, open=None), Emitted(x), 4, follower.start(1)
    )
    assert exact.error is None
    assert exact.open is None


def meeting(*nodes: nir.NIRNode) -> Deployment:
    """The input through each of the nodes, all of which lead to one IF."""
    size = np.array([2])
    named: dict[str, nir.NIRNode] = {"input": nir.Input({"input": size})}
    named |= {f"n{i}": node for i, node in enumerate(nodes)}
    named["if"] = nir.IF(np.ones(2), np.full(2, 9.0), np.zeros(2))
    named["output"] = nir.Output({"output": size})
    edges = [("input", f"n{i}") for i in range(len(nodes))]
    edges += [(f"n{i}", "if") for i in range(len(nodes))] + [("if", "output")]
    graph = nir.NIRGraph(named, edges, metadata={}, type_check=False)
    return Deployment(graph, Timing(1e-3, 1), InputSpec((2,), "frames"))


def decided(v: float, error: float, terms: float) -> float:
    """The bound of an IF with a threshold of 9 on its first step."""
    state = State(None, 1.0, 0.0, "float32")
    state.move(v, error, terms)
    return state.decide(9.0, 0.0, False)


def test_edges_of_one_term_meet_all_others() -> None:
    """Two Scales: each value stands in the partial sums of both."""
    x = np.array([[[1.0, 2.0]]], np.float32)
    found = certify(meeting(nir.Scale(np.full(2, 0.3)), nir.Scale(np.full(2, 0.7))), x)
    for i, value in enumerate((1.0, 2.0)):
        error, both = LEAST, []
        for scale in (0.3, 0.7):
            own = gamma(4) * scale * value + LEAST * 1.3
            rounded = gamma(2 + 4)
            both.append(scale * value)
            error += rounded * scale * value + (1 + rounded) * own
        np.testing.assert_allclose(
            found.bounds["if"][0, 0, i], decided(sum(both), error, 2), rtol=1e-6
        )


def test_edges_of_several_terms_count_the_others_themselves() -> None:
    weight, scale = np.array([[0.3, -0.4], [0.5, 0.1]]), 0.7
    x = np.array([[[1.0, 2.0]]], np.float32)
    found = certify(meeting(nir.Linear(weight), nir.Scale(np.full(2, scale))), x)
    sums, y = np.abs(weight) @ x[0, 0], weight @ x[0, 0]
    # Beside the matrix is the one term of the Scale.
    one = sums_of_products(sums * upward(2), y, 3, 2, 1, 0.5, x)
    for i in range(2):
        value = scale * x[0, 0, i]
        two = gamma(4) * value + LEAST * 1.7
        # The matrix has counted the Scale, of the sums of both edges; the Scale meets all terms.
        first, second = gamma(2 + 4), gamma(3 + 1 + 4)
        error = LEAST + first * abs(y[i]) + (1 + first) * one[i]
        error += second * value + (1 + second) * two
        np.testing.assert_allclose(
            found.bounds["if"][0, 0, i], decided(y[i] + value, error, 4), rtol=1e-6
        )


def graph_of(edges: str, steps: int = 3, **nodes: nir.NIRNode) -> Deployment:
    """ "a b, b c" as edges from a to b and from b to c; other nodes are Linear, one to one."""
    pairs = [(a, b) for a, b in (edge.split() for edge in edges.split(", "))]
    one = np.array([1])
    known: dict[str, nir.NIRNode] = {name: nir.Linear(np.ones((1, 1))) for p in pairs for name in p}
    known |= {"input": nir.Input({"input": one}), "output": nir.Output({"output": one}), **nodes}
    graph = nir.NIRGraph(known, pairs, metadata={}, type_check=False)
    return Deployment(graph, Timing(1e-3, steps), InputSpec((1,), "frames"))


SCALE = nir.Scale(np.full(1, 0.3))


def neurons(threshold: float = 9.0) -> nir.IF:
    return nir.IF(np.ones(1), np.full(1, threshold), np.zeros(1))


def counted(deployment: Deployment) -> Sums:
    nodes, edges = deployment.graph.nodes, deployment.graph.edges
    incoming = {n: tuple(Incoming(a, previous=False) for a, b in edges if b == n) for n in nodes}
    return Sums(nodes, Plan(tuple(nodes), incoming, {}, {}, (), ()))


def test_how_many_terms_are_summed_in_one_go() -> None:
    """Worked by hand: a matrix has its fan-in and a bias; Scale and Flatten have what is before."""
    deployment = graph_of(
        "input five, input one, five s, one s, s f, f if, input two, two if, if output",
        five=nir.Linear(np.ones((1, 5))), two=nir.Linear(np.ones((1, 2))), s=SCALE,
        f=nir.Flatten({"input": np.array([1])}, 0, -1), **{"if": neurons()},
    )  # fmt: skip
    sums = counted(deployment)
    within = {"input": 1, "five": 6, "one": 2, "s": 8, "f": 8, "two": 3, "if": 1, "output": 1}
    assert {name: sums.within(name) for name in within} == within
    # Beside the five is the one, and the two behind Scale and Flatten, and so on.
    beside = {"input": 0, "five": 5, "one": 9, "s": 3, "f": 3, "two": 8, "if": 0, "output": 0}
    assert {name: sums.beside(name) for name in beside} == beside


def test_the_widest_place_counts() -> None:
    """A node that leads to several; pools sum their window."""
    size, none = np.array([2, 3]), np.array([0, 0])
    deployment = graph_of(
        "input pool, pool one, input five, five one, pool two, input seven, seven two, one output",
        pool=nir.SumPool2d(size, size, none), one=neurons(), two=neurons(),
        five=nir.Linear(np.ones((1, 5))), seven=nir.Linear(np.ones((1, 7))),
    )  # fmt: skip
    sums = counted(deployment)
    assert sums.within("pool") == 7
    assert sums.beside("pool") == 8
    assert sums.beside("five") == 7


def test_a_sum_that_goes_on_counts_what_it_meets_later() -> None:
    """Two Scales into a third, beside which comes a matrix: the terms of both are in its sums."""
    x = np.ones((3, 1, 1), np.float32)
    found = certify(
        graph_of(
            "input a, input b, a s, b s, s if, input m, m if, if output", a=SCALE, b=SCALE,
            s=nir.Scale(np.full(1, 0.7)), m=nir.Linear(np.full((1, 1), 0.9)), **{"if": neurons()},
        ),
        x,
    )  # fmt: skip
    one = gamma(4) * 0.3 + LEAST * 1.3
    # n = 2 terms meet in s, m = 2 of the matrix beside it.
    rounded = gamma(2 + 2 + 4)
    both = LEAST + 2 * (rounded * 0.3 + (1 + rounded) * one)
    scaled = 0.7 * both * (1 + gamma(4)) + gamma(4) * 0.42 + LEAST * 1.7
    matrix = sums_of_products(np.array(0.9) * upward(1), np.array(0.9), 2, 1, 2, 0.9, x)
    # s is of two terms itself.
    first = gamma(2 + 4)
    error = LEAST + first * 0.42 + (1 + first) * scaled + first * 0.9 + (1 + first) * matrix
    np.testing.assert_allclose(found.bounds["if"][0, 0, 0], decided(1.32, error, 4), rtol=1e-6)


def test_inputs_bring_their_own_rounding() -> None:
    """Numbers that float32 does not hold; in float64 they are as they are."""
    x = np.full((1, 1, 1), 0.1 + 2.0**-40)
    deployment = graph_of("input if, if output", 1, **{"if": neurons()})
    error = float(abs(x - np.float32(x)).item())
    found = certify(deployment, x).bounds["if"].item()
    np.testing.assert_allclose(found, decided(x.item(), error, 1), rtol=1e-6)
    assert certify(deployment, x, "float64").bounds["if"].item() < 1e-14
    assert certify(deployment, x.astype(np.float32)).bounds["if"].item() == 0
    # A subnormal error is one, too.
    tiny = np.full((1, 1, 1), 2.0**-126 * (1 + 2.0**-30))
    record = Propagation(deployment, "float32")
    entered = record._entering(torch.from_numpy(tiny))
    close(entered.error, [[[2.0**-126]]])


def test_inputs_stand_on_a_grid() -> None:
    deployment = graph_of("input if, if output", **{"if": neurons()})
    x = torch.tensor([[[0.5, -3.0]], [[0.0, 2.0**-9]], [[0.0, 0.0]]], dtype=torch.float64)
    entered = Propagation(deployment, "float32")._entering(x)
    assert entered.error is None
    assert entered.reach.dtype == entered.terms.dtype == torch.float32
    close(entered.step, [[0.5], [2.0**-9], [np.inf]])
    close(entered.reach, [[3.003], [2.0**-9 * 1.001], [0]])
    close(entered.terms, [[1], [1], [1]])


def test_edges_that_meet_on_a_grid() -> None:
    """The finest step, the sum of the magnitudes, and no error where both are exact."""
    two, quarter = nir.Scale(np.full(1, 2.0)), nir.Scale(np.full(1, 0.25))
    deployment = graph_of(
        "input two, input quarter, two if, quarter if, if output", steps=1, two=two,
        quarter=quarter, **{"if": neurons()},
    )  # fmt: skip
    # 2 x + x/4 = 9 x/4 takes four bits more than x.
    for value, exact in ((3.0, True), (2.0**20 + 1, True), (2.0**21 + 1, False)):
        found = certify(deployment, np.full((1, 1, 1), value, np.float32))
        assert (found.bounds["if"] == 0).all() == exact
    third = replace_nodes(deployment, quarter=nir.Scale(np.full(1, 0.3)))
    assert (certify(third, np.ones((1, 1, 1), np.float32)).bounds["if"] > 0).all()


def replace_nodes(deployment: Deployment, **nodes: nir.NIRNode) -> Deployment:
    graph = deployment.graph
    changed = nir.NIRGraph({**graph.nodes, **nodes}, graph.edges, metadata={}, type_check=False)
    return deployment.with_graph(changed)


def test_a_cycle_step_by_step() -> None:
    """An edge back brings the error of the step before; nothing arrives by it in the first."""
    x = np.array([0.9, 0.4, 0.7], np.float32)[:, None, None]
    found = certify(
        graph_of("input li, li back, back if, if li, li output", li=nir.I(np.full(1, 0.7)),
                 back=nir.Linear(np.full((1, 1), -0.3)), **{"if": neurons(-0.2)}),
        x,
    )  # fmt: skip
    state = State(None, 0.7, 0.0, "float32")
    later = State(None, 1.0, 0.0, "float32")
    bounds, spike, terms = [], 0.0, 1.0
    for value in x[:, 0, 0].tolist():
        arriving, error = value + spike, 0.0
        if terms == 2:
            # An input and a spike are one term each; both are exact, but not on a grid.
            rounded = gamma(2 + 4)
            error = LEAST + rounded * (abs(value) + spike)
        state.move(arriving, error, terms)
        given = state.error * INFLATION["float32"]
        product = -0.3 * state.value
        sums = abs(product) * upward(1)
        own = sums_of_products(
            np.array(sums), np.array(product), 2, 1, 0, 0.3, np.array(state.value)
        )
        later.move(product, float(own + (1 + gamma(12)) * 0.3 * upward(1) * given), 2)
        spike = float(later.value > -0.2)
        bounds.append(later.decide(-0.2, 0.0, False))
        terms = 2.0
    np.testing.assert_allclose(found.bounds["if"][:, 0, 0], bounds, rtol=1e-5)


def test_single_steps_are_joined() -> None:
    """Some without errors, and some whose errors differ where the sum goes on."""
    x, number = torch.ones(1, 1, 2), torch.ones(1, 1)
    error = torch.tensor([[[1.0, 2.0]]])
    plain = Deviation(None, number.double(), number * 2, number * 3)
    wrong = Deviation(error, number.double() * 4, number * 5, number * 6)
    going = Deviation(None, number.double() * 7, number * 8, number * 9, error * 3)
    found = joined([Given(4, plain, x), Given(5, wrong, 2 * x), Given(6, going, 3 * x)])
    assert found.first == 4
    close(found.deviation.error, [[[0, 0]], [[1, 2]], [[0, 0]]])
    close(found.deviation.open, [[[0, 0]], [[1, 2]], [[3, 6]]])
    close(found.deviation.step, [[1], [4], [7]])
    close(found.deviation.reach, [[2], [5], [8]])
    close(found.deviation.terms, [[3], [6], [9]])
    close(found.magnitudes, [[[1, 1]], [[2, 2]], [[3, 3]]])
    found = joined([Given(4, plain, None), Given(5, plain, None)])
    assert (found.deviation.error, found.deviation.open, found.magnitudes) == (None, None, None)
    found = joined([Given(4, plain, None), Given(5, wrong, None)])
    assert found.deviation.open is None
    part = Given(4, found.deviation, torch.arange(4.0).reshape(2, 1, 2)).part(slice(1, 2))
    assert part.first == 5
    close(part.deviation.error, [[[1, 2]]])
    close(part.magnitudes, [[[2, 3]]])
    # One for all steps.
    still = Given(4, plain, x).part(slice(1, 2))
    close(still.magnitudes, [[[1, 1]]])
    close(still.deviation.reach, [[2]])


def test_certificates_have_the_shapes_of_the_layers() -> None:
    """Images too, whose memory has the channels last."""
    node = nir.IF(*(np.full((3, 4, 5), v) for v in (1.0, 0.5, 0.0)))
    deployment = chain(node, inputs=(3, 4, 5), outputs=(3, 4, 5), dt=1e-3, steps=2)
    x = np.random.default_rng(0).uniform(0, 1, (2, 6, 3, 4, 5)).astype(np.float32)
    found = certify(deployment, x)
    flat = certify(graph_of("input if, if output", **{"if": neurons()}), np.ones((3, 1, 1)))
    assert [flat.certified["if"].dtype, flat.margins["if"].dtype] == [np.bool_, np.float32]
    assert flat.bounds["if"].dtype == np.float32
    for values, dtype in ((found.certified, bool), (found.margins, "f4"), (found.bounds, "f4")):
        assert values["n0"].shape == x.shape
        assert values["n0"].dtype == dtype
        assert values["n0"].transpose(0, 1, 3, 4, 2).flags.c_contiguous
    np.testing.assert_allclose(found.margins["n0"][0], x[0] - 0.5, atol=1e-7)
    spiked = x[0] > 0.5
    np.testing.assert_array_equal(found.spikes["n0"][0], spiked)
    second = np.where(spiked, 0, x[0].astype(float)) + x[1]
    np.testing.assert_allclose(found.margins["n0"][1], second - 0.5, atol=1e-6)
    assert found.decisions == x.size
    uncertified = int((~found.certified["n0"]).sum())
    assert found.uncertified == uncertified
    assert found.share == 1 - uncertified / x.size
    assert found.precision == "float32"


def test_shares() -> None:
    """Worked by hand; a tie counts as no spike."""
    certified = {"n": np.array([True, False, True, True])}
    margins = {"n": np.array([0.0, 1.0, -1.0, 2.0])}
    found = Certificate("float32", certified, margins, {})
    assert (found.decisions, found.uncertified, found.share) == (4, 1, 0.75)
    assert found.spikes["n"].tolist() == [False, True, False, True]
    assert Certificate("float32", {}, {}, {}).share == 1.0


def test_integers_that_are_exact() -> None:
    """Up to 2^24 (2^53) steps, down to the smallest normal number."""
    for precision, bits, smallest in (("float32", 24, 2.0**-126), ("float64", 53, 2.0**-1022)):
        arithmetic = ARITHMETIC[precision]
        steps = [smallest, smallest / 2, 1.0, 0.0]
        expected = [smallest * 2.0**bits, -1.0, 2.0**bits, -1.0]
        assert [arithmetic.exactly(step) for step in steps] == expected
        assert arithmetic.exactly(torch.tensor(steps, dtype=torch.float64)).tolist() == expected
        # Beyond 1/u roundings there is no bound.
        for roundings in (2.0**bits, 1.5 * 2.0**bits, 3 * 2.0**bits):
            assert arithmetic.gamma(roundings) == np.inf
            assert arithmetic.gamma(torch.tensor([roundings], dtype=torch.float64)) == np.inf
    assert ARITHMETIC["float32"].rounded([1e39, 1 + 2.0**-30]).tolist() == [np.inf, 1.0]


def test_nodes_without_a_rule_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(RULES, nir.Scale)
    with pytest.raises(GraphError, match=r"^node 's': Scale cannot be certified"):
        certify(graph_of("input s, s output", s=SCALE), np.zeros((3, 1, 1)))


def test_the_finest_step_of_a_row() -> None:
    random = np.random.default_rng(0)
    rows = random.normal(size=(200, 7)) * 2.0 ** random.integers(-1060, 1000, (200, 1))
    rows[::3] = random.normal(size=rows[::3].shape).astype(np.float32)
    rows[::4] = np.round(random.normal(0, 1e3, rows[::4].shape))
    rows[::5, :3] = 0
    rows[7], rows[8], rows[9] = 0, 5e-324, 2.0**-1022
    found = np.empty(len(rows))
    finest(rows.size, rows.view(np.int64), found)
    np.testing.assert_array_equal(found, dyadic_each(rows).min(axis=1))


def test_certifiers_say_their_precision() -> None:
    deployment = graph_of("input if, if output", **{"if": neurons()})
    x = np.full((3, 1, 1), 0.1)
    assert Certifier(deployment)(x).precision == "float32"
    assert Certifier(deployment, "float64")(x).precision == "float64"
    assert (Certifier(deployment)(x).bounds["if"] == certify(deployment, x).bounds["if"]).all()


@pytest.mark.parametrize("negative", [False, True])
def test_edges_with_errors_and_without(negative: bool) -> None:
    """Two Input nodes: the sum is exact only if both are, on the finer of both grids."""
    sign = -1 if negative else 1
    for first in ("a", "b"):
        nodes: dict[str, nir.NIRNode] = {
            "a": nir.Input({"input": np.array([1])}),
            "b": nir.Input({"input": np.array([1])}),
            "quarter": nir.Scale(np.full(1, 0.25 * sign)),
            "if": neurons(),
            "output": nir.Output({"output": np.array([1])}),
        }
        edges = [("a", "if"), ("quarter", "if")][:: 1 if first == "a" else -1]
        edges += [("b", "quarter"), ("if", "output")]
        graph = nir.NIRGraph(nodes, edges, metadata={}, type_check=False)
        deployment = Deployment(graph, Timing(1e-3, 1), InputSpec((2,), "frames"))

        def exact(a: float, b: float, deployment: Deployment = deployment) -> bool:
            bounds = certify(deployment, np.array([[[a, b]]])).bounds["if"]
            return bool((bounds == 0).all())

        assert exact(3.0, 5.0)
        assert not exact(3.0 + 2.0**-30, 5.0)
        assert not exact(3.0, 5.0 + 2.0**-30)
        # Steps of a quarter up to 2^22, by the magnitudes of both together.
        assert exact(2.0**21 - 2.0**15, 2.0**22 + 1)
        assert not exact(2.0**22 - 2.0**15, 2.0**22 + 1)


@pytest.mark.parametrize("memory", [1, 100, 300])
def test_pieces_of_any_length(memory: int) -> None:
    """Around a cycle, behind it and beside it, however few steps and samples fit."""
    deployment = graph_of(
        "input li, li back, back if, if li, li m, m if2, if2 output, input d, d s, s if2", 5,
        li=nir.LI(np.full(1, 3e-3), np.full(1, 0.7), np.zeros(1)),
        back=nir.Linear(np.full((1, 1), -0.3)), d=nir.Delay(np.full(1, 2e-3)), s=SCALE,
        if2=neurons(0.2), **{"if": neurons(-0.02)},
    )  # fmt: skip
    x = np.random.default_rng(0).uniform(0, 1, (5, 7, 1)).astype(np.float32)
    whole, pieces = (certify(deployment, x, memory=m) for m in (2**20, memory))
    assert whole.spikes["if"].any()
    assert whole.spikes["if2"].any()
    for name in ("if", "if2"):
        np.testing.assert_allclose(pieces.bounds[name], whole.bounds[name], rtol=1e-6)
        np.testing.assert_array_equal(pieces.certified[name], whole.certified[name])


def test_rates_of_extreme_time_constants() -> None:
    """No warning where 1/tau, or tau in float32, has no number."""
    found = _alike(np.array([2e-3, 1e-46, 1e-310, 1e300]), 1e-3, ARITHMETIC["float32"])
    assert found[1:].tolist() == [False, False, False]


def test_parameters_that_are_stored_in_float32() -> None:
    """dt/tau and all else are those of the same numbers in float64, to the last bit."""
    random = np.random.default_rng(3)

    def each(low: float, high: float) -> Array:
        return random.uniform(low, high, 4).astype(np.float32)

    tau, r, leak, limit = each(1e-3, 9e-3), each(0.5, 3), each(-0.1, 0.1), each(0.3, 0.6)
    linear = nir.Affine(random.normal(size=(4, 4)).astype(np.float32), each(-1, 1))
    after, gain = each(-0.1, 0.1), each(0.5, 2)
    nodes: list[list[nir.NIRNode]] = [
        [linear, nir.LIF(tau, r, leak, limit, after)],
        [linear, nir.LI(tau, r, leak), nir.Threshold(limit)],
        [linear, nir.CubaLIF(each(1e-3, 9e-3), tau, r, leak, limit, after, gain)],
        [linear, nir.CubaLI(each(1e-3, 9e-3), tau, r, leak, gain), nir.Threshold(limit)],
        [nir.Scale(gain), nir.IF(r, limit, after)],
        [nir.Scale(gain), nir.I(r), nir.Threshold(limit)],
    ]
    x = random.uniform(0, 1, (6, 5, 4)).astype(np.float32)
    for network in nodes:
        wide = [copy.copy(node) for node in network]
        for node in wide:
            for field, value in vars(node).items():
                if isinstance(value, np.ndarray):
                    setattr(node, field, value.astype(np.float64))
        found, expected = (
            certify(chain(*n, inputs=(4,), outputs=(4,), dt=1e-3, steps=6), x)
            for n in (network, wide)
        )
        for name, bounds in expected.bounds.items():
            np.testing.assert_array_equal(found.bounds[name], bounds)
            np.testing.assert_array_equal(found.margins[name], expected.margins[name])
