"""Opening the database: engine settings, migrations, transactions."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config as AlembicConfig
from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.orm import Session

MIGRATIONS = Path(__file__).parent / "migrations"


def open_engine(url: str) -> Engine:
    """An engine whose commits are on stable storage when they return, and whose errors name no UID.

    SQLite: write-ahead log with FULL synchronisation, foreign keys on, 30 s of patience for the one
    writer that it allows.
    """
    if not make_url(url).drivername.startswith("sqlite"):
        return create_engine(url, pool_pre_ping=True, hide_parameters=True)
    engine = create_engine(url, connect_args={"timeout": 30}, hide_parameters=True)
    event.listen(engine, "connect", _configure_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def migrate(engine: Engine, revision: str = "head") -> None:
    """Bring the schema up (or down) to a revision."""
    config = AlembicConfig()
    config.set_main_option("script_location", str(MIGRATIONS))
    with engine.execution_options(write=True, migrating=True).begin() as connection:
        config.attributes["connection"] = connection
        if revision == "head":
            command.upgrade(config, revision)
        else:
            command.downgrade(config, revision)
        _check_foreign_keys(connection)
    # The connection that migrated has its foreign keys off.
    engine.dispose()


@contextlib.contextmanager
def reading(engine: Engine) -> Iterator[Session]:
    """One consistent view; rows stay usable after it is closed."""
    with Session(engine, expire_on_commit=False) as session:
        yield session


@contextlib.contextmanager
def writing(engine: Engine) -> Iterator[Session]:
    """One transaction: everything in it becomes true together, or nothing does."""
    with (
        Session(engine.execution_options(write=True), expire_on_commit=False) as session,
        session.begin(),
    ):
        yield session


def _configure_sqlite(connection: Any, _record: Any) -> None:
    # The driver's own BEGIN handling takes the write lock too late; see _begin_sqlite.
    connection.isolation_level = None
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    # A transaction that first reads and then writes fails at once if another wrote in between; taking
    # the write lock at the start makes it wait its turn instead.
    options = connection.get_execution_options()
    write = options.get("write", False)
    if options.get("migrating"):
        # SQLite changes a table by copying and dropping it; rows that point to it must bear that.
        connection.exec_driver_sql("PRAGMA foreign_keys=OFF")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


def _check_foreign_keys(connection: Connection) -> None:
    if connection.dialect.name == "sqlite":
        dangling = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
        if dangling:
            raise RuntimeError(f"a migration left {len(dangling)} rows that point nowhere")
