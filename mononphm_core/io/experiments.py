"""Where the files of a published experiment lie, and its table of mean anchors.

`exp_name` and `ckpt` mean what they mean to the published code:
    <experiments>/<exp_name>/configs.yaml
    <experiments>/<exp_name>/checkpoints/checkpoint_epoch_<ckpt>.tar
    anchors_65.npy   an asset of the published repository: in the folder, beside it, or in an `assets` folder there
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mononphm_core.errors import AssetError

RELEASED_CKPT = 2500
MAX_ANCHOR_BYTES = 1 << 20


@dataclass(frozen=True)
class Experiment:
    """Where the files of one published experiment lie."""

    name: str
    checkpoint: Path
    configuration: Path
    ckpt: int | None
    """Epoch by the file's name; None for a file of another name."""


def find_experiment(place: Path, ckpt: int | None = None, experiments: Path | None = None) -> Experiment:
    """The experiment at `place`: its folder, one of its checkpoint files, or its name below `experiments`.

    Without `ckpt` the release's epoch is taken if it is there, else the last one. AssetError says what is missing.
    """
    if place.is_file():
        above = place.parent.parent if place.parent.name == "checkpoints" else place.parent
        found = next((f / "configs.yaml" for f in (above, place.parent) if (f / "configs.yaml").is_file()), None)
        if found is None:
            raise AssetError(f"no configs.yaml lies beside {place.name} or above its folder; put it there")
        return Experiment(found.parent.name, place, found, _epoch(place))
    folder = place
    if not place.is_dir() and experiments is not None and len(place.parts) == 1:
        folder = experiments / place
    if not folder.is_dir():
        where = f" (nor in {experiments})" if experiments is not None else "; MONONPHM_EXPERIMENT_DIR is not set"
        raise AssetError(f"there is no experiment {str(place)!r} here{where}")
    if not (folder / "configs.yaml").is_file():
        raise AssetError(f"{folder.name} has no configs.yaml: give the folder that the published training wrote")
    files = {e: path for path in sorted((folder / "checkpoints").glob("*.tar")) if (e := _epoch(path)) is not None}
    have = ", ".join(str(epoch) for epoch in sorted(files)) or "none"
    if ckpt is None:
        ckpt = RELEASED_CKPT if RELEASED_CKPT in files else max(files, default=RELEASED_CKPT)
    if ckpt not in files:
        raise AssetError(
            f"{folder.name} has no checkpoints/checkpoint_epoch_{ckpt}.tar (epochs there: {have}); choose one by --ckpt"
        )
    return Experiment(folder.name, files[ckpt], folder / "configs.yaml", ckpt)


def _epoch(path: Path) -> int | None:
    found = re.fullmatch(r"checkpoint_epoch_(\d{1,9})\.tar", path.name)
    return int(found[1]) if found else None


def find_anchors(experiment: Experiment, count: int, given: Path | None, assets: Sequence[Path] = ()) -> Path:
    """The file of mean anchors: as given, or `anchors_<count>.npy` in the places where it usually lies."""
    if given is not None:
        if not given.is_file():
            raise AssetError(f"{given} is missing; --anchors wants the anchors_{count}.npy of this checkpoint")
        return given
    home = experiment.configuration.parent
    places = [home, home / "assets", home.parent, home.parent / "assets", *assets]
    for place in places:
        if (file := place / f"anchors_{count}.npy").is_file():
            return file
    raise AssetError(
        f"anchors_{count}.npy is not in {home.name}, beside it, or in an assets folder there. It is an asset of the "
        "published repository that no checkpoint contains; give it by --anchors FILE"
    )


def read_anchors(path: Path) -> Float[Tensor, "anchors 3"]:
    """Mean anchors from a `.npy` of numbers; nothing else is accepted."""
    size = path.stat().st_size
    if size > MAX_ANCHOR_BYTES:
        raise AssetError(f"{path.name} has {size} bytes: no table of anchors is so large")
    try:
        with path.open("rb") as file:
            if np.lib.format.read_magic(file) != (1, 0):
                raise ValueError("a newer version of the format than any table of numbers needs")
            shape, _, dtype = np.lib.format.read_array_header_1_0(file)
            if dtype.kind != "f" or int(np.prod(shape, dtype=object)) * dtype.itemsize > size:
                raise AssetError(f"{path.name} holds {dtype} of shape {shape}: expected a table of points")
            file.seek(0)
            values = np.lib.format.read_array(file, allow_pickle=False)
    except (ValueError, OSError) as broken:
        raise AssetError(f"{path.name} is no .npy table of points ({broken})") from broken
    if values.ndim == 3 and len(values) == 1:
        values = values[0]
    if values.ndim != 2 or values.shape[1] != 3 or not np.isfinite(values).all():
        raise AssetError(f"{path.name} is {values.shape}: expected one row of three finite numbers per anchor")
    return torch.from_numpy(np.ascontiguousarray(values, np.float64))
