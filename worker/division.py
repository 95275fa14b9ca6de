"""How a long clip is divided: which pictures each part has, and what each round of parts needs of those before."""

from dataclasses import dataclass
from math import ceil

from mononphm_core.tracking.joining import MARGIN
from worker.ledger.options import USUAL_PART, ReconstructionOptions
from worker.ledger.records import PartSpec

MOST_KEYS = 96
"""Memory does not grow with the clip."""

WHO, TRACK, MESH = 1, 2, 3
"""Rounds: the person from key frames; poses and expressions of each stretch; its meshes, film and triangles."""
PERCENTS = {WHO: (3.0, 13.0), TRACK: (13.0, 40.0), MESH: (40.0, 80.0)}
"""Of the whole; what remains is the last attempt's, which puts all together."""
STAGES = {WHO: "stage1", TRACK: "stage2", MESH: "meshing"}


@dataclass(frozen=True)
class Division:
    """`total` selected pictures in nearly equal stretches of at most `size`."""

    total: int
    size: int
    usual_keys: int
    """Pictures by which a clip of any length is known."""

    @property
    def stretches(self) -> int:
        return ceil(self.total / self.size)

    @property
    def keys(self) -> int:
        """Key frames, evenly spread: each stretch has one, if that are not too many."""
        return min(self.total, max(self.usual_keys, min(2 * self.stretches, MOST_KEYS)))

    def own(self, number: int) -> tuple[int, int]:
        """Places of the pictures that belong to a stretch: from, to before."""
        return number * self.total // self.stretches, (number + 1) * self.total // self.stretches

    def tracked(self, number: int) -> tuple[int, int]:
        """The same with the margins in which it is tracked."""
        first, last = self.own(number)
        return max(first - MARGIN, 0), min(last + MARGIN, self.total)

    def neighbours(self, number: int) -> tuple[int, ...]:
        """The stretch and those beside it, in order."""
        return tuple(n for n in (number - 1, number, number + 1) if 0 <= n < self.stretches)

    def who(self) -> list[PartSpec]:
        """The first round."""
        return [self._spec(WHO, 0, {}, self.keys)]

    def tracks(self) -> list[PartSpec]:
        """The second round."""
        return [self._spec(TRACK, n, {}, self._frames(n), ((WHO, 0),)) for n in range(self.stretches)]

    def meshes(self, whole: dict[str, object]) -> list[PartSpec]:
        """The third round; `whole` is what its frames must know of the whole clip."""
        return [
            self._spec(
                MESH, n, {"whole": whole}, self._frames(n), ((WHO, 0), *((TRACK, m) for m in self.neighbours(n)))
            )
            for n in range(self.stretches)
        ]

    def _frames(self, number: int) -> int:
        first, last = self.own(number)
        return last - first

    def _spec(
        self, round_: int, number: int, more: dict[str, object], frames: int, needs: tuple[tuple[int, int], ...] = ()
    ) -> PartSpec:
        task = {"total": self.total, "size": self.size, "usual_keys": self.usual_keys, **more}
        return PartSpec(round_, number, task, needs, STAGES[round_], PERCENTS[round_], frames)

    @staticmethod
    def of(spec: PartSpec) -> "Division":
        """The division that a part belongs to."""
        return Division(spec.task["total"], spec.task["size"], spec.task["usual_keys"])


def may_divide(options: ReconstructionOptions, usual_frames: int) -> bool:
    """Whether it is worth counting the clip's pictures: the options allow so many, and a solver that can be divided."""
    return options.divides(options.max_frames or usual_frames)


def division(options: ReconstructionOptions, pictures: int, usual_frames: int) -> Division | None:
    """None: this clip stays whole."""
    return Division(pictures, options.part_frames or USUAL_PART, usual_frames) if options.divides(pictures) else None
