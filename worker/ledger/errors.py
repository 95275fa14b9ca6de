"""What the state of record answers when it cannot do as asked. How a *job* fails stands in failure.py.

LedgerError
+ JobNotFound           no job of that id (or it belongs to somebody else)
+ JobDeleted            there was one; its bytes are gone, the tombstone stays
+ IllegalTransition     the job's state does not allow that
+ IdempotencyConflict   the same key came with another body
+ InvalidCursor         not a cursor that this ledger gave out
+ LeaseLost             another worker, a delete or a reaper took the job: a stale writer must stop
+ UnsealedArtifact      what the pipeline lists and what lies on the disk differ
+ StorageUnavailable    the object store does not answer, or refuses us
+ StoredBytesDamaged    what the store gives back is not what it was given
+ UploadNotFound        no resumable upload of that id (or it belongs to somebody else)
+ UploadGone            it expired or was terminated
+ UploadLocked          another request is writing it
+ UploadUsed            a job has taken its bytes
Cancelled               not an error: the user's wish, raised out of `on_step`
"""


class LedgerError(Exception):
    """Root of the family."""


class JobNotFound(LedgerError):
    """No job of that id."""

    def __init__(self, job_id: str) -> None:
        super().__init__(f"there is no reconstruction {job_id}")
        self.job_id = job_id


class JobDeleted(LedgerError):
    """The job was deleted: nothing of it but the tombstone is left."""

    def __init__(self, job_id: str) -> None:
        super().__init__(f"reconstruction {job_id} was deleted")
        self.job_id = job_id


class IllegalTransition(LedgerError):
    """The state machine of states.py has no such arrow."""

    def __init__(self, job_id: str, state: str, wanted: str) -> None:
        super().__init__(f"reconstruction {job_id} is {state}, so it cannot become {wanted}")
        self.job_id = job_id
        self.state = state
        self.wanted = wanted


class IdempotencyConflict(LedgerError):
    """The idempotency key was used before, with another input or other options."""

    def __init__(self, key: str, job_id: str) -> None:
        super().__init__("this Idempotency-Key was used before with another body; send a new key for a new job")
        self.key = key
        self.job_id = job_id


class InvalidCursor(LedgerError):
    """The cursor was not made by this ledger."""


class UploadNotFound(LedgerError):
    """No resumable upload of that id."""


class UploadGone(LedgerError):
    """The upload expired or was terminated."""


class UploadLocked(LedgerError):
    """Another request is writing this upload."""


class UploadUsed(LedgerError):
    """A job has taken the upload's bytes."""

    def __init__(self, upload_id: str, job_id: str) -> None:
        super().__init__(f"upload {upload_id} became {job_id}")
        self.job_id = job_id


class LeaseLost(LedgerError):
    """The fence moved on: whoever gets this no longer owns the job and must not write."""

    def __init__(self, job_id: str, fence: int) -> None:
        super().__init__(f"the lease {fence} of {job_id} is no longer valid")
        self.job_id = job_id
        self.fence = fence


class UnsealedArtifact(LedgerError):
    """An artifact is missing, has a name that leaves its folder, or its bytes are not those of its checksum."""


class StorageUnavailable(LedgerError):
    """The object store does not answer, or refuses us; nothing is wrong with the job."""


class StoredBytesDamaged(LedgerError):
    """Bytes that came back, again and again, with another checksum than they were stored under."""


class Cancelled(BaseException):
    """The user wants no result any more. Raised out of `on_step`; no `except Exception` can swallow it."""
