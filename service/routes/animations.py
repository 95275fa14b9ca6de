"""One person's head doing what another one did."""

from fastapi import APIRouter, Response

from service import schemas
from service.access import Who
from service.context import Here
from service.problems import documented
from service.routes.artifacts import require_finished
from service.routes.reconstructions import ACCEPTED, ONE_JOB, WRITES, IdempotencyKey, accepted, checked_key
from service.threads import in_file_thread, in_ledger_thread

router = APIRouter(tags=["reconstructions"])


@router.post(
    "/animations",
    status_code=202,
    response_model=schemas.Job,
    summary="One person's head with another clip's expressions",
    responses={
        **ACCEPTED,
        **documented(
            *WRITES, *ONE_JOB, "malformed_request", "not_finished", "idempotency_conflict", "models_differ",
            "outputs_missing", "invalid_options", "queue_full", "quota_exceeded", "out_of_disk",
        ),
    },
)  # fmt: skip
async def animate(asked: schemas.Animation, here: Here, who: Who, idempotency_key: IdempotencyKey = None) -> Response:
    """A job of the same kind: follow, download and delete it as any other.

    `identity` says whose head it is, `expressions` what it does, how it moves and through which camera. Both have
    succeeded with the same model. What is needed of them is copied: deleting them later changes nothing.
    """
    key = checked_key(idempotency_key)
    await in_ledger_thread(here.jobs.check_room, who.owner)
    identity = await in_ledger_thread(here.jobs.book.get, asked.identity, who.owner)
    expressions = await in_ledger_thread(here.jobs.book.get, asked.expressions, who.owner)
    for job in (identity, expressions):
        require_finished(here, job)
    opened = await in_file_thread(here.jobs.open_animation, identity, expressions, asked.options, key, who.opens_for)
    return await accepted(here, opened.job, replayed=not opened.created)
