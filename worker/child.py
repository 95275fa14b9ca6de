"""The supervisor's handle on the process that holds the device: JSON lines over pipes, a process group of its own."""

import json
import logging
import os
import queue
import signal
import subprocess
import sys
import threading
from collections import deque
from typing import Any

from worker.settings import WorkerSettings

log = logging.getLogger(__name__)

Message = dict[str, Any]

MODELS_KEPT = 2
"""As many models stay loaded in the child (mononphm_core.io.registry.warm_model)."""


class Child:
    """A spawned (never forked) `worker.gpu_child`. Make it on the main thread: it dies with the thread that made it."""

    def __init__(self, settings: WorkerSettings) -> None:
        arguments = ["--pipeline", settings.pipeline, "--device", settings.device, "--parent", str(os.getpid())]
        arguments += ["--log-level", settings.log_level]
        arguments += ["--nice", str(settings.nice)]
        if settings.threads is not None:
            arguments += ["--threads", str(settings.threads)]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "worker.gpu_child", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            bufsize=0,
        )
        self.pid = self._process.pid
        self.model: dict[str, Any] | None = None
        self.is_ready = False
        self.last_answer: Message | None = None
        """The last `done`, `failed` or `cancelled`."""
        self._named: deque[str] = deque(maxlen=MODELS_KEPT)
        self._inbox: queue.Queue[Message | None] = queue.Queue()
        threading.Thread(target=self._read, name=f"child-{self.pid}", daemon=True).start()

    def send(self, message: Message) -> None:
        """Write one line; a child that is gone is found out by `receive`."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
        except (BrokenPipeError, ValueError):
            log.warning("the child %d no longer listens", self.pid)

    def uses(self, model: str | None) -> None:
        """The next order names this model; None: the default."""
        name = "" if model is None or model == (self.model or {}).get("name") else model
        if name in self._named:
            self._named.remove(name)
        self._named.append(name)

    @property
    def warm_models(self) -> frozenset[str]:
        """The models that it has loaded, as jobs name them; empty: the default."""
        default = (self.model or {}).get("name")
        has_default = self.model is not None and ("" in self._named or len(self._named) < MODELS_KEPT)
        return frozenset(self._named) | ({"", str(default)} if has_default else set())

    def receive(self, timeout_s: float) -> Message | None:
        """The next message; None if there was none in time. Raises ChildGone at the end of the pipe."""
        try:
            message = self._inbox.get(timeout=timeout_s)
        except queue.Empty:
            return None
        if message is None:
            self._inbox.put(None)
            raise ChildGone(self.describe_end())
        return message

    def signal_group(self, number: signal.Signals) -> None:
        """Signal the child and all that it started."""
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            pass

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def end(self, grace_s: float) -> None:
        """Have the child end, politely, then not. It and its group are gone when this returns."""
        if self.is_alive():
            self.send({"kind": "exit"})
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                self._process.wait(grace_s)
                break
            except subprocess.TimeoutExpired:
                self.signal_group(number)
        self._process.wait()
        self.signal_group(signal.SIGKILL)  # what the child itself may have left behind
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def describe_end(self) -> str:
        """How the process ended, in words for the log and the user."""
        try:
            code = self._process.wait(5)
        except subprocess.TimeoutExpired:
            return "the compute process closed its pipe"
        if code < 0:
            return f"the compute process was ended by {signal.Signals(-code).name}"
        return f"the compute process ended by itself with code {code}"

    def _read(self) -> None:
        assert self._process.stdout is not None
        buffer = b""
        try:
            while chunk := self._process.stdout.read(1 << 16):
                *lines, buffer = (buffer + chunk).split(b"\n")
                for line in lines:
                    self._take(json.loads(line))
        except (OSError, ValueError):
            log.exception("the child %d cannot be understood", self.pid)
            self.signal_group(signal.SIGKILL)
        self._inbox.put(None)

    def _take(self, message: Message) -> None:
        if message["kind"] == "ready":
            self.model = message["model"]
            self.is_ready = True
        elif message["kind"] in ("done", "failed", "cancelled"):
            self.last_answer = message
        self._inbox.put(message)


class ChildGone(Exception):
    """The child's end of the pipe is closed: it crashed, was killed or left."""
