"""How far lids and lips stand open: distances between two points, which share most of what the detector errs by.

A single point of a lid is known to a few pixels, its distance from the other lid far better: what shifts the whole eye
falls out. Blinks and closed lips are a matter of these distances, not of places.

    gap = n . (upper - lower),    n = the face's upward direction in the picture

A gap is in original pixels, signed: lids that cross have a negative one.
"""

import numpy as np
from jaxtyping import Float, Int

from mononphm_core.tracking.template_points import Points

LIDS = np.array([(159, 145), (158, 153), (160, 144), (386, 374), (385, 380), (387, 373)])
"""Upper and lower point of three places of each eye, face mesh."""
LIPS = np.array([(13, 14), (82, 87), (312, 317), (81, 178), (311, 402)])
"""Of five places of the inner lips."""
PAIRS = np.concatenate([LIDS, LIPS])
FOREHEAD, CHIN = 10, 152
REST_SHARE = 0.4
"""Of the distance that the model's closed lips leave between these points: how much of it the detector leaves out."""


def upward(pixels: Float[np.ndarray, "frames points 2"]) -> Float[np.ndarray, "frames 2"]:
    """From the chin to the forehead, unit length."""
    up = pixels[:, FOREHEAD] - pixels[:, CHIN]
    return up / np.maximum(np.linalg.norm(up, axis=-1, keepdims=True), 1e-9)


def gaps(
    pixels: Float[np.ndarray, "frames points 2"], up: Float[np.ndarray, "frames 2"]
) -> Float[np.ndarray, "frames pairs"]:
    """How far every pair stands open."""
    opened: np.ndarray = ((pixels[:, PAIRS[:, 0]] - pixels[:, PAIRS[:, 1]]) * up[:, None]).sum(-1)
    return opened


def between(points: Points, pairs: Int[np.ndarray, "pairs 2"] = PAIRS) -> Points:
    """From the lower to the upper point of every pair, as linear functions of the codes."""
    upper, lower = points.some(pairs[:, 0]), points.some(pairs[:, 1])
    return Points(upper.mean - lower.mean, upper.identity - lower.identity, upper.expression - lower.expression)


def rest_gaps(landmark: Points) -> Float[np.ndarray, "pairs"]:
    """How much further apart the model's points are than the detector says, in face heights.

    The detector's inner lip points nearly meet when a mouth is shut, those of the skin lie outside of where lips
    touch. Five rendered people, by their true points: lips 0.5 % of the face's height, lids 0.2 %, which is left alone.
    """
    closed = landmark.mean
    rest = REST_SHARE * (closed[PAIRS[:, 0], 1] - closed[PAIRS[:, 1], 1]) / np.ptp(closed[:468, 1])
    rest[: len(LIDS)] = 0.0
    return rest
