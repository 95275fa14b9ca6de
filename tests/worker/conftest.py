"""Tiny real things for the worker's tests: a ledger in a temporary directory, jobs, and workers as real processes."""

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.worker.helpers import LEASE_S, Crew, open_script
from worker.ledger import Job, Ledger
from worker.ledger.broker import filesystem_broker, find_redis_server, start_redis, url_broker


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """An empty state of record with a short lease."""
    with_short_lease = Ledger(None, tmp_path, lease_s=LEASE_S)
    yield with_short_lease
    with_short_lease.close()


@pytest.fixture
def submit(ledger: Ledger) -> Callable[..., Job]:
    """Open a job whose input is a script of tiny_pipeline."""
    return lambda script=None, **more: open_script(ledger, script or {}, **more)


@pytest.fixture
def crew(request: pytest.FixtureRequest, ledger: Ledger, tmp_path: Path) -> Iterator[Crew]:
    """An empty crew; on the filesystem transport unless the test asks for both brokers."""
    if getattr(request, "param", "filesystem") == "filesystem":
        hired = Crew(ledger, filesystem_broker(tmp_path), tmp_path)
        yield hired
        hired.dismiss()
        return
    server = find_redis_server()
    if server is None:
        pytest.skip("no redis-server is installed")
    folder = Path(tempfile.mkdtemp(prefix="mono"))  # a unix socket's path must be short
    servers = [start_redis(server, folder / "redis.sock")]

    def kill() -> None:
        servers[-1].kill()
        servers[-1].wait()

    def restart() -> None:
        kill()
        time.sleep(0.5)
        servers.append(start_redis(server, folder / "redis.sock"))

    hired = Crew(ledger, url_broker(f"redis+socket://{folder}/redis.sock", tmp_path), tmp_path)
    hired.restart_broker = restart
    try:
        yield hired
        hired.dismiss()
    finally:
        kill()
        shutil.rmtree(folder)
