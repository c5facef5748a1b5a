"""rockpool 3.1.0, `rockpool.nn.modules.torch.nir.from_nir`."""

from __future__ import annotations

from typing import Any

import nir
import numpy as np

TITLE = "rockpool 3.1.0"
DIALECT = "rockpool"
INSTALL = (
    ("torch==2.13.0",),
    ("rockpool==3.1.0", "nir==1.0.8", "nirtorch==2.6", "scipy==1.17.1"),
)
NOTE = "`from_nir(graph)`; all steps in one call."


def load(path: str, dt: float) -> Any:
    """By its own importer, which infers dt."""
    from rockpool.nn.modules.torch.nir import from_nir

    return from_nir(nir.read(path))


def run(model: Any, inputs: np.ndarray) -> np.ndarray:
    """(T, B, ...) -> (T, B, N); rockpool takes (B, T, N)."""
    import torch

    with torch.no_grad():
        y, _ = model(torch.from_numpy(inputs).transpose(0, 1).flatten(2))
    return y.transpose(0, 1).numpy()
