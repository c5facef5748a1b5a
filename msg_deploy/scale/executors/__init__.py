"""Where shards are computed: a module each, found by themselves.

To add one, write a module in this package with a function (task, loads, value) -> results,
decorated with `executor`, which names the argument of `msg_deploy.check` that asks for it. An
executor may compute shards in any order and more than once; it gives each result once.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from msg_deploy.errors import MsgDeployError, UsageError
from msg_deploy.scale.job import Job
from msg_deploy.scale.work import Found, Load, Shard, Work, run_shard

MOST_TRIES = 3
"""Times that a shard may take down the process that computes it."""


@dataclass(frozen=True)
class Task:
    """What is to be done with every shard.

    Attributes:
        work: for this process.
        job: the same for others; its argument says whether files are sent as a whole.
    """

    work: Work
    job: Callable[[bool], Job]


Results = Generator[tuple[Shard, Found], None, None]
Executor = Callable[[Task, Iterable[Load]], Results]
_REGISTRY: dict[str, Callable[[Task, Iterable[Load], Any], Results]] = {}
Registered = Callable[[Task, Iterable[Load], Any], Results]


class WorkerDiedError(MsgDeployError):
    """The processes that computed a shard were killed, or crashed.

    Args:
        shard: that they computed.
        advice: what to do.
    """

    def __init__(self, shard: Shard, advice: str) -> None:
        super().__init__(
            f"{shard}: at least {MOST_TRIES} processes that computed it died one after the other, "
            f"which is mostly for want of memory. {advice}"
        )


def executor(option: str) -> Callable[[Registered], Registered]:
    """Decorator: the function computes shards where an argument of this name is given."""

    def add(compute: Registered) -> Registered:
        _REGISTRY[option] = compute
        return compute

    return add


@functools.cache
def executors() -> dict[str, Registered]:
    """All that are asked for by an argument, by its name."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    return dict(sorted(_REGISTRY.items()))


def chosen(options: Mapping[str, Any]) -> Executor:
    """The executor that is asked for; without any, this process does the work itself.

    Args:
        options: arguments by name, None if they are not given.

    Raises:
        UsageError: several are asked for.
    """
    given = {name: value for name, value in options.items() if value is not None}
    if len(given) > 1:
        raise UsageError(f"{' and '.join(given)}: give one of them.")
    if not given:
        return serial
    ((name, value),) = given.items()
    return functools.partial(_with, executors()[name], value)


def _with(compute: Registered, value: Any, task: Task, loads: Iterable[Load]) -> Results:
    return compute(task, loads, value)


def serial(task: Task, loads: Iterable[Load]) -> Results:
    """One after the other, in this process."""
    for load in loads:
        yield load.shard, run_shard(task.work, load)
