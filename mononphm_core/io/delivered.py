"""What a delivery says, back as the nouns it was made of: the inverse of io.tables."""

import json
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from mononphm_core.errors import ConfigError
from mononphm_core.io.manifest import read_manifest
from mononphm_core.types import (
    MM_PER_UNIT,
    CameraSource,
    FrameFit,
    HeadPose,
    IdentityCode,
    Intrinsics,
    MediaInfo,
    Stage,
    StopReason,
    TrackedSequence,
)


@dataclass(frozen=True)
class Delivered:
    """One finished run on disk."""

    folder: Path
    manifest: dict[str, Any]

    @classmethod
    def open(cls, folder: Path) -> "Delivered":
        """Raises ConfigError where there is no finished run."""
        try:
            return cls(folder, read_manifest(folder))
        except ValueError as error:
            raise ConfigError(f"{folder.name} is no finished run: {error}") from error

    @property
    def model(self) -> tuple[str, str]:
        """Name and sha256 of the model that made it."""
        return self.manifest["model"]["name"], self.manifest["model"]["sha256"]

    def identity(self) -> IdentityCode:
        """Who it is."""
        with self._arrays("identity.npz") as table:
            return IdentityCode(torch.from_numpy(table["z_geo"]), torch.from_numpy(table["z_app"]))

    def sequence(self, identity: IdentityCode) -> TrackedSequence:
        """Expressions, head motion and camera of this run as those of `identity`. Light and history are not kept."""
        camera = self._json("cameras.json")
        lens = camera.get("distortion", dict.fromkeys(("k1", "k2", "p1", "p2", "k3"), 0.0))
        with self._arrays("expressions.npz") as table:
            return TrackedSequence(
                identity=identity,
                z_exp=torch.from_numpy(table["z_exp"]),
                poses=HeadPose(
                    torch.from_numpy(table["rotation"]),
                    torch.from_numpy(table["translation"]) / MM_PER_UNIT,
                    torch.tensor(float(table["scale"][0])),
                ),
                light=torch.zeros(9, 3),
                intrinsics=Intrinsics(
                    camera["fx"], camera["fy"], camera["cx"], camera["cy"], camera["width"], camera["height"],
                    (lens["k1"], lens["k2"], lens["p1"], lens["p2"], lens["k3"]),
                ),
                camera_source=CameraSource(camera["source"]),
                focal_uncertainty=camera["uncertainty"],
                frame_index=tuple(int(index) for index in table["frame_index"]),
                timestamp_s=tuple(float(seconds) for seconds in table["timestamp_s"]),
                fits=tuple(_fit(row) for row in self.manifest["quality"]["frames"]),
                stop=StopReason(self.manifest["stop"]),
                stage=Stage(self.manifest["last_stage"]),
            )  # fmt: skip

    def w2c(self) -> Float[np.ndarray, "frames 4 4"]:
        """World to camera, millimetres."""
        return np.array([frame["w2c"] for frame in self._json("cameras.json")["frames"]], np.float64)

    def media(self) -> MediaInfo:
        """The clip that it was made of."""
        told = self.manifest["input"]
        fps = None if told["fps"] is None else Fraction(told["fps"]).limit_denominator(100_000)
        return MediaInfo(
            told["media_type"], told["media_type"].startswith("video/"), told["width"], told["height"],
            told["frames"], fps, told["duration_s"], told["rotation"],
        )  # fmt: skip

    def _arrays(self, name: str) -> Any:
        try:
            return np.load(self.folder / name, allow_pickle=False)
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"{self.folder.name} has no readable {name}: ask that run for its default outputs"
            ) from error

    def _json(self, name: str) -> dict[str, Any]:
        try:
            document: dict[str, Any] = json.loads((self.folder / name).read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"{self.folder.name} has no readable {name}: ask that run for its default outputs"
            ) from error
        return document


def _fit(row: dict[str, Any]) -> FrameFit:
    def figure(name: str) -> float:
        return float("nan") if row[name] is None else float(row[name])

    return FrameFit(
        figure("landmark_error_px"), figure("silhouette_iou"), figure("photometric_error"), bool(row["accepted"])
    )
