"""Norse 1.1.0, `norse.torch.from_nir`."""

from __future__ import annotations

from typing import Any

import nir
import numpy as np

TITLE = "Norse 1.1.0"
DIALECT = "portable"
INSTALL = (("torch==2.13.0",), ("norse==1.1.0", "nir==1.0.8", "nirtorch==2.6"))
NOTE = "`from_nir(graph, dt=dt)`; one step at a time."


def load(path: str, dt: float) -> Any:
    """By its own importer, told the file's dt."""
    import norse.torch

    return norse.torch.from_nir(nir.read(path), dt=dt)


def run(model: Any, inputs: np.ndarray) -> np.ndarray:
    """(T, B, ...) -> (T, B, ...)."""
    import torch

    state, outputs = None, []
    with torch.no_grad():
        for x in torch.from_numpy(inputs):
            y, state = model(x, state)
            outputs.append(y)
    return torch.stack(outputs).numpy()
