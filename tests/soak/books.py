"""What the service's own databases say, read from outside while it runs or after it has ended."""

import contextlib
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Row, create_engine, text

_UNFINISHED = """
    SELECT (SELECT count(*) FROM series WHERE state IN ('receiving', 'analysing')
                                           OR newest_instance_id > evaluated_up_to)
         + (SELECT count(*) FROM result WHERE concluded_at IS NULL)
         + (SELECT count(*) FROM report WHERE state = 'pending')
         + (SELECT count(*) FROM alert WHERE state = 'pending')
"""


@dataclass(frozen=True, slots=True)
class Books:
    """The database behind a URL and the workflow engine's beside it."""

    database_url: str

    def rows(self, query: str, **values: object) -> list[Row[Any]]:
        """The rows of a query on the service's own database."""
        return self._ask(self.database_url, query, values)

    def count(self, query: str, **values: object) -> int:
        """The number that a query answers."""
        return int(self.rows(query, **values)[0][0])

    def unfinished(self) -> int:
        """How many series, results, reports and first pages are still on their way."""
        return self.count(_UNFINISHED)

    def pending_workflows(self) -> list[str]:
        """The IDs of workflows that have not ended."""
        table = "workflow_status" if self._is_sqlite else "dbos.workflow_status"
        query = f"SELECT workflow_uuid FROM {table} WHERE status IN ('PENDING', 'ENQUEUED', 'DELAYED')"
        return [row[0] for row in self._ask(self._engine_url, query, {})]

    def damage(self) -> list[str]:
        """What SQLite finds broken in either file, once the service has ended."""
        if not self._is_sqlite:
            return []
        return [
            f"{url}: {row[0]}"
            for url in (self.database_url, self._engine_url)
            for row in self._ask(url, "PRAGMA integrity_check", {})
            if row[0] != "ok"
        ]

    @property
    def _is_sqlite(self) -> bool:
        return self.database_url.startswith("sqlite")

    @property
    def _engine_url(self) -> str:
        return self.database_url.removesuffix(".db") + ".engine.db" if self._is_sqlite else self.database_url

    @staticmethod
    def _ask(url: str, query: str, values: dict[str, object]) -> list[Row[Any]]:
        engine = create_engine(url, connect_args={"timeout": 30} if url.startswith("sqlite") else {})
        try:
            with engine.connect() as connection:
                return list(connection.execute(text(query), values))
        finally:
            engine.dispose()


def lost_instances(books: Books, inbox: Path, acknowledged: set[str]) -> Iterator[str]:
    """Every instance that was answered with success and is not there, whole, under its hash."""
    kept = {
        row.sop_instance_uid: row
        for row in books.rows(
            "SELECT sop_instance_uid, sha256, freed_at FROM instance JOIN series ON series.id = series_id"
        )
    }
    for uid in acknowledged - kept.keys():
        yield f"{uid}: acknowledged and not registered"
    for uid in acknowledged & kept.keys():
        row = kept[uid]
        content = b""
        with contextlib.suppress(FileNotFoundError):
            content = (inbox / row.sha256[:2] / f"{row.sha256}.dcm").read_bytes()
        if row.freed_at is None and hashlib.sha256(content).hexdigest() != row.sha256:
            yield f"{uid}: acknowledged and its bytes are not in the inbox"
