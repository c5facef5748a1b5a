"""How the same network is written for a destination: a pass Deployment -> Deployment by name.

One module per dialect, found by itself. To add one, write a module with a function decorated by
`dialect`; what the dialect cannot express it refuses, naming the node and the law that differs.
The result means the same under docs/contract.md. Where a destination reads other numbers or another
nesting, the dialect's `arrangement` makes them for the file, and its `restoration` takes them back.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import replace

import nir

from msg_deploy.deployment import Deployment
from msg_deploy.errors import UsageError

Dialect = Callable[[Deployment], Deployment]
Arrangement = Callable[[nir.NIRGraph], nir.NIRGraph]
_REGISTRY: dict[str, Dialect] = {}
_ARRANGEMENTS: dict[str, Arrangement] = {}
_RESTORATIONS: dict[str, Arrangement] = {}


def dialect(rewrite: Dialect) -> Dialect:
    """Decorator: make a dialect available by its function's name, with dashes."""
    _REGISTRY[rewrite.__name__.replace("_", "-")] = rewrite
    return rewrite


def arrangement(name: str) -> Callable[[Arrangement], Arrangement]:
    """Decorator: how the files of a dialect nest nodes and scale numbers; reading undoes it."""
    return _adder(_ARRANGEMENTS, name)


def restoration(name: str) -> Callable[[Arrangement], Arrangement]:
    """Decorator: what undoes an arrangement, nesting and names aside."""
    return _adder(_RESTORATIONS, name)


def _adder(registry: dict[str, Arrangement], name: str) -> Callable[[Arrangement], Arrangement]:
    def add(arrange: Arrangement) -> Arrangement:
        registry[name] = arrange
        return arrange

    return add


def arranged(graph: nir.NIRGraph, name: str) -> nir.NIRGraph:
    """A flat graph as the files of a dialect hold it."""
    dialects()
    return _ARRANGEMENTS[name](graph) if name in _ARRANGEMENTS else graph


def restored(graph: nir.NIRGraph, name: str) -> nir.NIRGraph:
    """A graph as read, flat and with its names, before it was arranged.

    Raises:
        GraphError: it was not written by the dialect.
    """
    dialects()
    return _RESTORATIONS[name](graph) if name in _RESTORATIONS else graph


@functools.cache
def dialects() -> dict[str, Dialect]:
    """All dialects by name."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    return dict(sorted(_REGISTRY.items()))


def in_dialect(deployment: Deployment, name: str) -> Deployment:
    """A deployment as a dialect writes it.

    Raises:
        UsageError: no such dialect.
        GraphError: naming the node and the law that the dialect cannot express.
    """
    known = dialects()
    name = name.replace("_", "-")
    if name not in known:
        raise UsageError(f"unknown dialect {name!r}; there are {', '.join(known)}.")
    # The latency is that of the dialect before; this one states its own.
    plain = replace(deployment, provenance=replace(deployment.provenance, latency=0))
    rewritten = known[name](plain)
    return replace(rewritten, provenance=replace(rewritten.provenance, dialect=name))
