"""What the public hears when a job fails: the total map from the core's family of errors, and from everything else.

An error that the core does not know becomes `internal_error` with an incident id; paths and traces stay in the log.
"""

import errno
import logging
import re
from dataclasses import asdict, dataclass
from typing import Any

from mononphm_core import errors as core
from worker.ledger.ids import new_id

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Failure:
    """The public side of a failure. `code` is stable; `detail` says what happened and what to do next."""

    code: str
    title: str
    detail: str
    stage: str | None
    retryable: bool

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Failure":
        return cls(**{name: value[name] for name in ("code", "title", "detail", "stage", "retryable")})


@dataclass(frozen=True)
class Description:
    """Title of a class of failures, and what the user can do about it."""

    title: str
    advice: str


DESCRIPTIONS: dict[type[core.MonoNPHMError], Description] = {
    core.MonoNPHMError: Description("Reconstruction failed", "Try again; if it happens again, tell the operator."),
    core.InputError: Description("The input cannot be used", "Send another clip or image."),
    core.UnsupportedMedia: Description(
        "Unsupported media", "Send a video (MP4, MOV, WebM, MKV, AVI) or an image (JPEG, PNG, WebP)."
    ),
    core.UnreadableMedia: Description(
        "Unreadable media", "Re-encode the file, for example as H.264 MP4, and send it again."
    ),
    core.MediaTooLarge: Description(
        "Media too large", "Cut or scale the clip below the limits that GET /limits shows."
    ),
    core.MediaTooSmall: Description("Media too small", "Send a picture in which the face is larger."),
    core.NoFaceFound: Description("No face found", "Send a clip in which one face is large, lit and not covered."),
    core.ConfigError: Description("Invalid options", "Correct the options and submit again."),
    core.AssetError: Description("A model file is unusable", "The operator can run `mononphm doctor`."),
    core.WeightsNotFound: Description("Model not found", "Choose a model that GET /models lists."),
    core.ChecksumMismatch: Description("Model file altered", "The operator can run `mononphm models verify`."),
    core.SolveError: Description("No solution found", "Try another clip, more light, or another quality."),
    core.Diverged: Description("The optimisation diverged", "Try another seed or quality."),
    core.NoSurface: Description("No surface found", "Try another clip or another seed."),
    core.ResourceError: Description("Resources exhausted", "Retry later, or with a smaller quality or fewer frames."),
    core.OutOfDeviceMemory: Description(
        "Out of memory", "Retry with a smaller quality, mesh resolution or fewer frames."
    ),
    core.TimeBudgetExceeded: Description("Time budget exceeded", "Retry with a smaller quality or fewer frames."),
    core.DecoderLimitExceeded: Description(
        "Decoder limit exceeded", "Re-encode the clip at a smaller size and send it again."
    ),
    core.OutOfDiskSpace: Description("Out of disk space", "Retry later; the operator has to free disk space."),
}
"""Total: a test compares it with the family tree of mononphm_core.errors."""

_PATH = re.compile(r"(?<![\w/])/(?:[^\s/:'\"]+/)+([^\s/:'\"]*)")


def failure_of(error: BaseException, stage: str | None = None) -> Failure:
    """The public failure of any exception; logs the whole truth of those nobody foresaw."""
    error = _translated(error)
    if not isinstance(error, core.MonoNPHMError):
        return internal_failure(error, stage)
    described = next(DESCRIPTIONS[kind] for kind in type(error).__mro__ if kind in DESCRIPTIONS)
    message = _without_paths(str(error)).rstrip()
    if message.partition(" ")[0].isalpha():  # a word, not the name of a file
        message = message[0].upper() + message[1:]
    if message and not message.endswith((".", "!", "?", "…")):
        message += "."
    detail = f"{message} {described.advice}".strip()
    return Failure(error.code, described.title, detail, stage, error.retryable)


def internal_failure(error: BaseException, stage: str | None = None) -> Failure:
    """The failure nobody foresaw: an incident id for the user, everything else for the log."""
    incident = new_id("inc")
    log.error("incident %s: %s", incident, type(error).__name__, exc_info=error, extra={"incident": incident})
    detail = f"Something unforeseen happened. Retry; if it happens again, tell the operator the incident {incident}."
    return Failure("internal_error", "Internal error", detail, stage, True)


def worker_lost(
    attempts: int, stage: str | None = None, reason: str = "the worker process ended unexpectedly"
) -> Failure:
    """The failure of a poison job: its workers die and nothing more is known."""
    detail = (
        f"Too many crashes: in each of {attempts} attempts {reason}. The input may be the reason; try a smaller "
        "quality or another encoding, or tell the operator."
    )
    return Failure("worker_lost", "Worker lost", detail, stage, True)


def stalled(seconds: float, stage: str | None = None) -> Failure:
    """The failure of an attempt that showed no progress for longer than the watchdog waits."""
    detail = f"No progress for {seconds:.0f} seconds. Retry, or try a smaller quality or fewer frames."
    return Failure("no_progress", "No progress", detail, stage, True)


def storage_unavailable(stage: str | None = None) -> Failure:
    """The failure of an attempt whose artifacts could not be stored: the store did not answer for too long."""
    detail = "The object store does not answer, so the result could not be kept. Retry later, or tell the operator."
    return Failure("storage_unavailable", "Object store unavailable", detail, stage, True)


def _translated(error: BaseException) -> BaseException:
    """The core's own word for what Python and torch say in theirs."""
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return core.OutOfDiskSpace("the disk is full")
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return core.OutOfDeviceMemory("memory ran out")
    return error


def _without_paths(text: str) -> str:
    """Absolute paths reduced to their last name: where a server keeps its files is nobody's business."""
    return _PATH.sub(r"\1", text)
