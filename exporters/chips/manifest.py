"""`target.json` of an exported folder: what its files hold, for people and for vendors' models."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from msg_deploy.exporters.chips.populations import populations
from msg_deploy.exporters.chips.target import OnChip

FILE = "target.json"


def manifest(chip: OnChip) -> dict[str, Any]:
    """What is where.

    Args:
        chip: that fits.
    """
    network = populations(chip.deployment)
    low, high = chip.deployment.input.entering
    return {
        "format": 1,
        "target": chip.target,
        "steps": chip.steps,
        "graph_steps": chip.deployment.timing.steps,
        "input": {
            "name": network.input,
            "shape": list(network.input_shape),
            "low": int(low),
            "high": int(high),
        },
        "populations": [
            {
                "name": name,
                "shape": list(item.shape),
                "spiking": item.spiking,
                "late": chip.late.get(name, 0),
                "unit": chip.units.get(name, 1.0),
            }
            for name, item in network.items.items()
        ],
        "output": network.output,
        "settings": dict(chip.settings),
        "classes": list(chip.deployment.provenance.classes),
        "decoder": dataclasses.asdict(chip.decoder) if chip.decoder else None,
        "cores": [dataclasses.asdict(core) for core in chip.cores],
        "uses": [dataclasses.asdict(use) for use in chip.uses],
        "approximations": [dataclasses.asdict(a) for a in chip.approximations],
    }


def manifest_json(chip: OnChip) -> bytes:
    """The file."""
    return (json.dumps(manifest(chip), indent=1) + "\n").encode()
