"""What a failure means to a shell: one exit code and one message that ends with what to do next.

0 done . 2 usage . 3 the input is the reason . 4 model or asset missing . 5 memory, disk or time . 1 anything else
"""

import errno

from mononphm_core import errors

DONE, OTHER, USAGE, INPUT, ASSET, RESOURCE = 0, 1, 2, 3, 4, 5

DEBUG = "mononphm.debug"
"""Key in the root context's `meta`: the user asked for tracebacks."""

EXIT_CODES: dict[type[errors.MonoNPHMError], int] = {
    errors.InputError: INPUT,
    errors.ConfigError: USAGE,
    errors.AssetError: ASSET,
    errors.SolveError: OTHER,
    errors.ResourceError: RESOURCE,
}
"""The branches of the core's family; a class takes the code of its nearest ancestor here."""

NEXT_STEPS: dict[type[errors.MonoNPHMError], str] = {
    errors.WeightsNotFound: "`mononphm models list` shows what is there, `mononphm models add` registers more.",
    errors.ChecksumMismatch: "`mononphm models verify` checks all; remove that model and add it again.",
    errors.SolveError: "Try another part of the clip (start and end), or --quality high.",
    errors.ResourceError: "Try --quality draft or fewer frames (--max-frames), or a machine with more memory and disk.",
}
"""Advice that fits the whole branch. Errors of inputs, options and other files carry their own in the message."""


class RemoteFailure(Exception):
    """A server refused a request, or a job of it failed. `code` is the public code of the failure."""

    def __init__(self, message: str, code: str = "", status: int = 0) -> None:
        super().__init__(message)
        self.code = code
        self.status = status


class ServerUnreachable(RemoteFailure):
    """No HTTP answer came: no server there, or it left."""


def exit_code(error: BaseException) -> int:
    """The exit code of any exception."""
    if isinstance(error, RemoteFailure):
        return _remote_exit_code(error)
    if isinstance(error, errors.MonoNPHMError):
        return _of_class(type(error))
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)):
        return RESOURCE
    return OTHER


def describe(error: BaseException) -> str:
    """What the user reads: what happened, then what to do next. Never a traceback, never empty."""
    if isinstance(error, RemoteFailure):
        return f"Error: {error}"
    if isinstance(error, errors.MonoNPHMError):
        advice = next((text for branch, text in NEXT_STEPS.items() if isinstance(error, branch)), "")
        return "\n".join(filter(None, [f"Error: {_said(error)}", advice]))
    if exit_code(error) == RESOURCE:
        return f"Error: {_said(error)}\n{NEXT_STEPS[errors.ResourceError]}"
    if isinstance(error, OSError):
        return f"Error: {_said(error)}\nCheck the path and its permissions."
    return (
        f"Error: something unexpected happened: {type(error).__name__}: {_said(error)}\n"
        "Run the same command with --debug for the traceback, and `mononphm doctor` to check this machine."
    )


def _said(error: BaseException) -> str:
    first = (error.__doc__ or "").strip().split("\n")[0]
    return str(error).strip() or first or type(error).__name__


def _of_class(kind: type[BaseException]) -> int:
    return next((EXIT_CODES[ancestor] for ancestor in kind.__mro__ if ancestor in EXIT_CODES), OTHER)


def _family(root: type[errors.MonoNPHMError]) -> list[type[errors.MonoNPHMError]]:
    return [root, *(deeper for child in root.__subclasses__() for deeper in _family(child))]


def _remote_exit_code(error: RemoteFailure) -> int:
    """By the public code where the core knows it, else by the HTTP status."""
    for kind in _family(errors.MonoNPHMError):
        if kind.code == error.code and kind is not errors.MonoNPHMError:
            return _of_class(kind)
    if error.status in (413, 415):
        return INPUT
    if error.status in (400, 409, 422, 428):
        return USAGE
    if error.status in (429, 503, 507):
        return RESOURCE
    return OTHER
