"""The tables of the state of record, as SQLAlchemy Core. Migrations make them; a test holds the two together."""

from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa


class UtcDateTime(sa.types.TypeDecorator[datetime]):
    """A time zone aware UTC time; SQLite, which has no such type, keeps sortable text."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.engine.Dialect) -> datetime | None:
        if value is None:
            return None
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: Any, dialect: sa.engine.Dialect) -> datetime | None:
        if value is None:
            return None
        at: datetime = value
        return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)


metadata = sa.MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)

jobs = sa.Table(
    "jobs",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("kind", sa.String(32), nullable=False),
    sa.Column("owner", sa.String(64), nullable=False),
    sa.Column("queue", sa.String(64), nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("stage", sa.String(16)),
    sa.Column("percent", sa.Float, nullable=False),
    sa.Column("step", sa.Integer, nullable=False),
    sa.Column("total", sa.Integer, nullable=False),
    sa.Column("frames_done", sa.Integer, nullable=False),
    sa.Column("frames_total", sa.Integer, nullable=False),
    sa.Column("input", sa.JSON),
    sa.Column("options", sa.JSON),
    sa.Column("resolved_options", sa.JSON),
    sa.Column("model", sa.JSON),
    sa.Column("warnings", sa.JSON, nullable=False),
    sa.Column("error", sa.JSON),
    sa.Column("retry_of", sa.String(64)),
    sa.Column("retention_s", sa.Float, nullable=False),
    sa.Column("rank_at", UtcDateTime, nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("started_at", UtcDateTime),
    sa.Column("finished_at", UtcDateTime),
    sa.Column("expires_at", UtcDateTime),
    sa.Column("dispatched_at", UtcDateTime),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("previous_failure", sa.String(64)),
    sa.Column("fence", sa.BigInteger, nullable=False),
    sa.Column("worker", sa.String(128)),
    sa.Column("lease_until", UtcDateTime),
    sa.Column("published_fence", sa.BigInteger),
    sa.Column("event_seq", sa.BigInteger, nullable=False),
    sa.Column("deleted_at", UtcDateTime),
    sa.Column("purged_at", UtcDateTime),
    sa.Column("traceparent", sa.String(64)),
    sa.Column("line", sa.String(210), nullable=False, server_default="|"),
    sa.Column("expected_s", sa.Float, nullable=False, server_default="60"),
    sa.Column("memory_bytes", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("whole_id", sa.String(64)),
    sa.Column("part_round", sa.Integer),
    sa.Column("part_number", sa.Integer),
    sa.Column("part", sa.JSON),
    sa.Index("ix_jobs_state_rank_at", "state", "rank_at"),
    sa.Index("ix_jobs_waiting", "state", "queue", "line", "rank_at", "id"),
    sa.Index("ix_jobs_owner_id", "owner", "id"),
    sa.Index("ix_jobs_state_lease_until", "state", "lease_until"),
    sa.Index("ix_jobs_expires_at", "expires_at"),
    sa.Index("ix_jobs_whole_id", "whole_id"),
)

job_labels = sa.Table(
    "job_labels",
    metadata,
    sa.Column("job_id", sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("label", sa.String(128), primary_key=True),
    sa.Index("ix_job_labels_label_job_id", "label", "job_id"),
)

attempts = sa.Table(
    "attempts",
    metadata,
    sa.Column("job_id", sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("fence", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("worker", sa.String(128), nullable=False),
    sa.Column("started_at", UtcDateTime, nullable=False),
    sa.Column("ended_at", UtcDateTime),
    sa.Column("outcome", sa.String(32)),
    sa.Column("failure", sa.JSON),
)

events = sa.Table(
    "events",
    metadata,
    sa.Column("job_id", sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("at", UtcDateTime, nullable=False),
    sa.Column("type", sa.String(16), nullable=False),
    sa.Column("data", sa.JSON, nullable=False),
)

artifacts = sa.Table(
    "artifacts",
    metadata,
    sa.Column("job_id", sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("name", sa.String(255), primary_key=True),
    sa.Column("position", sa.Integer, nullable=False),
    sa.Column("fence", sa.BigInteger, nullable=False),
    sa.Column("role", sa.String(64), nullable=False),
    sa.Column("media_type", sa.String(128), nullable=False),
    sa.Column("bytes", sa.BigInteger, nullable=False),
    sa.Column("sha256", sa.String(64), nullable=False),
)

accounts = sa.Table(
    "accounts",
    metadata,
    sa.Column("owner", sa.String(64), primary_key=True),
    sa.Column("start_s", sa.Float, nullable=False),
    sa.Column("finish_s", sa.Float, nullable=False),
    sa.Index("ix_accounts_start_s", "start_s"),
)

idempotency = sa.Table(
    "idempotency",
    metadata,
    sa.Column("owner", sa.String(64), primary_key=True),
    sa.Column("key", sa.String(255), primary_key=True),
    sa.Column("digest", sa.String(64), nullable=False),
    sa.Column("job_id", sa.ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
)

workers = sa.Table(
    "workers",
    metadata,
    sa.Column("name", sa.String(128), primary_key=True),
    sa.Column("started_at", UtcDateTime, nullable=False),
    sa.Column("last_seen", UtcDateTime, nullable=False),
    sa.Column("model", sa.JSON),
    sa.Column("info", sa.JSON, nullable=False),
)

api_keys = sa.Table(
    "api_keys",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("name", sa.String(128), nullable=False),
    sa.Column("owner", sa.String(64), nullable=False),
    sa.Column("scopes", sa.JSON, nullable=False),
    sa.Column("digest", sa.String(64), nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("expires_at", UtcDateTime),
    sa.Column("revoked_at", UtcDateTime),
    sa.Column("last_used_at", UtcDateTime),
)

uploads = sa.Table(
    "uploads",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("owner", sa.String(64), nullable=False),
    sa.Column("length", sa.BigInteger, nullable=False),
    sa.Column("offset", sa.BigInteger, nullable=False),
    sa.Column("metadata", sa.Text, nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("expires_at", UtcDateTime, nullable=False),
    sa.Column("sha256", sa.String(64)),
    sa.Column("job_id", sa.String(64)),
    sa.Index("ix_uploads_owner", "owner"),
    sa.Index("ix_uploads_expires_at", "expires_at"),
)

outbox = sa.Table(
    "outbox",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("job_id", sa.ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
    sa.Column("owner", sa.String(64), nullable=False),
    sa.Column("url", sa.Text, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("next_at", UtcDateTime),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("outcome", sa.String(16)),
    sa.Column("last_error", sa.String(255)),
    sa.Index("ix_outbox_next_at", "next_at"),
)

webhook_secrets = sa.Table(
    "webhook_secrets",
    metadata,
    sa.Column("owner", sa.String(64), primary_key=True),
    sa.Column("secret", sa.String(128), nullable=False),
    sa.Column("previous", sa.String(128)),
    sa.Column("changed_at", UtcDateTime, nullable=False),
)
