"""sinabs 3.1.3, `sinabs.nir.from_nir`."""

from __future__ import annotations

from typing import Any

import nir
import numpy as np

TITLE = "sinabs 3.1.3"
DIALECT = "sinabs"
# sinabs pins nir<=1.0.4, which cannot read a file with v_reset, and needs samna, which is not on
# PyPI; its importer works with nir 1.0.8 and without samna.
INSTALL = (
    ("torch==2.13.0",),
    ("--no-deps", "sinabs==3.1.3"),
    ("nir==1.0.8", "nirtorch==2.6", "pbr==7.0.3", "matplotlib==3.11.2"),
)
NOTE = (
    "`from_nir(graph, batch_size=B)`; tau is read in steps. Installed with --no-deps: it pins "
    "nir<=1.0.4, which cannot read v_reset."
)


def load(path: str, dt: float) -> Any:
    """The graph: the importer wants to know the batch."""
    return nir.read(path)


def run(model: Any, inputs: np.ndarray) -> np.ndarray:
    """(T, B, ...) -> (T, B, ...); sinabs takes (B T, ...)."""
    import torch
    from sinabs.nir import from_nir

    steps, batch = inputs.shape[:2]
    network = from_nir(model, batch_size=batch)
    with torch.no_grad():
        y, _ = network(torch.from_numpy(inputs).transpose(0, 1).flatten(0, 1))
    return y.unflatten(0, (batch, steps)).transpose(0, 1).numpy()
