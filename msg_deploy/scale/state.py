"""Finished shards in a file, from which an interrupted check goes on.

The first line says what the check is, every other line holds one shard, as JSON. A line is written
whole when its shard is done; one that an interruption has cut off is dropped when the file is read.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from pydantic import ConfigDict, NonNegativeInt, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked

from msg_deploy.deployment import explain
from msg_deploy.errors import FileError, UsageError, reason
from msg_deploy.samples import identity
from msg_deploy.scale.work import Found
from msg_deploy.sim.verdict import Comparison

if TYPE_CHECKING:
    from msg_deploy.scale.executors import Task
    from msg_deploy.scale.running import Plan

KIND = "msg-deploy check, version 1"
START = f'{{"kind": "{KIND}"'.encode()
ANEW = "remove the file to start anew."


@checked(frozen=True, config=ConfigDict(extra="forbid"))
class Line:
    """One shard in a file.

    Attributes:
        shard: its number.
        found: its results.
    """

    shard: NonNegativeInt
    found: tuple[Comparison, ...]


LINE = TypeAdapter(Line)


@dataclass
class Finished:
    """The shards that are done.

    Attributes:
        found: their results by number.
        file: to which they are written, if at all.
    """

    found: dict[int, Found] = field(default_factory=dict)
    file: IO[str] | None = None

    def add(self, number: int, found: Found) -> None:
        """Note that a shard is done. A second time changes nothing."""
        if number in self.found:
            return
        self.found[number] = found
        if self.file:
            with _written(Path(self.file.name)):
                self.file.write(_line(dataclasses.asdict(Line(number, found))))
                self.file.flush()
                os.fsync(self.file.fileno())


@contextlib.contextmanager
def kept(path: Path | None, task: Task, plan: Plan) -> Iterator[Finished]:
    """What is done of a check; it is kept if the block is left by an exception.

    Args:
        path: file to keep it in; None: nothing is kept.
        task: what is done with each shard.
        plan: the shards.

    Raises:
        FileError: the file cannot be read or written, or is not of this kind.
        UsageError: it belongs to another check.
    """
    if path is None:
        yield Finished()
        return
    about = {
        **task.job(False).described(),
        "samples": identity(plan.samples),
        "shard size": plan.size,
    }
    found, length = _read(path, about)
    _check_shards(path, found, task, plan)
    with _written(path):
        file = path.open("a", encoding="utf-8")
    try:
        with _written(path):
            file.truncate(length)
            if not length:
                file.write(_line({"kind": KIND, "check": about}))
                file.flush()
        yield Finished(found, file)
    finally:
        # On a full disk, what could not be written is tried, and fails, once more.
        with contextlib.suppress(OSError):
            file.close()
    with _written(path):
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def _written(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise FileError(path, f"cannot be written ({error.strerror or reason(error)}).") from error


def _read(path: Path, about: Mapping[str, Any]) -> tuple[dict[int, Found], int]:
    """Shards that are done, and the length of the lines that are whole."""
    try:
        content = path.read_bytes() if path.exists() else b""
    except OSError as error:
        raise FileError(path, f"cannot be read ({error.strerror or reason(error)}).") from error
    whole = content[: content.rfind(b"\n") + 1]
    if not whole and content[: len(START)] == START[: len(content)]:
        return {}, 0
    head, *lines = whole.split(b"\n")[:-1] or [b""]
    _check_head(path, head, about)
    try:
        done = [LINE.validate_json(line) for line in lines]
    except ValidationError as error:
        raise FileError(path, f"is damaged ({explain(error)}); {ANEW}") from error
    return {line.shard: line.found for line in done}, len(whole)


def _check_head(path: Path, head: bytes, about: Mapping[str, Any]) -> None:
    """The file is of this kind, and of this check."""
    try:
        values = json.loads(head)
        known = values["kind"] == KIND
        was = dict(values["check"])
    except (ValueError, KeyError, TypeError) as error:
        raise FileError(path, f"is not the state of a check; {ANEW}") from error
    if not known:
        raise FileError(path, f"is of another version; {ANEW}")
    names = [name for name in {**was, **about} if was.get(name) != about.get(name)]
    if names:
        listed = "; ".join(f"{n} was {_text(was.get(n))}, is {_text(about.get(n))}" for n in names)
        raise UsageError(f"{path}: belongs to another check: {listed}. {ANEW.capitalize()}")


def _check_shards(path: Path, found: Mapping[int, Found], task: Task, plan: Plan) -> None:
    """They are those of the plan, and complete."""
    counts = {shard.number: shard.count for shard in plan.shards}
    for number, each in found.items():
        whole = all(c.missing or c.samples == counts.get(number) for c in each)
        if number not in counts or len(each) != len(task.work.others) or not whole:
            raise FileError(path, f"is damaged (shard {number}); {ANEW}")


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _line(values: Mapping[str, Any]) -> str:
    """One line of JSON; NaN and infinity as Python's json writes and reads them."""
    return json.dumps(values) + "\n"
