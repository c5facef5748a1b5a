"""What is fuzzed: each reader on any bytes may succeed or raise an error of ours, nothing else."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from msg_deploy import checkpoint
from msg_deploy.errors import MsgDeployError
from msg_deploy.exporters import nir as nir_file
from msg_deploy.exporters.onnx import file as onnx_file

CORPUS = Path(__file__).with_name("corpus")
READERS: dict[str, Callable[[Path], Any]] = {
    "pt": checkpoint.load,
    "nir": nir_file.read,
    "onnx": onnx_file.read,
}


def attempt(kind: str, content: bytes, folder: Path) -> bool:
    """Read bytes as a file of a kind; whether they were accepted.

    Raises:
        Exception: anything that is not an error of ours, which is a finding.
    """
    with tempfile.NamedTemporaryFile(dir=folder, suffix=f".{kind}") as file:
        file.write(content)
        file.flush()
        try:
            READERS[kind](Path(file.name))
        except MsgDeployError as error:
            assert str(error)
            return False
    return True


def seeds(kind: str) -> list[Path]:
    """Files of the corpus, small ones that are whole."""
    return sorted((CORPUS / kind).iterdir())
