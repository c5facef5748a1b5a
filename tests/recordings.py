"""Recordings made by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from msg_deploy.data.recordings import Recording


def recording(*events: tuple[int, int, int, int]) -> Recording:
    """Events given as (t, x, y, p)."""
    t, x, y, p = np.array(events).T
    return Recording(t, x, y, p)


def bin_bytes(found: Recording) -> bytes:
    """N-MNIST's format."""
    table = np.stack(
        [found.x, found.y, found.p << 7 | found.t >> 16, found.t >> 8 & 255, found.t & 255], axis=1
    )
    return table.astype(np.uint8).tobytes()


def dat_bytes(found: Recording, header: bytes = b"") -> bytes:
    table = np.stack([found.t, found.p << 28 | found.y << 14 | found.x], axis=1)
    return header + bytes([0, 8]) + table.astype("<u4").tobytes()


def event_folder(root: Path, parts: bool, suffix: str = ".bin", count: int = 5) -> None:
    """Recordings by class; event i of class c is at (x, y) = (i, c)."""
    for part in ("Train", "Test") if parts else ("",):
        for label in range(3):
            folder = root / part / f"class{label}"
            folder.mkdir(parents=True)
            for number in range(count):
                found = recording(*((100 * i, i, label, number % 2) for i in range(number + 2)))
                content = {".bin": bin_bytes, ".dat": dat_bytes}[suffix](found)
                (folder / f"{number}{suffix}").write_bytes(content)
