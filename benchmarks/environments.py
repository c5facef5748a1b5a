"""Virtual environments of frameworks, one each, built once."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

MADE = ".made"


class BuildError(Exception):
    """An environment cannot be built; the text says why."""


def environment(folder: Path, install: Sequence[Sequence[str]]) -> Path:
    """The Python of an environment, which is built if it is not there or was made otherwise.

    Args:
        folder: of the environment.
        install: arguments of pip, one run after the other.

    Raises:
        BuildError: with the last line of what failed.
    """
    python, made = folder / "bin" / "python", folder / MADE
    recipe = "\n".join(" ".join(arguments) for arguments in install)
    if made.is_file() and made.read_text() == recipe:
        return python
    _run([sys.executable, "-m", "venv", "--clear", str(folder)])
    for arguments in install:
        _run([str(python), "-m", "pip", "install", "--disable-pip-version-check", *arguments])
    made.write_text(recipe)
    return python


def clone(folder: Path, repository: str, commit: str) -> None:
    """One commit of a git repository, unless the folder is there.

    Raises:
        BuildError: with the last line of what failed; nothing is left then.
    """
    if folder.exists():
        return
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    _run(["git", "init", "--quiet", str(part)])
    _run(["git", "-C", str(part), "fetch", "--quiet", "--depth", "1", repository, commit])
    _run(["git", "-C", str(part), "checkout", "--quiet", "FETCH_HEAD"])
    part.rename(folder)


def _run(command: list[str]) -> None:
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        errors = [line for line in result.stderr.splitlines() if line.startswith("ERROR")]
        lines = errors or result.stderr.strip().splitlines() or ["no reason given"]
        raise BuildError(f"{' '.join(command[1:4])} ...: {lines[0]}")
