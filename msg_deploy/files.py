"""Outputs that are whole or absent."""

from __future__ import annotations

import contextlib
import io
import os
import secrets
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from msg_deploy.errors import FileError, reason

MAX_NAME = 255 - len("..12345678.part")
"""Bytes, not characters: file systems take 255 of them in a name."""


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is renamed to `path`.

    On any exception the temporary file is removed and what stood at `path` is untouched.

    Raises:
        FileError: the directory is missing or cannot be written, or the disk is full.
    """
    temporary = _beside(path)
    try:
        temporary.touch(exist_ok=False)
        yield temporary
        if path.exists():
            temporary.chmod(path.stat().st_mode & 0o777)
        temporary.replace(path)
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        # What went wrong before is what there is to say.
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text to `path`, whole or not at all."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes | memoryview) -> None:
    """Write `content` to `path`, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_made(path: Path, make: Callable[[io.BytesIO], object]) -> None:
    """Write what a library makes of a file to `path`, whole or not at all.

    Args:
        path: to write.
        make: writes into memory: on a full disk some libraries raise errors of other kinds, and
            HDF5 does not let go of the file.
    """
    made = io.BytesIO()
    make(made)
    write_bytes(path, made.getbuffer())


def write_folder(path: Path, files: Mapping[str, bytes], mark: str) -> None:
    """Write a folder of files, whole or not at all.

    Args:
        path: of the folder.
        files: content by name.
        mark: name of a file that a folder of ours has; one without is not replaced.

    Raises:
        FileError: `path` is something else, or cannot be written.
    """
    try:
        if path.exists() and not (path.is_dir() and (path / mark).is_file()):
            raise FileError(path, f"is there, and is no folder with a {mark}; it is left as it is.")
        with tempfile.TemporaryDirectory(prefix=hidden(path), dir=path.parent) as temporary:
            new, old = Path(temporary, "new"), Path(temporary, "old")
            new.mkdir()
            for name, content in files.items():
                (new / name).write_bytes(content)
            if path.exists():
                path.replace(old)
            try:
                new.replace(path)
            except OSError:
                if old.exists():
                    old.replace(path)
                raise
    except OSError as error:
        raise _unwritable(path, error) from error


def check_writable(path: Path) -> None:
    """Find out before long work that its result cannot be written; leaves nothing behind.

    Raises:
        FileError: as `replacing`.
    """
    probe = _beside(path)
    try:
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as error:
        raise _unwritable(path, error) from error


def _beside(path: Path) -> Path:
    """A name in the same directory, so that renaming it to `path` is one atomic step."""
    try:
        path.stat()
    except FileNotFoundError:
        pass
    except OSError as error:  # the name itself is too long, or the parent is a file
        raise _unwritable(path, error) from error
    if path.is_dir():
        raise FileError(path, "is a directory; name a file to write.")
    return path.with_name(f"{hidden(path)}{secrets.token_hex(4)}.part")


def hidden(path: Path) -> str:
    """How names of temporary files beside `path` begin: short enough for what is added to them."""
    return f".{os.fsencode(path.name)[:MAX_NAME].decode(errors='ignore')}."


def _unwritable(path: Path, error: OSError) -> FileError:
    return FileError(
        path,
        f"cannot be written ({error.strerror or reason(error)}); "
        "name a file in an existing directory that you may write to.",
    )
