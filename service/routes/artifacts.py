"""What a job delivered: the list, the bytes, everything at once, and the codes as JSON or CSV."""

import json
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from starlette.responses import StreamingResponse

from service import delivery, schemas
from service.context import Context, Here
from service.problems import Problem, documented
from service.routes.reconstructions import ANY, ONE_JOB, OneJob
from service.threads import in_file_thread, in_ledger_thread
from worker import ledger

router = APIRouter(tags=["artifacts"])

BYTES: dict[str, Any] = {
    "description": "The bytes",
    "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    "headers": {
        "ETag": {"schema": {"type": "string"}, "description": "The sha256 of the whole file, in quotes."},
        "Accept-Ranges": {"schema": {"type": "string"}},
        "Content-Disposition": {"schema": {"type": "string"}},
    },
}
FILE_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: BYTES,
    206: {**BYTES, "description": "The range that was asked for"},
    304: {"description": "If-None-Match names the present ETag"},
    **documented(*ANY, *ONE_JOB, "artifact_not_found", "not_finished", "range_not_satisfiable"),
}
REDIRECT: dict[str, Any] = {
    "description": "With `direct=true`, where the object store gives the bytes itself: its address, good for minutes",
    "headers": {"Location": {"schema": {"type": "string"}}, "ETag": {"schema": {"type": "string"}}},
}
NO_ARTIFACT = ("artifact_not_found", "not_finished")


@router.get(
    "/reconstructions/{job_id}/artifacts",
    response_model=schemas.ArtifactList,
    summary="What a job delivered",
    responses=documented(*ANY, *ONE_JOB),
)
async def list_artifacts(job: OneJob, here: Here) -> schemas.ArtifactList:
    """Every file with size and sha256, in the manifest's order; empty until the job succeeded."""
    found = await in_ledger_thread(here.jobs.book.artifacts, job.id)
    return schemas.ArtifactList(items=[schemas.Artifact.of(artifact) for artifact in found])


@router.get(
    "/reconstructions/{job_id}/artifacts/{name:path}",
    response_class=StreamingResponse,
    summary="One file",
    responses={**FILE_ANSWERS, 307: REDIRECT},
)
async def get_artifact(
    job: OneJob,
    name: str,
    request: Request,
    here: Here,
    direct: Annotated[
        bool, Query(description="Rather be sent to the object store, where there is one; the list has the checksum.")
    ] = False,
) -> Response:
    """The bytes of one file: Range, If-Range and If-None-Match work. Only names of the list are known."""
    artifact = await one_artifact(here, job, name)
    if direct:
        disposition = delivery.content_disposition(artifact.name)
        link = await in_file_thread(here.jobs.book.storage.direct_link, artifact, disposition)
        if link is not None:
            return delivery.redirect(request, artifact, link)
    return await delivery.file_response(request, artifact, here.jobs.book.storage.open_artifact)


@router.head(
    "/reconstructions/{job_id}/artifacts/{name:path}",
    response_class=StreamingResponse,
    summary="Size and checksum of one file",
    responses={
        status: {name: value for name, value in answer.items() if name != "content"}
        for status, answer in FILE_ANSWERS.items()
    },
)
async def head_artifact(job: OneJob, name: str, request: Request, here: Here) -> Response:
    """The headers of GET without the bytes."""
    artifact = await one_artifact(here, job, name)
    return await delivery.file_response(request, artifact, here.jobs.book.storage.open_artifact)


@router.get(
    "/reconstructions/{job_id}/artifacts.zip",
    response_class=StreamingResponse,
    summary="Everything in one archive",
    responses={
        200: {
            "description": "A ZIP, made while it is sent",
            "content": {"application/zip": {"schema": {"type": "string", "format": "binary"}}},
        },
        **documented(*ANY, *ONE_JOB, "not_finished"),
    },
)
async def get_zip(job: OneJob, here: Here) -> Response:
    """All artifacts below a folder named after the job; uncompressed, so that it costs no time."""
    require_finished(here, job)
    book = here.jobs.book
    artifacts = await in_ledger_thread(book.artifacts, job.id)
    files = [(item.name, item) for item in artifacts]
    pieces = delivery.zip_pieces(files, book.storage.open_artifact, job.id, job.finished_at or job.created_at)
    headers = {"Content-Disposition": delivery.content_disposition(f"{job.id}.zip")}
    return StreamingResponse(delivery.streamed(pieces), headers=headers, media_type="application/zip")


@router.get(
    "/reconstructions/{job_id}/expressions",
    response_class=Response,
    summary="The expression codes, frame by frame",
    responses={
        200: {
            "description": "The delivered codes",
            "content": {"application/json": {"schema": {"type": "object"}}, "text/csv": {"schema": {"type": "string"}}},
        },
        304: {"description": "If-None-Match names the present ETag"},
        **documented(*ANY, *ONE_JOB, *NO_ARTIFACT),
    },
)
async def get_expressions(
    job: OneJob,
    request: Request,
    here: Here,
    format: Annotated[Literal["json", "csv"], Query(description="How to write them.")] = "json",
    space: Annotated[
        Literal["codes", "arkit"], Query(description="The model's codes, or ARKit-52 where it maps to them.")
    ] = "codes",
) -> Response:
    """Per frame: z_exp, rotation, translation, scale, time. As CSV, a row a frame."""
    source = "expressions.json" if space == "codes" else "blendshapes.csv"
    artifact, opened = await one_artifact(here, job, source), here.jobs.book.storage.open_artifact
    if source.endswith(f".{format}"):
        return await delivery.file_response(request, artifact, opened, "inline")
    text = await in_file_thread(delivery.text_of, artifact, opened)
    if format == "csv":
        table = await in_file_thread(lambda: delivery.table_of(json.loads(text)))
        headers = {"Content-Disposition": delivery.content_disposition("expressions.csv")}
        return Response(table, headers=headers, media_type="text/csv; charset=utf-8; header=present")
    return Response(
        await in_file_thread(lambda: delivery.json_text(delivery.csv_as_json(text))), media_type="application/json"
    )


def require_finished(here: Context, job: ledger.Job) -> None:
    """Raise the 409 of a job that has no artifacts."""
    reason = here.jobs.ended_with(job)
    if reason is not None:
        raise reason


async def one_artifact(here: Context, job: ledger.Job, name: str) -> ledger.Artifact:
    """A file of the job's list: no other name is ever looked for on the disk."""
    require_finished(here, job)
    found = await in_ledger_thread(here.jobs.book.artifact, job.id, name)
    if found is None:
        raise Problem(
            "artifact_not_found", "This job delivered no file of that name. GET …/artifacts lists what it delivered."
        )
    return found
