"""How long each simulator takes for the same network on the same inputs, as ratios in one run.

Each round times every simulator once, in turn, so that a busy machine disturbs all of them alike;
the medians over the rounds are printed, and their ratio to the first.

Run: python benchmarks/simulators.py --rounds 7 --batch 64 --model convnet
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
import torch

from msg_deploy import InputSpec, trace
from msg_deploy.sim.simulator import simulators
from msg_deploy.sim.torch_core import TorchCore
from msg_deploy.zoo import build


def main() -> None:
    """Print one line per simulator and precision."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--model", default="convnet")
    parser.add_argument("--steps", type=int, default=8)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    spec = InputSpec((1, 8, 8))
    network = build(arguments.model, spec, 10, arguments.steps).eval()
    deployment = trace(network)
    shape = (arguments.steps, arguments.batch, *spec.shape)
    inputs = np.random.default_rng(0).uniform(0, 1, shape).astype(np.float32)
    engines = {"torch": TorchCore(network)} | {n: make() for n, make in simulators().items()}
    print(f"{arguments.model}, T = {arguments.steps}, batch {arguments.batch}, seed 0,", end=" ")
    print(f"{torch.get_num_threads()} threads, median of {arguments.rounds} rounds")
    for precision in ("float32", "float64"):
        times: dict[str, list[float]] = {name: [] for name in engines}
        for _ in range(arguments.rounds + 1):
            for name, engine in engines.items():
                start = time.perf_counter()
                engine.run(deployment, inputs, precision)
                times[name].append(time.perf_counter() - start)
        # The first round warms up.
        medians = {name: statistics.median(t[1:]) for name, t in times.items()}
        for name, median in medians.items():
            ratio = median / medians["torch"]
            print(f"{precision} {name:10} {median * 1e3:9.2f} ms  {ratio:6.2f} x torch")


if __name__ == "__main__":
    main()
