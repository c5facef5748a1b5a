"""spyx 1.0.0, `spyx.nir.from_nir`."""

from __future__ import annotations

from typing import Any

import nir
import numpy as np

TITLE = "spyx 1.0.0"
DIALECT = "spyx"
INSTALL = (("jax==0.10.2", "flax==0.12.8"), ("spyx==1.0.0", "nir==1.0.8"))
NOTE = "`from_nir(graph, inputs, dt=dt)`; spikes one step later for each layer of neurons."


def load(path: str, dt: float) -> Any:
    """The graph and dt: the importer runs what it imports."""
    return nir.read(path), dt


def run(model: Any, inputs: np.ndarray) -> np.ndarray:
    """(T, B, ...) -> (T, B, ...)."""
    import jax
    import spyx.nir

    graph, dt = model
    _, outputs = spyx.nir.from_nir(graph, jax.numpy.asarray(inputs), dt=dt)
    return np.asarray(outputs)
