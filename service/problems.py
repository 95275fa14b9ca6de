"""Every error that a client can meet, as RFC 9457 problem documents: one catalogue, one shape, no traces.

A `code` is stable and public; `detail` ends with what to do next. What nobody foresaw becomes `internal_error` with an
incident id, and the whole truth goes to the log.
"""

import errno
import json
import logging
import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from worker import ledger

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:mononphm:problem:"

CATALOGUE: dict[str, tuple[int, str]] = {
    "malformed_request": (400, "Malformed request"),
    "unsupported_checksum": (400, "Unsupported checksum"),
    "upload_aborted": (400, "Upload not completed"),
    "key_missing": (401, "API key needed"),
    "key_invalid": (401, "API key not valid"),
    "scope_missing": (403, "API key lacks a scope"),
    "cross_origin": (403, "Request from another site"),
    "not_found": (404, "Not found"),
    "job_not_found": (404, "No such reconstruction"),
    "artifact_not_found": (404, "No such artifact"),
    "model_not_found": (404, "No such model"),
    "upload_not_found": (404, "No such upload"),
    "method_not_allowed": (405, "Method not allowed"),
    "upload_timeout": (408, "Upload timed out"),
    "idempotency_conflict": (409, "Idempotency-Key used before"),
    "wrong_state": (409, "The job's state does not allow that"),
    "not_finished": (409, "The job has no artifacts yet"),
    "offset_conflict": (409, "Upload-Offset does not match"),
    "upload_incomplete": (409, "Upload not complete"),
    "upload_used": (409, "Upload already used"),
    "job_deleted": (410, "Reconstruction deleted"),
    "upload_gone": (410, "Upload expired"),
    "tus_version": (412, "Unsupported tus version"),
    "media_too_large": (413, "Media too large"),
    "body_too_large": (413, "Request body too large"),
    "unsupported_media": (415, "Unsupported media"),
    "unsupported_content_type": (415, "Unsupported content type"),
    "range_not_satisfiable": (416, "Range not satisfiable"),
    "unknown_host": (421, "Unknown host name"),
    "invalid_request": (422, "Invalid request"),
    "models_differ": (422, "Made by different models"),
    "outputs_missing": (422, "A needed output is missing"),
    "invalid_options": (422, "Invalid options"),
    "invalid_input": (422, "The input cannot be used"),
    "unreadable_media": (422, "Unreadable media"),
    "media_too_small": (422, "Media too small"),
    "upload_locked": (423, "Upload is being written"),
    "quota_exceeded": (429, "Quota exceeded"),
    "too_many_uploads": (429, "Too many open uploads"),
    "checksum_mismatch": (460, "Checksum mismatch"),
    "internal_error": (500, "Internal error"),
    "not_ready": (503, "Not ready"),
    "busy": (503, "Too busy"),
    "queue_full": (503, "Queue full"),
    "database_unavailable": (503, "Database unavailable"),
    "storage_unavailable": (503, "Object store unavailable"),
    "out_of_disk": (507, "Out of disk space"),
}
"""Code -> status and title. A test holds that every code that the service raises stands here."""


class Problem(Exception):
    """An answer that is not the wished one. Raised anywhere below a route."""

    def __init__(self, code: str, detail: str, *, headers: Mapping[str, str] | None = None, **extensions: Any) -> None:
        super().__init__(detail)
        self.code = code
        self.status, self.title = CATALOGUE[code]
        self.detail = detail
        self.headers = dict(headers or {})
        self.extensions = extensions

    def document(self, instance: str) -> dict[str, Any]:
        """The problem document's members."""
        return {
            "type": TYPE_PREFIX + self.code,
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "instance": instance,
            "code": self.code,
            **self.extensions,
        }

    def response(self, instance: str) -> Response:
        """The problem document as an HTTP answer."""
        body = json.dumps(self.document(instance), ensure_ascii=False).encode("utf-8", "replace")
        headers = {"Cache-Control": "no-store", **self.headers}
        return Response(body, self.status, headers, media_type=MEDIA_TYPE)


class FieldError(BaseModel):
    """One thing that is wrong with a request."""

    where: str = Field(examples=["options.max_frames"])
    message: str = Field(examples=["Input should be greater than or equal to 1"])


class ProblemDocument(BaseModel):
    """An error, as RFC 9457 has it. `code` is stable; `detail` says what happened and what to do next."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(examples=[TYPE_PREFIX + "job_not_found"])
    title: str = Field(examples=["No such reconstruction"])
    status: int = Field(examples=[404])
    detail: str = Field(examples=["There is no reconstruction of that id. GET /reconstructions lists those there are."])
    instance: str = Field(examples=["/reconstructions/rec_06f3"])
    """The path of the request."""
    code: str = Field(examples=["job_not_found"])
    errors: list[FieldError] | None = None
    """With `invalid_request` and `invalid_options`: each thing that is wrong."""


def retry_after(seconds: float) -> dict[str, str]:
    """The header that says when to come again."""
    return {"Retry-After": str(max(1, round(seconds)))}


def field_errors(errors: list[Any], prefix: str = "") -> list[dict[str, str]]:
    """Pydantic's errors as `where` and `message`; never the input's value, never pydantic's own links."""
    found = []
    for error in errors[:20]:
        where = ".".join(filter(None, [prefix, *(str(part) for part in error["loc"])]))
        found.append({"where": where[:200], "message": str(error["msg"])[:500]})
    return found


def from_ledger(error: ledger.LedgerError) -> Problem:
    """The public answer to what the state of record refuses."""
    match error:
        case ledger.JobNotFound():
            return Problem(
                "job_not_found", "There is no reconstruction of that id. GET /reconstructions lists those there are."
            )
        case ledger.JobDeleted():
            return Problem("job_deleted", "This job was deleted; its bytes are gone. Submit the input again.")
        case ledger.IdempotencyConflict():
            return Problem(
                "idempotency_conflict",
                "This Idempotency-Key came before with another file or other options. Send a new key for a new job.",
            )
        case ledger.UploadNotFound():
            return Problem("upload_not_found", "There is no upload of that id. POST /uploads begins one.")
        case ledger.UploadGone():
            return Problem("upload_gone", "This upload expired or was terminated. POST /uploads begins a new one.")
        case ledger.UploadLocked():
            return Problem(
                "upload_locked",
                "Another request is writing this upload. HEAD it in a moment and go on from there.",
                headers=retry_after(1),
            )
        case ledger.UploadUsed(job_id=job_id):
            return Problem("upload_used", "A reconstruction has taken this upload; `job_id` names it.", job_id=job_id)
        case ledger.StorageUnavailable():
            log.error("the object store cannot be used: %s", error)
            return Problem(
                "storage_unavailable", "The object store does not answer. Try again shortly.", headers=retry_after(5)
            )
        case ledger.InvalidCursor():
            return Problem("invalid_request", "This cursor is not one of ours. Leave it out to begin at the newest.")
        case ledger.IllegalTransition(state=state):
            said = "It has just changed" if state == "changing" else f"It is {state}"
            return Problem("wrong_state", f"{said}. GET the job: its `links` are what can be done with it now.")
        case _:
            return internal(error)


def from_first_look(error: Exception) -> Problem:
    """The answer to an upload that the first look already refuses, under the code that a failed job would have.

    Its sentence ends with what to send instead. What is no refusal of the core is raised again.
    """
    code = ledger.failure_of(error).code
    if code == "internal_error":
        raise error
    return Problem(code if code in CATALOGUE else "invalid_input", str(error))


def internal(error: BaseException) -> Problem:
    """What nobody foresaw: an incident id for the client, everything else for the log."""
    incident = ledger.new_id("inc")
    log.error("incident %s: %s", incident, type(error).__name__, exc_info=error, extra={"incident": incident})
    return Problem(
        "internal_error",
        f"Something unforeseen happened. Try again; if it happens again, tell the operator the incident {incident}.",
        incident=incident,
    )


def from_exception(error: BaseException) -> Problem:
    """Any exception as a problem; total."""
    match error:
        case Problem():
            return error
        case ledger.LedgerError():
            return from_ledger(error)
        case RequestValidationError():
            return _from_validation(error)
        case HTTPException():
            return _from_http(error)
        case SQLAlchemyError():
            log.error("the database does not answer", exc_info=error)
            return Problem(
                "database_unavailable", "The database does not answer. Try again shortly.", headers=retry_after(5)
            )
        case OSError() if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return out_of_disk()
        case _:
            return internal(error)


def out_of_disk() -> Problem:
    """There is no room for more bytes."""
    return Problem("out_of_disk", "There is not enough free disk space here for this. Try later, or tell the operator.")


def _from_validation(error: RequestValidationError) -> Problem:
    details = list(error.errors())
    found = field_errors(details)
    said = "; ".join(f"{item['where']}: {item['message']}" for item in found[:3])
    return Problem("invalid_request", f"{said}. Correct the request and send it again.", errors=found)


def _from_http(error: HTTPException) -> Problem:
    if error.status_code == 404:
        return Problem("not_found", "There is nothing at this path. GET /openapi.json lists all operations.")
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        return Problem(
            "method_not_allowed",
            f"This path does not know that method. {f'It knows {allowed}.' if allowed else 'See GET /openapi.json.'}",
            headers=error.headers,
        )
    if 400 <= error.status_code < 500:
        return Problem("malformed_request", f"{HTTPStatus(error.status_code).phrase}. Correct the request.")
    return internal(error)


async def answer(request: Request, error: Exception) -> Response:
    """The exception handler of the application."""
    if isinstance(error, HTTPException) and error.status_code == 405:
        error = HTTPException(405, headers={"Allow": ", ".join(allowed_methods(request))})
    return from_exception(error).response(request.url.path)


def allowed_methods(request: Request) -> list[str]:
    """Every method that this path knows; the framework names those of the first route alone (RFC 9110, 10.2.1)."""
    found: set[str] = set()
    for path, operations in request.app.openapi()["paths"].items():
        pattern = re.sub(r"\\{\w+\\}", "[^/]+", re.escape(path).replace(r"artifacts/\{name\}", "artifacts/.+"))
        if re.fullmatch(pattern, request.url.path):
            found |= {method.upper() for method in operations}
    return sorted(found) or ["GET"]


def documented(*codes: str) -> dict[int | str, dict[str, Any]]:
    """The `responses` of an operation that can answer with these codes, for the OpenAPI document."""
    by_status: dict[int, list[str]] = {}
    for code in codes:
        by_status.setdefault(CATALOGUE[code][0], []).append(code)
    return {status: _documented_status(status, found) for status, found in sorted(by_status.items())}


def _documented_status(status: int, codes: list[str]) -> dict[str, Any]:
    titles = "; ".join(f"{CATALOGUE[code][1]} (`{code}`)" for code in codes)
    example = {
        "type": TYPE_PREFIX + codes[0],
        "title": CATALOGUE[codes[0]][1],
        "status": status,
        "detail": "What happened, and what to do next.",
        "instance": "/reconstructions",
        "code": codes[0],
    }
    schema = {"$ref": "#/components/schemas/ProblemDocument"}
    documented: dict[str, Any] = {
        "description": titles,
        "content": {MEDIA_TYPE: {"schema": schema, "example": example}},
    }
    if status == 401:
        documented["headers"] = {"WWW-Authenticate": {"schema": {"type": "string"}}}
    if status in (429, 503):
        documented["headers"] = {"Retry-After": {"schema": {"type": "integer"}, "description": "Seconds to wait."}}
    return documented
