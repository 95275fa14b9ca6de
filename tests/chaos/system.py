"""The service as real processes to be killed, stopped and started again: API, workers with their children, Redis."""

import ctypes
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import psutil
import sqlalchemy as sa

from tests.chaos.postgres import private_postgres
from worker.ledger import Ledger, schema
from worker.ledger.broker import find_redis_server, start_redis

ROOT = Path(__file__).resolve().parents[2]
SETUPS = ("embedded", "sqlite-redis", "postgres-redis")


class System:
    """One set-up of the service. A watching thread starts again whatever died, as a process manager would."""

    def __init__(
        self,
        folder: Path,
        setup: str,
        *,
        workers: int = 2,
        lease_s: float = 15.0,
        failpoints: str = "",
        redis: Path | None = None,
    ) -> None:
        self.data, self.setup, self.lease_s = folder / "data", setup, lease_s
        self.failpoint_log = folder / "failpoints.log"
        self.deaths: list[tuple[float, str]] = []
        self._folder, self._failpoints, self._redis_server = folder, failpoints, redis
        self._short = Path(tempfile.mkdtemp(prefix="mc"))  # a unix socket's path must be short
        self._stopping = threading.Event()
        self.asleep: str | None = None
        """The role that is stopped past its lease at the moment."""
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.data.mkdir(parents=True)
        self._things = ExitStack()
        self.database_url = self._things.enter_context(private_postgres()) if setup == "postgres-redis" else None
        self._redis: subprocess.Popen[bytes] | None = None
        if setup != "embedded":
            self._start_redis()
        self.roles = ["api", *(f"worker{number}" for number in range(workers))]
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.book = Ledger(self.database_url, self.data, lease_s=lease_s)
        for role in self.roles:
            self._start(role)
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()

    # ---- what goes wrong

    def kill(self, role: str) -> tuple[str, int] | None:
        """kill -9. For a worker: the job and fence that it held, if it held one."""
        held = self._held_by(role)
        with suppress(ProcessLookupError, KeyError):
            self.processes[role].kill()
        return held

    def kill_child(self, role: str) -> bool:
        """kill -9 of a worker's child. Whether there was one."""
        with suppress(psutil.Error, KeyError):
            for child in psutil.Process(self.processes[role].pid).children():
                child.kill()
                return True
        return False

    def kill_broker(self) -> bool:
        """kill -9 of Redis, which keeps nothing; on the filesystem transport: all messages removed."""
        if self._redis is None:
            shutil.rmtree(self.data / "broker", ignore_errors=True)
            return True
        self._redis.kill()
        self._redis.wait()
        self._start_redis()
        return True

    def suspend_past_lease(self, role: str) -> bool:
        """SIGSTOP of a worker and its child until its lease is over, then SIGCONT: a writer that wakes up too late.

        Waits a few seconds for it to hold a job. Nothing else should happen to it meanwhile: see `asleep`.
        """
        deadline = time.monotonic() + 5.0
        while self._held_by(role) is None:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        self.asleep = role
        stopped: list[psutil.Process] = []
        try:
            worker = psutil.Process(self.processes[role].pid)
            for process in [*worker.children(), worker]:
                process.suspend()
                stopped.append(process)
            time.sleep(self.lease_s + 2.0)
            return worker.is_running() and worker.status() == psutil.STATUS_STOPPED
        except psutil.Error:
            return False
        finally:
            for process in reversed(stopped):
                with suppress(psutil.Error):
                    process.resume()
            self.asleep = None

    def _held_by(self, role: str) -> tuple[str, int] | None:
        table = schema.jobs
        process = self.processes.get(role)
        if not role.startswith("worker") or process is None:
            return None
        query = sa.select(table.c.id, table.c.fence).where(table.c.worker == f"{role}-{process.args[-1]}")
        with self.book.reading() as tx:
            row = tx.execute(query.where(table.c.state == "running")).first()
        return (row.id, row.fence) if row else None

    # ---- life

    def _start(self, role: str) -> None:
        number = str(sum(name == role for _, name in self.deaths))
        clean = {name: value for name, value in os.environ.items() if not name.startswith("MONONPHM_")}
        settings = {
            "DATA_DIR": self.data, "DATABASE_URL": self.database_url, "LEASE_S": self.lease_s,
            "HEARTBEAT_S": min(5.0, self.lease_s / 3), "PIPELINE": "tests.chaos.pipeline:run", "DEVICE": "none",
            "WORKER_NAME": f"{role}-{number}", "FREE_SPACE_RESERVE_BYTES": 0, "FAILPOINTS": self._failpoints,
            "FAILPOINTS_LOG": self.failpoint_log, "SWEEP_S": 5, "LOG_LEVEL": "WARNING", "MAX_QUEUED": 100_000,
            "MAX_OPEN_UPLOADS": 100_000,
            "MEMORY_BYTES": 1 << 40,
        }  # fmt: skip
        if self._redis is not None:
            settings["BROKER_URL"] = f"redis+socket://{self._short}/redis.sock"
        environment = clean | {f"MONONPHM_{name}": str(value) for name, value in settings.items() if value is not None}
        environment |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        if role == "api":
            command = ["-m", "mononphm_cli.main", "api", "--port", str(self.port)]
        else:
            command = ["-c", "from worker.main import *; raise SystemExit(run_worker(WorkerSettings()))", number]
        with (self._folder / f"{role}.log").open("ab") as log:
            self.processes[role] = subprocess.Popen(
                [sys.executable, *command],
                env=environment,
                stdout=log,
                stderr=log,
                cwd=ROOT,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )

    def _watch(self) -> None:
        while not self._stopping.wait(0.05):
            for role in self.roles:
                if self.processes[role].poll() is not None:
                    self.deaths.append((time.time(), role))
                    self._start(role)

    def disarm(self) -> None:
        """No more deaths by failpoints: every process is started anew without them."""
        self._failpoints = ""
        for role in self.roles:
            self.kill(role)

    def stop(self) -> None:
        """End everything."""
        self._stopping.set()
        self._watcher.join()
        for process in self.processes.values():
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGCONT)
                process.kill()
            process.wait()
        if self._redis is not None:
            self._redis.kill()
            self._redis.wait()
        self.book.close()
        self._things.close()
        shutil.rmtree(self._short, ignore_errors=True)

    def _start_redis(self) -> None:
        server = self._redis_server or find_redis_server()
        assert server is not None, "install redis-server, or choose the set-up `embedded`"
        self._redis = start_redis(server, self._short / "redis.sock")


def _die_with_parent() -> None:
    """In the child: a storm that is killed leaves nothing behind (Linux)."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def chosen(chance: random.Random, roles: list[str]) -> tuple[str, str]:
    """What dies next: (how, who)."""
    workers = [role for role in roles if role != "api"]
    how = chance.choices(["api", "worker", "child", "broker"], [20, 34, 36, 10])[0]
    return how, "api" if how == "api" else chance.choice(workers)
