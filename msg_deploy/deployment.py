"""The central types: what a network means once it has left torch.

NIR leaves open the timestep, the number of steps and the kind of reset. They live here and travel
inside the .nir file as one JSON string, `graph.metadata["msg_deploy"]`, which others ignore.
"""

from __future__ import annotations

import math
from dataclasses import field, replace
from typing import Annotated, Any, Literal

import nir
from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic.dataclasses import dataclass

from msg_deploy.errors import GraphError
from msg_deploy.options import Encoding, Fold, ResetMode

Shape = tuple[int, ...]

METADATA_KEY = "msg_deploy"
INPUT, OUTPUT = "input", "output"
"""Names of the terminal nodes that we write; several importers expect exactly these."""
READOUT_PREFIX = "readout."
"""Nodes that a folding of TWO adds are named with this prefix."""

_STRICT = ConfigDict(extra="forbid", arbitrary_types_allowed=True)


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError("must be finite")
    return value


Finite = Annotated[float, AfterValidator(_finite)]
Dimension = Annotated[int, Field(ge=1, le=2**31)]


def node_name(path: str) -> str:
    """The NIR name of the layer at a torch module path; it never collides with names of ours."""
    name = path.replace("/", "_")
    reserved = name in (INPUT, OUTPUT) or name.startswith(READOUT_PREFIX)
    return f"layer.{name}" if reserved else name


@dataclass(frozen=True, config=_STRICT)
class Timing:
    """What NIR leaves open about time.

    Attributes:
        dt: length of a timestep in seconds.
        steps: number of timesteps T of one inference.
        reset: membrane after a spike: "zero" (to v_reset) or "subtract" (minus v_threshold).
    """

    dt: Annotated[Finite, Field(gt=0)] = 1e-3
    steps: Annotated[int, Field(ge=1, le=1_000_000)] = 8
    reset: ResetMode = "zero"


@dataclass(frozen=True, config=_STRICT)
class InputSpec:
    """What one sample looks like and how it becomes T timesteps.

    Attributes:
        shape: of one timestep of one sample, without batch.
        encoding: "direct" repeats the sample (shape) at every step; "frames" takes (T, *shape).
        low: smallest value of the declared input range.
        high: largest value of the declared input range.
        levels: what enters the network are whole numbers: samples within the range as multiples of
            `step`, of which the range holds so many. None: samples enter as they are.
    """

    shape: tuple[Dimension, ...]
    encoding: Encoding = "direct"
    low: Finite = 0.0
    high: Finite = 1.0
    levels: Annotated[int, Field(ge=1, le=2**24)] | None = None

    @model_validator(mode="after")
    def _ordered(self) -> InputSpec:
        if self.low > self.high:
            raise ValueError(f"low ({self.low}) is above high ({self.high})")
        if not math.isfinite(self.high - self.low):
            raise ValueError(f"the range from {self.low} to {self.high} is wider than numbers go")
        if self.levels is not None and self.low == self.high:
            raise ValueError("levels need a range, but low is high")
        return self

    @property
    def step(self) -> float:
        """What a 1 that enters the network stands for."""
        return 1.0 if self.levels is None else (self.high - self.low) / self.levels

    @property
    def entering(self) -> tuple[float, float]:
        """Smallest and largest value that enters the network."""
        if self.levels is None:
            return self.low, self.high
        return float(round(self.low / self.step)), float(round(self.high / self.step))


@dataclass(frozen=True, config=_STRICT)
class Readout:
    """TWO as exported: y = sum_t f_t I_L[t], decision argmax.

    Attributes:
        weights: f, one per timestep.
        source: node whose output is the current I_L of the output layer.
        fold: in the graph, whose output at the last step is y: "delay" (Delay and Scale branches),
            "bank" (LI and Linear) or "leak" (one LI per class); or "host" (the graph's output is
            I_L at each step and the host applies f).
        error: largest absolute error of the realized f, as measured at export.
    """

    weights: tuple[Finite, ...]
    source: str
    fold: Fold = "host"
    error: Annotated[Finite, Field(ge=0)] = 0.0


@dataclass(frozen=True, config=_STRICT)
class Provenance:
    """Where a deployment comes from.

    Attributes:
        source: file or class that was traced.
        sha256: checksum of that file, where it was one.
        data: name of the data set that it was trained on, if known.
        data_options: what decides the content of its samples, see `DataOptions.lasting`.
        classes: class names in the order of the outputs.
        versions: library versions at export.
        dialect: in which the graph is written, see `msg_deploy.exporters.dialects`.
        latency: by how many steps the outputs come later at the dialect's destination than here.
    """

    source: str = ""
    sha256: str = ""
    data: str = ""
    data_options: dict[str, Any] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)
    dialect: str = "nir"
    latency: Annotated[int, Field(ge=0)] = 0


@dataclass(frozen=True, config=_STRICT)
class IntegerForm:
    """What the whole numbers of a quantized graph stand for.

    Attributes:
        bits: of the weights, sign included.
        scales: by node, what a 1 of its output stands for (neurons: of the membrane): one number,
            or one for each channel (the first axis).
        scores: what a 1 of the class scores stands for.
    """

    bits: Annotated[int, Field(ge=2, le=8)]
    scales: dict[str, tuple[Finite, ...]]
    scores: Annotated[Finite, Field(gt=0)] = 1.0


@dataclass(frozen=True, config=_STRICT)
class Metadata:
    """The content of `graph.metadata["msg_deploy"]`."""

    timing: Timing
    input: InputSpec
    readout: Readout | None = None
    provenance: Provenance = field(default_factory=Provenance)
    integers: IntegerForm | None = None
    format: Literal[1] = 1

    @model_validator(mode="after")
    def _weights_fit_steps(self) -> Metadata:
        if self.readout and len(self.readout.weights) != self.timing.steps:
            raise ValueError(
                f"readout.weights has {len(self.readout.weights)} entries, "
                f"but timing.steps is {self.timing.steps}"
            )
        return self


@dataclass(frozen=True, config=_STRICT)
class Deployment:
    """A NIR graph with everything that is needed to execute it.

    Passes are functions Deployment -> Deployment that never change their input.
    """

    graph: nir.NIRGraph
    timing: Timing
    input: InputSpec
    readout: Readout | None = None
    provenance: Provenance = field(default_factory=Provenance)
    integers: IntegerForm | None = None

    @property
    def metadata(self) -> Metadata:
        """Everything but the graph."""
        return Metadata(
            timing=self.timing,
            input=self.input,
            readout=self.readout,
            provenance=self.provenance,
            integers=self.integers,
        )

    def with_graph(self, graph: nir.NIRGraph, **changes: Any) -> Deployment:
        """A copy with another graph (and other changed fields)."""
        return replace(self, graph=graph, **changes)


_METADATA = TypeAdapter(Metadata)


def metadata_to_json(metadata: Metadata) -> str:
    """The JSON text of the metadata contract."""
    return _METADATA.dump_json(metadata, indent=1).decode()


def metadata_from_json(text: str | bytes) -> Metadata:
    """Parse and check the metadata contract.

    Raises:
        GraphError: not JSON, a field is missing, unknown or outside its range.
    """
    try:
        return _METADATA.validate_json(text)
    except ValidationError as error:
        raise GraphError(f"metadata {METADATA_KEY!r}: {explain(error)}") from error


def explain(error: ValidationError) -> str:
    """All problems of a pydantic error as one line, each with its field."""
    return "; ".join(
        f"{'.'.join(map(str, problem['loc'])) or 'content'}: {problem['msg']}"
        for problem in error.errors()
    )
