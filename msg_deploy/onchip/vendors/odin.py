"""ODIN's neuron by its Verilog, under Icarus Verilog, which Debian has as a package.

The Verilog (Solderpad licence) is on no package index: `make chips` clones it into the environment.
One layer after the other is given its events in the order in which the chip would process them.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

TITLE = "ODIN's Verilog neuron under Icarus Verilog"
INSTALL = (("numpy==2.4.6",),)
CLONES = (
    ("ODIN", "https://github.com/ChFrenkel/ODIN", "17819318d17b6241d4b185c13ce9b3372d453778"),
)
"""Folder in the environment, repository, commit."""
SOURCE = Path("ODIN", "src", "LIF_neuron_blocks", "lif_neuron_state.v")

BENCH = r"""
module bench;
    reg [7:0] held [0:COUNT-1];
    reg [7:0] threshold, state;
    reg [2:0] weight;
    reg leak, inhibitory, excitatory;
    wire [7:0] next;
    wire [6:0] event_out;
    integer given, found, neuron, kind, amount, level, k;
    lif_neuron_state neuron_state(
        .param_leak_str(7'd0), .param_leak_en(1'b0), .param_thr(threshold), .state_core(state),
        .event_leak(leak), .event_inh(inhibitory), .event_exc(excitatory), .syn_weight(weight),
        .state_core_next(next), .event_out(event_out));
    initial begin
        for (k = 0; k < COUNT; k = k + 1) held[k] = 0;
        given = $fopen("events.txt", "r");
        found = $fopen("found.txt", "w");
        while ($fscanf(given, "%d %d %d %d", neuron, level, kind, amount) == 4) begin
            state = held[neuron]; threshold = level; weight = amount;
            excitatory = kind == 0; inhibitory = kind == 1; leak = kind == 2;
            #1 held[neuron] = next;
            $fwrite(found, "%0d %0d\n", event_out[6], next);
        end
        $finish;
    end
endmodule
"""
EXCITE, INHIBIT, TIME = 0, 1, 2
"""Kinds of events; the last is a time reference event, which takes a leak, here of nothing."""


def main(export: str, given: str, output: str) -> None:
    """Run all samples."""
    if shutil.which("iverilog") is None:
        raise SystemExit("Icarus Verilog is not installed (apt install iverilog)")
    source = Path(sys.prefix, SOURCE)
    if not source.is_file():
        raise SystemExit(
            f"{source} is missing: git clone {CLONES[0][1]} {Path(sys.prefix, 'ODIN')}"
        )
    folder = Path(export)
    about = json.loads((folder / "target.json").read_text())
    held = json.loads((folder / "odin.json").read_text())
    np.savez(output, **run(source, held, about, np.load(given)["inputs"]))


def run(source: Path, held: dict[str, Any], about: dict[str, Any], inputs: Any) -> dict[str, Any]:
    """Spikes of each population, and membranes at the end of each step."""
    signs = np.where(held["inhibitory"], -1, 1)
    synapses = np.array(held["synapses"]) * signs[:, None]
    steps, samples = inputs.shape[:2]
    # What each row of the crossbar gives, as far as it is known.
    given = np.zeros((steps, samples, len(synapses)), np.int64)
    start = held["first_neuron"]
    given[:, :, :start] = inputs.reshape(steps, samples, -1)
    result = {}
    for item in about["populations"]:
        count = int(np.prod(item["shape"]))
        rows = slice(start, start + count)
        first = start - held["first_neuron"]
        levels = np.array(held["neurons"][first : first + count])
        spikes, membranes = _layer(source, synapses[:, rows], levels, given)
        given[:, :, rows] = spikes
        result[f"spikes_{item['name']}"] = spikes.reshape(steps, samples, *item["shape"])
        result[f"after_{item['name']}"] = membranes.reshape(steps, samples, *item["shape"])
        start += count
    return result


def _layer(source: Path, synapses: Any, levels: Any, given: Any) -> tuple[Any, Any]:
    """Spikes and membranes (T, B, N) of neurons with synapses (rows, N)."""
    steps, samples, rows = given.shape
    count = len(levels)
    neurons, reached = np.arange(count), synapses.any(axis=1)
    events, places = [], []
    for step in range(steps):
        for sample in range(samples):
            at = sample * count + neurons
            sources = [r for r in range(rows) if reached[r] for _ in range(given[step, sample, r])]
            for row in sources:
                weights = synapses[row]
                kinds = np.where(weights < 0, INHIBIT, EXCITE)
                events.append(np.stack([at, levels, kinds, abs(weights)], axis=1))
            events.append(np.stack([at, levels, np.full(count, TIME), 0 * neurons], axis=1))
            places += [step * samples + sample] * (len(sources) + 1)
    found = _simulated(source, np.concatenate(events), samples * count).reshape(-1, count, 2)
    spikes = np.zeros((steps * samples, count), np.int64)
    np.add.at(spikes, places, found[:, :, 0])
    # The last event of a step is the time reference.
    last = np.append(np.diff(places) != 0, True)
    shape = (steps, samples, count)
    return spikes.reshape(shape), found[last, :, 1].reshape(shape)


def _simulated(source: Path, events: Any, count: int) -> Any:
    """(events, 2): whether each has brought a spike, and the membrane that it has left."""
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        (place / "bench.v").write_text(BENCH.replace("COUNT", str(count)))
        np.savetxt(place / "events.txt", events, "%d")
        _do(place, "iverilog", "-g2005", "-o", "bench", "bench.v", str(source))
        _do(place, "vvp", "bench")
        found = np.loadtxt(place / "found.txt", np.int64, ndmin=2)
    if len(found) != len(events):
        raise SystemExit(f"the Verilog has taken {len(found)} of {len(events)} events")
    return found


def _do(place: Path, *command: str) -> None:
    result = subprocess.run(command, cwd=place, capture_output=True, text=True)
    if result.returncode:
        said = (result.stderr or result.stdout).strip()
        raise SystemExit(f"{command[0]}: {said[-400:]}")


if __name__ == "__main__":
    main(*sys.argv[1:])
