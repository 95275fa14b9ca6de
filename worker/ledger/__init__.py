"""The state of record: orders, leases, events, artifacts. No torch, no Celery; the service's one door into worker/."""

from worker.ledger import tracing
from worker.ledger.errors import (
    Cancelled,
    IdempotencyConflict,
    IllegalTransition,
    InvalidCursor,
    JobDeleted,
    JobNotFound,
    LeaseLost,
    LedgerError,
    StorageUnavailable,
    StoredBytesDamaged,
    UnsealedArtifact,
    UploadGone,
    UploadLocked,
    UploadNotFound,
    UploadUsed,
)
from worker.ledger.failure import Failure, failure_of
from worker.ledger.ids import new_id, new_job_id
from worker.ledger.keys import SCOPES, Key, Keys, Scope
from worker.ledger.lease import Lease
from worker.ledger.ledger import RECONSTRUCT, Ledger, request_digest
from worker.ledger.options import ReconstructionOptions
from worker.ledger.order import Order
from worker.ledger.outbox import Backlog, Delivery, Message, Outbox
from worker.ledger.records import Artifact, Counts, Deletion, Event, InputFacts, Job, Page, WorkerSeen
from worker.ledger.states import ACTIVE, TERMINAL, TRANSITIONS, State
from worker.ledger.storage import Bytes, LocalStorage, Removed, Storage, sha256_of
from worker.ledger.uploads import Resumable, Uploads

__all__ = [
    "ACTIVE",
    "RECONSTRUCT",
    "SCOPES",
    "TERMINAL",
    "TRANSITIONS",
    "Artifact",
    "Backlog",
    "Bytes",
    "Cancelled",
    "Counts",
    "Deletion",
    "Delivery",
    "Event",
    "Failure",
    "IdempotencyConflict",
    "IllegalTransition",
    "InputFacts",
    "InvalidCursor",
    "Job",
    "JobDeleted",
    "JobNotFound",
    "Key",
    "Keys",
    "Lease",
    "LeaseLost",
    "Ledger",
    "LedgerError",
    "LocalStorage",
    "Message",
    "Order",
    "Outbox",
    "Page",
    "ReconstructionOptions",
    "Removed",
    "Resumable",
    "Scope",
    "State",
    "Storage",
    "StorageUnavailable",
    "StoredBytesDamaged",
    "UnsealedArtifact",
    "UploadGone",
    "UploadLocked",
    "UploadNotFound",
    "UploadUsed",
    "Uploads",
    "WorkerSeen",
    "failure_of",
    "new_id",
    "new_job_id",
    "request_digest",
    "sha256_of",
    "tracing",
]
