"""What the published solver may know about one frame, and about a clip."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from mononphm_core.types import Crop

BACKGROUND, NECK, SKIN, CLOTH, INNER_MOUTH, HAIR, NECKLACE, OUTSIDE = 0, 1, 2, 3, 11, 14, 18, 20
"""Labels of the face parser; the others: 4, 5 ears, 6, 7 brows, 8, 9 eyes, 10 nose, 12, 13 lips, 15 glasses, 16 hat,
17 earring. Right (of the subject) comes first. `OUTSIDE` is where the parser did not look."""


@dataclass(frozen=True)
class PublishedObservation:
    """One frame. The world is the head as the metrical tracker posed it, in head units; the camera moves in it.

    Camera axes are OpenGL's: x right, y up, looking along -z. Pixels of the prepared picture.
    """

    frame_index: int
    rgb: Float[Tensor, "height width 3"]
    """-1 black, 1 white."""
    labels: UInt8[Tensor, "height width"]
    """Face-parser labels; 0 where nothing of head, hair or neck is. Foreground: neither 0 nor 3."""
    inner_mouth: Bool[Tensor, "height width"]
    landmarks_px: Float[Tensor, "68 2"]
    """iBUG-68, (x, y)."""
    direction: Float[Tensor, "height width 3"]
    """Unit world direction of each pixel's ray."""
    origin: Float[Tensor, "3"]
    """The camera's centre, world."""
    w2c: Float[Tensor, "4 4"]
    """World to camera."""
    k: Float[Tensor, "3 3"]
    """fx, fy, cx, cy of the prepared picture: u = -fx x/z + cx, v = fy y/z + cy (z < 0 in front)."""
    crop: Crop
    """Where the prepared picture lies in `source/`."""

    def to(self, device: torch.device) -> "PublishedObservation":
        """On a device, numbers in single precision, as the solver works."""

        def single(x: Tensor) -> Tensor:
            return (x.float() if x.is_floating_point() else x).to(device)

        return PublishedObservation(
            self.frame_index,
            single(self.rgb),
            single(self.labels),
            single(self.inner_mouth),
            single(self.landmarks_px),
            single(self.direction),
            single(self.origin),
            single(self.w2c),
            single(self.k),
            self.crop,
        )


@dataclass(frozen=True)
class PublishedClip:
    """A prepared sequence."""

    observations: tuple[PublishedObservation, ...]
    landmarks: Float[Tensor, "frames 98 2"]
    """WFLW-98 as shares of the first picture's width and height: how much they change decides the number of steps."""
    size: tuple[int, int]
    """Width and height of the pictures in `source/`."""
    k: Float[Tensor, "3 3"]
    """Of the uncropped pictures, first frame."""
    intrinsics_given: bool
    """The camera was calibrated, not estimated: pictures are cropped around the face, and other weights are used."""
    warnings: tuple[str, ...] = ()
    """Parts that the folder lacked and that our own preprocessing made."""
