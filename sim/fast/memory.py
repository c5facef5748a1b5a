"""Arrays as they lie in memory: images with their channels last, as oneDNN likes them.

A kernel sees (T, B, N) whatever the order of N; parameters are brought into the same order.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from msg_deploy.deployment import Shape

Array = npt.NDArray[Any]


def is_image(shape: Shape) -> bool:
    """Whether a node's values are (channels, height, width)."""
    return len(shape) == 3


def ordered(parameter: Any, shape: Shape, dtype: npt.DTypeLike) -> Array:
    """A parameter of the node's shape as (N,)."""
    full = np.broadcast_to(np.asarray(parameter, dtype), shape)
    return np.ascontiguousarray(np.moveaxis(full, 0, -1) if is_image(shape) else full).ravel()


def flat(x: Tensor, shape: Shape) -> Array:
    """(T, B, *shape) as (T, B, N); a view where the order of memory allows it."""
    moved = x.movedim(2, -1) if is_image(shape) else x
    return moved.contiguous().numpy().reshape(*x.shape[:2], math.prod(shape))


def shaped(values: Array, shape: Shape) -> Tensor:
    """(T, B, N) as (T, B, *shape), a view."""
    tensor = torch.from_numpy(values)
    if not is_image(shape):
        return tensor.view(*values.shape[:2], *shape)
    channels, height, width = shape
    return tensor.view(*values.shape[:2], height, width, channels).movedim(-1, 2)
