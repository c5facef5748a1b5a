"""What is done with a shard: both sides are run on its samples and compared."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from msg_deploy.deployment import Metadata
from msg_deploy.options import Precision
from msg_deploy.samples import Samples
from msg_deploy.sim.compare import TOLERANCE, Layout, compare
from msg_deploy.sim.simulator import FloatArray
from msg_deploy.sim.verdict import Comparison
from msg_deploy.stimulus import encoded

if TYPE_CHECKING:
    from msg_deploy.runners import Runner
    from msg_deploy.sim.explanation import Rounding

Found = tuple[Comparison, ...]
"""Of the left side with each runner of the right side."""


@dataclass(frozen=True)
class Shard:
    """A range of samples.

    Attributes:
        number: from 0.
        first: index of the first sample.
        count: number of samples.
    """

    number: int
    first: int
    count: int

    def __str__(self) -> str:
        """As errors call it."""
        return f"shard {self.number} (samples {self.first} to {self.first + self.count - 1})"


def shards(total: int, size: int) -> Iterator[Shard]:
    """All shards of `total` samples; the last one may be smaller than `size`."""
    for number, first in enumerate(range(0, total, size)):
        yield Shard(number, first, min(size, total - first))


@dataclass(frozen=True)
class Load:
    """A shard with its samples, (N, *shape)."""

    shard: Shard
    samples: FloatArray


def load(shard: Shard, samples: Samples) -> Load:
    """Read the samples of a shard."""
    return Load(shard, samples[shard.first : shard.first + shard.count])


@dataclass(frozen=True)
class Work:
    """Two sides, ready to be compared on any samples.

    Attributes:
        mine: the left side.
        others: the right side, in each of its simulators.
        metadata: of the left side.
        layout: of the left side.
        theirs: layout of the right side, if it is written in another dialect.
        fold: stated error of TWO's weights on both sides together.
        precision: of both.
        rounding: from inputs to what rounding can change, if it is to be found out.
    """

    mine: Runner
    others: Sequence[Runner]
    metadata: Metadata
    layout: Layout
    theirs: Layout | None
    fold: float
    precision: Precision
    rounding: Callable[[FloatArray], Rounding] | None

    @property
    def impossible(self) -> Found:
        """What there is to say if nothing can be run; empty if something can."""
        gaps = [self.mine.gaps or runner.gaps for runner in self.others]
        return tuple(map(self._missing, self.others)) if all(gaps) else ()

    def _missing(self, runner: Runner) -> Comparison:
        return Comparison(self.mine.name, runner.name, missing=self.mine.gaps or runner.gaps)


def run_shard(work: Work, load: Load) -> Found:
    """Compare both sides on the samples of one shard. Pure."""
    inputs = encoded(work.metadata, load.samples)
    expected = work.mine.run(inputs)
    rounding = work.rounding and work.rounding(inputs)

    def compared(runner: Runner) -> Comparison:
        if runner.gaps:
            return work._missing(runner)
        return compare(
            expected,
            runner.run(inputs),
            work.layout,
            TOLERANCE[work.precision],
            load.shard.first,
            work.fold,
            work.theirs,
            rounding,
        )

    return tuple(map(compared, work.others))
