"""What quantization costs: float, int8 and int4, before and after fine-tuning, over several seeds.

Results are kept in a JSON file after every network, and what is there is not trained again, so that
a long run can be stopped and continued. The table is printed at the end.

Run: python benchmarks/quantization.py --data digits --seeds 5 --epochs 20 -o quantization.json
"""

from __future__ import annotations

import argparse
import json
import statistics
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from msg_deploy import QuantizeOptions, SpikingNetwork, TrainingOptions, build, quantize
from msg_deploy.data import DataOptions, Dataset, load_dataset
from msg_deploy.files import write_text
from msg_deploy.progress import progress
from msg_deploy.train import evaluate, train

Row = dict[str, float]


def trained(arguments: argparse.Namespace, dataset: Dataset, seed: int) -> SpikingNetwork:
    """A network with MSG (p = 0.5) and TWO."""
    torch.manual_seed(seed)
    options = {} if arguments.width is None else {"width": arguments.width}
    classes = len(dataset.classes)
    network = build(arguments.model, dataset.input, classes, arguments.steps, **options)
    train(network, dataset, training(arguments, seed, epochs=arguments.epochs))
    return network


def training(arguments: argparse.Namespace, seed: int, **options: Any) -> TrainingOptions:
    """Of the network, or of the fine-tuning."""
    return TrainingOptions(batch_size=arguments.batch_size, seed=seed, **options)


def measured(
    arguments: argparse.Namespace, network: SpikingNetwork, dataset: Dataset, seed: int
) -> dict[str, Row]:
    """By variant, what held-out samples say."""
    found: dict[str, Row] = {"float": {"accuracy": evaluate(network, dataset.test).two}}
    for bits in arguments.bits:
        result = quantize(
            network,
            options=QuantizeOptions(bits, exact=arguments.exact),
            data=arguments.data,
            samples=arguments.samples,
            finetune=training(
                arguments, seed, epochs=arguments.finetune, learning_rate=arguments.learning_rate
            ),
            seed=seed,
            data_options={"directory": arguments.data_dir, "limit": arguments.limit},
        )
        found[f"int{bits}"] = asdict(result.plain)
        assert result.finetuned is not None
        found[f"int{bits}, fine-tuned"] = asdict(result.finetuned)
    return found


def table(results: dict[str, dict[str, Row]]) -> str:
    """Mean and standard deviation over the seeds, a row per variant, as Markdown."""
    lines = [
        "| variant | seeds | test accuracy, % | decisions flipped, % | spikes changed, % "
        "| certified, % |",
        "|---|---|---|---|---|---|",
    ]
    seeds = list(results.values())
    for variant in seeds[0]:
        rows = [found[variant] for found in seeds]
        cells = [variant, str(len(rows)), _spread([r["accuracy"] for r in rows])]
        if "flips" in rows[0]:
            cells.append(_spread([r["flips"] / r["samples"] for r in rows]))
            cells.append(_spread([r["spikes_changed"] for r in rows]))
            cells.append(f"{100 * min(r['certified'] for r in rows):.4f}")
        else:
            cells += [""] * 3
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _spread(shares: list[float]) -> str:
    percent = [100 * share for share in shares]
    spread = f" ± {statistics.stdev(percent):.2f}" if len(percent) > 1 else ""
    return f"{statistics.mean(percent):.2f}{spread}"


def main() -> None:
    """Measure what is missing, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--data-dir", default="")
    parser.add_argument("--limit", type=int, help="samples of each part")
    parser.add_argument("--model", default="convnet")
    parser.add_argument("--width", type=int, help="of the model, where it takes one")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--finetune", type=int, default=3, help="epochs")
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="of the fine-tuning")
    parser.add_argument("--samples", type=int, default=256, help="for calibration")
    parser.add_argument("--bits", type=int, nargs="+", default=[8, 4])
    parser.add_argument("--exact", choices=["float32", "float64"], default="float32")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--output", "-o", type=Path, default=Path("quantization.json"))
    arguments = parser.parse_args()
    options = DataOptions(directory=arguments.data_dir, limit=arguments.limit)
    dataset = load_dataset(arguments.data, options, arguments.steps)
    results: dict[str, Any] = {}
    if arguments.output.exists():
        results = json.loads(arguments.output.read_text())
    with progress("quantization") as move:
        for seed in range(arguments.seeds):
            move(seed, arguments.seeds, f"seed {seed}")
            key = f"seed {seed}"
            if key in results:
                continue
            results[key] = measured(arguments, trained(arguments, dataset, seed), dataset, seed)
            write_text(arguments.output, json.dumps(results, indent=1))
    shown = f"{arguments.data}, {len(dataset.train)} training and {len(dataset.test)} test samples"
    print(
        f"{shown}, {arguments.model}, T = {arguments.steps}, {arguments.epochs} epochs and "
        f"{arguments.finetune} of fine-tuning"
    )
    print(table(results))


if __name__ == "__main__":
    main()
