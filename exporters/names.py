"""Names for nodes that a pass adds."""

from __future__ import annotations

from collections.abc import Container


def free_name(name: str, taken: Container[str], suffix: str = "_") -> str:
    """A name that is not taken: this one, with as many suffixes as it needs."""
    while name in taken:
        name += suffix
    return name
