from __future__ import annotations

import pytest
import torch

from msg_deploy.errors import UsageError
from msg_deploy.readout import TWO


def test_starts_as_the_mean() -> None:
    current = torch.randn(4 * 3, 5)
    torch.testing.assert_close(TWO(4)(current), current.reshape(4, 3, 5).mean(0))


def test_weighs_the_timesteps() -> None:
    readout = TWO(2)
    readout.weights.copy_(torch.tensor([0.25, 2.0]))
    current = torch.tensor([[4.0, 8.0], [1.0, 3.0]])  # one sample, two steps
    assert readout(current).tolist() == [[0.25 * 4 + 2, 0.25 * 8 + 6]]


def test_update_by_hand() -> None:
    # Two steps, three samples of class 0, 1, 1. Step 0 decides 0, 0, 1 (2 of 3 right), step 1
    # decides 1, 1, 1 (2 of 3)... then one more sample, class 0: step 0 right, step 1 wrong.
    readout = TWO(2, beta=0.5)
    first = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0]])
    readout.observe(first, torch.tensor([0, 1, 1]))
    readout.observe(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([0]))
    readout.update()
    # f <- 0.5 * 1/2 + 0.5 * accuracy / 2 with accuracies 3/4 and 2/4.
    assert readout.weights.tolist() == pytest.approx([0.25 + 3 / 16, 0.25 + 2 / 16])
    readout.update()  # without new observations nothing moves
    assert readout.weights.tolist() == pytest.approx([0.4375, 0.375])


def test_no_gradient_reaches_the_weights() -> None:
    readout = TWO(2)
    current = torch.randn(2, 3, requires_grad=True)
    readout(current).sum().backward()
    assert readout.weights.grad is None
    assert not list(readout.parameters())


@pytest.mark.parametrize(("steps", "beta"), [(0, 0.5), (2, -0.1), (2, 1.5)])
def test_arguments_are_checked(steps: int, beta: float) -> None:
    with pytest.raises(UsageError):
        TWO(steps, beta)
