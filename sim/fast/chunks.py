"""How many samples and steps are run at once: as many as the memory budget holds."""

from __future__ import annotations

from collections.abc import Iterator

CACHE = 2**24
"""Bytes that a chunk takes if it can, although the budget is larger: memory that is used again at
once is still in the cache, and need not be asked from the system."""


def chunks(samples: int, steps: int, bytes_each: int, budget: int) -> Iterator[tuple[slice, slice]]:
    """Slices of the samples, and for each of them slices of the steps in their order.

    Args:
        samples: to run.
        steps: of each.
        bytes_each: what one sample takes at one step.
        budget: bytes; a single step of a single sample is run whatever it takes.
    """
    affordable = max(1, min(budget, CACHE) // bytes_each)
    together = max(1, affordable // steps)
    length = steps if affordable >= steps else max(1, min(steps, budget // bytes_each))
    for start in range(0, samples, together):
        for first in range(0, steps, length):
            yield slice(start, min(start + together, samples)), slice(first, first + length)
