"""Which pictures of a clip are used, from the list of their times. Pure; standard library only."""

from bisect import bisect_left
from collections.abc import Sequence


def choose(
    times: list[float],
    start_s: float = 0.0,
    end_s: float | None = None,
    fps: float | None = None,
    stride: int | None = None,
    max_frames: int | None = None,
    keys: int | None = None,
    part: Sequence[int] | None = None,
) -> list[int]:
    """Indices into `times` (rising seconds) that a `FrameSelection` picks, in order.

    The range [start_s, end_s] first; then every `stride`-th picture, or for `fps` the picture nearest to each tick
    start_s + k / fps (each once: a clip slower than `fps` keeps all its pictures); then, if still more than
    `max_frames`, that many spread evenly with the first and last included (the middle one if it is 1). Of these, `keys`
    spread in the same way, or those from `part[0]` on to before `part[1]`.
    """
    inside = [i for i, t in enumerate(times) if t >= start_s - 1e-6 and (end_s is None or t <= end_s + 1e-6)]
    if not inside:
        return []
    if stride is not None:
        inside = inside[::stride]
    elif fps is not None:
        inside = _nearest_to_ticks(times, inside, fps)
    for most in (max_frames, keys):
        inside = inside if most is None else _spread(inside, most)
    return inside if part is None else inside[part[0] : part[1]]


def _spread(inside: list[int], most: int) -> list[int]:
    if len(inside) <= most:
        return inside
    if most == 1:
        return [inside[len(inside) // 2]]
    last = len(inside) - 1
    return [inside[(2 * k * last + most - 1) // (2 * (most - 1))] for k in range(most)]


def _nearest_to_ticks(times: list[float], inside: list[int], fps: float) -> list[int]:
    chosen: list[int] = []
    own = [times[i] for i in inside]
    ticks = min(int((own[-1] - own[0]) * fps + 0.5) + 1, 10 * len(own) + 1)
    for k in range(ticks):
        tick = own[0] + k / fps
        after = min(bisect_left(own, tick), len(own) - 1)
        near = after - 1 if after > 0 and tick - own[after - 1] < own[after] - tick else after
        if not chosen or inside[near] > chosen[-1]:
            chosen.append(inside[near])
    return chosen
