"""Jobs: open, look, cancel, run again, delete, follow."""

import json
import re
from contextlib import aclosing
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from pydantic import AwareDatetime, ValidationError
from starlette.background import BackgroundTask
from starlette.responses import StreamingResponse

from service import events, schemas
from service.access import Who
from service.body import Body
from service.context import Context, Here
from service.jobs import Opened
from service.problems import Problem, documented, field_errors
from service.schemas import job_path
from service.threads import in_file_thread, in_ledger_thread
from service.uploads import MAX_OPTIONS_BYTES, received
from worker import ledger

router = APIRouter(tags=["reconstructions"])

POLL_AFTER_S = 1
"""How soon a client may ask for the first time."""

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        json_schema_extra={"pattern": "^[\\x21-\\x7e]{1,255}$"},
        description="1 to 255 printable ASCII characters. Same key and same body: the same job; other body: 409. "
        "As in IETF draft-ietf-httpapi-idempotency-key-header.",
    ),
]
OPEN = ("unknown_host", "body_too_large", "internal_error", "busy", "database_unavailable", "storage_unavailable")
"""What every operation can answer."""

ANY = (*OPEN, "key_missing", "key_invalid", "scope_missing")
"""The same, of those that ask for a key where keys are required."""

WRITES = (*ANY, "cross_origin")
ONE_JOB = ("job_not_found", "job_deleted", "invalid_request")


async def visible_job(job_id: str, here: Here, who: Who) -> ledger.Job:
    """The job of the path, if whoever asks may see it; somebody else's is as good as none. Raises JobNotFound."""
    return await in_ledger_thread(here.jobs.book.get, job_id, who.owner)


OneJob = Annotated[ledger.Job, Depends(visible_job)]
"""What every operation on one job takes: it cannot forget to ask whose job it is."""

LOCATION = {"Location": {"schema": {"type": "string"}, "description": "Path of the job."}}
RETRY_AFTER = {"Retry-After": {"schema": {"type": "integer"}, "description": "Seconds until it is worth to ask."}}
ACCEPTED: dict[int | str, dict[str, Any]] = {202: {"headers": {**LOCATION, **RETRY_AFTER}}}

SUBMIT_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "additionalProperties": False,
                    "properties": {
                        "file": {
                            "type": "string",
                            "format": "binary",
                            "description": "One video or image. Its content decides what it is, never its name.",
                        },
                        "options": {
                            "$ref": "#/components/schemas/ReconstructionOptions",
                            "description": "JSON; all keys are optional, unknown ones are errors.",
                        },
                    },
                },
                "encoding": {"options": {"contentType": "application/json"}},
            },
            "application/json": {"schema": {"$ref": "#/components/schemas/FromUpload"}},
        },
    }
}


@router.post(
    "/reconstructions",
    status_code=202,
    response_model=schemas.Job,
    summary="Submit one video or image, or a finished upload",
    openapi_extra=SUBMIT_BODY,
    responses={
        **ACCEPTED,
        **documented(
            *WRITES, "malformed_request", "upload_aborted", "upload_timeout", "idempotency_conflict", "job_deleted",
            "media_too_large", "quota_exceeded", "unsupported_content_type", "unsupported_media", "invalid_request",
            "invalid_options", "unreadable_media", "media_too_small", "invalid_input", "queue_full", "out_of_disk",
            "upload_not_found", "upload_gone", "upload_incomplete", "upload_used", "upload_locked",
        ),
    },
)  # fmt: skip
async def submit(request: Request, here: Here, who: Who, idempotency_key: IdempotencyKey = None) -> Response:
    """Store the file and queue its reconstruction. The 202 is sent when both are on the disk.

    As `application/json`, the file is a resumable upload that has arrived completely; it is spent by this.
    """
    key = checked_key(idempotency_key)
    await in_ledger_thread(here.jobs.check_room, who.owner)
    if is_json(request):
        opened = await submit_resumable(request, here, who, key)
        return await accepted(here, opened.job, replayed=not opened.created)
    here.uploads.check()
    with here.uploads.held():
        free_bytes = here.jobs.book.storage.free_bytes
        async with received(request, here.jobs.new_staging(), here.jobs.upload_limits, free_bytes) as upload:
            opened = await in_file_thread(here.jobs.open, upload, key, who.opens_for)
    return await accepted(here, opened.job, replayed=not opened.created)


async def submit_resumable(request: Request, here: Here, who: Who, key: str | None) -> Opened:
    """A job from `{"upload_id", "options"}`. Raises the 422 of any other document."""
    document = b""
    async with aclosing(Body(request).batches()) as batches:
        async for batch in batches:
            document += b"".join(batch)
            if len(document) > MAX_OPTIONS_BYTES:
                raise Problem("body_too_large", f"A request in JSON has at most {MAX_OPTIONS_BYTES} bytes. Shorten it.")
    try:
        asked = schemas.FromUpload.model_validate_json(document)
    except ValidationError as error:
        found = field_errors(error.errors(include_url=False, include_input=False, include_context=False))
        said = "; ".join(f"{item['where']}: {item['message']}" for item in found[:3])
        raise Problem("invalid_request", f"{said}. Correct the request and send it again.", errors=found) from error
    options = json.dumps(asked.options).encode()
    return await in_file_thread(here.jobs.open_resumable, asked.upload_id, options, key, who.opens_for)


def is_json(request: Request) -> bool:
    """Whether the body says that it is JSON."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower() == "application/json"


@router.get(
    "/reconstructions",
    response_model=schemas.JobPage,
    summary="List jobs, newest first",
    responses=documented(*ANY, "invalid_request"),
)
async def list_jobs(
    here: Here,
    who: Who,
    state: Annotated[schemas.StateName | None, Query(description="Only jobs in this state.")] = None,
    label: Annotated[str | None, Query(max_length=100, description="Only jobs with this label.")] = None,
    created_after: Annotated[AwareDatetime | None, Query(description="RFC 3339, with a zone.")] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: Annotated[str | None, Query(max_length=200, description="`next_cursor` of the page before.")] = None,
) -> schemas.JobPage:
    """Jobs of whoever asks, newest first. Deleted ones are not among them."""
    page = await in_ledger_thread(
        here.jobs.book.list,
        state=ledger.State(state) if state else None,
        label=label,
        created_after=created_after,
        owner=who.owner,
        limit=limit,
        cursor=cursor,
    )
    items = [await public(here, job) for job in page.jobs]
    return schemas.JobPage(items=items, next_cursor=page.next_cursor)


@router.get(
    "/reconstructions/{job_id}",
    response_model=schemas.Job,
    summary="One job",
    responses=documented(*ANY, *ONE_JOB),
)
async def get_job(job: OneJob, here: Here) -> schemas.Job:
    """The job as it is now."""
    return await public(here, job)


@router.post(
    "/reconstructions/{job_id}/cancel",
    response_model=schemas.Job,
    summary="Cancel a waiting or running job",
    responses={
        202: {"model": schemas.Job, "description": "Cancelling: the device is not free yet", "headers": RETRY_AFTER},
        **documented(*WRITES, *ONE_JOB, "wrong_state"),
    },
)
async def cancel(asked: OneJob, here: Here, response: Response) -> schemas.Job:
    """Ask a job to stop; asking twice is the same as once. `cancelled` is said only when the device is free."""
    job = await in_ledger_thread(here.jobs.book.request_cancel, asked.id)
    if job.state is ledger.State.CANCELLING:
        response.status_code = 202
        response.headers["Retry-After"] = str(POLL_AFTER_S)
    return await public(here, job)


@router.post(
    "/reconstructions/{job_id}/retry",
    status_code=202,
    response_model=schemas.Job,
    summary="Run a failed or cancelled job again",
    responses={
        **ACCEPTED,
        **documented(
            *WRITES, *ONE_JOB, "wrong_state", "idempotency_conflict", "queue_full", "quota_exceeded", "out_of_disk"
        ),
    },
)
async def retry(ended: OneJob, here: Here, who: Who, idempotency_key: IdempotencyKey = None) -> Response:
    """Same input, same options, as a new job: terminal states never change."""
    key = checked_key(idempotency_key)
    await in_ledger_thread(here.jobs.check_room, who.owner)
    job = await in_file_thread(here.jobs.book.retry, ended.id, idempotency_key=key)
    return await accepted(here, job)


@router.delete(
    "/reconstructions/{job_id}",
    response_model=schemas.DeletionProof,
    summary="Delete a job and all its bytes",
    responses=documented(*WRITES, *ONE_JOB),
)
async def delete(job: OneJob, here: Here) -> schemas.DeletionProof:
    """Input, artifacts and facts go; a tombstone stays, so that the id answers 410 from now on."""
    return schemas.DeletionProof.of(await in_file_thread(here.jobs.book.delete, job.id))


@router.get(
    "/reconstructions/{job_id}/events",
    response_class=StreamingResponse,
    summary="Follow a job (Server-Sent Events)",
    responses={
        200: {
            "description": "`state`, `progress`, `warning` and `artifact` events; the stream ends with the job",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        },
        204: {"description": "The job has ended and nothing came after Last-Event-ID: do not connect again"},
        **documented(*ANY, *ONE_JOB),
    },
)
async def follow(
    job: OneJob,
    here: Here,
    last_event_id: Annotated[
        str | None, Header(alias="Last-Event-ID", description="Number of the last event that was seen.")
    ] = None,
) -> Response:
    """Every event once and in order, from the beginning or from after Last-Event-ID."""
    after = event_number(last_event_id)
    if job.is_terminal and after >= job.event_seq:
        return Response(status_code=204)
    here.streams.check()
    return StreamingResponse(told(here, job.id, after), media_type="text/event-stream")


async def told(here: Context, job_id: str, after: int) -> Any:
    """The stream, holding its slot for as long as somebody listens."""
    with here.streams.held():
        async for text in events.stream(here.jobs.book, job_id, after, here.settings.event_poll_s, here.stopping):
            yield text


async def accepted(here: Context, job: ledger.Job, *, replayed: bool = False) -> Response:
    """The 202 of a promised job; the workers hear of it after the client."""
    body = (await public(here, job)).model_dump_json().encode()
    headers = {"Location": job_path(job.id), "Retry-After": str(POLL_AFTER_S)}
    if replayed:
        return Response(body, 202, headers | {"Idempotent-Replayed": "true"}, "application/json")
    tell = BackgroundTask(in_ledger_thread, here.jobs.hint, job)
    return Response(body, 202, headers, "application/json", background=tell)


async def public(here: Context, job: ledger.Job) -> schemas.Job:
    """A record as the public sees it."""
    position, told_of = None, None
    if job.state is ledger.State.QUEUED:
        position = await in_ledger_thread(here.jobs.book.queue_position, job.id)
    if job.is_terminal and job.options is not None and job.options.webhook_url:
        told_of = await in_ledger_thread(here.outbox.delivery, job.id)
    return schemas.Job.of(job, position, told_of)


def checked_key(key: str | None) -> str | None:
    """An Idempotency-Key that can be stored. Raises the 422 of any other."""
    if key is not None and not re.fullmatch(r"[\x21-\x7e]{1,255}", key):
        raise Problem(
            "invalid_request", "The Idempotency-Key needs 1 to 255 printable ASCII characters. A UUID is fine."
        )
    return key


def event_number(text: str | None) -> int:
    """Last-Event-ID as a number; 0 if there is none. Raises the 422 of anything else."""
    if not text:
        return 0
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise Problem(
            "invalid_request", "Last-Event-ID is the number of an event of this job. Leave it out to see all."
        )
    return int(text)
