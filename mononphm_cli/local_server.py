"""A private server for one command: `mononphm up` on a free port with a data directory of its own, ended with it."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import httpx

from mononphm_cli.client import Client
from mononphm_cli.failures import RemoteFailure

HOST = "127.0.0.1"
STOP_SECONDS = 30.0
"""How long `up` may take to stop its own children before the whole group is killed."""

KEPT_OUT = ("MONONPHM_DATABASE_URL", "MONONPHM_BROKER_URL", "MONONPHM_DATA_DIR", "MONONPHM_HOST", "MONONPHM_PORT")
"""Settings of another server on this machine; a private one must not touch its data."""


class LocalServer:
    """Start on entry; on exit stop everything that was started and remove the data, unless `keep()` was called.

    RemoteFailure, with the end of the log, when it does not get ready.
    """

    def __init__(self, port: int | None = None, ready_seconds: float = 180.0) -> None:
        self.port = port or free_port()
        self.url = f"http://{HOST}:{self.port}"
        self._ready_seconds = ready_seconds
        self._kept = False
        self._process: subprocess.Popen[bytes] | None = None
        self.folder = Path(tempfile.mkdtemp(prefix="mononphm-"))
        self.log = self.folder / "server.log"

    def __enter__(self) -> "LocalServer":
        environment = {name: value for name, value in os.environ.items() if name not in KEPT_OUT}
        command = [sys.executable, "-m", "mononphm_cli.main", "up", "--port", str(self.port)]
        command += ["--data-dir", str(self.folder / "data")]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True
            )
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if not self._kept:
            self.stop()

    def wait_until_ready(self, on_wait: Callable[[float], None] = lambda seconds: None) -> None:
        """Return when API, database, storage and a worker with its model are all there; `on_wait` hears the seconds."""
        assert self._process is not None, "enter the server first"
        started = time.monotonic()
        with Client(self.url) as client:
            while not client.is_up():
                waited = time.monotonic() - started
                if self._process.poll() is not None:
                    raise RemoteFailure(f"the server ended with code {self._process.returncode}.\n{self.last_words()}")
                if waited > self._ready_seconds:
                    raise RemoteFailure(f"the server was not ready after {waited:.0f} s.\n{self.last_words()}")
                on_wait(waited)
                time.sleep(0.25)

    def keep(self) -> int:
        """Leave the server and its data in place; returns the process id that stops it all."""
        assert self._process is not None, "enter the server first"
        self._kept = True
        return self._process.pid

    def stop(self) -> None:
        """SIGTERM to the launcher, which ends its children; SIGKILL to the whole group if it does not end."""
        process = self._process
        if process is not None:
            try:
                if process.poll() is None:
                    process.send_signal(signal.SIGTERM)
                    process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                pass
            finally:
                self._end_group(process.pid)
                process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def last_words(self, lines: int = 6) -> str:
        """What the server misses, and the end of each of its logs."""
        said = [f"It says: {line}" for line in self._missing()]
        for log in [self.log, *sorted((self.folder / "data" / "logs").glob("*"))]:
            try:
                text = log.read_text(encoding="utf-8", errors="replace").strip()
            except OSError:
                continue
            if text:
                said += [f"The end of {log.name}:", *(f"  {line[:300]}" for line in text.splitlines()[-lines:])]
        return "\n".join(said)

    def _missing(self) -> list[str]:
        """The failed checks of a readiness answer, if one comes."""
        try:
            reply = httpx.get(f"{self.url}/health/ready", timeout=5.0).json()
        except (httpx.HTTPError, ValueError):
            return []
        checks = reply.get("checks", {}) if isinstance(reply, dict) else {}
        return [f"{name}: {check.get('detail')}" for name, check in checks.items() if not check.get("ok")]

    def _end_group(self, group: int) -> None:
        try:
            os.killpg(group, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass


def free_port() -> int:
    """A port on the loopback interface that nobody uses now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port
