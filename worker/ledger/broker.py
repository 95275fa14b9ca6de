"""Which broker carries the hints. No Celery: the API and the worker configure their own tiny app from this.

The order: the configured URL, else a Redis that is installed (started here by absolute path, in a private directory,
on a unix socket), else Celery's filesystem transport. All are disposable: the state of record is the database, and a
wiped broker costs a few seconds.
"""

import logging
import os
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

QUEUE = "mononphm"
"""The default queue: jobs that any worker can do in good time."""

GPU_QUEUE = "mononphm-gpu"
"""Jobs that are long without a GPU, where the operator keeps them apart (`MONONPHM_GPU_FROM_S`)."""

REDIS_SERVERS = (Path("/usr/bin/redis-server"), Path("/usr/local/bin/redis-server"))
"""Never searched on PATH: Python packages bring old servers under the same name."""

OLDEST_REDIS = (6, 0)
SOCKET_PATH_LIMIT = 100
"""A unix socket's path fits in about 107 bytes."""


@dataclass(frozen=True)
class Broker:
    """A broker URL, its transport options, and a sentence for the log and for `mononphm doctor`."""

    url: str
    transport_options: dict[str, Any] = field(default_factory=dict)
    said: str = ""

    def celery_config(self, queues: tuple[str, ...] = (QUEUE,)) -> dict[str, Any]:
        """Everything that an app must set to send or to receive hints; `app.conf.update(**broker.celery_config())`."""
        return {
            "broker_url": self.url,
            "broker_transport_options": self.transport_options,
            "broker_connection_retry_on_startup": True,
            "broker_connection_max_retries": None,
            "result_backend": None,
            "task_ignore_result": True,
            "task_default_queue": queues[0],
            "task_create_missing_queues": True,
            "task_acks_late": False,
            "task_serializer": "json",
            "accept_content": ["json"],
            "task_publish_retry": True,
            "task_publish_retry_policy": {"max_retries": 1, "interval_start": 0.1, "interval_max": 0.2},
            "worker_prefetch_multiplier": 1,
            "worker_enable_remote_control": False,
            "worker_send_task_events": False,
            "worker_hijack_root_logger": False,
            "enable_utc": True,
        }


def filesystem_broker(data_dir: Path) -> Broker:
    """Celery's filesystem transport below the data directory: no server, polling."""
    folder = data_dir.absolute() / "broker" / "messages"
    control = data_dir.absolute() / "broker" / "control"
    for path in (folder, control):
        path.mkdir(parents=True, exist_ok=True)
    options = {
        "data_folder_in": str(folder),
        "data_folder_out": str(folder),
        "control_folder": str(control),
        "polling_interval": 0.2,
    }
    return Broker("filesystem://localhost/", options, "the filesystem transport in the data directory")


def url_broker(url: str, data_dir: Path) -> Broker:
    """The broker of a configured URL, with the options that make it recover in seconds."""
    if url.startswith("filesystem:"):
        return filesystem_broker(data_dir)
    if url.startswith(("redis", "rediss", "unix")):
        options = {
            "visibility_timeout": 60,
            "unacked_restore_interval": 2,
            "unacked_restore_throttle": 1,
            "socket_connect_timeout": 3,
            "socket_timeout": 10,
            "socket_keepalive": True,
            "retry_on_timeout": True,
            "health_check_interval": 5,
        }
        return Broker(url, options, f"Redis at {_without_secret(url)}")
    return Broker(url, {}, f"the broker at {_without_secret(url)}")


def configured_broker(url: str | None, data_dir: Path) -> Broker:
    """What a process uses that starts no server itself: the URL, else the filesystem transport."""
    return url_broker(url, data_dir) if url else filesystem_broker(data_dir)


def find_redis_server() -> Path | None:
    """An installed redis-server that is new enough, by absolute path."""
    for path in REDIS_SERVERS:
        version = redis_version(path)
        if version is not None and version >= OLDEST_REDIS:
            return path
    return None


def redis_version(path: Path) -> tuple[int, ...] | None:
    """What the program says of itself; None when it is absent or says nothing that we read."""
    if not os.access(path, os.X_OK):
        return None
    try:
        said = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.search(r"v=(\d+)\.(\d+)\.(\d+)", said)
    return tuple(int(part) for part in match.groups()) if match else None


@contextmanager
def launched_broker(url: str | None, data_dir: Path) -> Iterator[Broker]:
    """For the launcher: the broker and, for as long as the context lasts, the server that it needs."""
    server = None if url else find_redis_server()
    socket_path = data_dir.absolute() / "broker" / "redis.sock"
    if server is None or len(str(socket_path)) > SOCKET_PATH_LIMIT:
        yield configured_broker(url, data_dir)
        return
    process = start_redis(server, socket_path)
    try:
        yield url_broker(f"redis+socket://{socket_path}", data_dir)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def start_redis(server: Path, socket_path: Path, *, timeout_s: float = 10.0) -> "subprocess.Popen[bytes]":
    """A private Redis: unix socket, no TCP port, nothing on disk. Returns when it answers, else RuntimeError."""
    socket_path.parent.mkdir(parents=True, exist_ok=True)
    socket_path.parent.chmod(0o700)
    socket_path.unlink(missing_ok=True)
    options = {
        "--port": "0", "--unixsocket": str(socket_path), "--unixsocketperm": "700", "--dir": str(socket_path.parent),
        "--save": "", "--appendonly": "no", "--daemonize": "no", "--maxmemory": "64mb",
        "--maxmemory-policy": "noeviction",
    }  # fmt: skip
    arguments = [str(server), *(part for item in options.items() for part in item)]
    process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline and process.poll() is None:
        version = _ask_version(socket_path)
        if version is not None:
            if version < OLDEST_REDIS:
                break
            log.info("started redis %s on %s", ".".join(map(str, version)), socket_path)
            return process
        time.sleep(0.05)
    process.kill()
    process.wait()
    raise RuntimeError(
        f"{server} did not answer on its socket; set MONONPHM_BROKER_URL, or remove it to use the filesystem transport"
    )


def _ask_version(socket_path: Path) -> tuple[int, ...] | None:
    """`INFO server` over the socket: proof that the server that answers is the one we think it is."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(2)
            connection.connect(str(socket_path))
            connection.sendall(b"INFO server\r\n")
            answer = b""
            while b"redis_version:" not in answer or not answer.endswith(b"\r\n"):
                chunk = connection.recv(4096)
                if not chunk:
                    break
                answer += chunk
    except OSError:
        return None
    match = re.search(rb"redis_version:(\d+)\.(\d+)\.(\d+)", answer)
    return tuple(int(part) for part in match.groups()) if match else None


def _without_secret(url: str) -> str:
    return re.sub(r"//[^/@]*@", "//…@", url)
