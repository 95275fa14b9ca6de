"""Binary glTF 2.0 from arrays: accessors one after the other, sparse where that is smaller, and the GLB container.

Section numbers are those of the Khronos specification 2.0.1. Only what heads need: float attributes, 32-bit or 16-bit
indices, embedded pictures, cameras, animation.
"""

import json
import struct
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Shaped

FLOAT, UINT16, UINT32 = 5126, 5123, 5125
ARRAY_BUFFER, ELEMENT_ARRAY_BUFFER = 34962, 34963
KINDS = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4"}


class Builder:
    """A document under construction: each call adds one accessor or view and returns its index."""

    def __init__(self) -> None:
        self.accessors: list[dict[str, Any]] = []
        self.views: list[dict[str, Any]] = []
        self._binary = bytearray()

    def view(self, data: bytes, target: int | None = None) -> int:
        """A piece of the buffer, starting at a multiple of four."""
        self._binary += b"\0" * (-len(self._binary) % 4)
        view: dict[str, Any] = {"buffer": 0, "byteOffset": len(self._binary), "byteLength": len(data)}
        if target is not None:
            view["target"] = target
        self._binary += data
        self.views.append(view)
        return len(self.views) - 1

    def floats(self, values: Shaped[np.ndarray, "..."], target: int | None = None, bounds: bool = False) -> int:
        """Rows of 1 to 4 floats; `bounds` adds min and max, which positions and key frame times must have."""
        rows = np.ascontiguousarray(values, "<f4").reshape(len(values), -1)
        accessor = {"bufferView": self.view(rows.tobytes(), target), "componentType": FLOAT, "count": len(rows)}
        return self._add(accessor, rows, bounds)

    def sparse(self, values: Float[np.ndarray, "rows columns"], bounds: bool = False) -> int:
        """Rows of floats most of which are 0 (3.6.2.3): only the others are stored."""
        rows = np.ascontiguousarray(values, "<f4")
        kept = np.flatnonzero(rows.any(1))
        accessor: dict[str, Any] = {"componentType": FLOAT, "count": len(rows)}
        if len(kept):
            kind, dtype = (UINT16, "<u2") if len(rows) <= 1 << 16 else (UINT32, "<u4")
            accessor["sparse"] = {
                "count": len(kept),
                "indices": {"bufferView": self.view(kept.astype(dtype).tobytes()), "componentType": kind},
                "values": {"bufferView": self.view(rows[kept].tobytes())},
            }
        return self._add(accessor, rows, bounds)

    def indices(self, faces: Int[np.ndarray, "faces 3"]) -> int:
        """Corners of triangles, in 16 bits where they fit."""
        kind, dtype = (UINT16, "<u2") if faces.max(initial=0) < 0xFFFF else (UINT32, "<u4")
        view = self.view(faces.astype(dtype).tobytes(), ELEMENT_ARRAY_BUFFER)
        self.accessors.append({"bufferView": view, "componentType": kind, "count": faces.size, "type": "SCALAR"})
        return len(self.accessors) - 1

    def _add(self, accessor: dict[str, Any], rows: Float[np.ndarray, "rows columns"], bounds: bool) -> int:
        accessor["type"] = KINDS[rows.shape[1]]
        if bounds:
            accessor |= {"min": rows.min(0).tolist(), "max": rows.max(0).tolist()}
        self.accessors.append(accessor)
        return len(self.accessors) - 1

    def glb(self, document: dict[str, Any]) -> bytes:
        """The file: `document` with this buffer, its views and accessors."""
        whole = {
            **document,
            "accessors": self.accessors,
            "bufferViews": self.views,
            "buffers": [{"byteLength": len(self._binary)}],
        }
        return container({key: value for key, value in whole.items() if value != []}, bytes(self._binary))


def container(document: dict[str, Any], binary: bytes) -> bytes:
    """GLB (chapter 4): 12 bytes of header, a JSON chunk padded by spaces, a binary chunk padded by zeros."""
    text = json.dumps(document, separators=(",", ":"), allow_nan=False).encode()
    text += b" " * (-len(text) % 4)
    binary += b"\0" * (-len(binary) % 4)
    chunks = struct.pack("<II", len(text), 0x4E4F534A) + text + struct.pack("<II", len(binary), 0x004E4942) + binary
    return struct.pack("<III", 0x46546C67, 2, 12 + len(chunks)) + chunks


def parts(data: bytes) -> tuple[dict[str, Any], bytes]:
    """Document and binary chunk of a GLB file. Raises ValueError for other bytes."""
    magic, version, length = struct.unpack_from("<III", data) if len(data) >= 28 else (0, 0, 0)
    if magic != 0x46546C67 or version != 2 or length != len(data):
        raise ValueError("no GLB file of version 2")
    (text_size,) = struct.unpack_from("<I", data, 12)
    return json.loads(data[20 : 20 + text_size]), data[28 + text_size :]


def rows_of(data: bytes, accessor: int) -> Float[np.ndarray, "rows columns"]:
    """The float rows of one accessor of a GLB file, sparse or not: the inverse of `floats` and `sparse`."""
    document, binary = parts(data)
    views, wanted = document["bufferViews"], document["accessors"][accessor]
    columns = {kind: count for count, kind in KINDS.items()}[wanted["type"]]

    def piece(index: int, dtype: str) -> Shaped[np.ndarray, "values"]:
        view = views[index]
        return np.frombuffer(binary, dtype, view["byteLength"] // np.dtype(dtype).itemsize, view["byteOffset"])

    if "bufferView" in wanted:
        return piece(wanted["bufferView"], "<f4").reshape(-1, columns)
    rows = np.zeros((wanted["count"], columns), np.float32)
    if "sparse" in wanted:
        at, values = wanted["sparse"]["indices"], wanted["sparse"]["values"]
        index = piece(at["bufferView"], "<u2" if at["componentType"] == UINT16 else "<u4")
        rows[index] = piece(values["bufferView"], "<f4").reshape(-1, columns)
    return rows
