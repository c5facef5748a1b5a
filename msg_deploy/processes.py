"""Training in several processes, as started by torchrun; alone where there is only one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import torch.distributed as dist
from torch import Tensor


@contextlib.contextmanager
def group() -> Iterator[None]:
    """Join the processes of torchrun for the time of the block; training is on CPUs, so by gloo."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        yield
        return
    dist.init_process_group("gloo")
    try:
        yield
        # No process may leave while another still needs it.
        dist.barrier()
    finally:
        dist.destroy_process_group()


def count() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def total(value: Tensor) -> Tensor:
    """The sum over all processes, in place."""
    if dist.is_initialized():
        dist.all_reduce(value)
    return value
