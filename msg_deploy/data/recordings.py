"""Recordings of event cameras, by the ending of the file.

.raw (EVT2, EVT3), .es and .aedat4 are decoded by faery. The rest are plain tables of words and are
decoded here: tonic 1.7.0 cannot open AEDAT 2 (its `read_dvs_128` unpacks two of three values) and
accepts truncated N-MNIST files.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from msg_deploy.errors import FileError, MsgDeployError, UsageError, reason

Array = npt.NDArray[Any]
Size = tuple[int, int]
"""Height and width in pixels."""
MAX_BYTES = 8 * 2**30
HEADER_BYTES = 2**16


@dataclass(frozen=True)
class Recording:
    """Events, in the order of the file.

    Attributes:
        t: microseconds, int64 (N,).
        x: column (N,).
        y: row (N,).
        p: polarity, 0 (OFF) or 1 (ON) (N,).
        sensor: height and width, where the file says so.
    """

    t: Array
    x: Array
    y: Array
    p: Array
    sensor: Size | None = None


Reader = Callable[[Path], Recording]
READERS: dict[str, Reader] = {}


def reads(*suffixes: str) -> Callable[[Reader], Reader]:
    """Decorator: the function reads files with these endings."""

    def add(reader: Reader) -> Reader:
        READERS.update(dict.fromkeys(suffixes, reader))
        return reader

    return add


def read_recording(path: str | Path) -> Recording:
    """All events of a file.

    Raises:
        FileError: the file is missing, of another kind, too large, damaged, or holds no event.
        UsageError: the library for this kind of file is not installed.
    """
    path = Path(path)
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise FileError(path, f"unknown kind of recording; known are {', '.join(sorted(READERS))}.")
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise FileError(path, f"has {size} bytes; at most {MAX_BYTES} are read.")
        recording = reader(path)
    except OSError as error:
        raise FileError(path, f"cannot be read ({error.strerror or reason(error)}).") from error
    if not len(recording.t):
        raise FileError(path, "holds no event.")
    return recording


@reads(".bin", ".bs2")
def _nmnist(path: Path) -> Recording:
    """N-MNIST and N-Caltech101 (Orchard et al. 2015): x, y, p (1 bit) and t (23 bits), 5 bytes.

    An event in row 240 is no event: the time has run over by 2^13 us.
    """
    content = np.fromfile(path, np.uint8)
    if len(content) % 5:
        raise FileError(path, f"has {len(content)} bytes; 5 bytes an event, so it is truncated.")
    columns = content.reshape(-1, 5).T.astype(np.int64)
    t = (columns[2] & 0x7F) << 16 | columns[3] << 8 | columns[4]
    overflow = columns[1] == 240
    t += np.cumsum(overflow) << 13
    kept = ~overflow
    return Recording(t[kept], columns[0][kept], columns[1][kept], columns[2][kept] >> 7)


@reads(".aedat")
def _aedat2(path: Path) -> Recording:
    """AEDAT 2 of a DVS128: 32-bit address and microseconds, big-endian (jAER's format).

    The address holds p (bit 0, 1: OFF), 127 - y (bits 1..7) and 127 - x (bits 8..14), as others
    read CIFAR10-DVS (spikingjelly; jackd/events-tfds pull request 1). Bit 15: no event.
    """
    content = path.read_bytes()
    if not content.startswith(b"#!AER-DAT2."):
        found = content[:20].split(b"\n")[0].decode("ascii", "replace").strip()
        raise FileError(path, f"starts with {found!r}; #!AER-DAT2.0 is read.")
    header = re.match(rb"(?:#[^\n]*\n)+", content)
    if header is None:
        raise FileError(path, "ends within its first line, so it is truncated.")
    chip = re.search(rb"# ?AEChip: ?([^\r\n]*)", header[0])
    if chip and b"DVS128" not in chip[1].upper():
        name = chip[1].decode("ascii", "replace")
        raise FileError(path, f"is from the chip {name!r}; AEDAT 2 is read from a DVS128.")
    table = _words(path, content, len(header[0]), ">u4")
    address, t = table[table[:, 0] >> 15 & 1 == 0].T
    if np.any(address >> 16):
        raise FileError(path, "has addresses beyond 16 bits, which a DVS128 does not send.")
    return Recording(
        t, 127 - (address >> 8 & 127), 127 - (address >> 1 & 127), 1 - (address & 1), (128, 128)
    )


@reads(".dat")
def _dat(path: Path) -> Recording:
    """Prophesee DAT, 2D events: after the header, type and size; then t, and x, y (14 bits), p.

    Source: https://docs.prophesee.ai/stable/data/file_formats/dat.html
    """
    content = path.read_bytes()
    header = re.match(rb"(?:%[^\n]*\n)*", content)
    assert header
    start = len(header[0])
    kind = content[start : start + 2]
    if len(kind) < 2 or kind[0] not in (0x00, 0x0C) or kind[1] != 8:
        raise FileError(path, f"is not a DAT file of 2D events (type, size: {list(kind)}).")
    t, data = _words(path, content, start + 2, "<u4").T
    return Recording(t, data & 0x3FFF, data >> 14 & 0x3FFF, data >> 28 & 1, _stated(header[0]))


def _words(path: Path, content: bytes, start: int, dtype: str) -> npt.NDArray[np.int64]:
    """Two words of 32 bits an event, (N, 2)."""
    rest = len(content) - start
    if rest % 8:
        raise FileError(path, f"has {rest} bytes of events; 8 bytes each, so it is truncated.")
    return np.frombuffer(content, dtype, offset=start).reshape(-1, 2).astype(np.int64)


@reads(".es")
def _es(path: Path) -> Recording:
    """Event Stream (https://github.com/neuromorphic-paris/event_stream), DVS events."""
    return _by_faery(path)


@reads(".raw")
def _raw(path: Path) -> Recording:
    """Prophesee EVT2 and EVT3.

    Without a geometry in the header faery says 1280x720, whatever the sensor was.
    """
    with path.open("rb") as file:
        stated = _stated(file.read(HEADER_BYTES))
    return replace(_by_faery(path), sensor=stated)


@reads(".aedat4")
def _aedat4(path: Path) -> Recording:
    """AEDAT 4 of iniVation.

    Decoded in a process of its own: faery 0.7.1 aborts the process on some damaged files.
    """
    _faery(path)
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "events.npz"
        result = subprocess.run(
            [sys.executable, "-m", __name__, str(path), str(output)], capture_output=True, text=True
        )
        if not output.exists():
            problem = (result.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise FileError(path, problem.removeprefix(f"{path}: "))
        with np.load(output) as arrays:
            height, width = arrays["sensor"].tolist()
            t, x, y, p = (arrays[name] for name in "txyp")
            return Recording(t, x, y, p, (height, width))


def _faery(path: Path) -> Any:
    """The module, without which it is the installation that is to blame, and not the file."""
    try:
        import faery
    except ImportError as error:
        raise UsageError(
            f"{path}: {path.suffix} files are read by faery; install it with "
            "pip install 'msg-deploy[events]'."
        ) from error
    return faery


def _by_faery(path: Path) -> Recording:
    faery = _faery(path)
    try:
        stream = faery.events_stream_from_file(path)
        events, (width, height) = stream.to_array(), stream.dimensions()
    except Exception as error:  # faery raises bare Exceptions
        raise FileError(path, f"cannot be decoded ({reason(error)}).") from error
    fields = (events["t"].astype(np.int64), events["x"], events["y"], events["p"])
    return Recording(*fields, sensor=(int(height), int(width)))


def _stated(header: bytes) -> Size | None:
    """The sensor's height and width in a Prophesee header, if it has them."""
    geometry = re.search(rb"^% geometry:? *(\d+)x(\d+)", header, re.MULTILINE)
    if geometry:
        return int(geometry[2]), int(geometry[1])
    height, width = (
        re.search(rb"(?:^% |;)" + name + rb"[ =:]+(\d+)", header, re.MULTILINE | re.IGNORECASE)
        for name in (b"height", b"width")
    )
    return (int(height[1]), int(width[1])) if height and width else None


def _decode(path: Path, output: Path) -> None:
    """Decode by faery, for another process to read."""
    recording = _by_faery(path)
    np.savez(output, **vars(recording))


if __name__ == "__main__":
    try:
        _decode(*map(Path, sys.argv[1:]))
    except MsgDeployError as error:
        sys.exit(str(error))
