"""One person through a clip: faces of single pictures linked into tracks, and one track chosen by rule.

A face belongs to a track by overlap with its last box and by looking like it, never by the detector's index. What
fits no track starts its own. Between pictures that are far apart in time only place and size speak: the same head
under another light can look less alike than two people do.
"""

from dataclasses import dataclass, field

import numpy as np

from mononphm_core.errors import ConfigError
from mononphm_core.preprocessing.appearance import Portrait, difference
from mononphm_core.preprocessing.finder import Face

_JUMP = 0.9
"""Portrait difference between neighbouring pictures (up to 0.12 s apart) that no head movement makes: a cut. Measured
on clips at full rate: under 0.5 for one person, 0.4 to 1.9 between two."""
_NEIGHBOUR_S = 0.12
_LIKE_BEFORE = 0.9
"""After the face was away for more than a second, its nearest earlier portrait must be this close."""
_LIKENESS_WEIGHT = 0.3
"""Of the portrait difference beside the distance, where several faces could continue a track."""
_REACH, _REACH_PER_S, _LONGEST_REACH = 0.6, 1.5, 1.5
"""Face sides that a centre may move from picture to picture: at once, per second of gap, at most."""
_SHORT = 0.3
"""Tracks below this share of the longest are no choice of their own: a passer-by or a phantom."""


@dataclass(frozen=True)
class Sighting:
    """One face of one picture."""

    at: int
    """Position in the list of pictures."""
    time_s: float
    face: Face
    portrait: Portrait


@dataclass
class Track:
    """One person, as far as followed; at most one sighting a picture, in time order."""

    sightings: list[Sighting] = field(default_factory=list)

    def accepts(self, new: Sighting) -> float | None:
        """How badly a new sighting continues this track (distance in face sides, and unlikeness); None: not at all."""
        last = self.sightings[-1]
        gap_s = new.time_s - last.time_s
        distance = last.face.box.distance(new.face.box)
        sizes = last.face.box.side / max(new.face.box.side, 1e-9)
        if distance > min(_REACH + _REACH_PER_S * gap_s, _LONGEST_REACH) or not 0.5 < sizes < 2.0:
            return None
        unlike = difference(last.portrait, new.portrait)
        if gap_s <= _NEIGHBOUR_S and unlike > _JUMP:
            return None
        if new.at > last.at + 1 and gap_s > 1.0:
            unlike = min(difference(old.portrait, new.portrait) for old in self.sightings[-50:])
            if unlike > _LIKE_BEFORE:
                return None
        return distance + _LIKENESS_WEIGHT * unlike


def tracks_of(sightings: list[list[Sighting]]) -> list[Track]:
    """Link the sightings of each picture to tracks, nearest pairs first."""
    tracks: list[Track] = []
    for current in sightings:
        pairs = sorted(
            (distance, t, s)
            for t, track in enumerate(tracks)
            for s, sighting in enumerate(current)
            if (distance := track.accepts(sighting)) is not None
        )
        used_tracks, used = set[int](), set[int]()
        for _distance, t, s in pairs:
            if t not in used_tracks and s not in used:
                tracks[t].sightings.append(current[s])
                used_tracks.add(t)
                used.add(s)
        tracks += [Track([sighting]) for s, sighting in enumerate(current) if s not in used]
    return tracks


@dataclass(frozen=True)
class KnownPlace:
    """Where a person was seen now and then, when more of the clip was looked at than now."""

    sightings: tuple[tuple[float, float, float], ...]
    """(seconds, x, y) of the middle of the face, pixels of the pictures."""

    def distance(self, track: Track) -> float:
        """How far off a track is, in face sides, when the two are nearest in time; the median over the known places
        that lie within the track's time, or the nearest one."""
        times = np.array([one.time_s for one in track.sightings])
        inside = [known for known in self.sightings if times[0] - 1e-6 <= known[0] <= times[-1] + 1e-6]
        chosen = inside or [min(self.sightings, key=lambda known: float(np.abs(times - known[0]).min()))]
        off = []
        for time_s, x, y in chosen:
            box = track.sightings[int(np.abs(times - time_s).argmin())].face.box
            off.append(float(np.linalg.norm(np.array(box.centre) - (x, y))) / max(box.side, 1e-9))
        return float(np.median(off))


def choose_track(tracks: list[Track], rule: str | KnownPlace, width: int, height: int) -> tuple[Track, str | None]:
    """The track that `face` means (`largest`, `center`, an index from the left), or the one at a known place; if there
    was a choice, a warning.

    `largest` sums areas over time. ConfigError for an unknown rule or an index beyond the people that are there.
    """
    longest = max(len(track.sightings) for track in tracks)
    people = [track for track in tracks if len(track.sightings) >= max(_SHORT * longest, 1)]
    people.sort(key=lambda track: float(np.median([s.face.box.centre[0] for s in track.sightings])))
    if isinstance(rule, KnownPlace):
        return min(people, key=rule.distance), None
    if rule == "largest":
        chosen = max(people, key=lambda track: sum(s.face.box.area for s in track.sightings))
    elif rule == "center":
        chosen = min(people, key=lambda track: _off_centre(track, width, height))
    elif rule.isdecimal() and int(rule) < len(people):
        chosen = people[int(rule)]
    elif rule.isdecimal():
        raise ConfigError(f"face = {rule}, but the clip shows {len(people)} face(s), counted from 0 at the left.")
    else:
        raise ConfigError(f"face = {rule!r} is none of largest, center or an index from the left (0, 1, ...).")
    if len(people) == 1:
        return chosen, None
    if _apart(people):
        return chosen, (
            f"The clip jumps between {len(people)} faces or scenes; only the chosen one (rule {rule!r}) is followed, "
            "the other frames are left out."
        )
    return chosen, (
        f"{len(people)} faces are in the clip; the {_named(rule)} is followed. Choose another with the option `face`."
    )


def _off_centre(track: Track, width: int, height: int) -> float:
    """Median distance of the face from the middle of the picture, pixels."""
    centres = np.array([s.face.box.centre for s in track.sightings])
    return float(np.median(np.linalg.norm(centres - (width / 2, height / 2), axis=1)))


def _apart(people: list[Track]) -> bool:
    """No two of them are ever in the same picture: a cut or an exchange, not a group."""
    seen: set[int] = set()
    for track in people:
        own = {s.at for s in track.sightings}
        if own & seen:
            return False
        seen |= own
    return True


def _named(rule: str) -> str:
    return {"largest": "largest", "center": "most central"}.get(rule, f"one with index {rule} from the left")
