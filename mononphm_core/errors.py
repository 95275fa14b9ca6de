"""The family of failures. The core raises them, the worker makes them public failures, the service problems.

MonoNPHMError
+ InputError        the clip is the reason; never retried
|   + UnsupportedMedia    the bytes are no image or video that we read
|   + UnreadableMedia     a known container, but nothing usable could be decoded from it
|   + MediaTooLarge       more pixels, frames, seconds or bytes than the limits allow
|   + MediaTooSmall       too few pixels for a face to be measured
|   + NoFaceFound         decoded well, but no face in any frame
+ ConfigError       an option is unknown or out of range
+ AssetError        weights or template missing or altered
|   + WeightsNotFound
|   + ChecksumMismatch
+ SolveError        the mathematics has no answer
|   + Diverged            a loss term became infinite or not a number
|   + NoSurface           the field has no zero set in the box
+ ResourceError     memory, time or disk ran out; may be retried
    + OutOfDeviceMemory
    + TimeBudgetExceeded
    + DecoderLimitExceeded
    + OutOfDiskSpace
"""


class MonoNPHMError(Exception):
    """Root of the family. `code` is public and stable; `retryable` says whether the same job may be tried again."""

    code: str = "internal_error"
    retryable: bool = False


class InputError(MonoNPHMError):
    """The clip or image is the reason: another try with the same input gives the same answer."""

    code = "invalid_input"


class UnsupportedMedia(InputError):
    """The content (never the name) is no image or video container of our list."""

    code = "unsupported_media"


class UnreadableMedia(InputError):
    """A container that we know, but no frame, or no video stream, could be decoded."""

    code = "unreadable_media"


class MediaTooLarge(InputError):
    """Declared or counted pixels, frames, seconds or bytes exceed the limits in force."""

    code = "media_too_large"


class MediaTooSmall(InputError):
    """The image is smaller than a face can be measured in, or a sliver."""

    code = "media_too_small"


class NoFaceFound(InputError):
    """Every frame was decoded and searched, and none shows a face."""

    code = "no_face"


class ConfigError(MonoNPHMError):
    """An option is unknown, of the wrong type or out of its range."""

    code = "invalid_options"


class AssetError(MonoNPHMError):
    """Weights or a template are missing or are not what their checksum says."""

    code = "asset_error"


class WeightsNotFound(AssetError):
    """No model of that name or path is registered on this machine."""

    code = "model_not_found"


class ChecksumMismatch(AssetError):
    """A weight file's bytes differ from the registered sha256."""

    code = "model_corrupt"


class SolveError(MonoNPHMError):
    """The optimisation or the extraction has no answer for this input."""

    code = "solve_failed"


class Diverged(SolveError):
    """A loss term became infinite or not a number at some step."""

    code = "diverged"

    def __init__(self, step: int, term: str) -> None:
        super().__init__(f"the {term} term became non-finite at step {step}")
        self.step = step
        self.term = term


class NoSurface(SolveError):
    """The field does not change sign anywhere in the reconstruction box."""

    code = "no_surface"


class ResourceError(MonoNPHMError):
    """Memory, time or disk ran out. The same job may be retried with a smaller budget or on another machine."""

    code = "resource_exhausted"
    retryable = True


class OutOfDeviceMemory(ResourceError):
    """The compute device could not allocate."""

    code = "out_of_memory"


class TimeBudgetExceeded(ResourceError):
    """The stage did not end within its time budget."""

    code = "time_budget_exceeded"


class DecoderLimitExceeded(ResourceError):
    """The limited decoder process ran into its memory or processor-time limit; the input is the likely reason."""

    code = "decoder_limit"
    retryable = False


class OutOfDiskSpace(ResourceError):
    """The workspace's disk is full."""

    code = "out_of_disk"
