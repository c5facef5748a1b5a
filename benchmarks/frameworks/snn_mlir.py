"""snn-mlir 1.0.0, `snn_mlir.parse_graph` and `to_mlir`: parsed and exported, not executed."""

from __future__ import annotations

from typing import Any

import numpy as np

TITLE = "snn-mlir 1.0.0"
DIALECT = "snn-mlir"
INSTALL = (("snn-mlir==1.0.0", "nir==1.0.8"),)
NOTE = "parsed by `parse_graph` and exported by `to_mlir`; not executed, which takes snn-opt."


def load(path: str, dt: float) -> Any:
    """By its own parser; the export must not fail either."""
    import snn_mlir

    parsed = snn_mlir.parse_graph(path)
    snn_mlir.mlir_from_layers(parsed)
    return parsed


def parameters(model: Any) -> dict[str, np.ndarray]:
    """What it read: (decay of the current, decay of the membrane, threshold) of each layer."""
    return {
        name: np.array([layer.cur_decay, layer.vol_decay, layer.threshold])
        for name, layer in model.nodes.items()
        if layer.is_neuron
    }
