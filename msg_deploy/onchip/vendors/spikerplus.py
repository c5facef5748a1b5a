"""Spiker+ by the VHDL that spikerplus generates, under GHDL, which Debian has as a package."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np

TITLE = "VHDL of spikerplus 2.0.3 under GHDL"
INSTALL = (
    ("numpy==2.4.6", "tabulate==0.9.0"),
    # Its generator needs nothing of the torch and snntorch that its trainer asks for.
    ("--no-deps", "spikerplus==2.0.3"),
)
CLOCK = 20
"""Nanoseconds."""
SPARE = 64
"""Clocks of a step beside one for each input and each neuron that feeds back."""


def main(export: str, given: str, output: str) -> None:
    """Run all samples, one after the other, each from its reset."""
    if shutil.which("ghdl") is None:
        raise SystemExit("GHDL is not installed (apt install ghdl)")
    folder = Path(export)
    about = json.loads((folder / "target.json").read_text())
    held = json.loads((folder / "network.json").read_text())
    with np.load(folder / "weights.npz") as content:
        weights = [content[f"fc{k + 1}"] for k in range(len(content.files))]
    np.savez(output, **run(held, weights, about, np.load(given)["inputs"], folder / "vhdl"))


def run(
    held: dict[str, Any], weights: list[Any], about: dict[str, Any], inputs: Any, folder: Path
) -> dict[str, Any]:
    """Spikes of each layer in its own time, and membranes of the last if it has no threshold."""
    steps, samples = inputs.shape[:2]
    rows = np.zeros((about["steps"] + 2, samples, weights[0].shape[1]), np.int64)
    rows[:steps] = inputs.reshape(steps, samples, -1)
    result = {}
    for count, item in enumerate(about["populations"], start=1):
        # The outputs of a network are those of its last layer: one network for each layer.
        place = folder / str(count)
        _write(place, held, weights[:count], len(rows))
        clocks = SPARE + max(w.shape[1] + len(w) for w in weights[:count])
        found = [_simulated(place, rows[:, b], clocks, item["spiking"]) for b in range(samples)]
        # What a step leaves is recorded when the next one starts.
        values = np.stack(found, axis=1)[1 : about["steps"] + 1]
        if item["spiking"]:
            late = item["late"]
            result[f"spikes_{item['name']}"] = values[late : late + steps]
        else:
            result[f"after_{item['name']}"] = values
    return result


def _write(place: Path, held: dict[str, Any], weights: list[Any], cycles: int) -> None:
    """The VHDL of the first layers, with a testbench, compiled."""
    _generator_alone()
    from spikerplus.vhdl.layer import Layer
    from spikerplus.vhdl.network import Network, Network_tb
    from spikerplus.vhdl.vhdl import write_file_all

    place.mkdir(parents=True)
    network, bits = Network(cycles), held["optim_config"]
    resets = {"zero": "fixed", "subtract": "subtractive", "none": "none"}
    for number, weight in enumerate(weights):
        layer, count = held["net_dict"][f"layer_{number}"], len(weight)
        network.add(
            Layer(
                label=f"l{number}",
                w_exc=weight.astype(float),
                w_inh=np.zeros((count, count)),
                v_th=np.repeat(float(layer["threshold"]), count),
                v_reset=np.zeros(count),
                bitwidth=bits["neurons_bw"],
                fp_decimals=bits["fp_dec"],
                w_inh_bw=bits["weights_bw"],
                w_exc_bw=bits["weights_bw"],
                shift=round(-np.log2(1 - layer["beta"])),
                reset=resets[layer["reset_mechanism"]],
                functional=True,
            )
        )
    bench = Network_tb(
        network,
        file_output=True,
        file_input=True,
        input_signal_list=["in_spikes"],
        output_dir=str(place),
    )
    membranes = "neuron_dp_none_v_w_en"
    if f"{membranes}_gen" in bench.architecture.processes:
        # Once a step, and not with every clock.
        del bench.architecture.processes[f"{membranes}_gen"]
        bench.architecture.bodyCodeHeader.add(f"{membranes} <= sample;")
    write_file_all(bench, output_dir=str(place))
    _ghdl(place, "-i", *sorted(path.name for path in place.glob("*.vhd")))
    _ghdl(place, "-m", "network_tb")


def _simulated(place: Path, rows: Any, clocks: int, spiking: bool) -> Any:
    """(cycles, neurons): what the outputs were when each step started."""
    lines = ["".join(map(str, row[::-1])) for row in rows.tolist()]
    (place / "in_spikes.txt").write_text("\n".join(lines) + "\n")
    _ghdl(place, "-r", "network_tb", f"--stop-time={CLOCK * clocks * (len(rows) + 1)}ns")
    name = "out_spikes" if spiking else "neuron_dp_none_v"
    found = (place / f"{name}.txt").read_text().split()[: len(rows)]
    if len(found) < len(rows):
        raise SystemExit(f"the VHDL has done {len(found)} of {len(rows)} steps")
    bits = 1 if spiking else 16
    return np.array(
        [
            [_number(line[i : i + bits], spiking) for i in range(0, len(line), bits)][::-1]
            for line in found
        ]
    )


def _number(text: str, unsigned: bool) -> int:
    """A binary number; "U" is what was never set."""
    if set(text) - {"0", "1"}:
        return 0
    value = int(text, 2)
    return value if unsigned or text[0] == "0" else value - (1 << len(text))


def _ghdl(place: Path, command: str, *arguments: str) -> None:
    result = subprocess.run(
        ["ghdl", command, "--std=08", *arguments], cwd=place, capture_output=True, text=True
    )
    if result.returncode:
        raise SystemExit(f"ghdl {command}: {(result.stderr or result.stdout).strip()[-400:]}")


def _generator_alone() -> None:
    """Make the VHDL generator importable without the packages of the trainer."""
    if "spikerplus" in sys.modules:
        return
    found = importlib.util.find_spec("spikerplus")
    assert found is not None
    package = types.ModuleType("spikerplus")
    package.__path__ = list(found.submodule_search_locations or ())
    torch = types.ModuleType("torch")
    torch.Tensor = type("Tensor", (), {})  # type: ignore[attr-defined]
    sys.modules |= {"spikerplus": package, "torch": torch}


if __name__ == "__main__":
    main(*sys.argv[1:])
