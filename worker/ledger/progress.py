"""From a stage's step to the job's percent: fixed shares, renormalised over the stages that the job has."""

from collections.abc import Iterable

SHARES: dict[str, float] = {
    "decoding": 3.0, "preprocessing": 10.0, "stage1": 40.0, "stage2": 27.0, "meshing": 15.0, "exporting": 5.0,
}  # fmt: skip
"""Percent of a whole job's time by stage, in the order of the road."""


def stages_of(tracking_stages: Iterable[int] | None) -> tuple[str, ...]:
    """The stages a job passes when its options ask for these tracking stages (None: both)."""
    wanted = {1, 2} if tracking_stages is None else set(tracking_stages)
    skipped = {f"stage{number}" for number in (1, 2) if number not in wanted}
    return tuple(name for name in SHARES if name not in skipped)


def overall_percent(stage: str, step: int, total: int, stages: tuple[str, ...] = tuple(SHARES)) -> float:
    """Percent of the whole job, 0..100, when `step` of `total` steps of `stage` are done."""
    if stage not in stages:
        return 0.0
    before = sum(SHARES[name] for name in stages[: stages.index(stage)])
    fraction = min(max(step / total, 0.0), 1.0) if total > 0 else 0.0
    return 100.0 * (before + fraction * SHARES[stage]) / sum(SHARES[name] for name in stages)
