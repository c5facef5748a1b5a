"""What the certificate costs and how much it certifies, per network.

Each round times unchecked runs of the fast simulator in float64 and float32, and a certified one,
in turn, so that a busy machine disturbs all of them alike; the ratios are those of the medians.

Run: python benchmarks/certificate.py --rounds 7
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import torch
from torch import nn

from msg_deploy import InputSpec, trace
from msg_deploy.deployment import Deployment
from msg_deploy.sim.certificate import Certificate, Certifier
from msg_deploy.sim.fast import Fast
from msg_deploy.zoo import build

NETWORKS: Mapping[str, tuple[tuple[int, ...], int]] = {
    "mlp": ((1, 28, 28), 128),
    "convnet": ((1, 28, 28), 32),
    "vggsnn": ((2, 48, 48), 2),
}
"""Shape of the input and size of the batch."""


def network(name: str, shape: tuple[int, ...], steps: int) -> Deployment:
    """An untrained network whose statistics of BatchNorm are those of random samples."""
    torch.manual_seed(0)
    built = build(name, InputSpec(shape), 10, steps)
    for module in built.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        built.train()(torch.rand(steps, 4, *shape))
    return trace(built.eval())


def measured(runs: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each run, after one round that is not counted."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(found[1:]) for name, found in times.items()}


def told(name: str, found: Certificate, seconds: Mapping[str, float]) -> str:
    """A row of the table."""
    ratios = [seconds["certified"] / seconds[p] for p in ("float64", "float32")]
    return (
        f"| {name} | {found.decisions} | {found.uncertified} | {found.share:.5%} "
        f"| {ratios[0]:.2f} | {ratios[1]:.2f} |"
    )


def main() -> None:
    """Print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--models", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(f"T = {arguments.steps}, {arguments.threads} threads, {arguments.rounds} rounds, seed 0")
    print("| network | decisions | uncertified | certified | of float64 | of float32 |")
    print("|---|---|---|---|---|---|")
    for name in arguments.models:
        shape, batch = NETWORKS[name]
        deployment = network(name, shape, arguments.steps)
        samples = np.random.default_rng(0).uniform(0, 1, (1, batch, *shape)).astype(np.float32)
        inputs = np.broadcast_to(samples, (arguments.steps, *samples.shape[1:]))
        certifier = Certifier(deployment)
        runs = {
            "float64": partial(Fast().run, deployment, inputs, "float64"),
            "float32": partial(Fast().run, deployment, inputs, "float32"),
            "certified": partial(certifier, inputs),
        }
        print(told(name, certifier(inputs), measured(runs, arguments.rounds)), flush=True)


if __name__ == "__main__":
    main()
