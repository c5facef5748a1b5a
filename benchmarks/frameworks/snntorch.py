"""snnTorch 1.0.0, `snntorch.import_nir.import_from_nir`."""

from __future__ import annotations

from typing import Any

import nir
import numpy as np

TITLE = "snnTorch 1.0.0"
DIALECT = "portable"
INSTALL = (("torch==2.13.0",), ("snntorch==1.0.0", "nir==1.0.8", "nirtorch==2.6"))
NOTE = "`import_from_nir(graph)`; computes with dt = 1e-4 whatever the file says."


def load(path: str, dt: float) -> Any:
    """By its own importer, which cannot be told a dt."""
    from snntorch.import_nir import import_from_nir

    return import_from_nir(nir.read(path))


def run(model: Any, inputs: np.ndarray) -> np.ndarray:
    """(T, B, ...) -> (T, B, ...)."""
    import torch

    state, outputs = None, []
    with torch.no_grad():
        for x in torch.from_numpy(inputs):
            y, state = model(x, state)
            outputs.append(y[0] if isinstance(y, tuple) else y)
    return torch.stack(outputs).numpy()
