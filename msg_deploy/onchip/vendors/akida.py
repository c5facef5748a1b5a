"""Akida by the vendor's software backend, which runs the layers of akida.json frame by frame."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

TITLE = "akida 2.19.3, software backend"
INSTALL = (("numpy==2.4.6", "akida==2.19.3"),)
WEIGHT_BITS = 4


def main(export: str, given: str, output: str) -> None:
    """Run all frames; each step is one, and nothing is kept from one to the next."""
    folder = Path(export)
    about = json.loads((folder / "target.json").read_text())
    layers = json.loads((folder / "akida.json").read_text())
    np.savez(output, **run(layers, about, np.load(given)["inputs"]))


def run(layers: list[dict[str, Any]], about: dict[str, Any], inputs: Any) -> dict[str, Any]:
    """Spikes of each layer, potentials of the last where it has no threshold."""
    steps, samples = inputs.shape[:2]
    channels, height, width = (*inputs.shape[2:], 1, 1)[:3]
    frames = inputs.reshape(steps * samples, channels, height, width).transpose(0, 2, 3, 1)
    result = {}
    for count, item in enumerate(about["populations"], start=1):
        # One layer after the other, so that each one's output is seen.
        model = _model(layers[:count], (height, width, channels), about["input"]["high"])
        found = np.asarray(model.forward(np.ascontiguousarray(frames.astype(np.uint8))))
        found = found.transpose(0, 3, 1, 2).reshape(steps, samples, *item["shape"])
        kind = "spikes" if item["spiking"] else "after"
        result[f"{kind}_{item['name']}"] = found.astype(np.int64)
    return result


def _model(layers: list[dict[str, Any]], shape: tuple[int, int, int], high: int) -> Any:
    import akida

    model = akida.Model()
    model.add(akida.InputData(input_shape=shape, input_bits=max(1, int(high).bit_length())))
    for layer in layers:
        weights = np.array(layer["weights"], np.int8)
        spiking = layer["threshold"] is not None
        shared = {"weights_bits": WEIGHT_BITS, "activation": spiking, "name": layer["name"]}
        if layer["kind"] == "Convolutional":
            padded = layer["padding"] != [0, 0]
            model.add(
                akida.Convolutional(
                    kernel_size=weights.shape[2:],
                    filters=len(weights),
                    padding=akida.Padding.Same if padded else akida.Padding.Valid,
                    kernel_stride=tuple(layer["stride"]),
                    **shared,
                )
            )
            held = weights.transpose(2, 3, 1, 0)
        else:
            model.add(akida.FullyConnected(units=len(weights), **shared))
            held = weights.T[None, None]
        model.layers[-1].set_variable("weights", np.ascontiguousarray(held))
        if spiking:
            threshold = np.array(layer["threshold"], np.int32)
            # Of a convolution one for each channel.
            model.layers[-1].set_variable("threshold", threshold[:: threshold.size // len(weights)])
    return model


if __name__ == "__main__":
    main(*sys.argv[1:])
