"""The JSON that the API speaks: snake_case, RFC 3339 UTC, opaque ids."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer

from worker import ledger


def rfc3339(moment: datetime) -> str:
    """UTC with milliseconds and a Z."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


Moment = Annotated[datetime, PlainSerializer(rfc3339, return_type=str)]
StateName = Literal["queued", "running", "cancelling", "succeeded", "failed", "cancelled"]
StageName = Literal["decoding", "preprocessing", "stage1", "stage2", "meshing", "exporting"]
JOB_ID = "rec_06fm2v7d3r8k1x9q5w4t0yz6ab"


class Reply(BaseModel):
    """Base of all answers; `model` is a field name here."""

    model_config = ConfigDict(protected_namespaces=(), frozen=True)


class Progress(Reply):
    """How far a job is; percent never goes back."""

    percent: float = Field(ge=0, le=100, examples=[42.5])
    step: int = Field(examples=[120])
    total: int = Field(examples=[300])
    """Steps of the present stage, done and planned."""
    frames_done: int = Field(examples=[8])
    frames_total: int = Field(examples=[24])


class Input(Reply):
    """The uploaded file. What is null is not known before decoding."""

    filename: str = Field(examples=["clip.mp4"])
    """What the user called it: metadata only."""
    media_type: str = Field(examples=["video/mp4"])
    """From the content."""
    bytes: int = Field(examples=[1048576])
    sha256: str = Field(examples=["9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"])
    width: int | None = Field(examples=[1080])
    """Pixels of the upright picture."""
    height: int | None = Field(examples=[1920])
    frames: int | None = Field(examples=[240])
    fps: float | None = Field(examples=[29.97])
    duration_s: float | None = Field(examples=[8.0])
    rotation: int | None = Field(examples=[90])


class JobModel(Reply):
    """The head prior that was used."""

    name: str | None
    version: str | None
    sha256: str | None
    licence: str | None


class JobError(Reply):
    """Why a job failed; `code` is of the same family as those of problem documents."""

    code: str = Field(examples=["no_face"])
    title: str = Field(examples=["No face found"])
    detail: str = Field(examples=["Send a clip in which one face is large, lit and not covered."])
    stage: str | None = Field(examples=["preprocessing"])
    retryable: bool


class WebhookDelivery(Reply):
    """Whether the receiver of `options.webhook_url` has been told that the job ended."""

    message_id: str = Field(examples=["msg_06fm2v7d3r8k1x9q5w4t0yz6ab"])
    """The `webhook-id` of every attempt."""
    outcome: Literal["waiting", "delivered", "given_up"]
    attempts: int
    next_attempt_at: Moment | None
    last_error: str | None = Field(examples=["the receiver answered 500"])

    @classmethod
    def of(cls, found: ledger.Delivery) -> "WebhookDelivery":
        """The public side of a record."""
        return cls.model_validate(
            {
                "message_id": found.message_id, "outcome": found.outcome, "attempts": found.attempts,
                "next_attempt_at": found.next_at, "last_error": found.last_error,
            }
        )  # fmt: skip


class Job(Reply):
    """One reconstruction."""

    id: str = Field(examples=[JOB_ID])
    state: StateName
    stage: StageName | None
    progress: Progress
    queue_position: int | None = Field(examples=[1])
    """1: the next to be taken; null: not waiting."""
    created_at: Moment
    started_at: Moment | None
    finished_at: Moment | None
    expires_at: Moment | None
    """When the bytes of a finished job are removed."""
    attempts: int
    input: Input
    options: ledger.ReconstructionOptions
    """With the defaults filled in."""
    model: JobModel | None
    warnings: list[str]
    error: JobError | None
    webhook: WebhookDelivery | None = Field(None, exclude_if=lambda told: told is None)
    """Only there once a job with `options.webhook_url` has ended."""
    links: dict[str, str] = Field(examples=[{"self": f"/reconstructions/{JOB_ID}", "page": f"/r/{JOB_ID}"}])
    """Paths: self, page, events, artifacts; and as the state allows: cancel, retry, zip, expressions; retry_of."""

    @classmethod
    def of(cls, job: ledger.Job, queue_position: int | None, told: ledger.Delivery | None) -> "Job":
        """The public side of a record."""
        assert job.input is not None and job.options is not None
        return cls(
            id=job.id,
            state=job.state.value,
            stage=job.stage,
            progress=Progress(
                percent=job.percent, step=job.step, total=job.total,
                frames_done=job.frames_done, frames_total=job.frames_total,
            ),
            queue_position=queue_position,
            created_at=job.created_at, started_at=job.started_at, finished_at=job.finished_at,
            expires_at=job.expires_at, attempts=job.attempts,
            input=Input(**job.input.to_json()),
            options=job.options,
            model=JobModel(**{name: job.model.get(name) for name in JobModel.model_fields}) if job.model else None,
            warnings=list(job.warnings),
            error=JobError(**job.error.to_json()) if job.error else None,
            webhook=WebhookDelivery.of(told) if told else None,
            links=_links(job),
        )  # fmt: skip


def _links(job: ledger.Job) -> dict[str, str]:
    own = job_path(job.id)
    links = {"self": own, "page": f"/r/{job.id}", "events": f"{own}/events", "artifacts": f"{own}/artifacts"}
    if job.state in (ledger.State.QUEUED, ledger.State.RUNNING):
        links["cancel"] = f"{own}/cancel"
    if job.state in (ledger.State.FAILED, ledger.State.CANCELLED):
        links["retry"] = f"{own}/retry"
    if job.state is ledger.State.SUCCEEDED:
        links |= {"zip": f"{own}/artifacts.zip", "expressions": f"{own}/expressions"}
    if job.retry_of:
        links["retry_of"] = job_path(job.retry_of)
    return links


def job_path(job_id: str) -> str:
    """The path of a job."""
    return f"/reconstructions/{job_id}"


def artifact_path(job_id: str, name: str) -> str:
    """The path of an artifact's bytes."""
    return f"{job_path(job_id)}/artifacts/{quote(name)}"


class FromUpload(BaseModel):
    """A reconstruction of a resumable upload that has arrived completely."""

    model_config = ConfigDict(extra="forbid", strict=True)

    upload_id: str = Field(max_length=64, examples=["up_06fm2v7d3r8k1x9q5w4t0yz6ab"])
    """The last part of the Location that POST /uploads answered."""
    options: dict[str, Any] = Field(default_factory=dict, examples=[{"quality": "draft"}])
    """ReconstructionOptions."""


class Animation(BaseModel):
    """Whose head, and whose expressions."""

    model_config = ConfigDict(extra="forbid", strict=True)

    identity: str = Field(max_length=64, examples=[JOB_ID])
    """The reconstruction that says who it is."""
    expressions: str = Field(max_length=64, examples=["rec_06fm2v7d3r8k1x9q5w4t0yz6ac"])
    """The reconstruction that says what the head does."""
    options: dict[str, Any] = Field(default_factory=dict, examples=[{"mesh_format": "glb"}])
    """ReconstructionOptions; `outputs`, `mesh_format`, `mesh_resolution`, `quality` and those of the job count."""


class JobPage(Reply):
    """Some jobs, newest first."""

    items: list[Job]
    next_cursor: str | None
    """For the next, older page; null: this was the last."""


class Artifact(Reply):
    """One delivered file."""

    name: str = Field(examples=["meshes/frame_00000.ply"])
    role: str = Field(examples=["mesh"])
    media_type: str = Field(examples=["model/ply"])
    bytes: int
    sha256: str
    href: str = Field(examples=[f"/reconstructions/{JOB_ID}/artifacts/meshes/frame_00000.ply"])

    @classmethod
    def of(cls, artifact: ledger.Artifact) -> "Artifact":
        """The public side of a record."""
        return cls(
            name=artifact.name, role=artifact.role, media_type=artifact.media_type, bytes=artifact.bytes,
            sha256=artifact.sha256, href=artifact_path(artifact.job_id, artifact.name),
        )  # fmt: skip


class ArtifactList(Reply):
    """All files of a job, in the manifest's order; empty until it succeeded."""

    items: list[Artifact]


class DeletionProof(Reply):
    """What a deletion removed."""

    id: str
    deleted_at: Moment
    files: int
    bytes: int
    gone: bool
    """A look after the removal found nothing; otherwise the janitor tries again."""

    @classmethod
    def of(cls, proof: ledger.Deletion) -> "DeletionProof":
        """The public side of a record."""
        return cls(id=proof.job_id, deleted_at=proof.deleted_at, files=proof.files, bytes=proof.bytes, gone=proof.gone)


class ModelInfo(Reply):
    """One head prior of the registry."""

    name: str
    version: str | None
    sha256: str | None
    licence: str | None
    latent_sizes: dict[str, int]
    """Numbers in each code: z_geo, z_app, z_exp."""
    exports: list[str]
    """Which optional artifacts it can make, such as `blendshapes`."""
    card: dict[str, Any]
    """The whole model card."""


class ModelList(Reply):
    """The registry."""

    items: list[ModelInfo]


class UploadLimits(Reply):
    """What a file may be."""

    max_bytes: int
    media_types: list[str]
    max_pixels: int
    """Of one picture."""
    min_side_px: int
    max_aspect: float
    max_duration_s: float
    max_frames: int
    """Pictures in the clip, selected or not."""


class QueueLimits(Reply):
    """How much is accepted at once, and how much waits now."""

    max_queued: int
    queued: int
    running: int
    max_uploads: int


class QuotaUse(Reply):
    """One bound of an owner, and how much of it is used."""

    limit: int | None
    """null: none."""
    used: int


class QuotaLimits(Reply):
    """What one owner may have; without keys there is one owner and no bound but those of the queue."""

    active_jobs: QuotaUse
    """Waiting and running."""
    stored_bytes: QuotaUse
    """Inputs and artifacts that were not deleted."""
    open_uploads: QuotaUse


class OptionLimits(Reply):
    """Bounds of some options; the schema of the options has them all."""

    max_labels: int
    default_retention_hours: float
    max_mesh_resolution: int


class Limits(Reply):
    """Sizes, durations and quotas in force."""

    upload: UploadLimits
    queue: QueueLimits
    quotas: QuotaLimits
    options: OptionLimits


class Alive(Reply):
    """The event loop turns."""

    status: Literal["alive"] = "alive"


class Check(Reply):
    """One thing that readiness needs."""

    ok: bool
    detail: str


class Ready(Reply):
    """Everything that a job needs is there."""

    status: Literal["ready"] = "ready"
    checks: dict[Literal["database", "storage", "worker"], Check]


class ModelVersion(Reply):
    """Which weights are installed."""

    name: str
    version: str | None
    sha256: str | None


class Version(Reply):
    """What runs here."""

    name: Literal["mononphm"] = "mononphm"
    version: str
    python: str
    packages: dict[str, str]
    models: list[ModelVersion]
