"""Chip targets: one module each, found by themselves.

To add one, write a module with a class decorated by `register`, see `msg_deploy.exporters.chips`
for what it builds on.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from typing import TypeVar

from msg_deploy.errors import UsageError
from msg_deploy.exporters.chips.target import Target

TargetType = TypeVar("TargetType", bound=type[Target])
_REGISTRY: dict[str, Target] = {}


def register(target: TargetType) -> TargetType:
    """Class decorator: make a target available by its name."""
    _REGISTRY[target.name] = target()
    return target


@functools.cache
def targets() -> dict[str, Target]:
    """All targets by name."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    return dict(sorted(_REGISTRY.items()))


def target(name: str) -> Target:
    """A target by name, or by the beginning of one name, such as speck.

    Raises:
        UsageError: there is none, or there are several.
    """
    known = targets()
    found = [name] if name in known else [other for other in known if other.startswith(name)]
    if len(found) > 1:
        raise UsageError(f"target {name!r} may be {' or '.join(found)}; say which.")
    if not found:
        raise UsageError(f"unknown target {name!r}; there are {', '.join(known)}.")
    return known[found[0]]
