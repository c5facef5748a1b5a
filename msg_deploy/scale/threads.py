"""One thread for one shard: processes that share a machine must not take each other's cores.

BLAS may sum in another order with another number of threads; with one it cannot.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from threadpoolctl import threadpool_limits


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """One thread in torch, numba and BLAS for the time of the block."""
    import numba

    before = torch.get_num_threads(), numba.get_num_threads()
    try:
        with threadpool_limits(1):
            torch.set_num_threads(1)
            numba.set_num_threads(1)
            yield
    finally:
        torch.set_num_threads(before[0])
        numba.set_num_threads(before[1])
