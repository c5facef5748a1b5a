"""Choices by name, in a module that imports nothing heavy: the command line starts from here."""

from __future__ import annotations

from typing import Literal

ResetMode = Literal["zero", "subtract"]
"""The membrane after a spike: v_reset, or what it was minus the threshold."""
Fold = Literal["delay", "bank", "leak", "host"]
"""How TWO is folded into an exported graph."""
FoldChoice = Literal["delay", "bank", "leak", "host", "auto"]
"""The same, or the cheapest within a tolerance."""
Encoding = Literal["direct", "frames"]
"""How a sample becomes T timesteps: repeated, or one frame each."""
Where = Literal["weight", "surrogate"]
"""What MSG masks."""
Surrogate = Literal["arctan", "piecewise_linear"]
"""Shape of dS/dV."""
Norm = Literal["batch", "td"]
"""Normalisation of convolutions."""
Loss = Literal["two", "tet"]
"""What is trained: the cross-entropy of the TWO output, or TET's mean over the timesteps."""
Augment = Literal["none", "flip", "auto"]
"""How training samples are varied."""
Precision = Literal["float64", "float32"]
"""Arithmetic of a simulation."""
Layout = Literal["sequence", "step", "unrolled"]
"""What one run of an exported ONNX model computes: all steps by Scan, one, or all without Scan."""
SliceBy = Literal["count", "time"]
"""How a recording becomes frames: equally many events each, or equally long ones."""
Granularity = Literal["channel", "layer", "power-of-two"]
"""What has a scale: an output channel, a layer, or a layer, and then a power of two."""
Calibration = Literal["max", "percentile", "mse"]
"""Which weights a scale still holds: all, all but a percentile, or those that pay."""
InputKind = Literal["auto", "levels", "counts"]
"""What a quantized network takes: levels of a range, or whole numbers as they are."""
Leak = Literal["keep", "power-of-two"]
"""Time constants of a quantized network: as they are, or such that dt/tau is a power of two."""
Broken = Literal["fail", "skip"]
"""What to do about files that cannot be read."""
