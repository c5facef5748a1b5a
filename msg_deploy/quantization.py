"""Quantize a model: calibrate, fine-tune, write, and say what became of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from msg_deploy import checkpoint
from msg_deploy.data import Dataset, Split, datasets
from msg_deploy.deployment import Deployment, InputSpec
from msg_deploy.errors import UsageError
from msg_deploy.exporters import nir as nir_file
from msg_deploy.exporters.nir import ForeignTiming
from msg_deploy.exporters.quantize.apply import with_scales
from msg_deploy.exporters.quantize.finetune import finetuned
from msg_deploy.exporters.quantize.layers import QuantizedLayer, layers_of
from msg_deploy.exporters.quantize.nodes import weighted
from msg_deploy.exporters.quantize.options import QuantizeOptions
from msg_deploy.exporters.quantize.prepare import input_spec, prepared, unfolded
from msg_deploy.exporters.quantize.scales import Scales, chosen, fixed
from msg_deploy.exporters.quantize.statistics import measured
from msg_deploy.exporters.untrace import to_torch
from msg_deploy.files import check_writable
from msg_deploy.networks import SpikingNetwork
from msg_deploy.samples import Array, Joined, Samples
from msg_deploy.sim.certificate import Certifier
from msg_deploy.sim.fast import Fast
from msg_deploy.sim.torch_core import TorchCore
from msg_deploy.stimulus import batches, encoded, held_out, loaded, noise
from msg_deploy.subjects import Model, open_model
from msg_deploy.train import Epoch, TrainingOptions

DEFAULT_SAMPLES = 256
"""For calibration, as many of the data and as many random ones."""
BATCH = 64
CERTIFIED = 64
"""Held-out samples that are certified, at most."""
FEWER_LEVELS = (127, 63, 31)
"""Of an input without a grid of its own, where that leaves more of the weights."""


@dataclass(frozen=True)
class Effect:
    """A quantized network against the one it was made of, on held-out samples.

    Attributes:
        samples: their number.
        accuracy: share of the samples decided as labelled; None without labels.
        flips: samples whose decision differs.
        spikes_changed: share of all threshold decisions that differ.
        certified: share of the threshold decisions of some samples that no rounding in float32 can
            change.
    """

    samples: int
    accuracy: float | None
    flips: int
    spikes_changed: float
    certified: float


@dataclass(frozen=True)
class Quantization:
    """A quantized network.

    Attributes:
        deployment: its graph, in whole numbers.
        layers: its layers of weights.
        accuracy: of the network as it was, on the held-out samples; None without labels.
        plain: what quantization did.
        finetuned: the same after fine-tuning; None without.
        warnings: what could not be had, in sentences.
    """

    deployment: Deployment
    layers: tuple[QuantizedLayer, ...]
    accuracy: float | None
    plain: Effect
    finetuned: Effect | None = None
    warnings: tuple[str, ...] = ()

    @property
    def network(self) -> SpikingNetwork:
        """It as a torch module.

        Raises:
            GraphError: it has none.
        """
        return to_torch(self.deployment)


def to_integers(
    deployment: Deployment, samples: Samples, options: QuantizeOptions | None = None
) -> Deployment:
    """The pass alone: a network in whole numbers.

    Args:
        deployment: any network.
        samples: (N, ...) for calibration.
        options: bits, scales and what must be exact.

    Raises:
        GraphError: naming a node that cannot be quantized.
        UsageError: samples do not fit.
    """
    options = options or QuantizeOptions()
    found = np.asarray(samples[:])
    return with_scales(_calibrated(deployment, found, found, options), options)


def quantize(
    model: Model,
    output: str | Path | None = None,
    options: QuantizeOptions | None = None,
    data: str | Array | None = None,
    samples: int = DEFAULT_SAMPLES,
    finetune: TrainingOptions | None = None,
    seed: int = 0,
    test_samples: int | None = None,
    data_options: Mapping[str, Any] | None = None,
    foreign: ForeignTiming | None = None,
    on_progress: Callable[[int, int, str], None] = lambda done, total, note: None,
) -> Quantization:
    """Quantize a model, and write it.

    Args:
        model: a .pt or .nir file, a SpikingNetwork, a ForeignNetwork or a Deployment.
        output: .pt or .nir file to write, if any.
        options: bits, scales and what must be exact.
        data: name of a data set, a .npz file of samples, samples (N, *shape), or None: the data set
            that the model was trained on if it is known, else random samples alone.
        samples: so many of its training samples, drawn at random, and as many random ones, are what
            scales are chosen on; 0: random ones alone.
        finetune: train with rounded weights before, which needs a data set; None: not.
        seed: of what is drawn.
        test_samples: measure on at most so many held-out samples; None: on all.
        data_options: how the data set is found and read, see `DataOptions`.
        foreign: timing for .nir files that carry none.
        on_progress: called with what is done, what there is in all, and of what.

    Returns:
        The network, and what became of it.

    Raises:
        FileError: a file cannot be used.
        GraphError: naming a node that cannot be quantized.
        UsageError: an argument is not accepted.
    """
    options = options or QuantizeOptions()
    target = None if output is None else Path(output)
    if target is not None:
        _check_target(target)
    if samples < 0:
        raise UsageError(f"samples must not be negative, not {samples}.")
    subject, chosen = open_model(model, foreign), loaded(data)
    original = unfolded(subject.deployment)
    if original.integers is not None:
        raise UsageError(f"{subject.name}: is quantized already.")
    wanted = samples > 0 or isinstance(chosen, str) or finetune is not None
    dataset = _dataset(original, chosen, data_options or {}) if wanted else None
    if finetune is not None and dataset is None:
        raise UsageError("fine-tuning needs a data set; name one, or leave it out.")
    given = None if isinstance(chosen, str) else chosen
    known = _drawn(original, dataset, given, samples, seed) if samples else None
    on_progress(0, 1, "calibration")
    random = noise(original, samples or DEFAULT_SAMPLES, seed)
    calibration = random if known is None else Joined((known, random))
    scales = _calibrated(original, known, calibration, options)
    quantized = with_scales(scales, options)
    if target is not None and target.suffix != ".nir":
        to_torch(quantized)  # What has no module fails now, and not after the training.
    test = _test(dataset, random if given is None else given, test_samples)
    accuracy, effect = _effect(original, quantized, test, on_progress)
    after = None
    if finetune is not None and dataset is not None:
        own = subject.own.network if isinstance(subject.own, TorchCore) else None
        trained = finetuned(
            scales,
            options,
            dataset,
            finetune,
            own.readout.beta if own else 0.9,
            own,
            lambda epoch: on_progress(epoch.number, finetune.epochs, _note(epoch)),
        )
        found = {name: scales.output(name) for g in scales.groups for name in g.members}
        quantized = with_scales(fixed(trained, found), options)
        _, after = _effect(original, quantized, test, on_progress)
    layers = layers_of(quantized, calibration)
    result = Quantization(
        quantized, layers, accuracy, effect, after, _warnings(quantized, layers, options)
    )
    if target is not None:
        _write(result, target)
    return result


def _note(epoch: Epoch) -> str:
    return f"fine-tuning, loss {epoch.loss:.3f} accuracy {epoch.accuracy:.1%}"


def _check_target(path: Path) -> None:
    if path.suffix not in (".pt", ".pth", ".nir"):
        raise UsageError(f"{path}: unknown kind of file {path.suffix!r}; .pt and .nir are written.")
    check_writable(path)


def _write(result: Quantization, path: Path) -> None:
    if path.suffix == ".nir":
        nir_file.write(result.deployment, path)
    else:
        checkpoint.save(result.network, path)


def _dataset(
    deployment: Deployment, data: str | Samples | None, options: Mapping[str, Any]
) -> Dataset | None:
    name = deployment.provenance.data if data is None else data
    if not isinstance(name, str) or (data is None and name not in datasets()):
        return None
    try:
        return held_out(deployment, name, None, options)
    except UsageError as error:
        raise UsageError(f"{error} Or use random samples alone: --samples 0.") from error


def _drawn(
    deployment: Deployment, dataset: Dataset | None, given: Samples | None, count: int, seed: int
) -> Array | None:
    """Samples of the data to calibrate on; None: there are none."""
    source: Samples
    if dataset is not None:
        source = dataset.samples("train")
    elif given is not None:
        source = given
    else:
        return None
    order = np.random.default_rng(seed).permutation(len(source))[:count]
    found = np.asarray(source[np.sort(order)], np.float32)
    encoded(deployment, found[:1])
    if not np.all(np.isfinite(found)):
        raise UsageError("the data hold NaN or infinite numbers.")
    return found


def _test(dataset: Dataset | None, others: Samples, count: int | None) -> Split:
    """Held-out samples; others, without labels, where there are none."""
    if dataset is None:
        return Split(np.asarray(others[:count]), np.empty(0, np.int64))
    test = dataset.test
    return Split(test.samples[:count], test.labels[:count])


def _calibrated(
    deployment: Deployment, data: Array | None, samples: Samples, options: QuantizeOptions
) -> Scales:
    """The network prepared, its scales chosen; of the levels of the input those that pay.

    Args:
        deployment: any network.
        data: samples whose grid the input gets; None: there are only random ones.
        samples: to measure on.
        options: what is wanted.
    """
    spec = input_spec(deployment.input, data, options)

    def scales_for(spec: InputSpec) -> Scales:
        ready = prepared(deployment, spec, options)
        scales = chosen(ready, measured(ready, samples), options)
        for name in ready.graph.nodes:
            scales.output(name)
        return scales

    found = scales_for(spec)
    if deployment.input.levels is None and options.levels is None and spec.levels == 255:
        fewer = (scales_for(replace(spec, levels=levels)) for levels in FEWER_LEVELS)
        candidates = [found, *(fewer if _worth(found, options) < (True, 0.75) else ())]
        return max(candidates, key=lambda scales: _worth(scales, options))
    return found


def _worth(scales: Scales, options: QuantizeOptions) -> tuple[bool, float]:
    """Whether the layers that take the input are exact, and what is left of them and of it.

    Weights and inputs are multiplied, so that the coarser of both decides.
    """
    exact, shares = True, [(scales.deployment.input.levels or 0) / 255]
    for name in scales.known.order:
        node: Any = scales.nodes[name]
        if not weighted(node) or not scales.takes_input(name):
            continue
        weight = np.asarray(node.weight, np.float64).reshape(len(node.weight), -1)
        largest = np.abs(weight).max(axis=1) / scales.output(name)
        shares.append(min(1.0, float(np.median(largest)) / options.largest))
        exact = exact and name not in scales.loose
    return exact, min(shares)


def _effect(
    original: Deployment,
    quantized: Deployment,
    test: Split,
    on_progress: Callable[[int, int, str], None],
) -> tuple[float | None, Effect]:
    """The original's accuracy, and what quantization did."""
    one, other = Fast(), Fast()
    certifier = Certifier(quantized, "float32")
    hits = right = flips = changed = decisions = certified = seen = 0
    labelled = len(test.labels) > 0
    for start, inputs in batches(original, test.samples, BATCH):
        chosen = test.samples[start : start + BATCH]
        whole = encoded(quantized, np.asarray(chosen, np.float32))
        before = one.run(original, inputs, "float32")
        after = other.run(quantized, whole, "float32")
        flips += int((before.decisions != after.decisions).sum())
        if labelled:
            truth = test.labels[start : start + BATCH]
            hits += int((before.decisions == truth).sum())
            right += int((after.decisions == truth).sum())
        for name, spikes in before.spikes.items():
            changed += int((spikes != after.spikes[name]).sum())
            decisions += spikes.size
        if start < CERTIFIED:
            certificate = certifier(whole[:, : CERTIFIED - start])
            certified += certificate.decisions - certificate.uncertified
            seen += certificate.decisions
        on_progress(min(start + BATCH, len(test.samples)), len(test.samples), "held-out samples")
    count = len(test.samples)
    return hits / count if labelled else None, Effect(
        count,
        right / count if labelled else None,
        flips,
        changed / max(decisions, 1),
        certified / max(seen, 1),
    )


def _warnings(
    deployment: Deployment, layers: tuple[QuantizedLayer, ...], options: QuantizeOptions
) -> tuple[str, ...]:
    found = []
    loose = [layer.name for layer in layers if layer.digits is None]
    if loose:
        found.append(
            f"the states behind {', '.join(loose)} stand on no grid, since dt/tau is no power of "
            "two (leak power-of-two rounds it) or a current decays, so that checks find IDENTICAL "
            "rather than PROVEN."
        )
    wide = [
        layer.name
        for layer in layers
        if layer.digits is not None and layer.exact != "float32" and options.exact == "float32"
    ]
    if wide:
        found.append(
            f"{', '.join(wide)}: states need more than the 24 digits of float32, because leaks add "
            f"digits at each of the {deployment.timing.steps} steps; exact in float64."
        )
    return tuple(found)
