"""SpikingJelly 2.0.0, `spikingjelly.activation_based.nir_exchange.import_from_nir`."""

from __future__ import annotations

from typing import Any

import numpy as np

TITLE = "spikingjelly 2.0.0"
DIALECT = "portable"
INSTALL = (
    ("torch==2.13.0",),
    ("torchvision==0.28.0", "torchaudio==2.11.0"),
    ("spikingjelly==2.0.0", "nir==1.0.8", "nirtorch==2.6"),
)
NOTE = "`import_from_nir(path, dt=dt)`; one step at a time."


def load(path: str, dt: float) -> Any:
    """By its own importer, told the file's dt."""
    from spikingjelly.activation_based.nir_exchange import import_from_nir

    return import_from_nir(path, dt=dt)


def run(model: Any, inputs: np.ndarray) -> np.ndarray:
    """(T, B, ...) -> (T, B, ...)."""
    import torch

    state, outputs = None, []
    with torch.no_grad():
        for x in torch.from_numpy(inputs):
            y, state = model(x, state)
            outputs.append(y[0] if isinstance(y, tuple) else y)
    return torch.stack(outputs).numpy()
