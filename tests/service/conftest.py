"""A real application on a real ledger, without a socket. Every answer is held against the OpenAPI document."""

import json
import re
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from service.app import create_app
from service.context import Context
from service.settings import ServiceSettings
from worker.ledger import Ledger

MIB = 1 << 20


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database at the newest schema: migrating once is enough for this suite."""
    folder = tmp_path_factory.mktemp("migrated")
    Ledger(None, folder).close()
    return folder / "ledger.sqlite3"


@pytest.fixture(scope="session")
def paths() -> dict[str, Any]:
    """The operations of the OpenAPI document."""
    return create_app().openapi()["paths"]


@pytest.fixture
def settings(tmp_path: Path, migrated: Path) -> ServiceSettings:
    """Small limits, quick polls."""
    (tmp_path / "data").mkdir()
    shutil.copy(migrated, tmp_path / "data")
    return ServiceSettings(
        data_dir=tmp_path / "data",
        max_upload_bytes=4 * MIB,
        free_space_reserve_bytes=0,
        event_poll_s=0.02,
        max_queued=50,
        webhook_poll_s=3600,  # tests send by themselves
    )


@pytest.fixture
async def app(settings: ServiceSettings, anyio_backend: str) -> AsyncIterator[FastAPI]:
    """The application, started."""
    made = create_app(settings)
    async with made.router.lifespan_context(made):
        yield made


@pytest.fixture
async def api(app: FastAPI, paths: dict[str, Any]) -> AsyncIterator[httpx.AsyncClient]:
    """A client; whatever it hears must be documented."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    hooks = {"response": [lambda answer: must_be_documented(paths, answer)]}
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", event_hooks=hooks) as client:
        yield client


@pytest.fixture
def context(app: FastAPI) -> Context:
    """What the routes see."""
    return app.state.context


@pytest.fixture
def book(context: Context) -> Ledger:
    """The state of record behind the application."""
    return context.jobs.book


@pytest.fixture
def left_behind(settings: ServiceSettings) -> Callable[[], list[str]]:
    """Files of uploads and jobs that lie in the data directory."""
    folders = [settings.data_dir / name for name in ("staging", "inputs", "artifacts")]
    return lambda: sorted(
        path.relative_to(settings.data_dir).as_posix() for folder in folders for path in folder.rglob("*")
    )


async def must_be_documented(paths: dict[str, Any], answer: httpx.Response) -> None:
    """The status stands at its operation, errors are problem documents, and no answer lacks the guarding headers."""
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "access-control-allow-origin" not in answer.headers
    assert "content-security-policy" in answer.headers
    if answer.status_code >= 400:
        await answer.aread()
        assert answer.headers["content-type"] == "application/problem+json"
        if answer.request.method != "HEAD":
            document = json.loads(answer.text)
            assert document["status"] == answer.status_code
            assert {"type", "title", "detail", "instance", "code"} <= set(document)
            assert document["type"].endswith(document["code"])
            assert "Traceback" not in answer.text
    operation = operation_of(paths, answer.request)
    if operation is not None:
        assert str(answer.status_code) in operation["responses"], (answer.request.url, answer.status_code)


def operation_of(paths: dict[str, Any], request: httpx.Request) -> dict[str, Any] | None:
    """The operation of the OpenAPI document that serves a request; None: nothing does."""
    for path, operations in paths.items():
        pattern = re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(path).replace("artifacts/\\{name\\}", "artifacts/.+"))
        if re.fullmatch(pattern, request.url.path) and request.method.lower() in operations:
            return operations[request.method.lower()]
    return None
