"""What each folding of TWO costs and changes: error of f, scores, decisions, nodes.

Run: python benchmarks/foldings.py model.pt --samples 200 [--data-dir FOLDER]
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, get_args

from msg_deploy.api import measure_fold, open_model
from msg_deploy.exporters.fold import fold_two
from msg_deploy.options import Fold


def row(fold: Fold, model: Path, samples: int, options: dict[str, Any]) -> str:
    """A row of the table, Markdown."""
    per_step = open_model(model).deployment
    folded = fold_two(per_step, fold)
    effect = measure_fold(model, folded, samples=samples, options=options)
    assert folded.readout is not None
    assert per_step.readout is not None
    error = folded.readout.error / max(abs(f) for f in per_step.readout.weights)
    nodes = len(folded.graph.nodes) - len(per_step.graph.nodes)
    return (
        f"| {fold} | {nodes} | {error:.1e} | {effect.error / effect.scale:.1e} "
        f"| {effect.flips} of {effect.samples} |"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--data-dir", default="")
    arguments = parser.parse_args()
    print("| folding | extra nodes | error of f / largest f | error of scores / largest | flips |")
    print("|---|---|---|---|---|")
    for fold in get_args(Fold):
        options = {"directory": arguments.data_dir}
        print(row(fold, arguments.model, arguments.samples, options))


if __name__ == "__main__":
    main()
