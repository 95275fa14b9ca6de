"""The page: a few files of our own, shipped with the program. No other host is ever asked."""

import hashlib
from functools import cache
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request, Response

from service.context import Here
from service.delivery import has_etag
from service.middleware import PAGE_POLICY
from service.problems import Problem, documented
from service.routes.reconstructions import ANY

router = APIRouter(tags=["page"])

FOLDER = Path(__file__).parent.parent / "web"
MEDIA_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
HTML: dict[int | str, dict[str, Any]] = {
    200: {"description": "HTML", "content": {"text/html": {"schema": {"type": "string"}}}},
    304: {"description": "If-None-Match names the present ETag"},
}


@cache
def files() -> dict[str, tuple[bytes, str, str]]:
    """Name -> bytes, media type, ETag of all that the page consists of; read once, so no name leads elsewhere."""
    found = {}
    for path in FOLDER.iterdir():
        if path.suffix in MEDIA_TYPES:
            body = path.read_bytes()
            found[path.name] = (body, MEDIA_TYPES[path.suffix], f'"{hashlib.sha256(body).hexdigest()}"')
    return found


@router.get("/", response_class=Response, summary="The page", responses={**HTML, **documented(*ANY)})
async def home(request: Request) -> Response:
    """Drop a file, see the jobs."""
    return asset_response(request, "index.html")


@router.get(
    "/r/{job_id}",
    response_class=Response,
    summary="The page of one job",
    responses={**HTML, **documented(*ANY, "invalid_request")},
)
async def job_page(job_id: str, request: Request, here: Here) -> Response:
    """Progress, then the head in 3D. The page itself asks for the job and says so if there is none."""
    return asset_response(request, "job.html")


@router.get("/docs", response_class=Response, summary="This API, to read", responses={**HTML, **documented(*ANY)})
async def docs(request: Request) -> Response:
    """Every operation of openapi.json with parameters, bodies, answers and examples."""
    return asset_response(request, "docs.html")


@router.api_route("/web/{name}", methods=["GET", "HEAD"], include_in_schema=False)
async def asset(name: str, request: Request) -> Response:
    """Script, style or icon of the page."""
    return asset_response(request, name)


def asset_response(request: Request, name: str) -> Response:
    """One of our files."""
    if name not in files():
        raise Problem("not_found", "The page has no such file. Start at GET /.")
    body, media_type, etag = files()[name]
    headers = {"ETag": etag, "Cache-Control": "no-cache", "Content-Security-Policy": PAGE_POLICY}
    if has_etag(request.headers.get("if-none-match"), etag):
        return Response(status_code=304, headers=headers)
    return Response(body, headers=headers, media_type=media_type)
