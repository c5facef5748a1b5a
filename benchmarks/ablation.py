"""What TWO and MSG bring: base, TWO, MSG and both, over several seeds; and a sweep of p.

Results are kept in a JSON file after every training, and what is there is not trained again, so
that a long run can be stopped and continued. The table is printed at the end.

Run: python benchmarks/ablation.py --data digits --seeds 5 --epochs 10 -o ablation.json
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import torch

from msg_deploy.config import Config, resolve
from msg_deploy.data import DataOptions, Dataset, load_dataset
from msg_deploy.files import write_text
from msg_deploy.progress import progress
from msg_deploy.train import Epoch, evaluate, train
from msg_deploy.zoo import build

VARIANTS: dict[str, dict[str, Any]] = {
    "base": {"mask_probability": 0.0, "update_two": False},
    "TWO": {"mask_probability": 0.0, "update_two": True},
    "MSG p=0.5": {"mask_probability": 0.5, "update_two": False},
    "both p=0.5": {"mask_probability": 0.5, "update_two": True},
}
SWEEP = {
    f"both p={p / 10}": {"mask_probability": p / 10, "update_two": True}
    for p in range(10)
    if p != 5
}


def trained(config: Config, dataset: Dataset) -> dict[str, float]:
    """Train once; test accuracy, firing rate in the last epoch, median seconds an epoch."""
    torch.manual_seed(config.training.seed)
    network = build(
        config.model.name,
        dataset.input,
        len(dataset.classes),
        config.model.steps,
        **config.model.options,
        **vars(config.neuron),
    )
    epochs: list[Epoch] = []
    train(network, dataset, config.training, epochs.append)
    rates = epochs[-1].firing_rates.values()
    return {
        "accuracy": evaluate(network, dataset.test).two,
        "firing_rate": sum(rates) / len(rates),
        "seconds": statistics.median(e.seconds for e in epochs),
    }


def table(results: dict[str, dict[str, float]]) -> str:
    """Mean and standard deviation over the seeds, a row per variant, as Markdown."""
    lines = [
        "| variant | seeds | test accuracy, % | firing rate | seconds an epoch |",
        "|---|---|---|---|---|",
    ]
    for variant in [*VARIANTS, *SWEEP]:
        runs = [r for key, r in results.items() if key.rpartition(" seed ")[0] == variant]
        if not runs:
            continue
        accuracy = [100 * r["accuracy"] for r in runs]
        spread = f" ± {statistics.stdev(accuracy):.2f}" if len(runs) > 1 else ""
        rate = statistics.mean(r["firing_rate"] for r in runs)
        seconds = statistics.median(r["seconds"] for r in runs)
        lines.append(
            f"| {variant} | {len(runs)} | {statistics.mean(accuracy):.2f}{spread} | {rate:.3f} "
            f"| {seconds:.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Train what is missing, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--data-dir", default="")
    parser.add_argument("--limit", type=int, help="samples of each part")
    parser.add_argument("--model", default="convnet")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--sweep-seeds", type=int, default=0)
    parser.add_argument("--output", "-o", type=Path, default=Path("ablation.json"))
    arguments = parser.parse_args()
    options = DataOptions(directory=arguments.data_dir, limit=arguments.limit)
    dataset = load_dataset(arguments.data, options, arguments.steps)
    wanted = [(n, v, s) for s in range(arguments.seeds) for n, v in VARIANTS.items()]
    wanted += [(n, v, s) for s in range(arguments.sweep_seeds) for n, v in SWEEP.items()]
    results: dict[str, dict[str, float]] = {}
    if arguments.output.exists():
        results = json.loads(arguments.output.read_text())
    with progress("ablation") as move:
        for done, (name, variant, seed) in enumerate(wanted):
            key = f"{name} seed {seed}"
            move(done, len(wanted), key)
            if key in results:
                continue
            training = {"epochs": arguments.epochs, "seed": seed, **variant}
            model = {"name": arguments.model, "steps": arguments.steps}
            results[key] = trained(resolve({"model": model, "training": training}), dataset)
            write_text(arguments.output, json.dumps(results, indent=1))
    shown = f"{arguments.data}, {len(dataset.train)} training and {len(dataset.test)} test samples"
    print(f"{shown}, {arguments.model}, T = {arguments.steps}, {arguments.epochs} epochs")
    print(table(results))


if __name__ == "__main__":
    main()
