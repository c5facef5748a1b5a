"""What the certificate costs and how much it certifies, per network.

The networks are those of benchmarks/simulate.py. Each round times, in turn, so that a busy machine
disturbs all alike: unchecked runs of the fast simulator in float64 and float32, a certified run,
and whole checks of the network against itself in Norse with and without the certificate. The ratios
are those of the medians.

Run: python benchmarks/certificate.py --rounds 7
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping

import engines
import numpy as np
import torch

from msg_deploy import check, trace
from msg_deploy.sim.certificate import Certificate, Certifier
from msg_deploy.sim.fast import Fast

RATIOS = ("of float64", "of float32", "of a check")
BATCHES: Mapping[str, int] = {"mlp": 128, "convnet": 32, "vggsnn": 2, "sew_resnet34": 1}


def told(name: str, found: Certificate, seconds: Mapping[str, float]) -> str:
    """A row of the table."""
    certified = seconds["certified"]
    ratios = [certified / seconds["float64"], certified / seconds["float32"]]
    ratios.append(seconds["certified check"] / seconds["check"])
    return (
        f"| {name} | {found.decisions} | {found.uncertified} | {found.share:.5%} | "
        + " | ".join(f"{ratio:.2f}" for ratio in ratios)
        + " |"
    )


def measured(name: str, rounds: int) -> str:
    """The row of one network."""
    network = engines.network_of(name)
    deployment = trace(network)
    shape = (deployment.timing.steps, BATCHES[name], *deployment.input.shape)
    inputs = np.random.default_rng(0).uniform(0, 1, shape).astype(np.float32)
    samples = np.moveaxis(inputs, 1, 0)
    certifier, double, single = Certifier(deployment), Fast(), Fast()

    def checked(certify: bool) -> None:
        check(
            network, deployment, samples, ["norse"], random=0, precision="float32", certify=certify
        )

    runs: dict[str, engines.Engine] = {
        "float64": lambda x: double.scores(deployment, x, "float64"),
        "float32": lambda x: single.scores(deployment, x, "float32"),
        "certified": lambda x: certifier(x) and x,
        "check": lambda x: checked(certify=False) or x,
        "certified check": lambda x: checked(certify=True) or x,
    }
    return told(name, certifier(inputs), engines.measure(runs, inputs, rounds))


def main() -> None:
    """Print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--models", nargs="+", default=list(BATCHES), choices=list(BATCHES))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(f"{arguments.threads} threads, {arguments.rounds} rounds, seed 0")
    print(
        "| network | decisions | uncertified | certified | of float64 | of float32 | of a check |"
    )
    print("|---|---|---|---|---|---|---|")
    for name in arguments.models:
        print(measured(name, arguments.rounds), flush=True)


if __name__ == "__main__":
    main()
