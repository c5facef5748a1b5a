"""Varying training samples, by Kornia. All timesteps of a sample are varied alike."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from msg_deploy.deployment import InputSpec
from msg_deploy.errors import UsageError
from msg_deploy.options import Augment

Augmentation = Callable[[Tensor], Tensor]
"""Samples (B, *shape) or (B, T, *shape) to samples of the same shape."""


def augmentation(name: Augment, spec: InputSpec) -> Augmentation:
    """An augmentation by name; random numbers come from torch's global generator.

    Args:
        name: "none"; "flip": horizontal flips and crops after padding by an eighth; "auto": the
            same, then AutoAugment's policy for CIFAR-10 (Cubuk et al. 2019), for colour images in
            0..1.
        spec: what a sample looks like.

    Raises:
        UsageError: Kornia is not installed, or the samples are not images of the kind needed.
    """
    if name == "none":
        return lambda samples: samples
    try:
        from kornia.augmentation import RandomCrop, RandomHorizontalFlip
        from kornia.augmentation.auto import AutoAugment
    except ImportError as error:
        raise UsageError(
            f"augment {name!r} needs Kornia; install it with pip install 'msg-deploy[augment]'."
        ) from error
    if len(spec.shape) != 3:
        raise UsageError(f"augment {name!r} varies images (C, H, W), not samples {spec.shape}.")
    channels, height, width = spec.shape
    padding = max(height, width) // 8
    stages: list[Augmentation] = [
        RandomHorizontalFlip(p=0.5),
        RandomCrop((height, width), padding=padding),
    ]
    if name == "auto":
        if channels != 3 or (spec.low, spec.high) != (0, 1):
            raise UsageError("augment 'auto' needs colour images in 0..1; use 'flip'.")
        stages.append(AutoAugment("cifar10"))

    def vary(samples: Tensor) -> Tensor:
        # Timesteps become channels, so that one draw holds for all of them.
        merged = samples.reshape(len(samples), -1, height, width)
        for stage in stages:
            merged = stage(merged)
        return merged.reshape(samples.shape)

    return vary
