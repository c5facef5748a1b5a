"""Time of one training step of the same network in our torch core, spikingjelly and Norse.

784-512-512-10 with LIF neurons (tau = 2, V_th = 0.5, reset to zero), T timesteps, forward, backward
and AdamW. All start from the same weights. Each round times every framework once, in turn, so that
a busy machine disturbs all alike; printed are the medians over the rounds and their ratio to ours.

Run: python benchmarks/training_step.py --rounds 15 --batch 64 --steps 8
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable

import norse.torch as norse
import torch
from torch import Tensor, nn

import msg_deploy

SIZES = (784, 512, 512, 10)
Forward = Callable[[Tensor], Tensor]
"""Inputs (T, B, 784) to scores (B, 10)."""


def linears() -> list[nn.Linear]:
    """The layers with weights, the same in every framework."""
    torch.manual_seed(0)
    return [nn.Linear(a, b) for a, b in itertools.pairwise(SIZES)]


def ours(steps: int) -> tuple[nn.Module, Forward]:
    """Our multi-step LIF on merged time and batch."""
    first, second, last = linears()
    body = nn.Sequential(first, msg_deploy.LIF(steps), second, msg_deploy.LIF(steps), last)
    return body, lambda x: body(x.flatten(0, 1)).unflatten(0, (steps, -1)).mean(0)


def spikingjelly(steps: int) -> tuple[nn.Module, Forward]:
    """The multi-step LIFNode of spikingjelly, torch backend."""
    from spikingjelly.activation_based import functional, neuron, surrogate

    def lif() -> nn.Module:
        node: nn.Module = neuron.LIFNode(
            tau=2.0,
            v_threshold=0.5,
            v_reset=0.0,
            surrogate_function=surrogate.ATan(),
            detach_reset=True,
            step_mode="m",
        )
        return node

    first, second, last = linears()
    body = nn.Sequential(first, lif(), second, lif(), last)

    def forward(x: Tensor) -> Tensor:
        functional.reset_net(body)
        result: Tensor = body(x)
        return result.mean(0)

    return body, forward


def norse_cells(steps: int) -> tuple[nn.Module, Forward]:
    """Norse's LIFBoxCell, step by step; dt tau_mem_inv = 1/2."""
    first, second, last = linears()
    parameters = norse.LIFBoxParameters(
        tau_mem_inv=torch.tensor(500.0), v_th=torch.tensor(0.5), v_reset=torch.tensor(0.0)
    )
    cells = [norse.LIFBoxCell(parameters, dt=1e-3) for _ in range(2)]
    body = norse.SequentialState(first, cells[0], second, cells[1], last)

    def forward(x: Tensor) -> Tensor:
        state, outputs = None, []
        for step in x:
            output, state = body(step, state)
            outputs.append(output)
        return torch.stack(outputs).mean(0)

    return body, forward


FRAMEWORKS = {"msg-deploy": ours, "spikingjelly": spikingjelly, "norse": norse_cells}


def training_step(body: nn.Module, forward: Forward) -> Callable[[Tensor, Tensor], None]:
    """Forward, backward, update."""
    optimizer = torch.optim.AdamW(body.parameters(), lr=1e-3)

    def step(inputs: Tensor, labels: Tensor) -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(forward(inputs), labels).backward()
        optimizer.step()

    return step


def main() -> None:
    """Print one line per framework."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=8)
    arguments = parser.parse_args()
    steps = {}
    for name, make in FRAMEWORKS.items():
        try:
            steps[name] = training_step(*make(arguments.steps))
        except ImportError:
            print(f"{name}: not installed, left out")
    torch.manual_seed(1)
    inputs = torch.rand(arguments.steps, arguments.batch, SIZES[0])
    labels = torch.randint(SIZES[-1], (arguments.batch,))
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(arguments.rounds + 2):
        for name, step in steps.items():
            start = time.perf_counter()
            step(inputs, labels)
            times[name].append(time.perf_counter() - start)
    print(f"T = {arguments.steps}, batch {arguments.batch}, {torch.get_num_threads()} threads,")
    print(f"median of {arguments.rounds} rounds after 2 to warm up")
    # The first two rounds warm up.
    medians = {name: statistics.median(t[2:]) for name, t in times.items()}
    for name, median in medians.items():
        print(f"{name:14} {median * 1e3:8.2f} ms  {median / medians['msg-deploy']:5.2f} x ours")


if __name__ == "__main__":
    main()
