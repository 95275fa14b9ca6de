"""Lines of waiting jobs by owner and model, what each is expected to cost, and every owner's account of device time.

The new columns have defaults of the database: an API of the version before may go on writing.
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("jobs") as jobs:
        jobs.add_column(sa.Column("line", sa.String(length=210), nullable=False, server_default="|"))
        jobs.add_column(sa.Column("expected_s", sa.Float(), nullable=False, server_default="60"))
        jobs.add_column(sa.Column("memory_bytes", sa.BigInteger(), nullable=False, server_default="0"))
        jobs.create_index("ix_jobs_waiting", ["state", "queue", "line", "rank_at", "id"])
    op.execute(sa.text("update jobs set line = owner || '|'"))
    op.create_table(
        "accounts",
        sa.Column("owner", sa.String(length=64), nullable=False),
        sa.Column("start_s", sa.Float(), nullable=False),
        sa.Column("finish_s", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("owner", name=op.f("pk_accounts")),
    )
    op.create_index("ix_accounts_start_s", "accounts", ["start_s"])


def downgrade() -> None:
    op.drop_table("accounts")
    with op.batch_alter_table("jobs") as jobs:
        jobs.drop_index("ix_jobs_waiting")
        jobs.drop_column("memory_bytes")
        jobs.drop_column("expected_s")
        jobs.drop_column("line")
