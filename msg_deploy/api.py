"""What the command line does, as functions: export, check, open, and what a folding does."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from msg_deploy.checking import check as check
from msg_deploy.checking import stimulus_of
from msg_deploy.deployment import Deployment
from msg_deploy.exporters import nir as nir_file
from msg_deploy.exporters.dialects import in_dialect
from msg_deploy.exporters.fold import FoldEffect, cheapest, fold_effect, fold_two
from msg_deploy.options import FoldChoice
from msg_deploy.runners import RuntimeOptions as RuntimeOptions
from msg_deploy.sim.simulator import FloatArray, simulator
from msg_deploy.stimulus import batches
from msg_deploy.subjects import Model as Model
from msg_deploy.subjects import batch_size
from msg_deploy.subjects import open_model as open_model

if TYPE_CHECKING:
    from msg_deploy.exporters.onnx.build import OnnxOptions


def export(
    model: Model,
    path: str | Path,
    fold: FoldChoice = "delay",
    tolerance: float = 1e-4,
    dialect: str = "nir",
) -> Deployment:
    """Write a model as .nir with TWO folded in.

    Args:
        model: to export.
        path: .nir file to write.
        fold: folding of TWO: "delay", "bank", "leak" or "host", or "auto": the cheapest in the
            graph whose error is within the tolerance. A model without TWO is written as it is.
        tolerance: for "auto", largest error of f as a share of the largest |f|.
        dialect: how the network is written, as in `msg_deploy.exporters.dialects`.

    Returns:
        The deployment as written.

    Raises:
        FileError: a file cannot be read or written.
        TraceError: a layer has no counterpart in NIR.
        GraphError: the dialect cannot express a node.
    """
    deployment = open_model(model).deployment
    readout = deployment.readout
    if readout and fold == "auto":
        deployment = cheapest(deployment, tolerance)
    elif readout and fold != "auto" and readout.fold != fold:
        deployment = fold_two(deployment, fold)
    deployment = in_dialect(deployment, dialect)
    nir_file.write(deployment, path)
    return deployment


def export_onnx(
    model: Model,
    path: str | Path,
    options: OnnxOptions | None = None,
    inline: bool = False,
) -> tuple[Path, ...]:
    """Write a model as .onnx. TWO is folded by algebra, unless the graph itself has folded it.

    Args:
        model: to export.
        path: .onnx file to write.
        options: layout, opset, int8 and what is put out, see `OnnxOptions`.
        inline: neurons as standard operators in place of functions.

    Returns:
        The files written: PATH, and PATH.data with the weights if they are larger than 2 GB.

    Raises:
        FileError: a file cannot be read or written.
        TraceError: a layer has no counterpart in NIR.
        GraphError: a node cannot be written, or int8 finds no weights on a grid.
    """
    from msg_deploy.exporters.onnx import build as onnx_model
    from msg_deploy.exporters.onnx import file as onnx_file

    built = onnx_model.build(open_model(model).deployment, options)
    return onnx_file.write(onnx_file.inlined(built) if inline else built, path)


def measure_fold(
    model: Model,
    folded: Deployment,
    data: str | FloatArray | None = None,
    samples: int | None = 100,
    random: int = 0,
    options: Mapping[str, Any] | None = None,
) -> FoldEffect:
    """What a folding does to scores and decisions, in float32.

    Args:
        model: what was exported, with its readout unfolded.
        folded: as `export` returned it.
        data: as in `check`.
        samples: use at most this many samples of the data.
        random: number of random samples in addition.
        options: as in `check`.

    Raises:
        UsageError: there is no data, or no TWO readout.
    """
    subject = open_model(model)
    stimulus = stimulus_of(subject.metadata, data, samples, random, 0, options or {})
    mine = subject.own or simulator("reference")
    currents = [
        mine.run(subject.deployment, inputs, "float32").currents
        for _, inputs in batches(subject.metadata, stimulus, batch_size(subject))
    ]
    return fold_effect(folded, np.concatenate(currents, axis=1))
