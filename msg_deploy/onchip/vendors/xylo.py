"""Xylo by its vendor's bit-exact model, which runs specification.json."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

TITLE = "xylosim 0.1.3"
# Built from source, which takes a C++ compiler; pip fetches pybind11 for it.
INSTALL = (("numpy==2.4.6", "xylosim==0.1.3"),)


def main(export: str, given: str, output: str) -> None:
    """Run all samples, one after the other, each from a reset."""
    folder = Path(export)
    about = json.loads((folder / "target.json").read_text())
    specification = json.loads((folder / "specification.json").read_text())
    inputs = np.load(given)["inputs"]
    np.savez(output, **run(specification, about, inputs))


def run(specification: dict[str, Any], about: dict[str, Any], inputs: Any) -> dict[str, Any]:
    """Spikes of all layers, membranes after the reset and currents, each in its own time."""
    layer, synapses = _layer(specification)
    steps, samples = inputs.shape[:2]
    raster = np.zeros((about["steps"], samples, int(np.prod(inputs.shape[2:]))), int)
    raster[:steps] = inputs.reshape(steps, samples, -1)
    recorded = []
    for sample in raster.swapaxes(0, 1).tolist():
        layer.reset_all()
        layer.evolve(sample)
        recorded.append(
            {
                ("spikes", "hidden"): np.array(layer.rec_recurrent_spikes, int),
                ("spikes", "output"): np.array(layer.rec_out_spikes, int),
                ("after", "hidden"): np.array(layer.rec_v_mem, int).T,
                ("after", "output"): np.array(layer.rec_v_mem_out, int).T,
                ("currents", "hidden"): np.array(layer.rec_i_syn, int).T,
                ("currents", "output"): np.array(layer.rec_i_syn_out, int).T,
            }
        )
    del synapses
    whole = {key: np.stack([sample[key] for sample in recorded], axis=1) for key in recorded[0]}
    known = {item["name"]: item for item in about["populations"]}
    result = {}
    for core in about["cores"]:
        for name, start, stop in core["populations"]:
            item = known[name]
            for what in ("spikes", "after", "currents"):
                values = whole[what, core["name"]][:, :, start:stop]
                values = values.reshape(*values.shape[:2], *item["shape"])
                if item["spiking"]:
                    values = values[item["late"] : item["late"] + steps]
                if item["spiking"] or what != "spikes":
                    result[f"{what}_{name}"] = values
    return result


def _layer(given: dict[str, Any]) -> tuple[Any, Any]:
    """The model, and synapses that must live as long: it holds pointers to them only."""
    from xylosim.v2 import XyloLayer

    count, outputs = len(given["threshold"]), len(given["threshold_out"])
    weights_out = np.array(given["weights_out"], int)
    # Only the last hidden neurons may reach outputs.
    silent = np.zeros((count - len(weights_out), outputs), int)
    synapses = [
        _synapses(np.array(given["weights_in"], int)),
        _synapses(np.array(given["weights_rec"], int)),
        _synapses(np.concatenate([silent, weights_out])[:, :, None]),
    ]
    dashes = [given["dash_syn"]]
    if np.shape(given["weights_in"])[2] > 1:
        dashes.append(given["dash_syn_2"])
    bias = given["bias_hidden"] or [0] * count
    bias_out = given["bias_out"] or [0] * outputs
    layer = XyloLayer(
        synapses_in=synapses[0],
        synapses_rec=synapses[1],
        synapses_out=synapses[2],
        aliases=given["aliases"] or [[]] * count,
        threshold=given["threshold"],
        threshold_out=given["threshold_out"],
        has_bias=any(bias) or any(bias_out),
        bias=bias,
        bias_out=bias_out,
        weight_shift_inp=given["weight_shift_in"],
        weight_shift_rec=given["weight_shift_rec"],
        weight_shift_out=given["weight_shift_out"],
        dash_mem=given["dash_mem"],
        dash_mem_out=given["dash_mem_out"],
        dash_syns=[list(both) for both in zip(*dashes, strict=True)],
        dash_syns_out=[[dash] for dash in given["dash_syn_out"]],
        name="exported",
    )
    return layer, synapses


def _synapses(weights: Any) -> list[list[Any]]:
    """(sources, targets, currents) as the model wants them, source by source."""
    from xylosim.v2 import XyloSynapse

    return [
        [
            XyloSynapse(int(target), int(current), int(of_source[target, current]))
            for current in range(of_source.shape[1])
            for target in np.flatnonzero(of_source[:, current])
        ]
        for of_source in weights
    ]


if __name__ == "__main__":
    main(*sys.argv[1:])
