from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from msg_deploy.grid import LARGEST_MULTIPLE, multiples, step

integers = st.lists(st.integers(-LARGEST_MULTIPLE, LARGEST_MULTIPLE), min_size=1, max_size=40)


@given(counts=integers.filter(any), exponent=st.integers(-60, 60))
def test_powers_of_two_are_found_exactly(counts: list[int], exponent: int) -> None:
    size = 2.0**exponent
    found = step(np.array(counts) * size)
    assert found == size * np.gcd.reduce(counts)


@given(
    counts=st.lists(st.integers(-127, 127), min_size=1, max_size=40).filter(any),
    size=st.floats(1e-6, 1e6),
)
def test_rounding_to_float32_is_tolerated(counts: list[int], size: float) -> None:
    values = (np.array(counts) * size).astype(np.float32)
    found = step(values, largest=127)
    assert found == pytest.approx(size * np.gcd.reduce(counts), rel=1e-6)
    assert np.array_equal(multiples(values, size), counts)


def test_a_value_between_two_steps() -> None:
    assert step([3.0, 4.5]) == 1.5
    assert step([[2.0, -6.0], [0.0, 4.0]]) == 2.0
    assert step([1.0, 1 / 3]) == pytest.approx(1 / 3)
    assert step([7.5]) == 7.5


def test_multiples_beyond_the_largest_are_no_grid() -> None:
    assert step([127.0, 1.0], largest=127) == 1.0
    assert step([128.0, 1.0], largest=127) is None


def test_no_grid() -> None:
    assert step(np.random.default_rng(0).normal(size=100)) is None
    assert step([]) is None
    assert step([0.0, 0.0]) is None
    assert step([1.0, np.inf]) is None
    assert step([1.0, np.nan]) is None
