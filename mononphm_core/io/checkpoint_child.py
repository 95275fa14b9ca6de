"""The process that opens a published checkpoint: `python -m mononphm_core.io.checkpoint_child REQUEST`, file on stdin.

A checkpoint is a pickle inside a zip archive: a program in disguise. `limited_child` bounds this process and locks it
in before it looks at the first byte. Even then nothing of the file is executed: torch's restricted unpickler knows
tensors and plain containers, and refuses every other name.

Reply: a header that lists the tensors of both decoders, then their bytes in that order.
"""

import io
import json
import os
import sys
import zipfile
from collections.abc import Mapping
from typing import Any

from mononphm_core.io.decoder_protocol import Refusal
from mononphm_core.io.limited_child import ByteFile, Found, serve

SECTIONS = ("id_decoder", "ex_decoder")
PIECE = 1 << 20
"""Bytes read at once."""
OTHER_ENTRIES = 32
"""Names of further top-level entries that are told, at most."""


def main() -> int:
    return serve(_warm_up, _read)


def _read(file: ByteFile, request: dict[str, Any]) -> Found:
    document = plain_configuration(request["configuration"])
    found, blobs = decoders_in(file)
    return {"configuration": document, **found}, blobs


def _safe_globals() -> list[Any]:
    """Plain numbers of NumPy, which schedulers leave in optimiser states; they hold no code."""
    import numpy as np

    scalar = np.float64(0.0).__reduce__()[0]
    return [scalar, np.dtype, np.dtypes.Float64DType, np.dtypes.Float32DType, np.dtypes.Int64DType]


def _warm_up() -> None:
    """Everything that reading will import, while files can still be opened."""
    import numpy as np
    import torch
    import yaml

    buffer = io.BytesIO()
    torch.save({"a": torch.nn.Parameter(torch.zeros(2)), "b": (np.float64(1.0), np.float32(1.0))}, buffer)
    buffer.seek(0)
    with torch.serialization.safe_globals(_safe_globals()):
        torch.load(buffer, map_location="cpu", weights_only=True)
    torch.zeros(2).isfinite().all(), torch.zeros(2).numpy().tobytes()
    yaml.safe_load("a: [1, 2.0, x]")
    _check_archive(io.BytesIO(buffer.getvalue()))


def plain_configuration(text: str) -> Any:
    """A YAML document of plain values; Refusal for anything else."""
    import yaml

    try:
        document = yaml.safe_load(text)
        json.dumps(document)
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as broken:
        said = " ".join(str(broken).split())[:200]
        raise Refusal("AssetError", f"its configs.yaml is no plain YAML document ({said})") from broken
    return document


def decoders_in(file: ByteFile) -> tuple[dict[str, Any], list[Any]]:
    """The two state dicts as a list of what they hold and the bytes of each tensor."""
    import pickle

    import torch

    _check_archive(file)
    file.seek(0)
    try:
        with torch.serialization.safe_globals(_safe_globals()):
            saved = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as refused:
        said = next(
            (line.strip() for line in str(refused).splitlines() if "GLOBAL" in line or "Unsupported" in line), ""
        )
        raise Refusal(
            "AssetError",
            f"it holds more than tensors and plain values; nothing of it was executed ({said[:200] or 'bad pickle'})",
        ) from refused
    if not isinstance(saved, Mapping):
        raise Refusal("AssetError", f"it holds a {type(saved).__name__}, not the entries id_decoder and ex_decoder")
    entries: list[dict[str, Any]] = []
    blobs: list[Any] = []
    for section in SECTIONS:
        state = saved.get(section)
        if not isinstance(state, Mapping):
            have = ", ".join(sorted(str(key)[:40] for key in saved)[:OTHER_ENTRIES]) or "nothing"
            raise Refusal("AssetError", f"it has no state dict {section} (its entries: {have})")
        for name, value in state.items():
            entries.append(_entry(section, name, value))
            blobs.append(value.detach().contiguous().flatten().view(torch.uint8).numpy())
    epoch = saved.get("epoch")
    others = sorted(str(key)[:80] for key in saved if key not in (*SECTIONS, "epoch"))
    return {
        "tensors": entries,
        "epoch": epoch if isinstance(epoch, int) else None,
        "ignored": others[:OTHER_ENTRIES],
    }, blobs


def _entry(section: str, name: Any, value: Any) -> dict[str, Any]:
    """One tensor described; Refusal where it is none, or none that is plainly stored."""
    import torch

    if not isinstance(name, str) or len(name) > 200:
        raise Refusal("AssetError", f"{section} has a key that is no tensor name: {name!r:.80}")
    label = f"{section}.{name}"
    if not isinstance(value, torch.Tensor):
        raise Refusal("AssetError", f"{label} is a {type(value).__name__}, not a tensor")
    if value.layout is not torch.strided or value.device.type != "cpu" or value.is_quantized or value.is_complex():
        raise Refusal("AssetError", f"{label} is no plain tensor (layout {value.layout}, dtype {value.dtype})")
    bytes_needed = value.numel() * value.element_size()
    if bytes_needed > value.untyped_storage().nbytes():
        raise Refusal("AssetError", f"{label} claims {tuple(value.shape)} numbers, more than the file stores for it")
    return {
        "section": section,
        "name": name,
        "dtype": str(value.dtype).removeprefix("torch."),
        "shape": list(value.shape),
        "bytes": bytes_needed,
    }


def _check_archive(file: ByteFile) -> None:
    """A torch archive stores its members uncompressed and unshared; anything else is a bomb or no checkpoint."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    if not zipfile.is_zipfile(file):
        raise Refusal(
            "AssetError",
            "it is no checkpoint archive (torch writes a zip archive), or it is cut off, or in the format "
            "before torch 1.6, which must be saved once more with a newer torch",
        )
    file.seek(0)
    members = zipfile.ZipFile(file).infolist()
    packed = [member.filename for member in members if member.compress_type != zipfile.ZIP_STORED]
    if packed:
        raise Refusal("AssetError", f"its member {packed[0]!r:.80} is compressed, which torch never does")
    if sum(member.file_size for member in members) > size:
        raise Refusal("AssetError", "its members claim more bytes than the file has")
    if any("/code/" in member.filename or member.filename.endswith("constants.pkl") for member in members):
        raise Refusal("AssetError", "it is a TorchScript program, not a checkpoint of weights")
    _check_sums(file, members)


def _check_sums(file: ByteFile, members: list[zipfile.ZipInfo]) -> None:
    """torch writes a CRC-32 of every member and never reads it. 0 stands for none (`set_crc32_options(False)`)."""
    archive = zipfile.ZipFile(file)
    for member in members:
        if member.CRC == 0:
            continue
        try:
            with archive.open(member) as content:
                while content.read(PIECE):
                    pass
        except zipfile.BadZipFile as damaged:
            raise Refusal(
                "AssetError", f"its member {member.filename!r:.80} is damaged: it does not fit its own checksum"
            ) from damaged


if __name__ == "__main__":
    sys.exit(main())
