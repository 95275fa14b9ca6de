"""The parent's side of the process that opens a published checkpoint: start it, bound it, rebuild plain tensors.

What comes back is checked for size only; whether it fits its configuration is `model.published`'s question.
"""

import json
import logging
import os
import signal
import struct
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from mononphm_core.errors import AssetError
from mononphm_core.io.manifest import sha256_of_file

log = logging.getLogger(__name__)

CHILD = "mononphm_core.io.checkpoint_child"
MAX_HEADER_BYTES = 8 << 20
MAX_CONFIGURATION_BYTES = 16 << 10
_DTYPES = {str(kind).removeprefix("torch."): kind for kind in (
    torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int8, torch.uint8, torch.int16, torch.int32,
    torch.int64, torch.bool,
)}  # fmt: skip
_ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2", "LC_ALL": "C.UTF-8"}


@dataclass(frozen=True)
class CheckpointLimits:
    """What opening one file may cost."""

    max_bytes: int = 8 << 30
    base_memory_bytes: int = 6 << 30
    """Address space (most of it never touched) besides twice the file."""
    cpu_seconds: int = 120
    wall_seconds: float = 300.0


@dataclass(frozen=True)
class Checkpoint:
    """A published checkpoint as plain values."""

    configuration: dict[str, Any]
    states: dict[str, dict[str, Tensor]]
    epoch: int | None
    ignored: tuple[str, ...]
    """Further top-level entries (optimisers, codebooks), not read."""
    sha256: str
    """Of the file."""


def read_checkpoint(path: Path, configuration: Path, limits: CheckpointLimits | None = None) -> Checkpoint:
    """Open both files in a limited process that executes nothing of them. AssetError says what is wrong with which."""
    bounds = limits or CheckpointLimits()
    for file, most in ((path, bounds.max_bytes), (configuration, MAX_CONFIGURATION_BYTES)):
        if not file.is_file():
            raise AssetError(
                f"{file} is missing; give a folder with configs.yaml and checkpoints/checkpoint_epoch_N.tar"
            )
        if file.stat().st_size > most:
            raise AssetError(f"{file.name} has {file.stat().st_size} bytes, more than the {most} that are read")
    try:
        text = configuration.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise AssetError(f"{configuration.name} is no text: give the configs.yaml of this checkpoint") from error
    size = path.stat().st_size
    request = {
        "configuration": text,
        "memory_bytes": bounds.base_memory_bytes + 2 * size,
        "cpu_seconds": bounds.cpu_seconds,
    }
    header, states = ask_child(CHILD, path, request, 2 * size, bounds.wall_seconds)  # decoders may share storage
    if not isinstance(header["configuration"], dict):
        raise AssetError(f"{configuration.name} holds no sections: give the configs.yaml of this checkpoint")
    states = {"id_decoder": {}, "ex_decoder": {}} | states
    return Checkpoint(header["configuration"], states, header["epoch"], tuple(header["ignored"]), sha256_of_file(path))


def ask_child(
    module: str, path: Path, request: dict[str, Any], most: int, seconds: float
) -> tuple[dict[str, Any], dict[str, dict[str, Tensor]]]:
    """What a limited process finds in a file: its header, and up to `most` bytes of tensors by section and name.

    `module` is the child, a `limited_child`; it has the file on stdin. AssetError when it refuses.
    """
    with path.open("rb") as file:
        child = subprocess.Popen(
            [sys.executable, "-I", "-m", module, json.dumps(request)],
            stdin=file, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=_ENVIRONMENT, cwd="/",
            start_new_session=True, close_fds=True,
        )  # fmt: skip
    assert child.stdout is not None
    timer = threading.Timer(seconds, _kill, [child])
    timer.start()
    try:
        with child.stdout as answer:
            return _listen(answer, path.name, most)
    except EOFError as error:
        code = child.wait(timeout=10)
        log.warning("the checkpoint process ended with code %s before its answer was complete", code)
        raise AssetError(
            f"{path.name} was refused: reading it ended the limited process (memory, time, or a damaged file). "
            "Copy it again, or save it once more"
        ) from error
    finally:
        timer.cancel()
        _kill(child)
        child.wait()


def _listen(answer: IO[bytes], name: str, most: int) -> tuple[dict[str, Any], dict[str, dict[str, Tensor]]]:
    length = struct.unpack(">I", _exactly(answer, 4))[0]
    if length > MAX_HEADER_BYTES:
        raise AssetError(f"{name} was refused: it lists too many tensors")
    header = json.loads(_exactly(answer, length))
    if header["kind"] == "error":
        raise AssetError(f"{name} was refused: {header['message']}. Copy it again, or ask whoever made it")
    log.debug("checkpoint process confined: %s", header["confined"])
    if sum(int(entry["bytes"]) for entry in header["tensors"]) > most:
        raise AssetError(f"{name} was refused: its tensors claim more bytes than the file has")
    states: dict[str, dict[str, Tensor]] = {}
    for entry in header["tensors"]:
        dtype = _DTYPES.get(entry["dtype"])
        if dtype is None:
            raise AssetError(f"{name} was refused: {entry['section']}.{entry['name']} is {entry['dtype']}, not float32")
        raw = _exactly(answer, int(entry["bytes"]))
        value = torch.frombuffer(raw, dtype=dtype) if raw else torch.empty(0, dtype=dtype)
        states.setdefault(entry["section"], {})[entry["name"]] = value.view(entry["shape"])
    return header, states


def _exactly(answer: IO[bytes], size: int) -> bytearray:
    buffer = bytearray(size)
    view, done = memoryview(buffer), 0
    while done < size:
        count = answer.readinto(view[done:])  # type: ignore[attr-defined]
        if not count:
            raise EOFError
        done += count
    return buffer


def _kill(child: "subprocess.Popen[bytes]") -> None:
    if child.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
