"""Alembic's entry: the caller hands over an open connection."""

from alembic import context

from triage.edges.store.tables import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,
    transactional_ddl=False,
)
context.run_migrations()
