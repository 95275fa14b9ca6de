"""Structured logs: one JSON object a line on standard error, with job, stage and fence where there is one."""

import json
import logging
import queue
import sys
import threading
from contextlib import suppress
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, TextIO

job_context: ContextVar[dict[str, Any] | None] = ContextVar("job_context", default=None)
"""job_id, fence, stage of the job that this thread works on."""

MOST_LINES = 20_000
"""Lines that may wait for a disk that does not take them."""
LAST_WORDS_S = 2.0
"""How long a process that ends waits for them."""

_PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """A log record as one line of JSON; whatever came as `extra` is a key of its own."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **(job_context.get() or {}),
        }
        line |= {name: value for name, value in vars(record).items() if name not in _PLAIN and name != "data"}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


class Behind(logging.Handler):
    """Lines go to a thread that writes them to `sink`: whoever logs never waits for a busy disk.

    When MOST_LINES wait, further ones are left out and counted. What waits is written before the process ends, unless
    that is by SIGKILL.
    """

    def __init__(self, sink: TextIO) -> None:
        super().__init__()
        self._sink = sink
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._left_out = 0
        self._thread = threading.Thread(target=self._write, name="log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Take one record. It becomes text here, in the thread that knows which job it is about."""
        if self._lines.qsize() >= MOST_LINES:
            self._left_out += 1
            return
        try:
            self._lines.put(self.format(record))
        except Exception:
            self.handleError(record)

    def close(self) -> None:
        """Write what waits and end the thread. Called when the interpreter ends."""
        self._lines.put(None)
        self._thread.join(LAST_WORDS_S)
        super().close()

    def _write(self) -> None:
        while (line := self._lines.get()) is not None:
            left_out, self._left_out = self._left_out, 0
            if left_out:
                said = {"level": "warning", "logger": __name__, "message": f"{left_out} lines were left out"}
                line = f"{json.dumps(said)}\n{line}"
            with suppress(OSError):  # a full disk, a reader that left: there is nobody to tell
                self._sink.write(line + "\n")
                if self._lines.empty():
                    self._sink.flush()


def configure(level: str, *, behind: bool = False) -> None:
    """Send every log line of this process to standard error as JSON; `behind`: by a thread of its own."""
    handler = Behind(sys.stderr) if behind else logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.captureWarnings(True)
