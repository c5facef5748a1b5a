"""Loihi 2 by lava-nc's bit-accurate model, which runs network.net as lava-dl's netx builds it."""

from __future__ import annotations

import dataclasses
import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np

TITLE = "lava-nc 0.10.0 with lava-dl 0.6.0 netx"
# Both ask for Python 3.10; of lava-dl nothing but netx is used, which needs no torch.
INSTALL = (
    ("numpy==1.26.4", "scipy==1.15.3", "networkx==3.6.1", "asteval==1.0.10", "h5py==3.16.0"),
    ("--ignore-requires-python", "--no-deps", "lava-nc==0.10.0", "lava-dl==0.6.0"),
)


def main(export: str, given: str, output: str) -> None:
    """Run all samples, one after the other, each from a state of zeros."""
    folder = Path(export)
    about = json.loads((folder / "target.json").read_text())
    inputs = np.load(given)["inputs"]
    np.savez(output, **run(str(folder / "network.net"), about, inputs))


def run(path: str, about: dict[str, Any], inputs: Any) -> dict[str, Any]:
    """Spikes and membranes of all layers, each in its own time."""
    _prepare_lava()
    from lava.lib.dl.netx import hdf5
    from lava.magma.core.run_conditions import RunSteps
    from lava.magma.core.run_configs import Loihi2SimCfg
    from lava.proc.io.source import RingBuffer
    from lava.proc.monitor.process import Monitor

    steps, samples = inputs.shape[:2]
    settings = about["settings"]
    interval = settings["reset_interval"]
    network = hdf5.Network(
        path,
        input_message_bits=settings["input_message_bits"],
        reset_interval=interval,
        reset_offset=settings["reset_offset"],
    )
    source = RingBuffer(data=_stream(inputs, interval, network.inp.shape))
    source.s_out.connect(network.inp)
    probes = []
    for layer in network.layers:
        found = []
        for what in (layer.neuron.v, layer.neuron.s_out):
            monitor = Monitor()
            monitor.probe(what, samples * interval)
            found.append(monitor)
        probes.append(found)
    configuration = Loihi2SimCfg(select_tag="fixed_pt")
    looping = any(hasattr(layer, "synapse_rec") for layer in network.layers)
    delayed = any("Delay" in type(layer.synapse).__name__ for layer in network.layers)
    if looping or delayed:
        # What is on its way when a sample ends must not reach the next.
        for _ in range(samples):
            network.run(RunSteps(interval), configuration)
            for layer in network.layers:
                _forget(layer)
    else:
        network.run(RunSteps(samples * interval), configuration)
    recorded = [[_values(monitor) for monitor in found] for found in probes]
    network.stop()
    populations, result = about["populations"], {}
    for depth, (item, values) in enumerate(zip(populations, recorded, strict=True), start=1):
        membranes, spikes = (
            _of_samples(v, item["shape"], samples, interval)[depth : depth + steps] for v in values
        )
        result[f"after_{item['name']}"] = membranes
        if item["spiking"]:
            result[f"spikes_{item['name']}"] = spikes
    return result


def _stream(inputs: Any, interval: int, shape: tuple[int, ...]) -> Any:
    """(T, B, *shape) as lava wants it: (*(W, H, C) or (N,), B interval)."""
    steps, samples = inputs.shape[:2]
    data = np.zeros((samples, interval, *inputs.shape[2:]), np.int32)
    data[:, :steps] = inputs.swapaxes(0, 1)
    data = data.reshape(samples * interval, *inputs.shape[2:])
    if len(shape) == 1:
        return np.ascontiguousarray(data.reshape(len(data), -1).T)
    return np.ascontiguousarray(data.transpose(3, 2, 1, 0))


def _values(monitor: Any) -> Any:
    (process,) = monitor.get_data().values()
    (values,) = process.values()
    return values


def _of_samples(values: Any, shape: list[int], samples: int, interval: int) -> Any:
    """(B interval, ...) as recorded, to (interval, B, *shape)."""
    found = np.asarray(values)
    if len(shape) == 3:  # (W, H, C) there
        found = found.transpose(0, 3, 2, 1)
    return found.reshape(samples, interval, *shape).swapaxes(0, 1).astype(np.int64)


def _forget(layer: Any) -> None:
    """Set everything that a sample leaves behind to 0."""
    neuron = layer.neuron
    places = [neuron.u, neuron.v]
    for synapse in (layer.synapse, getattr(layer, "synapse_rec", None)):
        places += [getattr(synapse, n) for n in ("a_buff", "a_buf") if hasattr(synapse, n)]
    for variable in places:
        variable.set(np.zeros(variable.shape, np.int32))


def _prepare_lava() -> None:
    """What lava-nc 0.10.0 and lava-dl 0.6.0 need on Python 3.11, without torch."""
    original = dataclasses.dataclass

    def patched(cls: Any = None, /, **options: Any) -> Any:
        def wrap(made: type) -> type:
            # A default that Python 3.11 takes only if it can be hashed.
            if made.__module__.startswith("lava.") and made.__name__ == "ByteEncoder":
                options.setdefault("unsafe_hash", True)
            return original(made, **options)

        return wrap if cls is None else wrap(cls)

    dataclasses.dataclass = patched
    import lava.lib.dl as dl

    def stand_in(name: str) -> types.ModuleType:
        module = types.ModuleType(name)
        sys.modules[name] = module
        return module

    # netx takes from slayer, which needs torch, the parameters of resonate-and-fire neurons only.
    slayer = stand_in("lava.lib.dl.slayer")
    neuron = stand_in("lava.lib.dl.slayer.neuron")
    resonating = stand_in("lava.lib.dl.slayer.neuron.rf")
    resonating.neuron_params = None  # type: ignore[attr-defined]
    neuron.rf, slayer.neuron = resonating, neuron  # type: ignore[attr-defined]
    modules = stand_in("lava.lib.dl.netx.sequential_modules")
    modules.__file__ = str(Path(next(iter(dl.__path__)), "netx", "sequential_modules.py"))


if __name__ == "__main__":
    main(*sys.argv[1:])
