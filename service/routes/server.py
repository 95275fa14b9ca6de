"""The server about itself: limits, health, version, models."""

import logging
import platform
from importlib import metadata
from typing import Any

from fastapi import APIRouter, Response
from sqlalchemy.exc import SQLAlchemyError

from service import metrics, registry, schemas
from service.access import Who
from service.context import Context, Here
from service.problems import Problem, documented, retry_after
from service.quotas import quotas_of
from service.routes.reconstructions import ANY, OPEN
from service.threads import in_file_thread, in_ledger_thread
from worker.ledger import StorageUnavailable
from worker.ledger.options import DEFAULT_RETENTION_HOURS

log = logging.getLogger(__name__)
router = APIRouter(tags=["server"])

MEDIA_TYPES = [
    "video/mp4", "video/quicktime", "video/webm", "video/x-matroska", "video/x-msvideo",
    "image/jpeg", "image/png", "image/webp", "image/gif", "image/avif", "image/heic",
]  # fmt: skip
PACKAGES = ("fastapi", "starlette", "uvicorn", "pydantic", "sqlalchemy", "celery", "kombu", "python-multipart")


@router.get("/limits", response_model=schemas.Limits, summary="Limits in force", responses=documented(*ANY))
async def limits(here: Here, who: Who) -> schemas.Limits:
    """What a file may be, how much is accepted at once, how much waits now, and how much of it is yours."""
    counts = await in_ledger_thread(here.jobs.book.counts)
    quotas = await in_ledger_thread(quotas_of, here.jobs.book, here.settings, who.owner)
    open_uploads = await in_ledger_thread(here.jobs.resumable.open_ones, who.opens_for)
    settings = here.settings
    return schemas.Limits(
        upload=schemas.UploadLimits(
            max_bytes=settings.max_upload_bytes, media_types=MEDIA_TYPES, max_pixels=settings.max_pixels,
            min_side_px=settings.min_side_px, max_aspect=settings.max_aspect, max_duration_s=settings.max_duration_s,
            max_frames=settings.max_frames,
        ),
        queue=schemas.QueueLimits(
            max_queued=settings.max_queued, queued=counts.queued, running=counts.running,
            max_uploads=settings.max_uploads,
        ),
        quotas=schemas.QuotaLimits(
            active_jobs=schemas.QuotaUse(limit=quotas.active_jobs.limit, used=quotas.active_jobs.used),
            stored_bytes=schemas.QuotaUse(limit=quotas.stored_bytes.limit, used=quotas.stored_bytes.used),
            open_uploads=schemas.QuotaUse(limit=settings.max_open_uploads, used=open_uploads),
        ),
        options=schemas.OptionLimits(
            max_labels=16, default_retention_hours=DEFAULT_RETENTION_HOURS, max_mesh_resolution=512
        ),
    )  # fmt: skip


@router.get(
    "/metrics",
    response_class=Response,
    summary="Figures for Prometheus",
    responses={
        200: {"description": "Prometheus text", "content": {"text/plain": {"schema": {"type": "string"}}}},
        **documented(*ANY),
    },
)
async def figures(here: Here) -> Response:
    """Queue, workers, attempts, webhooks, space, requests and loop lag. Where keys are required: scope admin."""
    own: list[metrics.Sample] = [
        ("uploads_running", {}, here.uploads.taken),
        ("event_streams", {}, here.streams.taken),
    ]
    recorded = await in_ledger_thread(
        lambda: list(metrics.of_record(here.jobs.book, here.outbox, here.settings.worker_fresh_s))
    )
    text = metrics.text_of([*recorded, *own, *here.figures.samples()])
    return Response(text, headers={"Content-Type": metrics.MEDIA_TYPE})


@router.get("/health/live", response_model=schemas.Alive, summary="Does the process turn?", responses=documented(*OPEN))
async def live() -> schemas.Alive:
    """Answers as long as the event loop turns; nothing else is asked."""
    return schemas.Alive()


@router.get(
    "/health/ready",
    response_model=schemas.Ready,
    summary="Can a job be done now?",
    responses=documented("not_ready", *OPEN),
)
async def ready(here: Here) -> schemas.Ready:
    """Database, storage and a worker with a fresh sign of life and its model loaded, each by name."""
    checks = {
        "database": await _checked_database(here),
        "storage": await in_file_thread(_check_storage, here),
        "worker": await _checked_worker(here),
    }
    missing = [name for name, check in checks.items() if not check.ok]
    if missing:
        said = "; ".join(f"{name}: {checks[name].detail}" for name in missing)
        raise Problem(
            "not_ready",
            f"{said}. Ask again shortly; `mononphm doctor` looks closer.",
            headers=retry_after(2),
            checks={name: check.model_dump() for name, check in checks.items()},
        )
    return schemas.Ready(checks=checks)


@router.get("/version", response_model=schemas.Version, summary="What runs here", responses=documented(*ANY))
async def version() -> schemas.Version:
    """Versions of the program, of what it stands on, and checksums of the installed weights."""
    models = await in_file_thread(registry.installed_models)
    return schemas.Version(
        version=metadata.version("mononphm"),
        python=platform.python_version(),
        packages={name: metadata.version(name) for name in PACKAGES},
        models=[schemas.ModelVersion(name=m.name, version=m.version, sha256=m.sha256) for m in models],
    )


@router.get("/models", response_model=schemas.ModelList, summary="Installed models", responses=documented(*ANY))
async def models() -> schemas.ModelList:
    """The registry: every head prior with version, checksum and licence."""
    return schemas.ModelList(items=await in_file_thread(registry.installed_models))


@router.get(
    "/models/{name}",
    response_model=schemas.ModelInfo,
    summary="One model",
    responses=documented(*ANY, "model_not_found", "invalid_request"),
)
async def model(name: str) -> schemas.ModelInfo:
    """One head prior."""
    for found in await in_file_thread(registry.installed_models):
        if found.name == name:
            return found
    raise Problem("model_not_found", "No model of that name is installed. GET /models lists those there are.")


async def _checked_database(here: Context) -> schemas.Check:
    try:
        await in_ledger_thread(here.jobs.book.ping)
    except SQLAlchemyError as error:
        return schemas.Check(ok=False, detail=f"does not answer ({type(error).__name__})")
    return schemas.Check(ok=True, detail="answers")


def _check_storage(here: Context) -> schemas.Check:
    storage, reserve = here.jobs.book.storage, here.settings.free_space_reserve_bytes
    try:
        storage.probe()
        free = storage.free_bytes()
    except OSError as error:
        return schemas.Check(ok=False, detail=f"cannot be written ({error.strerror})")
    except StorageUnavailable as error:
        log.warning("the object store cannot be used: %s", error)
        return schemas.Check(ok=False, detail="the object store does not answer")
    if free < reserve:
        return schemas.Check(ok=False, detail=f"{free} bytes free, less than the reserve of {reserve}")
    return schemas.Check(ok=True, detail=f"{free >> 20} MiB free")


async def _checked_worker(here: Context) -> schemas.Check:
    try:
        workers = await in_ledger_thread(here.jobs.book.workers, here.settings.worker_fresh_s)
    except SQLAlchemyError:
        return schemas.Check(ok=False, detail="unknown: the database does not answer")
    if not workers:
        return schemas.Check(ok=False, detail="no worker has given a sign of life; start one with `mononphm worker`")
    able = [worker for worker in workers if _has_model(worker.model, worker.info)]
    if not able:
        return schemas.Check(ok=False, detail="a worker runs, its model is still loading")
    return schemas.Check(ok=True, detail=f"{len(able)} of {len(workers)} workers ready")


def _has_model(model: dict[str, Any] | None, info: dict[str, Any]) -> bool:
    return bool(info.get("child_ready", model is not None))
