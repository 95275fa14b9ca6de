"""Jobs that are parts of others."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("jobs") as jobs:
        jobs.add_column(sa.Column("whole_id", sa.String(length=64), nullable=True))
        jobs.add_column(sa.Column("part_round", sa.Integer(), nullable=True))
        jobs.add_column(sa.Column("part_number", sa.Integer(), nullable=True))
        jobs.add_column(sa.Column("part", sa.JSON(), nullable=True))
        jobs.create_index("ix_jobs_whole_id", ["whole_id"])


def downgrade() -> None:
    """Parts are jobs like any other and stay as such: an older program cancels or expires them."""
    with op.batch_alter_table("jobs") as jobs:
        jobs.drop_index("ix_jobs_whole_id")
        for name in ("part", "part_number", "part_round", "whole_id"):
            jobs.drop_column(name)
