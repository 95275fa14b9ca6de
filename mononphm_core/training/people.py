"""People of one more parametric head, carried to ICT-FaceKit's vertices: `people_NAME.npz` in the data folder.

    person = ICT neutral + mean + sum_i w_i component_i,   w_i ~ N(0, 1);   expressions are ICT-FaceKit's

Whatever head they come from, training takes them up by the same commands. Lengths are ICT's centimetres.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from jaxtyping import Bool, Float, Int

from mononphm_core.errors import AssetError

PATTERN = "people_*.npz"
LID_CM = 0.25
"""Skin this near to an eyeball lies on it: the lids' rims and what is under them."""
SAME_SIZE = 10.0
"""How much dearer an eyeball's growth is than its motion: the open lids say little of it."""
WIDEST = 2.5
"""Standard deviations that a weight has at most."""


@dataclass(frozen=True)
class People:
    """One source, displacements of the skin."""

    name: str
    licence: str
    """Rules whatever is trained from these people."""
    mean: Float[np.ndarray, "skin 3"]
    """Its average head minus ICT's neutral one."""
    components: Float[np.ndarray, "components skin 3"]
    """One standard deviation of each."""
    eyes: Float[np.ndarray, "1+components 2 4"]
    """Translation and relative growth of the left and the right eyeball; of the mean, then of each component."""

    def save(self, data: Path) -> Path:
        """Written whole or not at all."""
        path, temporary = data / f"people_{self.name}.npz", data / f".people_{self.name}.npz"
        with temporary.open("wb") as out:
            np.savez_compressed(
                out, licence=self.licence, mean=self.mean.astype(np.float32), eyes=self.eyes.astype(np.float32),
                components=self.components.astype(np.float16),
            )  # fmt: skip
            out.flush()
            os.fsync(out.fileno())
        temporary.replace(path)
        return path


def read_people(path: Path, skin: int) -> People:
    """AssetError when it is none, or of a skin with another number of vertices."""
    try:
        with np.load(path) as file:
            found = People(
                path.stem.removeprefix("people_"), str(file["licence"]), file["mean"],
                file["components"].astype(np.float32), file["eyes"],
            )  # fmt: skip
    except (OSError, ValueError, KeyError, BadZipFile) as error:
        raise AssetError(f"{path.name} can't be read as people of another head: {error}") from error
    if found.mean.shape != (skin, 3) or found.eyes.shape[0] != 1 + len(found.components):
        raise AssetError(f"{path.name} is made for {len(found.mean)} vertices of skin; {skin} are needed")
    return found


def eye_motion(
    moved: Float[np.ndarray, "fields skin 3"],
    x: Float[np.ndarray, "skin 3"],
    ball: Float[np.ndarray, "ball 3"],
) -> Float[np.ndarray, "fields 4"]:
    """Translation t and growth s of an eyeball that stays as far from its lids as it is: with a = x_v - centre,

    minimise  sum_v ((u_v - t - s a_v) . a_v / |a_v|)^2 + (SAME_SIZE s |a|)^2   over skin near the ball.
    """
    centre = ball.mean(0)
    radius = float(np.linalg.norm(ball - centre, axis=1).mean())
    arm = x - centre
    far = np.linalg.norm(arm, axis=1)
    lids = np.abs(far - radius) < LID_CM
    radial = arm[lids] / far[lids, None]
    system = np.concatenate([np.column_stack([radial, far[lids]]), [[0.0, 0.0, 0.0, SAME_SIZE * radius]]])
    wanted = np.concatenate([np.einsum("fvc,vc->vf", moved[:, lids], radial), np.zeros((1, len(moved)))])
    found: np.ndarray = np.linalg.lstsq(system, wanted, rcond=None)[0].T
    return found


def without_motion(
    moved: Float[np.ndarray, "fields skin 3"], x: Float[np.ndarray, "skin 3"], counted: Bool[np.ndarray, "skin"]
) -> Float[np.ndarray, "fields skin 3"]:
    """Displacements less the translation t and turn w that say most of them: u - t - w x x, least squares on `counted`.
    A person does not stand elsewhere for having a longer nose."""
    turns = np.stack([np.cross(axis, x) for axis in np.eye(3)], -1)
    motion = np.concatenate([np.broadcast_to(np.eye(3), turns.shape), turns], -1)
    known = motion[counted].reshape(-1, 6)
    found = np.linalg.lstsq(known, moved[:, counted].reshape(len(moved), -1).T, rcond=None)[0]
    left: np.ndarray = moved - np.einsum("vck,kf->fvc", motion, found)
    return left


def on_vertices(
    people: People, neutral: Float[np.ndarray, "all 3"], part: Int[np.ndarray, "all"], used: Int[np.ndarray, "vertices"]
) -> tuple[Float[np.ndarray, "vertices 3"], Float[np.ndarray, "components vertices 3"]]:
    """Mean and components on the vertices that training uses, eyeballs (parts 7 and 8) with them; cm."""
    skin = used < len(people.mean)
    out = np.zeros((len(people.eyes), len(used), 3), np.float32)
    out[0, skin], out[1:, skin] = people.mean[used[skin]], people.components[:, used[skin]]
    for side, number in enumerate((7, 8)):
        ball = part[used] == number
        arm = neutral[used[ball]] - neutral[used[ball]].mean(0)
        out[:, ball] = people.eyes[:, side, None, :3] + people.eyes[:, side, None, 3:] * arm
    return out[0], out[1:]
