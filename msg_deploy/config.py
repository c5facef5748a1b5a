"""What to train, as one value: read from TOML or YAML, overridden by options, kept in checkpoints.

[model]
name = "vggsnn"
steps = 10
options = { norm = "td" }

[neuron]
tau = 2.0

[data]
name = "digits"

[training]
epochs = 30
mask_probability = 0.5
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from msg_deploy.data import DataOptions
from msg_deploy.deployment import explain
from msg_deploy.errors import FileError, UsageError, reason
from msg_deploy.options import ResetMode, Surrogate
from msg_deploy.train import TrainingOptions

MAX_BYTES = 2**20


@dataclass(frozen=True)
class ModelConfig:
    """The network.

    Attributes:
        name: as in `msg_deploy.zoo`.
        steps: number of timesteps T.
        dt: length of a timestep in seconds.
        beta: share of TWO's old weights kept by an update.
        options: of the builder, such as width and norm.
    """

    name: str = "mlp"
    steps: int = 8
    dt: float = 1e-3
    beta: float = 0.9
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class NeuronConfig:
    """The neurons, see `msg_deploy.LIF`."""

    tau: float = 2.0
    v_threshold: float = 0.5
    v_reset: float = 0.0
    reset: ResetMode = "zero"
    surrogate: Surrogate = "arctan"
    alpha: float = 2.0


@dataclass(frozen=True)
class DataConfig(DataOptions):
    """The data set, and how it is read: see `msg_deploy.data.DataOptions`.

    Attributes:
        name: as in `msg_deploy.data`.
    """

    name: str = "digits"


@dataclass(frozen=True)
class Config:
    """Everything that decides a training."""

    model: ModelConfig = field(default_factory=ModelConfig)
    neuron: NeuronConfig = field(default_factory=NeuronConfig)
    data: DataConfig = field(default_factory=DataConfig)
    training: TrainingOptions = field(default_factory=TrainingOptions)

    def as_data(self) -> dict[str, Any]:
        """The resolved values, as JSON or TOML would hold them."""
        return dataclasses.asdict(self)


Sections = Mapping[str, Mapping[str, Any]]
SECTIONS: dict[str, type[Any]] = {
    "model": ModelConfig,
    "neuron": NeuronConfig,
    "data": DataConfig,
    "training": TrainingOptions,
}


def resolve(*layers: Sections) -> Config:
    """Later layers override earlier ones and the defaults, value by value.

    Raises:
        UsageError: naming the section and value that is unknown or not accepted.
    """
    for layer in layers:
        _check_names(layer)
    return Config(**{name: _section(name, layers) for name in SECTIONS})


def _check_names(layer: Sections) -> None:
    for name, given in layer.items():
        if name not in SECTIONS:
            raise UsageError(f"unknown section {name!r}; there are {', '.join(SECTIONS)}.")
        if not isinstance(given, Mapping):
            raise UsageError(f"section {name!r} must hold values by name, not {given!r}.")
        known = [f.name for f in dataclasses.fields(SECTIONS[name])]
        for value in given:
            if value not in known:
                raise UsageError(f"{name}.{value} is not known; there are {', '.join(known)}.")


def _section(name: str, layers: tuple[Sections, ...]) -> Any:
    values: dict[str, Any] = {}
    for layer in layers:
        values |= layer.get(name, {})
    try:
        return TypeAdapter(SECTIONS[name]).validate_python(values)
    except ValidationError as error:
        raise UsageError(f"section {name!r}: {explain(error)}.") from error


def read_config(path: Path) -> Sections:
    """The sections of a .toml, .yaml or .yml file.

    Raises:
        FileError: the file is missing, too large, of another kind, not well-formed, or names a
            section or value that is unknown.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise FileError(path, f"is larger than {MAX_BYTES} bytes, too large for a config.")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise FileError(path, f"cannot be read ({reason(error)}).") from error
    try:
        content = _parse(path, text)
    except (tomllib.TOMLDecodeError, yaml.YAMLError, RecursionError) as error:
        raise FileError(path, f"is not well-formed ({reason(error)}).") from error
    if not isinstance(content, dict):
        raise FileError(path, f"must hold sections ({', '.join(SECTIONS)}), not {content!r}.")
    try:
        _check_names(content)
    except UsageError as error:
        raise FileError(path, str(error)) from error
    return content


def _parse(path: Path, text: str) -> Any:
    if path.suffix == ".toml":
        return tomllib.loads(text)
    if path.suffix in (".yaml", ".yml"):
        return yaml.safe_load(text) or {}
    raise FileError(path, f"unknown kind of config {path.suffix!r}; .toml and .yaml are read.")
