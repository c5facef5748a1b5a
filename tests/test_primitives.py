"""Each law against its equation, worked by hand or by torch."""

from __future__ import annotations

from typing import Any

import nir
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from msg_deploy.deployment import Timing
from msg_deploy.errors import GraphError
from msg_deploy.primitives import primitive_of
from tests.helpers import lif


def run(node: nir.NIRNode, inputs: np.ndarray, **timing: Any) -> tuple[np.ndarray, list[Any]]:
    """Outputs (T, B, ...) and membranes of one node."""
    clock = Timing(**({"steps": len(inputs)} | timing))
    shape = inputs.shape[2:]
    primitive = primitive_of(node)
    law = primitive.law(node, clock, shape, np.float64)
    state, outputs, membranes = law.initial(inputs.shape[1]), [], []
    for x in inputs:
        output, state, membrane = law.step(x, state)
        assert output.shape[1:] == primitive.output_shape(node, shape)
        outputs.append(output)
        membranes.append(membrane)
    return np.stack(outputs), membranes


def series(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float64).reshape(-1, 1, 1)


def test_lif_table() -> None:
    # dt/tau = 1/4, v_leak 0.2, r 2: v += ((0.2 - v) + 2 x) / 4, V(0) = 0.2, threshold 0.5
    # x 0.5: v .2+.25=.45   x 0.6: .45+(-.25+1.2)/4=.6875 spike -> .1   x 0: .1+.1/4=.125
    node = lif(tau=4e-3, v_leak=0.2, r=2.0, v_reset=0.1)
    outputs, membranes = run(node, series(0.5, 0.6, 0.0))
    assert outputs.ravel().tolist() == [0, 1, 0]
    assert np.ravel(membranes) == pytest.approx([0.45, 0.6875, 0.125])


def test_lif_subtracts() -> None:
    # tau = dt: v = x; 0.8 spikes and leaves 0.3, which the leak then removes at once.
    outputs, membranes = run(lif(tau=1e-3), series(0.8, 0.1), reset="subtract")
    assert outputs.ravel().tolist() == [1, 0]
    assert np.ravel(membranes) == pytest.approx([0.8, 0.1])


def test_spike_is_strict() -> None:
    outputs, _ = run(lif(tau=1e-3), series(0.5, np.nextafter(0.5, 1)))
    assert outputs.ravel().tolist() == [0, 1]


def test_if_table() -> None:
    # r 0.5, per step whatever dt is: v .4, .8 spike -> -.1, .1
    node = nir.IF(r=np.array([0.5]), v_threshold=np.array([0.7]), v_reset=np.array([-0.1]))
    outputs, membranes = run(node, series(0.8, 0.8, 0.4), dt=1e-5)
    assert outputs.ravel().tolist() == [0, 1, 0]
    assert np.ravel(membranes) == pytest.approx([0.4, 0.8, 0.1])


def test_li_table() -> None:
    # dt/tau = 1/2, v_leak 1, r 3: 1 -> 1 + (0 + 3)/2 = 2.5 -> 2.5 + (-1.5 + 0)/2 = 1.75
    node = nir.LI(tau=np.array([2e-3]), r=np.array([3.0]), v_leak=np.array([1.0]))
    outputs, _ = run(node, series(1.0, 0.0))
    assert outputs.ravel() == pytest.approx([2.5, 1.75])


def cuba(**values: float) -> nir.CubaLIF:
    return nir.CubaLIF(**{name: np.array([value]) for name, value in values.items()})


def test_cuba_lif_table() -> None:
    # dt/tau_syn = 1/2, w_in 4: i = 2, 1, 0.5.  dt/tau_mem = 1/4, v_leak 0.2, r 0.5, V(0) = 0.2:
    # v .2+(0+1)/4=.45   .45+(-.25+.5)/4=.5125 spike -> .1   .1+(.1+.25)/4=.1875
    node = cuba(
        tau_syn=2e-3, tau_mem=4e-3, r=0.5, v_leak=0.2, v_threshold=0.5, v_reset=0.1, w_in=4.0
    )
    outputs, membranes = run(node, series(1.0, 0.0, 0.0))
    assert outputs.ravel().tolist() == [0, 1, 0]
    assert np.ravel(membranes) == pytest.approx([0.45, 0.5125, 0.1875])


def test_cuba_lif_subtracts_and_keeps_its_current() -> None:
    # both dt/tau = 1: i = x, v = i; the current is not reset
    node = cuba(
        tau_syn=1e-3, tau_mem=1e-3, r=1.0, v_leak=0.0, v_threshold=0.5, v_reset=0.0, w_in=1.0
    )
    outputs, membranes = run(node, series(0.8, 0.1), reset="subtract")
    assert outputs.ravel().tolist() == [1, 0]
    assert np.ravel(membranes) == pytest.approx([0.8, 0.1])


def test_cuba_li_is_cuba_lif_without_a_threshold() -> None:
    values = {"tau_syn": 2e-3, "tau_mem": 4e-3, "r": 0.5, "v_leak": 0.2, "w_in": 4.0}
    node = nir.CubaLI(**{name: np.array([value]) for name, value in values.items()})
    outputs, _ = run(node, series(1.0, 0.0, 0.0))
    # as in the table above, but from .5125: .5125+(-.3125+.25)/4=.496875
    assert outputs.ravel() == pytest.approx([0.45, 0.5125, 0.496875])


def test_integrator_table() -> None:
    outputs, _ = run(nir.I(np.array([0.5])), series(1.0, 2.0, -4.0), dt=1e-5)
    assert outputs.ravel() == pytest.approx([0.5, 1.5, -0.5])


def test_threshold_is_strict_and_has_no_memory() -> None:
    outputs, membranes = run(nir.Threshold(np.array([0.5])), series(0.5, 0.6, 0.5, 9.0))
    assert outputs.ravel().tolist() == [0, 1, 0, 1]
    assert np.ravel(membranes).tolist() == [0.5, 0.6, 0.5, 9.0]


def test_delay_per_element() -> None:
    node = nir.Delay(np.array([0.0, 1e-3, 2.4e-3, 9.0]))  # 0, 1, 2 and beyond the end
    inputs = np.arange(1, 5, dtype=float).repeat(4).reshape(4, 1, 4)
    outputs, _ = run(node, inputs)
    assert outputs[:, 0].T.tolist() == [[1, 2, 3, 4], [0, 1, 2, 3], [0, 0, 1, 2], [0, 0, 0, 0]]


def test_affine_linear_scale() -> None:
    weight, bias = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]), np.array([1.0, 0.0, -1.0])
    x = np.array([[[1.0, -1.0]]])
    assert run(nir.Linear(weight), x)[0].tolist() == [[[-1, -1, -1]]]
    assert run(nir.Affine(weight, bias), x)[0].tolist() == [[[0, -1, -2]]]
    assert run(nir.Scale(np.array([2.0, 3.0])), x)[0].tolist() == [[[2, -3]]]


@pytest.mark.filterwarnings("ignore:Using padding=.same.")
@given(
    groups=st.sampled_from([1, 2]),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 2)),
    padding=st.one_of(
        st.tuples(st.integers(0, 2), st.integers(0, 2)), st.sampled_from(["same", "valid"])
    ),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    seed=st.integers(0, 99),
)
def test_conv2d_is_torchs(
    groups: int, kernel: Any, stride: Any, padding: Any, dilation: Any, seed: int
) -> None:
    random = np.random.default_rng(seed)
    if padding == "same":
        stride = (1, 1)
    weight, bias = random.normal(size=(4, 4 // groups, *kernel)), random.normal(size=4)
    x = random.normal(size=(1, 2, 4, 7, 6))
    field = padding if isinstance(padding, str) else np.array(padding)
    node = nir.Conv2d(None, weight, np.array(stride), field, np.array(dilation), groups, bias)
    expected = functional.conv2d(
        torch.from_numpy(x[0]),
        torch.from_numpy(weight),
        torch.from_numpy(bias),
        stride,
        padding,
        dilation,
        groups,
    )
    np.testing.assert_allclose(run(node, x)[0][0], expected.numpy(), atol=1e-12)


@pytest.mark.filterwarnings("ignore:Using padding=.same.")
@given(
    groups=st.sampled_from([1, 2]),
    kernel=st.integers(1, 4),
    stride=st.integers(1, 3),
    padding=st.one_of(st.integers(0, 2), st.sampled_from(["same", "valid"])),
    dilation=st.integers(1, 2),
)
def test_conv1d_is_torchs(
    groups: int, kernel: int, stride: int, padding: Any, dilation: int
) -> None:
    random = np.random.default_rng(kernel)
    stride = 1 if padding == "same" else stride
    weight, bias = random.normal(size=(4, 4 // groups, kernel)), random.normal(size=4)
    x = random.normal(size=(1, 2, 4, 9))
    node = nir.Conv1d(None, weight, stride, padding, dilation, groups, bias)
    expected = functional.conv1d(
        *map(torch.from_numpy, (x[0], weight, bias)), stride, padding, dilation, groups
    )
    np.testing.assert_allclose(run(node, x)[0][0], expected.numpy(), atol=1e-12)


@given(kernel=st.integers(1, 3), stride=st.integers(1, 3), height=st.integers(3, 7))
def test_pooling_is_torchs(kernel: int, stride: int, height: int) -> None:
    x = np.random.default_rng(0).normal(size=(1, 2, 3, height, 5))
    padding = kernel // 2
    fields = (np.array([kernel, kernel]), np.array([stride, stride]), np.array([padding, padding]))
    tensor = torch.from_numpy(x[0])
    average = functional.avg_pool2d(tensor, kernel, stride, padding).numpy()
    np.testing.assert_allclose(run(nir.AvgPool2d(*fields), x)[0][0], average, atol=1e-14)
    np.testing.assert_allclose(
        run(nir.SumPool2d(*fields), x)[0][0], average * kernel**2, atol=1e-13
    )


@pytest.mark.parametrize(
    ("start", "end", "shape"), [(0, -1, (24,)), (-3, -1, (24,)), (1, 2, (2, 12)), (0, 1, (6, 4))]
)
def test_flatten(start: int, end: int, shape: tuple[int, ...]) -> None:
    x = np.arange(48, dtype=float).reshape(1, 2, 2, 3, 4)
    node = nir.Flatten({"input": np.array([2, 3, 4])}, start, end)
    assert run(node, x)[0].tolist() == x.reshape(1, 2, *shape).tolist()


@pytest.mark.parametrize(
    ("node", "shape", "problem"),
    [
        (nir.Linear(np.ones((2, 3))), (4,), "takes 3 inputs"),
        (nir.Linear(np.ones((1, 2, 3))), (3,), "must be a matrix"),
        (nir.Affine(np.ones((2, 3)), np.ones(3)), (3,), "bias has shape"),
        (nir.Scale(np.ones(2)), (3,), "scale has shape"),
        (nir.Delay(-np.ones(2)), (2,), "must not be negative"),
        (lif((2,)), (3,), "tau has shape"),
        (lif(tau=0.0), (1,), "tau must be above 0"),
        (nir.LI(-np.ones(1), np.ones(1), np.ones(1)), (1,), "tau must be above 0"),
        (nir.I(np.ones(2)), (1,), "r has shape"),
        (nir.Threshold(np.ones(2)), (1,), "threshold has shape"),
        (
            cuba(tau_syn=0.0, tau_mem=1.0, r=1.0, v_leak=0.0, v_threshold=1.0),
            (1,),
            "tau_syn must be above 0",
        ),
        (nir.IF(np.ones(2), np.ones(2), np.ones(2)), (1,), "r has shape"),
        (nir.Flatten({"input": np.array([2, 3])}, 1, 5), (2, 3), "do not name a range"),
        (nir.SumPool2d(np.array([2, 2]), np.array([2, 2]), np.array([0, 0])), (4,), "channels"),
        (nir.SumPool2d(np.array([2, 2]), np.array([0, 2]), np.array([0, 0])), (1, 4, 4), "stride"),
        (nir.SumPool2d(np.array([9, 9]), np.array([1, 1]), np.array([0, 0])), (1, 4, 4), "spans 9"),
        (nir.Conv2d(None, np.ones((2, 1, 3, 3)), 1, 0, 1, 1, np.zeros(2)), (3, 5, 5), "channels"),
        (nir.Conv2d(None, np.ones((2, 1, 3)), 1, 0, 1, 1, np.zeros(2)), (1, 5, 5), "4 dimensions"),
        (nir.Conv2d(None, np.ones((2, 1, 3, 3)), 1, 0, 1, 1, np.zeros(3)), (1, 5, 5), "bias"),
        (nir.Conv2d(None, np.ones((2, 1, 3, 3)), 2, "same", 1, 1, np.zeros(2)), (1, 5, 5), "same"),
        (nir.Conv2d(None, np.ones((3, 1, 3, 3)), 1, 0, 1, 2, np.zeros(3)), (2, 5, 5), "groups=2"),
    ],
)
def test_misfits_are_refused(node: nir.NIRNode, shape: tuple[int, ...], problem: str) -> None:
    with pytest.raises(GraphError, match=problem):
        primitive_of(node).output_shape(node, shape)


def test_unknown_primitive() -> None:
    with pytest.raises(GraphError, match="NIRGraph is not supported; supported are"):
        primitive_of(nir.NIRGraph({}, [], type_check=False))
