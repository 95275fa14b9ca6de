"""Whose turn it is. Pure: the claim asks the very same function on SQLite and on PostgreSQL.

Waiting jobs stand in *lines*, one for each owner and model. Two currencies, both in seconds, decide between the heads:

- Between owners, device time: start-time fair queueing (Goyal, Vin, Cheng 1996, section 2). An owner's next job has the
  tag max(clock, finish); the least tag is served; finish = tag + what the job is expected to cost, put right when it
  ended. Two owners who both wait never differ by more than a job of each for every worker, and `WARM_DEVICE_S`.
- Between the jobs of one owner, waiting time: priority and a warm model are head starts. Everything grows older at the
  same rate, so a job is overtaken only by jobs that came at most the largest head start after it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from worker.ledger.broker import GPU_QUEUE, QUEUE
from worker.ledger.options import USUAL_FRAMES, USUAL_PART, Priority, ReconstructionOptions
from worker.ledger.records import InputFacts

HEAD_START: dict[Priority, timedelta] = {
    "low": timedelta(minutes=-10),
    "normal": timedelta(0),
    "high": timedelta(minutes=10),
}
"""Priority as waiting time already served: an old low job overtakes young high ones, so nobody starves."""

WARM_HEAD_START = timedelta(seconds=60)
"""A job whose model the worker has loaded goes before jobs of its owner that came up to so much earlier."""

WARM_DEVICE_S = 60.0
"""An owner whose model is loaded goes before owners who had up to so much less device time."""

STILL_S, CLIP_S = 15.0, 20.0
FRAME_S = {"draft": 1.0, "standard": 3.0, "high": 6.0}
"""Rough device time of a still, of a clip, and of each of its frames. Only their ratios matter, and only until a job
has ended: then its owner is charged what it really took."""

BASE_BYTES, PICTURE_BYTES, PICTURE_COPIES = 1_600_000_000, 8_000_000, 2
"""Resident memory of a job; of each of its pictures, beside so many copies of its pixels. An upper estimate."""

MARGINS = 32
"""Pictures of its neighbours that a part of a divided clip holds beside its own."""

MEMORY_PATIENCE = timedelta(minutes=5)
"""A job that no worker has the memory for is tried after so long all the same: it ends with an answer, not never."""


OTHERS_PATIENCE = timedelta(minutes=1)
"""A worker takes jobs of its other queues when its first one is empty, or when they have waited so long."""


@dataclass(frozen=True)
class Head:
    """The first job of one line: all that the decision may know of it."""

    job_id: str
    owner: str
    model: str
    """As the job names it; empty: the worker's default."""
    rank_at: datetime
    """When it was submitted, less its priority's head start."""


@dataclass(frozen=True)
class Account:
    """Device time of one owner, in virtual seconds (they run only while somebody is served)."""

    start_s: float = 0.0
    """Tag of the last job that was begun."""
    finish_s: float = 0.0
    """What all jobs begun so far are worth."""

    def tag_s(self, clock_s: float) -> float:
        """Start tag of the owner's next job: who was away comes back at the clock, without savings."""
        return max(clock_s, self.finish_s)

    def charged(self, clock_s: float, expected_s: float) -> "Account":
        """After a job of so much expected device time was begun."""
        start_s = self.tag_s(clock_s)
        return Account(start_s, start_s + expected_s)

    def settled(self, expected_s: float, actual_s: float) -> "Account":
        """After a job ended that was expected to take `expected_s` and took `actual_s`."""
        return replace(self, finish_s=self.finish_s + actual_s - expected_s)


def clock_s(accounts: Iterable[Account]) -> float:
    """The virtual time: the largest tag that was begun. It never goes back."""
    return max((account.start_s for account in accounts), default=0.0)


def next_job(heads: Iterable[Head], accounts: Mapping[str, Account], warm: frozenset[str] = frozenset()) -> Head | None:
    """The job that a worker with these models loaded takes. None: nobody waits. The order of `heads` does not matter.

    First each owner's own choice, then the owner; with neither account nor difference, who came first.
    """
    now_s = clock_s(accounts.values())
    chosen: dict[str, Head] = {}
    for head in heads:
        rival = chosen.get(head.owner)
        if rival is None or _own_rank(head, warm) < _own_rank(rival, warm):
            chosen[head.owner] = head

    def fair_rank(head: Head) -> tuple[float, datetime, str]:
        tag_s = accounts.get(head.owner, Account()).tag_s(now_s)
        return tag_s - (WARM_DEVICE_S if head.model in warm else 0.0), *_own_rank(head, warm)

    return min(chosen.values(), key=fair_rank, default=None)


def within_reach(first: Sequence[Head], others: Iterable[Head], now: datetime) -> list[Head]:
    """What a worker chooses from: the heads of the queue that it is there for, and those of its others in need of it.

    A GPU does not spend itself on what a processor could do while there is work that only it does well; but as nobody
    may wait for ever, who has waited `OTHERS_PATIENCE` stands among the first.
    """
    if not first:
        return list(others)
    return [*first, *(head for head in others if head.rank_at <= now - OTHERS_PATIENCE)]


def queue_for(expected_s: float, gpu_from_s: float | None) -> str:
    """The queue of a job that a worker without a GPU is expected to need so long for. None: one queue for all."""
    return GPU_QUEUE if gpu_from_s is not None and expected_s >= gpu_from_s else QUEUE


def _own_rank(head: Head, warm: frozenset[str]) -> tuple[datetime, str]:
    return head.rank_at - (WARM_HEAD_START if head.model in warm else timedelta(0)), head.job_id


@dataclass(frozen=True)
class Line:
    """What one owner has waiting, for an estimate of somebody's place."""

    owner: str
    jobs: int
    expected_s: float
    """Device time of one of them, on average."""
    rank_at: datetime
    """Of the first of them."""


def place(own: Line, lines: Iterable[Line], accounts: Mapping[str, Account]) -> int:
    """Place (1: next) of the last of `own.jobs`, which was submitted at `own.rank_at`, if nobody else comes.

    `next_job` in closed form: exact where all jobs of an owner cost the same and no worker prefers a model.
    """
    now_s = clock_s(accounts.values())
    tag_s = accounts.get(own.owner, Account()).tag_s(now_s) + (own.jobs - 1) * own.expected_s
    ahead = own.jobs
    for line in lines:
        lead_s = tag_s - accounts.get(line.owner, Account()).tag_s(now_s)
        if line.owner == own.owner or lead_s < 0:
            continue
        before, beyond = divmod(lead_s, line.expected_s)
        ahead += min(line.jobs, int(before) + (1 if beyond > 0 or line.rank_at < own.rank_at else 0))
    return ahead


def expected_s(options: ReconstructionOptions, facts: InputFacts) -> float:
    """Device time that a job is charged when it begins."""
    if not _is_clip(facts):
        return STILL_S
    if _is_divided(options, facts):
        return CLIP_S  # the rest is its parts'
    return part_s(options, _pictures(options, facts))


def part_s(options: ReconstructionOptions, pictures: int) -> float:
    """Device time of a clip, or of a part of one, of so many pictures."""
    return CLIP_S + FRAME_S[options.quality] * pictures


def memory_bytes(options: ReconstructionOptions, facts: InputFacts) -> int:
    """Resident memory that a worker must have for the job."""
    pixels = PICTURE_COPIES * 3 * (facts.width or 0) * (facts.height or 0)
    at_once = _pictures(options, facts) if _is_clip(facts) else 1
    if _is_clip(facts) and _is_divided(options, facts):
        at_once = (options.part_frames or USUAL_PART) + MARGINS
    return BASE_BYTES + (PICTURE_BYTES + pixels) * at_once


def _is_divided(options: ReconstructionOptions, facts: InputFacts) -> bool:
    """Whether the clip will be reconstructed in parts, as far as one can know before it is decoded."""
    return options.divides(_pictures(options, facts))


def _pictures(options: ReconstructionOptions, facts: InputFacts) -> int:
    wanted = options.max_frames or USUAL_FRAMES[options.quality]
    return min(wanted, facts.frames) if facts.frames else wanted


def _is_clip(facts: InputFacts) -> bool:
    return not facts.media_type.startswith("image/")
