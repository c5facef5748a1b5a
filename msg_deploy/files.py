"""Outputs that are whole or absent."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator
from pathlib import Path

from msg_deploy.errors import FileError, reason


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
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text to `path`, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


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
    if path.is_dir():
        raise FileError(path, "is a directory; name a file to write.")
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")


def _unwritable(path: Path, error: OSError) -> FileError:
    return FileError(
        path,
        f"cannot be written ({error.strerror or reason(error)}); "
        "name a file in an existing directory that you may write to.",
    )
