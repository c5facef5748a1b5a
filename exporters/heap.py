"""Texts of variable length in an HDF5 file, read without the HDF5 library.

Given a damaged file, the library allocates what a text claims to be long, and may look for it
without end. Source: "HDF5 File Format Specification" 3.0, III.E (global heap) and IV.B (references
of 4 bytes of length, 8 of the collection's address and 4 of the object's index).
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from msg_deploy.errors import GraphError

REFERENCE = np.dtype([("length", "<u4"), ("address", "<u8"), ("index", "<u4")])
COLLECTION = struct.Struct("<4sB3xQ")
"""Signature, version, and size of all of it."""
OBJECT = struct.Struct("<HH4xQ")
"""Index, references to it, and size of what follows, which is filled up to a multiple of 8."""
UNALLOCATED = 2**64 - 1


class Heap:
    """Texts of one file; what was read once is kept.

    Args:
        file: opened for reading, with addresses and sizes of 8 bytes, as is usual.

    Raises:
        GraphError: addresses or sizes have another length.
    """

    def __init__(self, file: h5py.File) -> None:
        if file.id.get_create_plist().get_sizes() != (8, 8):
            raise GraphError("has addresses of an unusual size; write the file with nir.write.")
        self.content = np.memmap(Path(file.filename), np.uint8, "r")
        self.base = file.userblock_size
        self.collections: dict[int, dict[int, bytes]] = {}

    def references(self, item: h5py.Dataset, where: str) -> npt.NDArray[np.void]:
        """Where the texts of a dataset are, flat; no more than the file has room for.

        Raises:
            GraphError: they are packed, or beyond the end of the file.
        """
        if item.id.get_storage_size() == 0:
            return np.zeros(0, REFERENCE)
        offset = item.id.get_offset()
        if offset is None:
            raise GraphError(f"{where}: keeps text in chunks; write the file with nir.write.")
        raw = self._bytes(offset, REFERENCE.itemsize * item.size, where)
        return np.frombuffer(raw, REFERENCE)

    def texts(self, item: h5py.Dataset, where: str) -> Any:
        """The content of a dataset: bytes, or an array of them of its shape.

        Raises:
            GraphError: a text is not where it should be.
        """
        found = np.full(item.size, b"", object)
        for place, (length, address, index) in enumerate(self.references(item, where).tolist()):
            if length == 0 or address in (0, UNALLOCATED):
                continue
            text = self._collection(address, where).get(index, b"")
            if len(text) < length:
                raise GraphError(f"{where}: a text of {length} bytes is not in the file.")
            found[place] = text[:length]
        return found.reshape(item.shape)[()]

    def _collection(self, address: int, where: str) -> dict[int, bytes]:
        """The objects of a collection by index; each is passed once, whatever their sizes say."""
        if address not in self.collections:
            start = self.base + address
            header = self._bytes(start, COLLECTION.size, where)
            signature, version, size = COLLECTION.unpack(header)
            if signature != b"GCOL" or version != 1:
                raise GraphError(f"{where}: its texts are damaged.")
            raw = self._bytes(start, size, where)
            objects, at = {}, COLLECTION.size
            while at + OBJECT.size <= size:
                index, _, length = OBJECT.unpack_from(raw, at)
                if index == 0:  # what is free
                    break
                at += OBJECT.size
                objects[index] = raw[at : at + length]
                at += (length + 7) // 8 * 8
            self.collections[address] = objects
        return self.collections[address]

    def _bytes(self, start: int, count: int, where: str) -> bytes:
        if start + count > len(self.content):
            raise GraphError(f"{where}: its texts lie beyond the end of the file.")
        return self.content[start : start + count].tobytes()
