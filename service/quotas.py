"""How much one owner may have at once. What is over is refused with 429 and a time to come back, never lost."""

from dataclasses import dataclass

from service.problems import Problem, retry_after
from service.settings import ServiceSettings
from worker import ledger

FULL_STORE_S = 3600.0
"""When to ask again once the space is used up: something has to expire or be deleted first."""


@dataclass(frozen=True)
class Quota:
    """One bound and how much of it is used; `limit` None: none."""

    limit: int | None
    used: int

    @property
    def is_reached(self) -> bool:
        return self.limit is not None and self.used >= self.limit


@dataclass(frozen=True)
class Quotas:
    """What is in force for one owner now."""

    active_jobs: Quota
    stored_bytes: Quota


def quotas_of(book: ledger.Ledger, settings: ServiceSettings, owner: str | None) -> Quotas:
    """Bounds and use of an owner; without keys there is one owner and no bound. Blocks."""
    is_bound = owner is not None
    counts = book.counts(owner)
    return Quotas(
        Quota(settings.max_active_jobs_per_owner if is_bound else None, counts.queued + counts.running),
        Quota(settings.max_stored_bytes_per_owner if is_bound else None, book.stored_bytes(owner)),
    )


def require_room(quotas: Quotas, seconds_per_job: float) -> None:
    """Raise the 429 of an owner who has as much as is allowed."""
    if quotas.active_jobs.is_reached:
        raise Problem(
            "quota_exceeded",
            f"{quotas.active_jobs.used} of your jobs wait or run, as many as one owner may have. Wait for one to end.",
            headers=retry_after(seconds_per_job), quota="active_jobs",
        )  # fmt: skip
    if quotas.stored_bytes.is_reached:
        raise Problem(
            "quota_exceeded",
            f"Your jobs hold {quotas.stored_bytes.used} bytes, as many as one owner may have. Delete some of them.",
            headers=retry_after(FULL_STORE_S), quota="stored_bytes",
        )  # fmt: skip
