"""Networks trained for chips, by recipe: what docs/targets.md measures.

Each is trained once and kept. `digits-mlp` is a multilayer perceptron, `nmnist-convnet` a small
convolutional network on event frames, `recurrent-cubalif` current-based neurons that loop back.
How each is trained depends on what the chip computes: integrate-and-fire neurons where a leak would
be rounded, current-based ones with time constants of powers of two where decays are shifts, rows of
eight pixels where there are sixteen inputs.

Run: python benchmarks/chip_networks.py loihi2 (trains, prints accuracy)
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import nir
import numpy as np
import torch
from torch import Tensor, nn

from msg_deploy import (
    LIF,
    TWO,
    DataOptions,
    Deployment,
    MaskedSurrogateGradient,
    Provenance,
    Readout,
    SpikingNetwork,
    Timing,
    TrainingOptions,
    load_dataset,
    save,
)
from msg_deploy.data import Dataset
from msg_deploy.exporters import nir as nir_file
from msg_deploy.options import ResetMode
from msg_deploy.surrogate import SURROGATES, spike
from msg_deploy.train import train

DT = 1e-3
ROW_BY_ROW = ("xylo_audio2", "xylo_audio3")
"""Chips with so few inputs that they read an image row by row."""
NO_LEAK = ("loihi2", "speck2f", "odin", "generic_int8", "spinnaker2")
"""Chips for which perceptrons and convolutional networks integrate without a leak."""
NO_BIAS = ("speck2f", "odin", "akida1000", "spikerplus")
"""Chips without biases."""
NO_MEMORY = ("akida1000",)
"""Chips whose neurons keep nothing from step to step."""
SUBTRACTING = ("speck2f", *ROW_BY_ROW)
"""Chips that reset by subtraction."""


@dataclass(frozen=True)
class Recipe:
    """How a network is made.

    Attributes:
        name: in tables.
        text: the recipe in a sentence.
        maker: (name of the chip, file without ending, folder of the data) -> the file.
        needs_data: whether it needs the folder of the data.
    """

    name: str
    text: str
    maker: Callable[[str, Path, str], Path]
    needs_data: bool = False

    def make(self, chip: str, folder: Path, data_dir: str | None) -> Path:
        """The file, which is trained if it is not there.

        Raises:
            FileNotFoundError: its data are not there.
        """
        if self.needs_data and not data_dir:
            raise FileNotFoundError("its data are not here (--data-dir)")
        return self.maker(chip, folder / f"{self.name}-{_kind(chip)}", data_dir or "")

    def options(self, data_dir: str | None) -> dict[str, Any]:
        """How its data are found."""
        return {"directory": data_dir} if self.needs_data else {}


def _kind(chip: str) -> str:
    """What the recipe takes of the chip; chips of the same kind share networks."""
    parts = ["rows" if chip in ROW_BY_ROW else "images"]
    parts.append("subtract" if chip in SUBTRACTING else "zero")
    parts.append("if" if chip in NO_LEAK else "steps" if chip in NO_MEMORY else "lif")
    return "-".join([*parts, *(["unbiased"] if chip in NO_BIAS else [])])


def _neurons(chip: str) -> dict[str, Any]:
    reset: ResetMode = "subtract" if chip in SUBTRACTING else "zero"
    tau = float("inf") if chip in NO_LEAK else 1.0 if chip in NO_MEMORY else 2.0
    return {"tau": tau, "reset": reset}


def digits_mlp(chip: str, path: Path, data_dir: str) -> Path:
    """64-64-32-10 on whole images, T = 8; on rows 8-64-32-10 of current-based neurons."""
    if chip in ROW_BY_ROW:
        return _coupled(path, hidden=(64, 32), loops=False, reset="subtract")
    file, bias = path.with_suffix(".pt"), chip not in NO_BIAS

    def body() -> nn.Module:
        return nn.Sequential(
            nn.Flatten(),
            nn.Linear(64, 64, bias=bias),
            LIF(8, **_neurons(chip)),
            nn.Linear(64, 32, bias=bias),
            LIF(8, **_neurons(chip)),
            nn.Linear(32, 10, bias=bias),
        )

    return _trained(file, body, "digits", 8, epochs=15)


def nmnist_convnet(chip: str, path: Path, data_dir: str) -> Path:
    """Two convolutions with pooling, then a matrix, on frames of 34 x 34 events, T = 8."""
    file, bias = path.with_suffix(".pt"), chip not in NO_BIAS

    def body() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(2, 8, 5, stride=2, bias=bias),
            LIF(8, **_neurons(chip)),
            nn.Conv2d(8, 16, 3, padding=1, bias=bias),
            LIF(8, **_neurons(chip)),
            nn.AvgPool2d(2),
            nn.Flatten(),
            nn.Linear(16 * 7 * 7, 10, bias=bias),
        )

    return _trained(file, body, "nmnist", 8, epochs=6, directory=data_dir)


def recurrent_cubalif(chip: str, path: Path, data_dir: str) -> Path:
    """8-64-10 on rows of the digits, its hidden layer looping back, dt/tau 1/2 for both leaks."""
    return _coupled(path, hidden=(64,), loops=True, reset=_neurons(chip)["reset"])


NETWORKS = [
    Recipe(
        "digits-mlp",
        "64-64-32-10, T = 8, scikit-learn's digits, 15 epochs, MSG p = 0.5, TWO; "
        "integrate-and-fire where a leak would be rounded, without biases where there are none; on "
        "Xylo 8-64-32-10 of current-based neurons on rows of 8 pixels, 40 epochs, with the penalty "
        "below",
        digits_mlp,
    ),
    Recipe(
        "nmnist-convnet",
        "two convolutions (8 and 16 channels), pooling and a matrix, T = 8, N-MNIST, 6 epochs, MSG "
        "p = 0.5, TWO; neurons as above",
        nmnist_convnet,
        needs_data=True,
    ),
    Recipe(
        "recurrent-cubalif",
        "8-64-10, current-based, looping back, digits row by row, T = 8, dt/tau_syn = dt/tau_mem = "
        "1/2, no biases, 40 epochs, MSG p = 0.5, TWO; on Xylo, which spikes several times a step, "
        "reset by subtraction and a penalty of membranes above 1.5 thresholds",
        recurrent_cubalif,
    ),
]


def _trained(
    file: Path,
    body: Callable[[], nn.Module],
    data: str,
    steps: int,
    epochs: int,
    directory: str = "",
) -> Path:
    """A network of layers, trained as `msg-deploy train` does."""
    if file.exists():
        return file
    dataset = load_dataset(data, DataOptions(directory=directory), steps)
    torch.manual_seed(0)
    provenance = Provenance(data=data, classes=dataset.classes)
    network = SpikingNetwork(body(), TWO(steps), dataset.input, DT, provenance)
    train(network, dataset, TrainingOptions(epochs=epochs))
    save(network, file)
    return file


class Coupled(nn.Module):
    """CubaLIF layers by the law of docs/contract.md, with dt/tau_syn = dt/tau_mem = 1/2.

    i += 1/2 (-i + x), v += 1/2 (-v + i), spike where v > 1; then v = 0 or v -= 1.

    Args:
        sizes: inputs, neurons of each layer, classes.
        loops: the last hidden layer also takes its own spikes of the step before.
        reset: "zero" or "subtract".
        steps: T.
    """

    threshold = 1.0
    limit = 1.5
    """A membrane above it adds to `excess`: at 2 a chip that subtracts may spike twice a step."""
    rate = 0.5

    def __init__(self, sizes: tuple[int, ...], loops: bool, reset: ResetMode, steps: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b, bias=False) for a, b in pairwise(sizes))
        self.back = nn.Linear(sizes[-2], sizes[-2], bias=False) if loops else None
        self.readout = TWO(steps)
        self.excess = torch.zeros(())
        self.reset: ResetMode = reset
        self.steps = steps
        # So that first spikes come within the few steps that there are.
        nn.init.uniform_(self.layers[0].weight, -0.15, 0.3)
        if self.back is not None:
            nn.init.normal_(self.back.weight, std=0.05)

    def forward(self, frames: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(T, B, inputs) to currents of the output (T B, classes) and spikes of each layer."""
        x, fired = frames, []
        self.excess = torch.zeros(())
        hidden = self.layers[:-1]
        for number, layer in enumerate(hidden):
            back = self.back if number == len(hidden) - 1 else None
            x = self._layer(layer(x), back)
            fired.append(x)
        return self.layers[-1](x).flatten(0, 1), fired

    def _layer(self, currents: Tensor, back: nn.Module | None) -> Tensor:
        i = v = s = torch.zeros_like(currents[0])
        spikes = []
        for x in currents:
            if back is not None:
                x = x + back(s)
            i = i + self.rate * (x - i)
            v = v + self.rate * (i - v)
            self.excess = self.excess + torch.relu(v - self.limit).sum() / v.shape[0]
            s = spike(v - self.threshold, SURROGATES["arctan"], 2.0)
            v = v - s * self.threshold if self.reset == "subtract" else v * (1 - s)
            spikes.append(s)
        return torch.stack(spikes)

    def deployment(self, dataset: Dataset) -> Deployment:
        """It as a graph, TWO left to the host."""
        spec = dataset.input
        nodes: dict[str, Any] = {"input": nir.Input({"input": np.array(spec.shape)})}
        edges, before = [], "input"
        for number, layer in enumerate(self.layers, start=1):
            name = f"fc{number}"
            nodes[name] = nir.Linear(_numbers(layer.weight))
            edges.append((before, name))
            before = name
            if number < len(self.layers):
                before = f"cuba{number}"
                nodes[before] = self._node(layer.out_features)
                edges.append((name, before))
        if self.back is not None:
            looping = f"cuba{len(self.layers) - 1}"
            nodes["back"] = nir.Linear(_numbers(self.back.weight))
            edges += [(looping, "back"), ("back", looping)]
        nodes["output"] = nir.Output({"output": np.array([len(dataset.classes)])})
        edges.append((before, "output"))
        weights = tuple(float(f) for f in self.readout.weights)
        return Deployment(
            nir.NIRGraph(nodes, edges, metadata={}, type_check=False),
            Timing(DT, self.steps, self.reset),
            spec,
            Readout(weights, before),
            Provenance(data=dataset.name, classes=dataset.classes),
        )

    def _node(self, count: int) -> nir.CubaLIF:
        values = {
            "tau_mem": DT / self.rate,
            "tau_syn": DT / self.rate,
            "r": 1.0,
            "w_in": 1.0,
            "v_leak": 0.0,
            "v_threshold": self.threshold,
            "v_reset": 0.0,
        }
        return nir.CubaLIF(**{name: np.full(count, value) for name, value in values.items()})


def _numbers(parameter: Tensor) -> Any:
    return parameter.detach().numpy().astype(np.float32)


def fitted(
    network: Coupled, dataset: Dataset, epochs: int, penalty: float = 0.0, seed: int = 0
) -> None:
    """Backpropagation through time with MSG (p = 0.5); TWO is updated after each epoch.

    Args:
        network: to train.
        dataset: to train on.
        epochs: passes over it.
        penalty: of membranes far above the threshold, by their excess, summed over neurons and
            steps.
        seed: of masks and order.
    """
    optimizer = torch.optim.AdamW(network.parameters(), lr=5e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    MaskedSurrogateGradient(0.5, seed=seed).attach(network, optimizer)
    order = torch.Generator().manual_seed(seed)
    samples = torch.from_numpy(dataset.train.samples)
    labels = torch.from_numpy(dataset.train.labels)
    for _ in range(epochs):
        for chosen in torch.randperm(len(labels), generator=order).split(64):
            currents, _ = network(samples[chosen].transpose(0, 1))
            loss = nn.functional.cross_entropy(network.readout(currents), labels[chosen])
            loss = loss + penalty * network.excess
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            network.readout.observe(currents.detach(), labels[chosen])
        network.readout.update()
        schedule.step()


def _coupled(path: Path, hidden: tuple[int, ...], loops: bool, reset: ResetMode) -> Path:
    file = path.with_suffix(".nir")
    if file.exists():
        return file
    dataset = load_dataset("digit_rows", steps=8)
    torch.manual_seed(0)
    network = Coupled((8, *hidden, len(dataset.classes)), loops, reset, 8)
    penalty = 0.0
    if reset == "subtract":
        penalty = 0.1 if loops else 0.01
    if penalty and loops:
        with torch.no_grad():
            network.layers[0].weight.mul_(0.3)
    fitted(network, dataset, epochs=40, penalty=penalty)
    nir_file.write(network.deployment(dataset), file)
    return file


def accuracies(chip: str, folder: Path, data_dir: str | None) -> Iterator[tuple[str, float]]:
    """Each network's accuracy on held-out samples."""
    from msg_deploy.simulation import simulate

    for recipe in NETWORKS:
        try:
            path = recipe.make(chip, folder, data_dir)
        except FileNotFoundError:
            continue
        accuracy = simulate(path, activity=False, options=recipe.options(data_dir)).accuracy
        yield recipe.name, float(accuracy or 0.0)


def main() -> None:
    """Train for a chip, print accuracies."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("chip")
    parser.add_argument("--folder", type=Path, default=Path("build", "chip-networks"))
    parser.add_argument("--data-dir", help="folder of N-MNIST")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for name, accuracy in accuracies(arguments.chip, arguments.folder, arguments.data_dir):
        print(f"{name}: {accuracy:.2%}")


if __name__ == "__main__":
    main()
