"""All shards of a check, wherever they are computed, and what follows from them together."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass

from msg_deploy.samples import Samples
from msg_deploy.scale.executors import Executor, Task
from msg_deploy.scale.state import Finished
from msg_deploy.scale.work import Found, Shard, load, shards
from msg_deploy.sim.verdict import merge_all


@dataclass(frozen=True)
class Plan:
    """How samples are divided; whoever computes them, the shards are the same.

    Attributes:
        samples: to run.
        size: samples of a shard.
    """

    samples: Samples
    size: int

    @property
    def shards(self) -> list[Shard]:
        """All of them."""
        return list(shards(len(self.samples), self.size))


def compare_all(
    task: Task,
    plan: Plan,
    execute: Executor,
    finished: Finished,
    on_batch: Callable[[int, int], None] = lambda done, total: None,
) -> Found:
    """Compare both sides on all samples.

    Args:
        task: what is done with each shard.
        plan: the shards.
        execute: where they are computed.
        finished: shards that are done already; those that are done now are added.
        on_batch: called with samples done and in total.
    """
    if task.work.impossible:
        return task.work.impossible
    planned, total = plan.shards, len(plan.samples)
    missing = [shard for shard in planned if shard.number not in finished.found]
    done = total - sum(shard.count for shard in missing)
    loads = (load(shard, plan.samples) for shard in missing)
    # Closed at once, whatever happens: it may have started processes.
    with contextlib.closing(execute(task, loads)) as results:
        for shard, found in results:
            finished.add(shard.number, found)
            done += shard.count
            on_batch(done, total)
    in_order = [finished.found[shard.number] for shard in planned]
    return tuple(map(merge_all, zip(*in_order, strict=True)))
