"""Runs the migrations on the connection that worker.ledger.database hands over, inside its transaction."""

from alembic import context

from worker.ledger.schema import metadata

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=metadata,
    transactional_ddl=True,
    render_as_batch=connection.dialect.name == "sqlite",
)
context.run_migrations()
