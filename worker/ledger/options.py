"""What a user may ask of a reconstruction: the public options, checked here once for API, CLI and worker."""

import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, field_validator, model_validator

Quality = Literal["draft", "standard", "high"]
Priority = Literal["low", "normal", "high"]
Output = Literal[
    "manifest",
    "identity",
    "expressions",
    "blendshapes",
    "cameras",
    "meshes",
    "preview",
    "thumbnail",
    "neutral",
    "animation",
    "head_arkit",
]
OUTPUTS: tuple[Output, ...] = (
    "manifest", "identity", "expressions", "blendshapes", "cameras", "meshes",
    "preview", "thumbnail", "neutral", "animation", "head_arkit",
)  # fmt: skip
"""Everything a job can hand out; `manifest` is always made."""

MESH_RESOLUTION: dict[Quality, int] = {"draft": 72, "standard": 96, "high": 176}
"""Grid cells along the longest side of the box where the user names none; around eyes and mouth they are shorter."""

USUAL_FRAMES: dict[Quality, int] = {"draft": 8, "standard": 24, "high": 96}
"""Pictures of a clip that are reconstructed where the user names no number."""

UNDIVIDED, USUAL_PART = 240, 96
"""Pictures up to which a clip stays whole where the user says nothing, and of one part of a longer one."""

PUBLISHED_RESOLUTION = {"image": 300, "video": 150, "stage2": 200}
"""Grid points along every side of the published box, by what is reconstructed."""

DEFAULT_RETENTION_HOURS = 168.0
"""A week: faces are biometric data, so nothing stays for ever unless asked for."""


class _Strict(BaseModel):
    """Unknown keys, wrong types, infinities and changes after the fact are errors."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class IntrinsicsCamera(_Strict):
    """A calibrated camera: pixels of the upright original, Brown-Conrady distortion as OpenCV names it."""

    fx: float = Field(gt=0, le=1e6)
    fy: float = Field(gt=0, le=1e6)
    cx: float = Field(ge=-1e5, le=1e5)
    cy: float = Field(ge=-1e5, le=1e5)
    k1: float = Field(0.0, ge=-1e3, le=1e3)
    k2: float = Field(0.0, ge=-1e3, le=1e3)
    p1: float = Field(0.0, ge=-1e3, le=1e3)
    p2: float = Field(0.0, ge=-1e3, le=1e3)
    k3: float = Field(0.0, ge=-1e3, le=1e3)


class FovCamera(_Strict):
    """Only the horizontal field of view of the upright original is known."""

    fov_deg: float = Field(ge=1, lt=179)


def _camera_kind(value: Any) -> str:
    has_fov = "fov_deg" in value if isinstance(value, dict) else isinstance(value, FovCamera)
    return "fov" if has_fov else "intrinsics"


CameraOptions = Annotated[
    Annotated[IntrinsicsCamera, Tag("intrinsics")] | Annotated[FovCamera, Tag("fov")], Discriminator(_camera_kind)
]
"""{fx, fy, cx, cy[, k1, k2, p1, p2, k3]} or {fov_deg}."""

Label = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]+$")]


class ReconstructionOptions(_Strict):
    """The options of `POST /reconstructions` and `mononphm reconstruct`. All have defaults."""

    model: str | None = Field(None, max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9._@:+-]*$")
    """Name in the registry; None: the worker's default (which the job's `model` then names)."""
    quality: Quality = "standard"
    stages: list[Literal[1, 2]] | None = None
    """[1] or [1, 2]; None: by input, both for a video and the first for a still."""
    camera: CameraOptions | None = None
    """None: EXIF, else an estimate."""
    start_s: float = Field(0.0, ge=0, le=1e6)
    end_s: float | None = Field(None, gt=0, le=1e6)
    fps: float | None = Field(None, gt=0, le=1000)
    """Pictures per second of the clip that are reconstructed; excludes `stride`."""
    stride: int | None = Field(None, ge=1, le=100_000)
    """Every n-th picture; excludes `fps`."""
    max_frames: int | None = Field(None, ge=1, le=40_000)
    """None: as many as the quality affords."""
    part_frames: int | None = Field(None, ge=8, le=1000)
    """A clip of more pictures than this is divided into parts of so many, which any worker may take; the result does
    not depend on how many workers there are. None: clips of more than 240 pictures, into parts of 96."""
    downsample_factor: float = Field(1.0, gt=0, le=1)
    face: Literal["largest", "center"] | Annotated[int, Field(ge=0, le=1000)] = "largest"
    """Which one where there are several; an index counts from the left."""
    outputs: list[Output] = Field(default_factory=lambda: list(OUTPUTS), max_length=len(OUTPUTS))
    mesh_format: Literal["ply", "obj", "glb"] = "ply"
    mesh_resolution: int | None = Field(None, ge=16, le=512)
    """None: by quality."""
    mesh_extraction: Literal["sparse", "published"] = "sparse"
    """`sparse`: the field is asked near the surface, the neck is cut, loose parts are dropped. `published`: every point
    of the published box, nothing cut or dropped, colours as the published program writes them."""
    solver: Literal["fast", "published"] | None = None
    """`fast`: ours. `published`: the algorithm of the MonoNPHM release, slow. None: fast, or published for a model that
    fast cannot track (a converted checkpoint)."""
    iterations_scale: float = Field(1.0, gt=0, le=1)
    """Share of the published solver's steps; below 1 it is no longer the published algorithm."""
    seed: int = Field(0, ge=0, le=2**32 - 1)
    webhook_url: str | None = Field(None, max_length=2048, pattern=r"^https?://[^\s/]+(/\S*)?$")
    labels: list[Label] = Field(default_factory=list, max_length=16)
    priority: Priority = "normal"
    retention_hours: float = Field(DEFAULT_RETENTION_HOURS, gt=0, le=24 * 3660)
    """Bytes are deleted so long after the job ended."""

    @field_validator("stages")
    @classmethod
    def _stages_in_order(cls, stages: list[int] | None) -> list[int] | None:
        if stages not in (None, [1], [1, 2]):
            raise ValueError("stages is [1] or [1, 2]")
        return stages

    @field_validator("outputs", mode="before")
    @classmethod
    def _outputs_by_short_name(cls, outputs: Any) -> Any:
        """`identity.npz` and `meshes/` mean `identity` and `meshes`."""
        if not isinstance(outputs, list):
            return outputs
        short = [re.sub(r"(\.\w+|/)$", "", name) if isinstance(name, str) else name for name in outputs]
        return list(dict.fromkeys(short)) if all(isinstance(name, str) for name in short) else short

    @field_validator("labels")
    @classmethod
    def _labels_once(cls, labels: list[str]) -> list[str]:
        return list(dict.fromkeys(labels))

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if self.fps is not None and self.stride is not None:
            raise ValueError("fps and stride exclude each other; give one of them")
        if self.end_s is not None and self.end_s <= self.start_s:
            raise ValueError("end_s must be later than start_s")
        return self

    def divides(self, pictures: int) -> bool:
        """Whether a clip of so many selected pictures is reconstructed in parts; only the fast solver's are."""
        return self.solver != "published" and pictures > (self.part_frames or UNDIVIDED)

    def resolved(self, is_video: bool) -> "ReconstructionOptions":
        """The same wishes with the defaults that depend on input and quality filled in; what the job echoes."""
        stages = self.stages or ([1, 2] if is_video else [1])
        return self.model_copy(
            update={
                "stages": stages,
                "mesh_resolution": self.mesh_resolution or self._usual_resolution(stages, is_video),
                "outputs": ["manifest", *(name for name in self.outputs if name != "manifest")],
            }
        )

    def _usual_resolution(self, stages: Sequence[int], is_video: bool) -> int:
        if self.mesh_extraction == "sparse":
            return MESH_RESOLUTION[self.quality]
        return PUBLISHED_RESOLUTION["stage2" if 2 in stages else "video" if is_video else "image"]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; `from_json` is the inverse."""
        return self.model_dump(mode="json")

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "ReconstructionOptions":
        return cls.model_validate(value)
