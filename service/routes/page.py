"""The page: a few files of our own, shipped with the program. No other host is ever asked."""

import gzip
import hashlib
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Asset:
    """One file of the page, as it is and compressed."""

    plain: bytes
    packed: bytes
    media_type: str

    @classmethod
    def read(cls, path: Path) -> "Asset":
        body = path.read_bytes()
        return cls(body, gzip.compress(body, 9, mtime=0), MEDIA_TYPES[path.suffix])


@cache
def files() -> dict[str, Asset]:
    """All that the page consists of, by name; read once, so no name leads elsewhere."""
    return {path.name: Asset.read(path) for path in FOLDER.iterdir() if path.suffix in MEDIA_TYPES}


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
    asset, accepted = files()[name], request.headers.get("accept-encoding", "")
    packed = any(word.strip() == "gzip" for word in accepted.split(","))
    body = asset.packed if packed else asset.plain
    etag = f'"{hashlib.sha256(body).hexdigest()}"'
    headers = {
        "ETag": etag, "Cache-Control": "no-cache", "Content-Security-Policy": PAGE_POLICY, "Vary": "Accept-Encoding",
    }  # fmt: skip
    if has_etag(request.headers.get("if-none-match"), etag):
        return Response(status_code=304, headers=headers)
    if packed:
        headers["Content-Encoding"] = "gzip"
    return Response(body, headers=headers, media_type=asset.media_type)
