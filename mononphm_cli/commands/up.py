"""`mononphm up`: broker, worker and API together under one parent that starts, watches and stops them."""

import ctypes
import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import click

TICK_S = 0.2
STOP_S = 15.0
"""How long children may take to stop before they are killed."""

SHORT_LIFE_S = 10.0
MAX_SHORT_LIVES = 5
"""A child that dies so young so often has a reason that a restart does not cure."""

LONGEST_PAUSE_S = 8.0
LOG_BYTES = 16 << 20
_PR_SET_PDEATHSIG = 1


@click.command("up")
@click.option("--host", help="Address to bind; default 127.0.0.1.")
@click.option("--port", type=click.IntRange(0, 65535), help="Default 8000; 0: any free port.")
@click.option("--data-dir", type=click.Path(path_type=Path, file_okay=False), help="Default ./mononphm-data.")
@click.option("--device", help="Of the worker: auto, cpu, cuda or cuda:<i>.")
def command(host: str | None, port: int | None, data_dir: Path | None, device: str | None) -> None:
    """Start API and worker together on this machine; nothing else has to be installed.

    Open the printed address in a browser. Ctrl-C stops everything that was started; a second one stops it at once.
    Logs are in DIR/logs.
    """
    from service.server import CannotServe, address_of, bind
    from service.settings import ServiceSettings
    from worker.ledger.broker import launched_broker

    given = {"host": host, "port": port, "data_dir": data_dir}
    settings = ServiceSettings(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]
    folder = settings.data_dir.absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise click.ClickException(f"cannot make the data directory {folder}: {error.strerror}") from error
    try:
        with (
            bind(settings) as listener,
            sole_user_of(folder),
            launched_broker(settings.broker_url, folder) as broker,
        ):
            shared = {**os.environ, "MONONPHM_DATA_DIR": str(folder), "MONONPHM_HOST": settings.host}
            if device is not None:
                shared["MONONPHM_DEVICE"] = device
            # The filesystem transport is found by the data directory; any other broker by its URL.
            if not broker.url.startswith("filesystem:"):
                shared["MONONPHM_BROKER_URL"] = broker.url
            click.echo(f"MonoNPHM starts on {address_of(listener)}   (Ctrl-C stops it; logs in {folder / 'logs'})")
            if settings.keys_required:
                click.echo(f"Every request needs an API key: mononphm keys create NAME --data-dir {folder}")
            Launcher(folder / "logs", shared, click.echo).run(listener, address_of(listener))
    except (CannotServe, RuntimeError) as error:
        raise click.ClickException(str(error)) from error


class Child:
    """One process that should live."""

    def __init__(
        self, name: str, arguments: list[str], log: Path, environment: Mapping[str, str], fd: int | None
    ) -> None:
        self.name = name
        self._command = [sys.executable, "-m", "mononphm_cli.main", *arguments]
        self._environment = dict(environment)
        self._fds = () if fd is None else (fd,)
        self.log = log
        self.short_lives = 0
        self._started_at = 0.0
        self._again_at = 0.0
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, in a group of its own: Ctrl-C in the terminal is for the parent alone."""
        rotate(self.log)
        with self.log.open("ab") as sink:
            self.process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, env=self._environment,
                pass_fds=self._fds, process_group=0, preexec_fn=_die_with_parent,
            )  # fmt: skip
        self._started_at = time.monotonic()

    def look(self, say: Callable[[str], None]) -> None:
        """Start it again if it died; RuntimeError when that is hopeless."""
        now = time.monotonic()
        if self.process is None:
            if now >= self._again_at:
                self.start()
            return
        code = self.process.poll()
        if code is None:
            if now - self._started_at > SHORT_LIFE_S:
                self.short_lives = 0
            return
        self.process = None
        self.short_lives += 1 if now - self._started_at < SHORT_LIFE_S else 0
        if self.short_lives >= MAX_SHORT_LIVES:
            raise RuntimeError(
                f"the {self.name} ended {self.short_lives} times right after its start.\n{self.last_words()}"
            )
        pause = min(0.5 * 2 ** max(self.short_lives - 1, 0), LONGEST_PAUSE_S)
        self._again_at = now + pause
        say(f"the {self.name} ended ({_said(code)}); starting it again in {pause:g} s. {self.last_words()}")

    def signal(self, number: int) -> None:
        """Send a signal to the process, if it lives."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)

    def is_alive(self) -> bool:
        """Whether it runs now."""
        return self.process is not None and self.process.poll() is None

    def last_words(self, lines: int = 8) -> str:
        """The end of its log."""
        try:
            said = self.log.read_text("utf-8", "replace").strip().splitlines()[-lines:]
        except OSError:
            return ""
        return "\n".join(["The end of its log:", *(f"  {line[:300]}" for line in said)])


class Launcher:
    """API and worker, as long as nobody says stop."""

    def __init__(self, logs: Path, environment: Mapping[str, str], say: Callable[[str], None]) -> None:
        logs.mkdir(exist_ok=True)
        self._logs = logs
        self._environment = environment
        self._say = say
        self._stops = 0

    def run(self, listener: socket.socket, url: str) -> None:
        """Start both and watch them until SIGINT or SIGTERM. RuntimeError when one cannot live."""
        children = [
            self._child("worker", ["worker"], None),
            self._child("api", ["api", "--fd", str(listener.fileno())], listener.fileno()),
        ]
        before = {number: signal.signal(number, self._on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            for child in children:
                child.start()
            self._watch(children, url)
        finally:
            self._end(children)
            for number, handler in before.items():
                signal.signal(number, handler)

    def _child(self, name: str, arguments: list[str], fd: int | None) -> Child:
        return Child(name, arguments, self._logs / f"{name}.log", self._environment, fd)

    def _watch(self, children: list[Child], url: str) -> None:
        ready = False
        next_question = 0.0
        while not self._stops:
            for child in children:
                child.look(self._say)
            if not ready and time.monotonic() >= next_question:
                ready = is_ready(url)
                next_question = time.monotonic() + 1.0
                if ready:
                    self._say(
                        f"MonoNPHM is ready: open {url} in a browser, or run: mononphm submit FILE --server {url}"
                    )
            time.sleep(TICK_S)

    def _end(self, children: list[Child]) -> None:
        """SIGTERM to all, SIGKILL to those that do not end in time or when asked to stop twice."""
        for child in children:
            child.signal(signal.SIGTERM)
        deadline, asked = time.monotonic() + STOP_S, max(self._stops, 1)
        while any(child.is_alive() for child in children) and time.monotonic() < deadline and self._stops <= asked:
            time.sleep(0.05)
        for child in children:
            child.signal(signal.SIGKILL)
        for child in children:
            if child.process is not None:
                child.process.wait()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._stops += 1


@contextmanager
def sole_user_of(folder: Path) -> Iterator[None]:
    """Hold the data directory: two launchers would fight over its broker. RuntimeError if another one does."""
    with (folder / "up.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise RuntimeError(
                f"another `mononphm up` uses {folder}. Stop it, or choose another directory with --data-dir."
            ) from None
        yield


def is_ready(url: str) -> bool:
    """Whether the API says that a job can be done."""
    try:
        with urllib.request.urlopen(f"{url}/health/ready", timeout=2.0) as answer:  # noqa: S310
            return bool(answer.status == 200)
    except OSError:
        return False


def rotate(log: Path) -> None:
    """A log that has grown large becomes `<name>.1`."""
    if log.exists() and log.stat().st_size > LOG_BYTES:
        log.replace(log.with_name(f"{log.name}.1"))


def _said(code: int) -> str:
    return f"code {code}" if code >= 0 else signal.Signals(-code).name


def _die_with_parent() -> None:
    """In the child, before it becomes another program: a killed parent takes it along (Linux)."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
