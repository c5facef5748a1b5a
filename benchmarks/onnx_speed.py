"""Latency and throughput of exported ONNX models against other frameworks, as ratios in one run.

The same weights everywhere: 784-512-512-10 (T = 16), `convnet` (1x28x28, T = 8) and `vggsnn`
(2x48x48, T = 10), BatchNorm folded, LIF (tau = 2, reset to zero), float32, inputs (T, B, ...).
All run layer by layer, all steps of a layer with weights at once; plain torch, Norse and snnTorch
also step by step, as their tutorials do. Each round times every engine once, in turn, so that a
busy machine disturbs all alike; printed are medians and their ratio to the first.
Before that, the scores of all engines are compared.

The script is not called onnx.py, since scripts beside it would then import it in onnx's place.

Run: python benchmarks/onnx_speed.py --rounds 9 [--network mlp] [--batch 1] [--threads 2]
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from engines import (
    NETWORKS,
    SEQUENCES,
    STEPS,
    Engine,
    by_layer,
    by_step,
    check,
    core,
    exported,
    measure,
    network_of,
)

from msg_deploy import trace
from msg_deploy.options import Layout

SHOWN = ("mlp", "convnet", "vggsnn")


def engines_of(name: str, threads: int) -> dict[str, Engine]:
    """All engines for one network; frameworks that are not installed are left out."""
    network = network_of(name)
    deployment = trace(network)
    layouts: tuple[Layout, ...] = ("sequence", "unrolled")
    engines = {f"onnx, {layout}": exported(deployment, layout, threads) for layout in layouts}
    engines["torch core"] = core(network)
    for how, make, frameworks in (("by layer", by_layer, SEQUENCES), ("by step", by_step, STEPS)):
        for framework in frameworks:
            try:
                engines[f"{framework}, {how}"] = make(deployment, framework)
            except ImportError:
                print(f"{framework}: not installed, left out")
    return engines


def main() -> None:
    """Print one table, Markdown, per network and batch size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--network", action="append", choices=SHOWN)
    parser.add_argument("--batch", action="append", type=int)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    for name in arguments.network or SHOWN:
        spec, steps, _ = NETWORKS[name]
        engines = engines_of(name, arguments.threads)
        for batch in arguments.batch or (1, 64):
            random = np.random.default_rng(0)
            inputs = random.uniform(0, 1, (steps, batch, *spec.shape)).astype(np.float32)
            difference = check(engines, inputs)
            medians = measure(engines, inputs, arguments.rounds)
            first = next(iter(medians.values()))
            print(f"\n{name}, T = {steps}, batch {batch}, {arguments.threads} threads, median of")
            print(f"{arguments.rounds} rounds; scores differ by at most {difference:.1e}\n")
            print("| engine | ms | samples a second | times the first |")
            print("|---|---|---|---|")
            for engine, median in medians.items():
                print(
                    f"| {engine} | {median * 1e3:.2f} | {batch / median:.0f} "
                    f"| {median / first:.2f} |"
                )


if __name__ == "__main__":
    main()
