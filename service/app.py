"""The wiring of the API: settings in, application out."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import metadata
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.types import Scope

from service import middleware
from service.access import Gate
from service.context import Context, Slots
from service.hints import Hints
from service.jobs import Jobs
from service.metrics import Figures, Measured
from service.problems import FieldError, Problem, ProblemDocument, answer
from service.routes import animations, artifacts, page, reconstructions, server, uploads
from service.schemas import FromUpload
from service.settings import ServiceSettings
from service.threads import in_file_thread
from service.uploads import OVERHEAD_BYTES
from service.webhooks import Sender
from worker import ledger
from worker.ledger import Ledger, LedgerError
from worker.ledger.broker import configured_broker
from worker.ledger.store_settings import API_PATIENCE_S, configured_storage

log = logging.getLogger(__name__)

JANITOR_S = 600.0
DESCRIPTION = """\
A head, in 3D, from an ordinary video. `POST /reconstructions` takes one video or image and answers with a job; follow
it by `GET …/events` or by asking; `GET …/artifacts` then lists meshes, codes, cameras and previews with checksums.
Every error is an RFC 9457 problem document with a stable `code` and a `detail` that ends with what to do next."""


def create_app(settings: ServiceSettings | None = None) -> FastAPI:
    """The application. Database and broker are opened when it starts, not here."""
    settings = settings or ServiceSettings()
    figures = Figures()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        storage = await in_file_thread(configured_storage, settings.data_dir, API_PATIENCE_S)
        book = await in_file_thread(Ledger, settings.database_url, settings.data_dir, storage=storage)
        hints = Hints(configured_broker(settings.broker_url, settings.data_dir))
        jobs, keys = Jobs(book, hints, settings), ledger.Keys(book)
        outbox = ledger.Outbox(book)
        app.state.context = Context(
            settings,
            jobs,
            keys,
            outbox,
            figures,
            uploads=Slots(settings.max_uploads, "uploads"),
            streams=Slots(settings.max_event_streams, "event streams"),
        )
        log.info("hints go by %s", hints.said)
        if settings.keys_required and not any(key.revoked_at is None for key in keys.list()):
            log.warning("every request needs an API key and there is none: make one with `mononphm keys create NAME`")
        sender = Sender(outbox, allow_private=settings.webhook_allow_private)
        chores = [
            asyncio.create_task(_clean_staging(jobs)),
            asyncio.create_task(figures.watch_loop()),
            asyncio.create_task(sender.run(settings.webhook_poll_s)),
        ]
        try:
            yield
        finally:
            for chore in chores:
                chore.cancel()
            await asyncio.gather(*chores, return_exceptions=True)
            await sender.close()
            await in_file_thread(hints.close)
            book.close()

    app = FastAPI(
        title="MonoNPHM reconstruction service",
        description=DESCRIPTION,
        version=metadata.version("mononphm"),
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        separate_input_output_schemas=False,
        redirect_slashes=False,
        telemetry={"operation_spans": False, "auto_configure": False, "exclude": _is_watching},
        generate_unique_id_function=lambda route: route.name,
    )
    for room in (reconstructions, animations, uploads, artifacts, server, page):
        app.include_router(room.router)
    for kind in (Problem, LedgerError, HTTPException, RequestValidationError, SQLAlchemyError):
        app.add_exception_handler(kind, answer)
    # The last one added is the outermost.
    app.add_middleware(
        middleware.Bounds,
        max_requests=settings.max_requests,
        max_upload_bytes=settings.max_upload_bytes + 2 * OVERHEAD_BYTES,
    )
    app.add_middleware(Gate, required=settings.keys_required)
    app.add_middleware(middleware.Guard, host_names=settings.host_names)
    app.add_middleware(middleware.Problems)
    app.add_middleware(middleware.Tus)
    app.add_middleware(middleware.SecurityHeaders)
    app.add_middleware(Measured, figures=figures)
    app.openapi = lambda: openapi_of(app)  # type: ignore[method-assign]
    return app


def openapi_of(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI 3.1 document, with the schema of problem documents, to which every error refers."""
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes, tags=TAGS
        )
        schemas = document["components"]["schemas"]
        for model in (ProblemDocument, FieldError, FromUpload):
            schemas[model.__name__] = model.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas[model.__name__].pop("$defs", None)
        for name in ("HTTPValidationError", "ValidationError"):
            schemas.pop(name, None)
        document["components"]["schemas"] = dict(sorted(schemas.items()))
        app.openapi_schema = document
    return app.openapi_schema


TAGS = [
    {"name": "reconstructions", "description": "Jobs: open, look, cancel, run again, delete, follow."},
    {"name": "uploads", "description": "Resumable uploads (tus 1.0), for large files and bad networks."},
    {"name": "artifacts", "description": "What a job delivered."},
    {"name": "server", "description": "Limits, health, version, models."},
    {"name": "page", "description": "The web page."},
]


def _is_watching(scope: Scope) -> bool:
    """Probes and scrapes are no work to trace."""
    return str(scope["path"]).startswith(("/health/", "/metrics"))


async def _clean_staging(jobs: Jobs) -> None:
    while True:
        try:
            removed = await in_file_thread(jobs.clean_staging)
            if removed:
                log.info("removed %d abandoned uploads", removed)
        except (OSError, SQLAlchemyError):
            log.warning("the staging folder could not be cleaned", exc_info=True)
        await asyncio.sleep(JANITOR_S)
