"""A chip target: what a chip can hold and compute, and what becomes of a network on it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Literal

from msg_deploy.deployment import Deployment
from msg_deploy.errors import GraphError
from msg_deploy.exporters.chips.decoder import Decoder
from msg_deploy.exporters.chips.energy import EnergyModel
from msg_deploy.exporters.chips.populations import Populations, populations
from msg_deploy.exporters.quantize.options import QuantizeOptions
from msg_deploy.sim.integer.network import IntegerNetwork

Evidence = Literal["vendor model", "HDL", "equations", "none"]
"""What the integer simulation was compared with: a model by the vendor, the hardware's source,
published equations alone, or nothing, since the chip is analog or its arithmetic is not public."""


@dataclass(frozen=True)
class Limit:
    """A number that a chip does not exceed.

    Attributes:
        most: the largest that is allowed.
        unit: of what.
        source: where the number stands, in words for a reader.
    """

    most: int
    unit: str
    source: str


@dataclass(frozen=True)
class Problem:
    """Why a network does not fit.

    Attributes:
        node: of the graph; "" for the whole network.
        what: the limit that is exceeded, such as "neurons of a core", or "law" for something that
            the chip does not compute.
        text: what is wrong, and what to change.
        found: the number; None for a law.
        most: the limit; None for a law.
    """

    node: str
    what: str
    text: str
    found: int | None = None
    most: int | None = None

    def __str__(self) -> str:
        where = f"node {self.node!r}: " if self.node else ""
        if self.found is None:
            return f"{where}{self.text}"
        return f"{where}{self.found:,} {self.what}, at most {self.most:,}; {self.text}"


@dataclass(frozen=True)
class Approximation:
    """Where the chip computes something else than the network, in a stated way.

    Attributes:
        node: of the graph.
        text: what it computes instead.
    """

    node: str
    text: str


@dataclass(frozen=True)
class Use:
    """How much of something is taken.

    Attributes:
        what: of what, such as "neurons".
        used: the number.
        most: how many there are; 0: no limit is known.
    """

    what: str
    used: int
    most: int

    @property
    def share(self) -> float:
        """Of what there is; 0 without a known limit."""
        return self.used / self.most if self.most else 0.0


@dataclass(frozen=True)
class Core:
    """A part of the chip, and what lies on it.

    Attributes:
        name: of the core.
        populations: on it, each with the range of its neurons, [start, stop).
        uses: of what it has.
    """

    name: str
    populations: tuple[tuple[str, int, int], ...]
    uses: tuple[Use, ...]


@dataclass(frozen=True)
class OnChip:
    """A network as a chip holds it.

    Attributes:
        target: name of the chip.
        deployment: in whole numbers, as it was given to the chip.
        network: to the bit what the chip computes, for `steps` steps; None: the chip cannot hold
            it, or its arithmetic is not known.
        names: in `network`, of populations whose name there is not that of the graph.
        late: by how many steps each of these populations is later than in the graph.
        steps: that the chip runs for one sample.
        decoder: from what leaves the chip to class scores; None: spikes are counted.
        cores: where what lies.
        uses: of the whole chip.
        problems: why it does not fit; nothing: it does.
        approximations: where it computes something else.
        units: by population, what a 1 of the chip's membrane is in units of the graph's.
        settings: numbers that whoever runs the export needs, by name.
    """

    target: str
    deployment: Deployment
    network: IntegerNetwork | None
    names: Mapping[str, str] = field(default_factory=dict)
    late: Mapping[str, int] = field(default_factory=dict)
    steps: int = 0
    decoder: Decoder | None = None
    cores: tuple[Core, ...] = ()
    uses: tuple[Use, ...] = ()
    problems: tuple[Problem, ...] = ()
    approximations: tuple[Approximation, ...] = ()
    units: Mapping[str, float] = field(default_factory=dict)
    settings: Mapping[str, int] = field(default_factory=dict)

    @property
    def fits(self) -> bool:
        """Whether the chip can hold it."""
        return not self.problems


class Findings:
    """Problems and approximations, as a target comes across them.

    Args:
        approximate: stated approximations are allowed; else each of them is a problem.
    """

    def __init__(self, approximate: bool = False) -> None:
        self.approximate = approximate
        self.problems: list[Problem] = []
        self.approximations: list[Approximation] = []

    def limit(self, node: str, limit: Limit, found: int, change: str) -> None:
        """A number against its limit; nothing happens within it."""
        if found > limit.most:
            self.problems.append(Problem(node, limit.unit, change, found, limit.most))

    def law(self, node: str, text: str) -> None:
        """The chip does not compute this."""
        self.problems.append(Problem(node, "law", text))

    def instead(self, node: str, text: str, change: str) -> None:
        """The chip computes something else.

        Args:
            node: of the graph.
            text: what it computes instead.
            change: how to train a network without the difference.
        """
        if self.approximate:
            self.approximations.append(Approximation(node, text))
        else:
            self.law(node, f"{text}; {change}, or allow it with --approximate.")


class Target(ABC):
    """One chip.

    Attributes:
        name: on the command line.
        title: for readers.
        limits: by name, each with its source.
        runs: what it can run, a phrase each.
        lacks: what it cannot.
        evidence: what stands behind the integer simulation.
        evidence_text: the same in a sentence.
        quantize: how a network of real numbers is made whole for it.
        format: what `export` writes, in a phrase; "": nothing.
        energy: of its operations; None: no number is published.
        vendor: module in `msg_deploy.onchip.vendors` that runs an export in the vendor's own model;
            "": there is none.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    limits: ClassVar[Mapping[str, Limit]]
    runs: ClassVar[tuple[str, ...]]
    lacks: ClassVar[tuple[str, ...]]
    evidence: ClassVar[Evidence]
    evidence_text: ClassVar[str]
    quantize: ClassVar[QuantizeOptions] = QuantizeOptions(granularity="layer")
    format: ClassVar[str] = ""
    energy: ClassVar[EnergyModel | None] = None
    vendor: ClassVar[str] = ""

    def as_data(self) -> dict[str, Any]:
        """What is known about it, as JSON values."""
        return {
            "name": self.name,
            "title": self.title,
            "runs": list(self.runs),
            "lacks": list(self.lacks),
            "format": self.format,
            "evidence": self.evidence,
            "evidence_text": self.evidence_text,
            "vendor": self.vendor,
            "limits": {name: asdict(limit) for name, limit in self.limits.items()},
            "energy": asdict(self.energy) if self.energy else None,
        }

    def fit(self, deployment: Deployment, approximate: bool = False) -> OnChip:
        """The network as the chip would hold it, and every reason why it could not.

        Args:
            deployment: in whole numbers (see `msg_deploy.quantize`), TWO left to the host.
            approximate: allow the approximations that the target knows.
        """
        findings = Findings(approximate)
        try:
            network = populations(deployment)
        except GraphError as error:
            findings.law("", str(error))
            return OnChip(self.name, deployment, None, problems=tuple(findings.problems))
        return self.place(network, findings)

    @abstractmethod
    def place(self, network: Populations, findings: Findings) -> OnChip:
        """Populations onto cores, their numbers into the chip's arithmetic.

        Args:
            network: to place.
            findings: takes up what is found; `OnChip.problems` and `approximations` hold it.

        Returns:
            All that is known; `network` is None where a law is missing.
        """

    def files(self, chip: OnChip) -> Mapping[str, bytes]:
        """The content of the export's files by name, `decode.py` and `target.json` aside.

        Raises:
            GraphError: the chip's format cannot say it.
        """
        raise GraphError(f"{self.title}: nothing is exported for it; {self.evidence_text}")


def common_law(network: Populations, findings: Findings, allowed: tuple[type, ...]) -> None:
    """Every population that is none of these types of nodes is a problem."""
    kinds = ", ".join(kind.__name__ for kind in allowed)
    for item in network.items.values():
        if item.node is not None and not isinstance(item.node, allowed):
            kind = type(item.node).__name__
            findings.law(item.name, f"{kind} is not among its neurons ({kinds}); train with these.")


def two_of(network: Populations) -> Iterator[float]:
    """TWO's weights f_t, or ones."""
    readout = network.deployment.readout
    steps = network.deployment.timing.steps
    yield from readout.weights if readout is not None else (1.0,) * steps
