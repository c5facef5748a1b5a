"""Feed a recording of an event camera to a `step` model as it comes, one window of time a step.

    msg-deploy export model.pt --to onnx --layout step -o step.onnx
    python examples/streaming/stream.py step.onnx recording.bin --window 30000

Needs onnxruntime and numpy; msg-deploy only reads the recording. stream.mjs is the same in
JavaScript, for browsers and Node.js.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from msg_deploy import read_recording

Event = tuple[int, int, int, int]
"""Microseconds, column, row, polarity."""
Array = np.ndarray[Any, Any]


def windows(events: Iterable[Event], shape: list[int], length: int) -> Iterator[Array]:
    """A frame (1, 2, H, W) of event counts for each window, as soon as it is over."""
    frame, start = np.zeros(shape, np.float32), None
    for t, x, y, p in events:
        start = t if start is None else start
        while t >= start + length:
            yield frame
            frame, start = np.zeros(shape, np.float32), start + length
        frame[0, p, y, x] += 1
    yield frame


class Network:
    """A `step` model and its state. States are the inputs NAME that have an output NAME.next."""

    def __init__(self, path: Path) -> None:
        self.session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        self.steps = int(self.session.get_modelmeta().custom_metadata_map["steps"])
        self.outputs = [output.name for output in self.session.get_outputs()]
        shapes = {i.name: [1, *i.shape[1:]] for i in self.session.get_inputs()}
        self.shape = shapes["input"]
        self.state = {
            name: np.zeros(shape, np.float32)
            for name, shape in shapes.items()
            if f"{name}.next" in self.outputs
        }

    def step(self, number: int, frame: Array) -> dict[str, Array]:
        """One timestep; the state moves on."""
        given = {"input": frame, "step": np.array(number, np.int64)} | self.state
        found = dict(zip(self.outputs, self.session.run(None, given), strict=True))
        self.state = {name: found[f"{name}.next"] for name in self.state}
        return found


def main() -> None:
    """Print the decision after every window."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("recording", type=Path)
    parser.add_argument("--window", type=int, default=30_000, help="microseconds a step")
    parser.add_argument("--json", action="store_true", help="one JSON object a step")
    arguments = parser.parse_args()
    network = Network(arguments.model)
    recording = read_recording(arguments.recording)
    columns = (c.tolist() for c in (recording.t, recording.x, recording.y, recording.p))
    events = zip(*columns, strict=True)
    frames = windows(events, network.shape, arguments.window)
    for number, frame in zip(range(network.steps), frames, strict=False):
        found = network.step(number, frame)
        scores, decision = found["scores.next"][0], int(found["decision"][0])
        if arguments.json:
            count = int(frame.sum())
            row = {"step": number, "events": count, "decision": decision, "scores": scores.tolist()}
            print(json.dumps(row), flush=True)
        else:
            print(f"step {number}: {int(frame.sum())} events, class {decision}", flush=True)


if __name__ == "__main__":
    main()
