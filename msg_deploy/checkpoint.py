"""Checkpoints: weights and their description in one .pt file that runs no code when loaded."""

from __future__ import annotations

import hashlib
import importlib.metadata
import pickle
import zipfile
from dataclasses import field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from torch import nn

from msg_deploy.architecture import describe, rebuild
from msg_deploy.deployment import InputSpec, IntegerForm, Provenance, Timing, explain
from msg_deploy.errors import FileError, UsageError, reason
from msg_deploy.files import write_made
from msg_deploy.networks import SpikingNetwork
from msg_deploy.readout import TWO

DTYPES = (
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
    torch.bool,
)
MAX_BYTES = 8 * 2**30
LIBRARIES = ("msg-deploy", "torch", "nir", "norse", "numpy")


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class CheckpointMetadata:
    """What a checkpoint says beside its weights; stored as JSON.

    Attributes:
        architecture: description of the body, see `msg_deploy.architecture`.
        timing: dt, steps, reset.
        beta: of TWO's update. TWO's weights are among the stored tensors.
        input: shape, encoding and range of a sample.
        provenance: data set, class names, library versions.
        training: the resolved options of the training run.
        integers: what the numbers of a quantized network stand for.
    """

    architecture: dict[str, Any]
    timing: Timing
    input: InputSpec
    beta: float = 0.9
    provenance: Provenance = field(default_factory=Provenance)
    training: dict[str, Any] = field(default_factory=dict)
    integers: IntegerForm | None = None
    format: Literal[1] = 1


_METADATA = TypeAdapter(CheckpointMetadata)


def library_versions() -> dict[str, str]:
    """Versions of the libraries that decide what a file means."""
    return {name: importlib.metadata.version(name) for name in LIBRARIES}


def sha256(path: Path) -> str:
    """Checksum of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def save(network: SpikingNetwork, path: str | Path, training: dict[str, Any] | None = None) -> None:
    """Write a checkpoint, whole or not at all.

    Args:
        network: to save; its parameters and TWO weights are stored as they are.
        path: file to write, customarily .pt.
        training: options of the training run, JSON values only.

    Raises:
        FileError: the file cannot be written.
    """
    metadata = CheckpointMetadata(
        architecture=describe(network.body),
        timing=network.timing,
        input=network.input_spec,
        beta=network.readout.beta,
        provenance=replace(network.provenance, versions=library_versions()),
        training=training or {},
        integers=network.integers,
    )
    content = {"msg_deploy": _METADATA.dump_json(metadata).decode(), "state": network.state_dict()}
    write_made(Path(path), lambda file: torch.save(content, file))


def load(path: str | Path, body: nn.Module | None = None) -> SpikingNetwork:
    """Read a checkpoint with weights only: no code in the file is run.

    Args:
        path: a file written by `save`.
        body: the module to load the weights into, needed for custom modules.

    Returns:
        The network, in evaluation mode, on the CPU.

    Raises:
        FileError: the file is missing, not a checkpoint of ours, damaged, holds a pickle of code,
            or its tensors are non-finite or do not fit its architecture.
    """
    path = Path(path)
    content = _read(path)
    metadata = _parse(path, content)
    state = content["state"]
    _check_state(path, state)
    try:
        network = _rebuild(metadata, body)
        network.load_state_dict(state, assign=True)
    except (UsageError, RuntimeError, TypeError) as error:
        raise FileError(path, f"state does not fit the architecture: {error}") from error
    if network.timing != metadata.timing:
        raise FileError(
            path, f"timing says {metadata.timing}, but the layers are built for {network.timing}."
        )
    return network.eval()


def read_metadata(path: str | Path) -> CheckpointMetadata:
    """The metadata of a checkpoint alone.

    Raises:
        FileError: as `load`.
    """
    return _parse(Path(path), _read(Path(path)))


def _rebuild(metadata: CheckpointMetadata, body: nn.Module | None) -> SpikingNetwork:
    # On the meta device nothing is allocated, whatever sizes the file claims.
    with torch.device("meta"):
        rebuilt = rebuild(metadata.architecture) if body is None else body
        readout = TWO(metadata.timing.steps, metadata.beta)
    return SpikingNetwork(
        rebuilt,
        readout,
        metadata.input,
        metadata.timing.dt,
        metadata.provenance,
        metadata.integers,
    )


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileError(path, "there is no such file; name a checkpoint (.pt).")
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
    except Exception as error:  # zipfile on a file of a stranger
        raise FileError(
            path,
            f"is not a whole torch checkpoint ({reason(error)}); "
            "write one with `msg-deploy train` or msg_deploy.save.",
        ) from error
    if size > MAX_BYTES:
        raise FileError(path, f"unpacks to {size} bytes; at most {MAX_BYTES} are read.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)  # noqa: TID251
    except pickle.UnpicklingError as error:
        raise FileError(
            path,
            "holds a pickle of Python objects, which could run code and is not loaded; only "
            "tensors and plain values are accepted. Write it with msg_deploy.save.",
        ) from error
    except Exception as error:  # torch's unpickler on a file of a stranger
        raise FileError(path, f"is damaged ({reason(error)}); write it again.") from error
    if not (isinstance(content, dict) and set(content) == {"msg_deploy", "state"}):
        raise FileError(
            path,
            "is a torch file, but not a checkpoint of msg-deploy (fields msg_deploy and state); "
            "build the network in Python and write it with msg_deploy.save.",
        )
    return content


def _parse(path: Path, content: dict[str, Any]) -> CheckpointMetadata:
    try:
        return _METADATA.validate_json(content["msg_deploy"])
    except ValidationError as error:
        raise FileError(path, f"field msg_deploy: {explain(error)}.") from error


def _check_state(path: Path, state: Any) -> None:
    if not isinstance(state, dict):
        raise FileError(
            path, f"field state: must hold tensors by name, not {type(state).__name__}."
        )
    for name, tensor in state.items():
        if not isinstance(tensor, torch.Tensor):
            raise FileError(path, f"field state.{name}: must be a tensor.")
        # A tensor may claim more numbers than the file holds: a view of one that repeats it, a
        # sparse one, or one without data.
        plain = tensor.layout is torch.strided and tensor.device.type == "cpu"
        if not plain or tensor.nbytes > tensor.untyped_storage().nbytes():
            raise FileError(
                path, f"field state.{name}: must be a tensor that holds each of its numbers."
            )
        if tensor.dtype not in DTYPES:
            raise FileError(
                path, f"field state.{name}: has the type {tensor.dtype}, which no layer takes."
            )
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            count = int((~torch.isfinite(tensor)).sum())
            raise FileError(
                path,
                f"field state.{name}: {count} of {tensor.numel()} numbers are NaN or infinite; "
                "every number must be finite.",
            )
