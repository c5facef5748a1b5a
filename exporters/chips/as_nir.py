"""A network as the .nir file that a chip's own importer reads."""

from __future__ import annotations

import tempfile
from pathlib import Path

from msg_deploy.deployment import Deployment
from msg_deploy.exporters import nir as nir_file


def nir_bytes(deployment: Deployment) -> bytes:
    """The content of a .nir file, TWO left to the host."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "network.nir")
        nir_file.write(deployment, path)
        return path.read_bytes()
