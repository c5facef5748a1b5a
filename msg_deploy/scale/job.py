"""A check as other processes get it: both models, the settings, and what identifies them."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
import pickle
import shutil
import tempfile
import weakref
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msg_deploy import checkpoint
from msg_deploy.errors import FileError, UsageError, reason
from msg_deploy.exporters.adapters import ForeignNetwork
from msg_deploy.pairs import paired
from msg_deploy.scale.work import Work

if TYPE_CHECKING:
    from msg_deploy.checking import Settings
    from msg_deploy.subjects import Model

SAVE = "save or export it and name the file, or leave out workers, scheduler and state."
LIBRARIES = (*checkpoint.LIBRARIES, "numba", "onnxruntime")


@dataclass(frozen=True)
class Carried:
    """A model on its way to another process.

    Attributes:
        name: of the file or type.
        sha256: of its content.
        path: of the file, for processes on this machine.
        files: content of the file and of those beside it, by name, for other machines.
        pickled: the model itself, if it was no file.
    """

    name: str
    sha256: str
    path: Path | None = None
    files: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    pickled: bytes = field(default=b"", repr=False)

    def model(self, folder: Path) -> Model:
        """The model, whose files are written to a new folder if they were sent.

        Raises:
            FileError: the file has changed.
            UsageError: the model has parts that this process does not know.
        """
        if self.pickled:
            # Written by this program for its own processes; a file is never unpickled.
            try:
                model: Model = pickle.loads(self.pickled)
            except (AttributeError, ImportError) as error:
                raise UsageError(
                    f"{self.name}: a part of it is not known to other processes "
                    f"({reason(error)}); {SAVE}"
                ) from error
            return model
        if self.files:
            folder.mkdir()
        for name, content in self.files.items():
            (folder / name).write_bytes(content)
        path = folder / self.name if self.files else self.path
        assert path is not None
        if _digest(path) != self.sha256:
            raise FileError(path, "has changed since the check began; start it anew.")
        return path


def carried(model: Model, content: bool) -> Carried:
    """A model to be sent.

    Args:
        model: as in `msg_deploy.check`.
        content: whether the file's content is to be sent, or only where it is.

    Raises:
        UsageError: the model exists in this process only.
        FileError: the file cannot be read.
    """
    if isinstance(model, ForeignNetwork):
        raise UsageError(
            f"{type(model.module).__name__}: a module of another framework is run in this process "
            f"only; {SAVE}"
        )
    if not isinstance(model, (str, Path)):
        try:
            pickled = pickle.dumps(model)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise UsageError(
                f"{type(model).__name__}: cannot be sent to other processes ({reason(error)}); "
                f"{SAVE}"
            ) from error
        return Carried(type(model).__name__, hashlib.sha256(pickled).hexdigest(), pickled=pickled)
    path = Path(model)
    try:
        files = {p.name: p.read_bytes() for p in _files(path)} if content else {}
        return Carried(path.name, _digest(path), path.absolute(), files)
    except OSError as error:
        raise FileError(path, f"cannot be read ({error.strerror or reason(error)}).") from error


def _files(path: Path) -> tuple[Path, ...]:
    """The file, and those that hold its weights."""
    if path.suffix != ".onnx":
        return (path,)
    from msg_deploy.exporters.onnx.file import files_of

    return files_of(path)


def _digest(path: Path) -> str:
    """Of all files of a model."""
    digests = "".join(checkpoint.sha256(p) for p in _files(path))
    return hashlib.sha256(digests.encode()).hexdigest()


@dataclass(frozen=True)
class Job:
    """A check without its samples.

    Attributes:
        key: identifies all else.
        a: left side.
        b: right side.
        settings: of the check.
        versions: of the libraries that decide the numbers.
    """

    key: str
    a: Carried = field(compare=False)
    b: Carried = field(compare=False)
    settings: Settings = field(compare=False)
    versions: Mapping[str, str] = field(compare=False)

    def described(self) -> dict[str, Any]:
        """What identifies it, by name, as JSON values."""
        sides = {n: f"{m.name} (sha256 {m.sha256[:16]})" for n, m in (("a", self.a), ("b", self.b))}
        return {**sides, **_plain(asdict(self.settings)), "versions": dict(self.versions)}


def job(a: Model, b: Model, settings: Settings, content: bool = False) -> Job:
    """What other processes need to know.

    Args:
        a: left side.
        b: right side.
        settings: of the check.
        content: whether files are sent as a whole, or only where they are.

    Raises:
        UsageError: a model exists in this process only.
        FileError: a file cannot be read.
    """
    made = Job("", carried(a, content), carried(b, content), settings, versions())
    text = json.dumps(made.described(), sort_keys=True)
    return replace(made, key=hashlib.sha256(text.encode()).hexdigest()[:32])


def versions() -> dict[str, str]:
    """Of the libraries that decide the numbers."""
    return {name: importlib.metadata.version(name) for name in LIBRARIES}


def _plain(values: Any) -> Any:
    """As JSON gives it back."""
    return json.loads(json.dumps(values, default=str))


@functools.lru_cache(maxsize=1)
def opened(job: Job, place: str | None = None) -> Work:
    """The work, in another process, by one thread; the last one is kept for the next shard.

    Args:
        job: as it was sent.
        place: folder for the files that were sent with it, cleared by whoever ends this process.
    """
    if not (job.a.files or job.b.files):
        return _work(job, Path())
    folder = Path(tempfile.mkdtemp(prefix="msg-deploy-", dir=place))
    try:
        work = _work(job, folder)
    except BaseException:
        shutil.rmtree(folder)
        raise
    # Not before: ONNX Runtime reads large weights when it first runs.
    weakref.finalize(work, shutil.rmtree, folder, ignore_errors=True)
    return work


def _work(job: Job, folder: Path) -> Work:
    from msg_deploy.checking import ready
    from msg_deploy.subjects import open_model

    settings = job.settings
    left, right = (
        open_model(model.model(folder / name), settings.foreign)
        for name, model in (("a", job.a), ("b", job.b))
    )
    runtime = replace(settings.runtime, threads=settings.runtime.threads or 1)
    sides = paired(left, right, dict(settings.mapping))
    return ready(*sides, replace(settings, runtime=runtime))
