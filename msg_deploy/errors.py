"""Errors for the person at the keyboard.

Every error that bad input or bad usage can cause derives from `MsgDeployError`; the command
line prints its text as one paragraph and exits with code 2. Anything else is a bug of ours.
"""

from __future__ import annotations

from pathlib import Path


class MsgDeployError(Exception):
    """Base of all errors raised on purpose."""


class FileError(MsgDeployError):
    """A file cannot be read or written, or its content is not acceptable.

    Args:
        path: the file.
        problem: what is wrong, where in the file, and what would be accepted.
    """

    def __init__(self, path: str | Path, problem: str) -> None:
        super().__init__(f"{path}: {problem}")
        self.path = Path(path)
        self.problem = problem

    def __reduce__(self) -> tuple[type[FileError], tuple[Path, str]]:
        """Errors of other processes come pickled."""
        return type(self), (self.path, self.problem)


class GraphError(MsgDeployError):
    """A graph is not one that can be executed: wrong shape, missing node, cycle without state."""


class TraceError(MsgDeployError):
    """A torch module uses something that has no counterpart in NIR."""


class UsageError(MsgDeployError):
    """An option or argument has a value that is not accepted."""


def reason(error: BaseException) -> str:
    """First line of an exception's text, or its type where it has none."""
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
