"""The process that opens a FLAME pickle: `python -m mononphm_core.io.flame_child REQUEST`, the file on stdin.

FLAME is published as a pickle of NumPy arrays, SciPy sparse matrices and `chumpy.Ch` objects. `limited_child` bounds
this process and locks it in; then it unpickles with a table of the few names that such files need. SciPy's and chumpy's
classes are replaced by a record without code. Every other name is refused before it is looked up.

Reply: a header that lists the arrays, then their bytes in that order.
"""

import io
import pickle
import sys
from typing import Any

import numpy as np

from mononphm_core.io.decoder_protocol import Refusal
from mononphm_core.io.limited_child import ByteFile, Found, serve

SECTION = "arrays"
MAX_DENSE = 1 << 24
"""Entries of a sparse matrix when written out; FLAME's joint regressor has 25 115."""
COMPRESSED = {"csc_matrix", "csr_matrix", "csc_array", "csr_array"}


def main() -> int:
    return serve(_warm_up, _read)


def _warm_up() -> None:
    arrays_in(io.BytesIO(pickle.dumps({"warm": np.zeros(2)}, protocol=2)))


def _read(file: ByteFile, request: dict[str, Any]) -> Found:
    arrays = arrays_in(file)
    listed = [
        {"section": SECTION, "name": name, "dtype": value.dtype.name, "shape": value.shape, "bytes": value.nbytes}
        for name, value in arrays.items()
    ]
    return {"tensors": listed}, arrays.values()


class Record:
    """Stands for an object of a class that is not loaded: its name and its attributes, nothing that runs."""

    kind = ""

    def __new__(cls, *given: Any) -> "Record":
        return object.__new__(cls)


class ChumpyArray(Record):
    """`chumpy.Ch`: a plain array under `x`."""

    kind = "Ch"


def arrays_in(file: ByteFile) -> dict[str, np.ndarray]:
    """The arrays of the pickled dictionary by name, float64 or int64; texts in it are left out. Refusal otherwise."""
    saved = _Restricted(file, encoding="latin1").load()
    if not isinstance(saved, dict) or not all(isinstance(key, str) and len(key) < 100 for key in saved):
        raise Refusal("AssetError", f"it holds a {type(saved).__name__}, not FLAME's dictionary of arrays")
    return {key: _plain(key, value) for key, value in saved.items() if value is not None and not isinstance(value, str)}


def _plain(key: str, value: Any) -> np.ndarray:
    if isinstance(value, ChumpyArray):
        value = vars(value).get("x")
    elif isinstance(value, Record):
        value = _dense(key, vars(value), type(value).kind)
    if not isinstance(value, np.ndarray | np.generic | int | float | list | tuple):
        raise Refusal("AssetError", f"{key} is no array but a {type(value).__name__}")
    array = np.asarray(value)
    if array.dtype.kind not in "fiub":
        raise Refusal("AssetError", f"{key} holds {array.dtype}, not numbers")
    return np.ascontiguousarray(array, np.float64 if array.dtype.kind == "f" else np.int64)


def _dense(key: str, parts: dict[str, Any], kind: str) -> np.ndarray:
    """A compressed sparse matrix (SciPy's attributes) written out; entries given twice are added, as SciPy does."""
    shape = tuple(int(n) for n in parts.get("_shape", parts.get("shape", ())))
    names = ("data", "indices", "indptr")
    if len(shape) != 2 or min(shape) < 0 or shape[0] * shape[1] > MAX_DENSE:
        raise Refusal("AssetError", f"{key} is a sparse matrix of shape {shape}")
    if not all(isinstance(parts.get(name), np.ndarray) for name in names):
        raise Refusal("AssetError", f"{key} is a {kind} without data, indices and indptr")
    data, inner, starts = (parts[name] for name in names)
    by_row = kind.startswith("csr")
    outer = np.repeat(np.arange(shape[0] if by_row else shape[1]), np.diff(starts.astype(np.int64)))
    full = np.zeros(shape)
    np.add.at(full, (outer, inner) if by_row else (inner, outer), data)
    return full


def _reconstructor(cls: Any, base: Any, state: Any) -> Any:
    """`copyreg._reconstructor`, for records alone."""
    if not (isinstance(cls, type) and issubclass(cls, Record)):
        raise Refusal("AssetError", "it makes objects in a way that arrays do not need")
    return object.__new__(cls)


def _encode(text: str, encoding: str = "latin1") -> bytes:
    """How Python 3 writes bytes in an old pickle."""
    if encoding != "latin1":
        raise Refusal("AssetError", f"it encodes bytes as {encoding!r:.40}")
    return text.encode("latin1")


def _allowed(module: str, name: str) -> Any:
    """What a name of the pickle stands for; None for every name that is not in the table."""
    if module in ("numpy.core.multiarray", "numpy._core.multiarray"):
        rebuild: Any = np.zeros(0).__reduce__()[0]
        scalar: Any = np.float64(0).__reduce__()[0]
        return {"_reconstruct": rebuild, "scalar": scalar}.get(name)
    if module in ("copy_reg", "copyreg"):
        return {"_reconstructor": _reconstructor}.get(name)
    if module.startswith("scipy.sparse") and name in COMPRESSED:
        return type(name, (Record,), {"kind": name})
    known = {
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("_codecs", "encode"): _encode,
        ("__builtin__", "bytes"): bytes,  # an empty array's contents
        ("__builtin__", "object"): object,
        ("builtins", "object"): object,
        ("__builtin__", "set"): set,  # an attribute of every chumpy.Ch
        ("builtins", "set"): set,
        ("chumpy.ch", "Ch"): ChumpyArray,
        ("chumpy", "Ch"): ChumpyArray,
    }
    return known.get((module, name))


class _Restricted(pickle.Unpickler):
    """Knows the names of `_allowed`. It never imports."""

    def find_class(self, module: str, name: str) -> Any:
        found = _allowed(module, name)
        if found is None:
            raise Refusal(
                "AssetError",
                f"it holds more than arrays; nothing of it was executed (it names {module!s:.60}.{name!s:.60})",
            )
        return found


if __name__ == "__main__":
    sys.exit(main())
