"""Train for Loihi 2, see whether it fits, simulate the chip to the bit, export, decode.

Run: python examples/chip.py [FOLDER]
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import torch

import msg_deploy
from msg_deploy.data import load_dataset
from msg_deploy.onchip.prepare import prepare
from msg_deploy.onchip.simulator import ChipSimulator
from msg_deploy.stimulus import encoded
from msg_deploy.train import train

CHIP = "loihi2"


def main(folder: Path) -> int:
    """Neurons without a leak: a leak would be rounded, and some spikes with it."""
    torch.manual_seed(0)
    data = load_dataset("digits")
    about = msg_deploy.Provenance(data=data.name, classes=data.classes)
    network = msg_deploy.build("mlp", data.input, 10, 4, provenance=about, tau=float("inf"))
    train(network, data, msg_deploy.TrainingOptions(epochs=3))

    job = msg_deploy.Job(CHIP, samples=50)
    found = msg_deploy.fit(network, job)
    for core in found.chip.cores:
        uses = ", ".join(f"{use.used} of {use.most} {use.what}" for use in core.uses)
        print(f"{core.name}: {uses}")
    verdict = msg_deploy.check_on_chip(network, job)
    print(f"{verdict.kind.value}: accuracy on the chip {verdict.fit.effect.accuracy_chip:.1%}")

    written = msg_deploy.export_to_chip(network, job, folder / "on-loihi2")
    print(f"wrote {', '.join(written.files)}")
    # What the chip would send to its host, here from the simulation of it.
    prepared = prepare(network, job)
    recorded = ChipSimulator(prepared.chip).run(encoded(prepared.chip.deployment, prepared.samples))
    decode = runpy.run_path(str(folder / "on-loihi2" / "decode.py"))["decode"]
    right = decode(recorded.output).argmax(axis=1) == prepared.labels
    print(f"decode.py: {right.mean():.1%} of the digits are right")
    return 0 if verdict else 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else ".")))
