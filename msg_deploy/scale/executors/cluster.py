"""The workers of a dask.distributed cluster. They need msg-deploy, but none of the files.

Dask gives a shard that was lost with its worker to another one. Every shard goes by a name made
from its content, so that a result can neither be taken for another one nor be counted twice.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from msg_deploy.errors import UsageError, reason
from msg_deploy.scale.executors import Results, Task, WorkerDiedError, executor
from msg_deploy.scale.job import Job, opened, versions
from msg_deploy.scale.threads import one_thread
from msg_deploy.scale.work import Found, Load, run_shard

if TYPE_CHECKING:
    from distributed import Client, Future

SECONDS = 30
"""To find the scheduler, and to wait for a first worker."""
AHEAD = 2
"""Shards in memory for each thread of a worker."""
ADVICE = "Give the workers more memory."
_ALONE = threading.Lock()
"""The engines of a process, and the number of its threads, are for one shard at a time."""


@executor("scheduler")
def cluster(task: Task, loads: Iterable[Load], scheduler: str) -> Results:
    """By the workers that a scheduler has.

    Raises:
        UsageError: distributed is not installed, there is no scheduler or worker, or it went away;
            or a worker has other versions of the libraries.
        WorkerDiedError: a shard has taken down every worker that computed it.
    """
    try:
        from distributed import CancelledError
        from distributed.comm.core import CommClosedError
    except ImportError as error:
        raise UsageError(
            "a cluster is used through dask.distributed; install it with "
            "pip install 'msg-deploy[cluster]'."
        ) from error
    job = task.job(True)
    with _quiet(), _connected(scheduler) as client:
        try:
            yield from _results(client, job, iter(loads))
        except (CommClosedError, CancelledError) as error:
            raise UsageError(
                f"{scheduler}: the scheduler went away before all was done. Start it again; with a "
                "state file (--state) what was done is kept."
            ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the client's log of lost connections: they are raised as well."""
    logger = logging.getLogger("distributed.client")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


def _results(client: Client, job: Job, loads: Iterator[Load]) -> Results:
    from distributed import as_completed

    # A task like others: if the workers that have it die, it is sent again.
    sent = _submit(client, f"job-{job.key}", _sent, job)
    running: dict[Any, Load] = {}
    results = as_completed(loop=client.loop)

    def fill() -> None:
        threads = max(1, sum(client.nthreads().values()))
        for load in itertools.islice(loads, max(0, AHEAD * threads - len(running))):
            future = _submit(client, _name(job, load), _compute, sent, load)
            running[future.key] = load
            results.add(future)

    fill()
    for future in results:
        load = running.pop(future.key)
        yield load.shard, _result(future, load)
        fill()


def _connected(scheduler: str) -> Client:
    from distributed import Client

    try:
        client = Client(scheduler, timeout=SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{scheduler}: no scheduler of dask.distributed answers there ({reason(error)})."
        ) from error
    try:
        client.wait_for_workers(1, timeout=SECONDS)
    except TimeoutError as error:
        client.close()
        raise UsageError(f"{scheduler}: the scheduler has no workers; start some.") from error
    return client


def _name(job: Job, load: Load) -> str:
    content = hashlib.sha256(np.ascontiguousarray(load.samples).data).hexdigest()
    return f"shard-{job.key}-{load.shard.number}-{load.shard.first}-{content[:16]}"


def _submit(
    client: Client, name: str, function: Callable[..., Any], *arguments: Any
) -> Future[Any]:
    """Arguments travel within the task, to be sent again if need be; dask warns of large ones."""
    import dask

    with dask.config.set({"distributed.admin.large-graph-warning-threshold": "1TiB"}):
        return client.submit(function, *arguments, key=f"msg-deploy-{name}")


def _result(future: Future[Any], load: Load) -> Found:
    from distributed import KilledWorker
    from distributed.comm.core import CommClosedError

    try:
        found: Found = future.result()
    except KilledWorker as error:
        raise WorkerDiedError(load.shard, ADVICE) from error
    except CommClosedError:
        raise
    except (ImportError, OSError) as error:
        raise UsageError(f"{load.shard}: a worker cannot compute it ({reason(error)}).") from error
    return found


def _sent(job: Job) -> Job:
    return job


def _compute(job: Job, load: Load) -> Found:
    """What a worker does.

    Raises:
        UsageError: its libraries are not those of the others.
    """
    from distributed import get_worker

    mine = versions()
    unequal = [f"{n} {mine[n]} in place of {v}" for n, v in job.versions.items() if v != mine[n]]
    if unequal:
        raise UsageError(f"a worker has {', '.join(unequal)}; install the same versions there.")
    with _ALONE, one_thread():
        return run_shard(opened(job, get_worker().local_directory), load)
