"""Several processes of this machine, one thread each."""

from __future__ import annotations

import contextlib
import itertools
import logging
import multiprocessing
import os
import signal
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection

from msg_deploy.errors import UsageError
from msg_deploy.scale.executors import MOST_TRIES, Results, Task, WorkerDiedError, executor
from msg_deploy.scale.job import Job, opened
from msg_deploy.scale.threads import one_thread
from msg_deploy.scale.work import Found, Load, Shard, run_shard

AHEAD = 2
"""Shards in memory for each process: one that is computed, one that waits."""
ADVICE = (
    "Give fewer workers. In a script of your own, call check under if __name__ == '__main__', "
    "because every worker imports the script."
)


@executor("workers")
def processes(task: Task, loads: Iterable[Load], workers: int) -> Results:
    """By so many processes, each of them a pool of its own.

    If one dies, the others go on, and what it was given is given out again; the first of that is
    to blame.

    Raises:
        UsageError: the number is not positive.
        WorkerDiedError: a shard has taken down every process that computed it.
    """
    if workers < 1:
        raise UsageError(f"workers must be at least 1, not {workers}.")
    reader, writer = multiprocessing.Pipe(duplex=False)
    job, tries = task.job(False), Counter[Shard]()
    team = [Process(job, reader) for _ in range(workers)]
    left: Iterator[Load] = iter(loads)
    try:
        while True:
            for process, load in zip(_free(team), left, strict=False):
                process.give(load)
            due = [future for process in team for future in process.given]
            if not due:
                break
            wait(due, return_when=FIRST_COMPLETED)
            for process in team:
                yield from process.done()
                if process.died:
                    lost = process.restart()
                    tries[lost[0].shard] += 1
                    if tries[lost[0].shard] == MOST_TRIES:
                        raise WorkerDiedError(lost[0].shard, ADVICE)
                    left = itertools.chain(lost, left)
    except BaseException:
        writer.close()  # nobody waits for what is still computed
        raise
    finally:
        for process in team:
            process.pool.shutdown(cancel_futures=True)
        writer.close()
        reader.close()


class Process:
    """One process, and what it has been given to do.

    Args:
        job: that it works on.
        reader: of the pipe that ends it.

    Attributes:
        pool: of this process alone.
        given: what it has not given back, the first of which it computes.
    """

    def __init__(self, job: Job, reader: Connection) -> None:
        self.job, self.reader = job, reader
        self.given: dict[Future[Found], Load] = {}
        self.pool = self._pool()

    def _pool(self) -> ProcessPoolExecutor:
        context = multiprocessing.get_context("spawn")
        return ProcessPoolExecutor(1, context, _start, (self.job, self.reader))

    def give(self, load: Load) -> None:
        """Add a shard to what it has to do."""
        try:
            future = self._submit(load)
        except BrokenProcessPool:  # it has died while it had nothing to do
            self.restart()
            future = self._submit(load)
        self.given[future] = load

    def _submit(self, load: Load) -> Future[Found]:
        with _undisturbed():
            return self.pool.submit(_compute, load)

    def done(self) -> Results:
        """What it has computed."""
        for future in [f for f in self.given if f.done() and not _broken(f)]:
            found = future.result()
            yield self.given.pop(future).shard, found

    @property
    def died(self) -> bool:
        """Whether it is gone, and with it what it was given."""
        return any(f.done() and _broken(f) for f in self.given)

    def restart(self) -> list[Load]:
        """Start another one; gives what the old one has not done."""
        lost = list(self.given.values())
        self.given.clear()
        self.pool.shutdown(cancel_futures=True)
        self.pool = self._pool()
        return lost


def _broken(future: Future[Found]) -> bool:
    return isinstance(future.exception(), BrokenProcessPool)


def _free(team: list[Process]) -> Iterator[Process]:
    """Who can be given one more shard, those with the least to do first."""
    for busy in range(AHEAD):
        for process in team:
            if len(process.given) <= busy:
                yield process


_JOB: list[Job] = []
"""Of this process, if it is one of a team."""


def _start(job: Job, reader: Connection) -> None:
    """What a process does first: it leaves interruptions and warnings to its parent."""
    _JOB.append(job)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.getLogger("msg_deploy").setLevel(logging.ERROR)
    threading.Thread(target=_leave, args=(reader,), daemon=True).start()


def _leave(reader: Connection) -> None:
    """End this process when its parent closes the pipe, or dies."""
    with contextlib.suppress(EOFError, OSError):
        reader.recv_bytes()
    os._exit(1)


def _compute(load: Load) -> Found:
    with one_thread():
        return run_shard(opened(_JOB[0]), load)


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Processes that are started here do not see an interruption while they import."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    # When it starts, it unblocks signals for the process that is started next.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
