"""What the ledger hands out: frozen records, made from rows."""

from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import Any

from worker.ledger.failure import Failure
from worker.ledger.options import ReconstructionOptions
from worker.ledger.states import ACTIVE, TERMINAL, State


@dataclass(frozen=True)
class InputFacts:
    """What is known of the input: `filename` is what the user called it, everything else comes from the content."""

    filename: str
    media_type: str
    bytes: int
    sha256: str
    width: int | None = None
    height: int | None = None
    frames: int | None = None
    fps: float | None = None
    duration_s: float | None = None
    rotation: int | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "InputFacts":
        names = {item.name for item in fields(cls)}
        return cls(**{name: item for name, item in value.items() if name in names})

    def completed_by(self, found: dict[str, Any]) -> "InputFacts":
        """The same facts with the unknown ones taken from `found` (decoding knows more than sniffing)."""
        known = {name: value for name, value in self.to_json().items() if value is not None}
        return InputFacts.from_json({**found, **known})


@dataclass(frozen=True)
class PartSpec:
    """What one part of a divided job is: its place among the others, and its task, which only the pipeline reads."""

    round: int
    """Parts of one round need each other's results in no way; those of the next may."""
    number: int
    """Within the round, from 0."""
    task: dict[str, Any]
    needs: tuple[tuple[int, int], ...] = ()
    """(round, number) of the parts whose files it works on."""
    stage: str = "stage1"
    """What the whole shows while this round is worked on."""
    percents: tuple[float, float] = (0.0, 100.0)
    """Of the whole, before and after this round."""
    frames: int = 0
    """Pictures of this part."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "PartSpec":
        needs = tuple((round_, number) for round_, number in value["needs"])
        first, last = value["percents"]
        return cls(**{**value, "needs": needs, "percents": (first, last)})


@dataclass(frozen=True)
class Job:
    """One job as the world may know it, plus whom it belongs to."""

    id: str
    kind: str
    owner: str
    queue: str
    """Of workers that can do it."""
    state: State
    stage: str | None
    percent: float
    step: int
    total: int
    frames_done: int
    frames_total: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    expires_at: datetime | None
    attempts: int
    fence: int
    input: InputFacts | None
    """None only for a tombstone."""
    options: ReconstructionOptions | None
    """Resolved; None only for a tombstone."""
    model: dict[str, Any] | None
    """name, version, sha256, licence; None until the worker said."""
    warnings: tuple[str, ...]
    error: Failure | None
    retry_of: str | None
    published_fence: int | None
    event_seq: int
    """Number of the newest event."""
    deleted_at: datetime | None
    traceparent: str | None
    """The span that submitted it, if somebody traces (W3C)."""
    whole_id: str | None = None
    """The job that this one is a part of."""
    part: PartSpec | None = None

    @property
    def is_terminal(self) -> bool:
        return self.state in TERMINAL

    @property
    def is_active(self) -> bool:
        return self.state in ACTIVE


def job_of(row: Any) -> Job:
    """The record of a row of `jobs`."""
    options = row.resolved_options or row.options
    return Job(
        id=row.id, kind=row.kind, owner=row.owner, queue=row.queue, state=State(row.state), stage=row.stage,
        percent=row.percent, step=row.step, total=row.total, frames_done=row.frames_done, frames_total=row.frames_total,
        created_at=row.created_at, started_at=row.started_at, finished_at=row.finished_at, expires_at=row.expires_at,
        attempts=row.attempts, fence=row.fence,
        input=InputFacts.from_json(row.input) if row.input else None,
        options=ReconstructionOptions.from_json(options) if options else None,
        model=row.model, warnings=tuple(row.warnings), error=Failure.from_json(row.error) if row.error else None,
        retry_of=row.retry_of, published_fence=row.published_fence, event_seq=row.event_seq, deleted_at=row.deleted_at,
        traceparent=row.traceparent, whole_id=row.whole_id, part=PartSpec.from_json(row.part) if row.part else None,
    )  # fmt: skip


@dataclass(frozen=True)
class Event:
    """One line of a job's story. `seq` counts from 1 without gaps and is the id of the Server-Sent Event."""

    job_id: str
    seq: int
    at: datetime
    type: str
    """state | progress | warning | artifact"""
    data: dict[str, Any]


@dataclass(frozen=True)
class Artifact:
    """One published file; `fence` says in which attempt's folder it lies."""

    job_id: str
    name: str
    role: str
    media_type: str
    bytes: int
    sha256: str
    fence: int


@dataclass(frozen=True)
class Page:
    """Some jobs, newest first, and where the next page begins (None: it was the last)."""

    jobs: tuple[Job, ...]
    next_cursor: str | None


@dataclass(frozen=True)
class WorkerSeen:
    """A worker's last sign of life."""

    name: str
    started_at: datetime
    last_seen: datetime
    model: dict[str, Any] | None
    info: dict[str, Any]


@dataclass(frozen=True)
class Counts:
    """How deep the queue is: for back-pressure, quotas and metrics."""

    by_state: dict[State, int]
    oldest_queued_s: float
    """Age of the longest waiting job; 0 for an empty queue."""

    @property
    def queued(self) -> int:
        return self.by_state.get(State.QUEUED, 0)

    @property
    def running(self) -> int:
        return self.by_state.get(State.RUNNING, 0) + self.by_state.get(State.CANCELLING, 0)


@dataclass(frozen=True)
class Deletion:
    """Proof that a job's bytes are gone."""

    job_id: str
    deleted_at: datetime
    files: int
    bytes: int
    gone: bool
    """A look after the removal found nothing."""
