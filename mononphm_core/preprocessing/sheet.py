"""A contact sheet: what preprocessing saw in each frame, drawn over it, for people to look at before they trust it.

Borders: white the person, green skin, yellow hair, blue the inside of the mouth, red what covers the face. Points go
from red (confidence 0) to green (1). Below each picture its number, time and quality.
"""

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Bool, UInt8

from mononphm_core.types import Observation, ObservedClip

Picture = UInt8[np.ndarray, "height width 3"]

TILE = 384
_CAPTION, _LINE = 44, 20
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_WHITE, _GREY = (255, 255, 255), (40, 40, 40)
_BORDERS = (
    ("foreground", (255, 255, 255)),
    ("hair", (250, 210, 40)),
    ("skin", (60, 220, 80)),
    ("inner_mouth", (70, 120, 255)),
    ("occluder", (255, 40, 40)),
)


def contact_sheet(clip: ObservedClip, columns: int = 4) -> Picture:
    """All observations of a clip in reading order, under a head with camera, turns, gaps and warnings."""
    tiles = [_tile(observation) for observation in clip.observations]
    columns = max(1, min(columns, len(tiles)))
    blank = np.full_like(tiles[0], _GREY[0])
    tiles += [blank] * (-len(tiles) % columns)
    rows = [np.concatenate(tiles[i : i + columns], axis=1) for i in range(0, len(tiles), columns)]
    body = np.concatenate(rows, axis=0)
    return np.concatenate([_head(_facts(clip), body.shape[1]), body], axis=0)


def _facts(clip: ObservedClip) -> list[str]:
    k = clip.intrinsics
    camera = f"{k.width} x {k.height} px, fx {k.fx:.0f}, fy {k.fy:.0f} ({clip.camera_source.value}"
    camera += f", +-{100 * clip.focal_uncertainty:.0f} %)" if clip.focal_uncertainty else ")"
    usable, missed = len(clip.observations), len(clip.missed_frames)
    facts = [camera + f", {usable} of {usable + missed} frames usable"]
    if clip.missed_frames:
        facts.append("without a usable face: " + ", ".join(map(str, clip.missed_frames)))
    return [*facts, *clip.warnings]


def _head(lines: Sequence[str], width: int) -> Picture:
    wrapped = [line[at : at + width // 8] for line in lines for at in range(0, len(line), width // 8)]
    head = np.full((_LINE * len(wrapped) + 10, width, 3), _GREY[0], dtype=np.uint8)
    for number, line in enumerate(wrapped):
        _write(head, line, (6, _LINE * (number + 1) - 4))
    return head


def _tile(o: Observation) -> Picture:
    rgb = np.asarray(np.rint(o.rgb.numpy() * 255), dtype=np.uint8)
    scale = TILE / rgb.shape[0]
    picture = cv2.resize(rgb, (TILE, TILE), interpolation=cv2.INTER_CUBIC)
    for name, colour in _BORDERS:
        mask: Bool[np.ndarray, "h w"] = getattr(o, name).numpy()
        large = cv2.resize(mask.astype(np.uint8), (TILE, TILE), interpolation=cv2.INTER_NEAREST)
        outline, _ = cv2.findContours(large, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(picture, outline, -1, colour, 1, cv2.LINE_AA)
    points = o.dense_landmarks_px.numpy() * scale
    for (x, y), sure in zip(points.tolist(), o.dense_confidence.tolist(), strict=True):
        cv2.circle(picture, (round(x), round(y)), 1, (round(255 * (1 - sure)), round(255 * sure), 0), -1, cv2.LINE_AA)
    caption = np.full((_CAPTION, TILE, 3), _GREY[0], dtype=np.uint8)
    q = o.quality
    _write(caption, f"#{o.frame_index}  {o.timestamp_s:.2f} s  face {q.face_px:.0f} px  yaw {q.yaw_deg:+.0f}", (6, 17))
    figures = f"sharp {q.sharpness:.2f} light {q.exposure:.2f} visible {q.visible:.2f} -> weight {q.weight:.2f}"
    _write(caption, figures, (6, 36))
    return np.concatenate([np.asarray(picture, dtype=np.uint8), caption], axis=0)


def _write(picture: Picture, text: str, at: tuple[int, int]) -> None:
    plain = text.encode("ascii", "replace").decode()
    cv2.putText(picture, plain, at, _FONT, 0.44, _WHITE, 1, cv2.LINE_AA)
