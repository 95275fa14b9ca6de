"""Alembic migrations of the state of record; they travel inside the package, so any installation can upgrade."""
