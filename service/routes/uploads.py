"""Resumable uploads: tus 1.0 core, creation, checksum, expiration, termination."""

from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import contextmanager_in_threadpool

from service import tus
from service.access import Who
from service.body import Body
from service.context import Here
from service.middleware import TUS_VERSION
from service.problems import Problem, documented, out_of_disk, retry_after
from service.routes.reconstructions import ANY, WRITES
from service.threads import in_file_thread, in_ledger_thread
from service.uploads import too_large
from worker import ledger

router = APIRouter(tags=["uploads"])

OFFSET_STREAM = "application/offset+octet-stream"
ONE_UPLOAD = ("upload_not_found", "upload_gone", "tus_version", "invalid_request")


def header(name: str, description: str, schema: dict[str, Any], required: bool = False) -> dict[str, Any]:
    """A request header in the OpenAPI document; read by service.tus, which answers in its own words."""
    return {"name": name, "in": "header", "required": required, "description": description, "schema": schema}


def said(*names: str) -> dict[str, Any]:
    """Response headers in the OpenAPI document."""
    return {"headers": {name: {"schema": {"type": "string"}} for name in names}}


COUNT = {"type": "integer", "minimum": 0, "maximum": 10**15 - 1}
VERSION = header("Tus-Resumable", "The protocol's version.", {"const": TUS_VERSION}, required=True)
LENGTH = header("Upload-Length", "Bytes of the whole file.", COUNT, required=True)
METADATA = header(
    "Upload-Metadata",
    "`filename <base64>` and other pairs, comma-separated.",
    {"type": "string", "examples": ["filename Y2xpcC5tcDQ="]},
)
OFFSET = header("Upload-Offset", "Where these bytes begin: what HEAD says.", COUNT, required=True)
CHECKSUM = header(
    "Upload-Checksum",
    f"{' or '.join(tus.ALGORITHMS)}, a space, the digest of this body in base64.",
    {"type": "string", "pattern": "^(sha1 [A-Za-z0-9+/]{27}=|sha256 [A-Za-z0-9+/]{43}=)$"},
)
BYTES = {
    "required": True,
    "content": {OFFSET_STREAM: {"schema": {"type": "string", "format": "binary"}}},
}


@router.options(
    "/uploads",
    status_code=204,
    summary="What this tus server can do",
    responses={204: said("Tus-Version", "Tus-Extension", "Tus-Max-Size", "Tus-Checksum-Algorithm"), **documented(*ANY)},
)
async def upload_options(here: Here) -> Response:
    """Versions, extensions, largest file."""
    found = {
        "Tus-Version": TUS_VERSION,
        "Tus-Extension": tus.EXTENSIONS,
        "Tus-Max-Size": str(here.settings.max_upload_bytes),
        "Tus-Checksum-Algorithm": ",".join(tus.ALGORITHMS),
    }
    return Response(status_code=204, headers=found)


@router.post(
    "/uploads",
    status_code=201,
    response_class=Response,
    summary="Begin a resumable upload",
    openapi_extra={"parameters": [VERSION, LENGTH, METADATA]},
    responses={
        201: {"description": "Made; PATCH its Location", **said("Location", "Upload-Expires")},
        **documented(*WRITES, "malformed_request", "tus_version", "media_too_large", "too_many_uploads", "out_of_disk"),
    },
)
async def begin_upload(request: Request, here: Here, who: Who) -> Response:
    """Announce the size; then PATCH bytes to the Location, as many times as it takes, and submit its id."""
    tus.require_version(request.headers)
    length = tus.number_in(request.headers, "Upload-Length")
    metadata = tus.metadata_in(request.headers)
    if length > here.settings.max_upload_bytes:
        raise too_large(here.settings.max_upload_bytes)
    uploads, most = here.jobs.resumable, here.settings.max_open_uploads
    if await in_file_thread(here.jobs.book.storage.free_bytes) - length < here.settings.free_space_reserve_bytes:
        raise out_of_disk()
    if await in_ledger_thread(uploads.open_ones, who.opens_for) >= most:
        raise Problem(
            "too_many_uploads",
            f"{most} uploads are open, as many as one owner may have. Finish or DELETE one of them.",
            headers=retry_after(60),
        )
    upload = await in_file_thread(uploads.create, who.opens_for, length, metadata)
    return Response(status_code=201, headers={"Location": f"/uploads/{upload.id}", **tus.headers_of(upload)})


@router.head(
    "/uploads/{upload_id}",
    response_class=Response,
    summary="How much of an upload has arrived",
    openapi_extra={"parameters": [VERSION]},
    responses={
        200: {"description": "Where to go on", **said("Upload-Offset", "Upload-Length", "Upload-Expires")},
        **documented(*ANY, *ONE_UPLOAD),
    },
)
async def look_at_upload(upload_id: str, request: Request, here: Here, who: Who) -> Response:
    """The offset from which to go on after a broken connection."""
    tus.require_version(request.headers)
    upload = await in_ledger_thread(here.jobs.resumable.get, upload_id, who.owner)
    headers = {"Upload-Length": str(upload.length), **tus.headers_of(upload)}
    if upload.metadata:
        headers["Upload-Metadata"] = upload.metadata
    return Response(headers=headers)


@router.patch(
    "/uploads/{upload_id}",
    status_code=204,
    summary="Send bytes of an upload",
    openapi_extra={"parameters": [VERSION, OFFSET, CHECKSUM], "requestBody": BYTES},
    responses={
        204: {"description": "They are on the disk", **said("Upload-Offset", "Upload-Expires")},
        **documented(
            *WRITES, *ONE_UPLOAD, "malformed_request", "unsupported_checksum", "upload_aborted", "upload_timeout",
            "offset_conflict", "upload_used", "unsupported_content_type", "upload_locked", "checksum_mismatch",
            "out_of_disk",
        ),
    },
)  # fmt: skip
async def continue_upload(upload_id: str, request: Request, here: Here, who: Who) -> Response:
    """Append bytes at Upload-Offset. If the connection breaks, what arrived counts: HEAD says how much."""
    tus.require_version(request.headers)
    body = Body(request, here.settings.upload_idle_s)
    try:
        offset = tus.number_in(request.headers, "Upload-Offset")
        checksum = tus.checksum_in(request.headers)
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != OFFSET_STREAM:
            raise Problem("unsupported_content_type", f"Send the bytes as `Content-Type: {OFFSET_STREAM}`.")
        here.uploads.check()
    except Problem:
        await body.drain()
        raise
    uploads, storage = here.jobs.resumable, here.jobs.book.storage
    upload = await in_ledger_thread(uploads.get, upload_id, who.owner)
    _require_unspent(upload)
    with here.uploads.held():
        async with contextmanager_in_threadpool(uploads.locked(upload_id)):
            upload = await in_ledger_thread(uploads.get, upload_id, who.owner)
            if upload.offset != offset:
                await body.drain()
                raise Problem(
                    "offset_conflict",
                    f"The upload stands at {upload.offset}, not {offset}. HEAD it and go on from there.",
                    headers=tus.headers_of(upload),
                )
            await tus.append(
                body, uploads.path(upload_id), upload, checksum, storage.free_bytes,
                here.settings.free_space_reserve_bytes, lambda reached: uploads.advance(upload_id, reached),
            )  # fmt: skip
            upload = await in_ledger_thread(uploads.get, upload_id, who.owner)
    return Response(status_code=204, headers=tus.headers_of(upload))


@router.delete(
    "/uploads/{upload_id}",
    status_code=204,
    summary="Give an upload up",
    openapi_extra={"parameters": [VERSION]},
    responses=documented(*WRITES, *ONE_UPLOAD, "upload_locked"),
)
async def end_upload(upload_id: str, request: Request, here: Here, who: Who) -> Response:
    """Remove what has arrived. An upload that became a job is not needed any more; the job is not touched."""
    tus.require_version(request.headers)
    uploads = here.jobs.resumable
    upload = await in_ledger_thread(uploads.get, upload_id, who.owner)
    await in_file_thread(_give_up, uploads, upload)
    return Response(status_code=204)


def _give_up(uploads: ledger.Uploads, upload: ledger.Resumable) -> None:
    """In one thread with the lock: whoever closes the last descriptor of a removed file waits for its blocks."""
    if upload.job_id is None:
        with uploads.locked(upload.id):
            uploads.terminate(upload.id)
    else:
        uploads.terminate(upload.id)


def _require_unspent(upload: ledger.Resumable) -> None:
    """Raise the 409 of an upload that has become a job."""
    if upload.job_id is not None:
        raise ledger.UploadUsed(upload.id, upload.job_id)
