"""The durable engine (DBOS Transact): workflows that go on after a crash where they stopped.

A workflow is a coroutine that is replayed from the beginning after a crash; each finished `step`, `sleep`
and `receive` in it answers from its record instead of running again. So everything a workflow does to the
world is a step, and every step must bear to run twice: a crash can fall between its work and its record.
"""

import asyncio
import logging
import sqlite3
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from dbos import DBOS, DBOSConfig, SetWorkflowID, StepOptions
from sqlalchemy import make_url

Answer = TypeVar("Answer")
Workflow = Callable[..., Awaitable[None]]

# Recovery looks for workflows of its own version and executor only: both are fixed, so that an upgrade
# and a restart still find what was in flight.
_APPLICATION_VERSION = "1"
_EXECUTOR = "triage"


class _Interrupted(BaseException):
    """The process stops while a workflow waits.

    DBOS records any Exception, cancellation among them, as the end of the workflow, and would never take
    it up again. What is not an Exception leaves it pending, as a crash does.
    """


class Engine:
    """Workflows by name, started by ID. One a process: DBOS keeps its own global state."""

    def __init__(self, database_url: str) -> None:
        """Prepare the engine; nothing runs before `launch`.

        database_url: where workflow records are kept, SQLite or PostgreSQL.
        """
        _use_write_ahead_log(database_url)
        config: DBOSConfig = {
            "name": "triage",
            "system_database_url": database_url,
            "application_version": _APPLICATION_VERSION,
            "executor_id": _EXECUTOR,
            "log_level": "WARNING",
            "enable_otlp": False,
            "notification_listener_polling_interval_sec": 0.1,
        }
        DBOS(config=config)
        self._workflows: dict[str, Workflow] = {}

    def register(self, name: str, workflow: Workflow) -> None:
        """Make a coroutine function known under a name that must never change: recovery looks it up."""

        async def run(*arguments: int | str) -> None:
            try:
                await workflow(*arguments)
            except asyncio.CancelledError:
                raise _Interrupted from None

        # A study must not be given up because the machine was restarted too often.
        self._workflows[name] = DBOS.workflow(name=name, max_recovery_attempts=None)(run)

    def launch(self) -> None:
        """Start, and take up every workflow that a crash interrupted."""
        DBOS.launch()

    def stop(self) -> None:
        """Stop; unfinished workflows go on at the next launch."""
        # Each workflow that waits is cut short, which DBOS would report as an error of its own.
        logging.getLogger("dbos").setLevel(logging.CRITICAL)
        DBOS.destroy(destroy_registry=True)

    def start(self, name: str, workflow_id: str, *arguments: int | str) -> None:
        """Start a workflow, from anywhere but a workflow. One that exists under this ID goes on as it was."""
        with SetWorkflowID(workflow_id):
            DBOS.start_workflow(self._workflows[name], *arguments)

    async def start_child(self, name: str, workflow_id: str, *arguments: int | str) -> None:
        """Start a workflow from within a workflow."""
        with SetWorkflowID(workflow_id):
            await DBOS.start_workflow_async(self._workflows[name], *arguments)  # type: ignore[arg-type]

    def tell(self, workflow_id: str, topic: str, message: str) -> None:
        """Leave a message for a workflow; it is kept until the workflow asks for it.

        A workflow that has not started yet is not told: it begins with a look at how things are.
        """
        if DBOS.get_workflow_status(workflow_id) is not None:
            DBOS.send(workflow_id, message, topic)


async def step(work: Callable[..., Answer], *arguments: object) -> Answer:
    """The answer of `work`, run in a thread and recorded.

    Work that raises is tried again for about two hours: an exception that gets this far is a disk or a
    database that fails, and it must not end the workflow.
    """
    options: StepOptions = {
        "name": work.__name__,
        "retries_allowed": True,
        "interval_seconds": 0.5,
        "backoff_rate": 2.0,
        "max_attempts": 14,
    }
    return await DBOS.run_step_async(options, work, *arguments)


async def sleep(seconds: float) -> None:
    """Wait; a restart does not begin the wait anew."""
    await DBOS.sleep_async(seconds)


async def receive(topic: str, timeout_s: float) -> str | None:
    """The next message on a topic, or None when none came in time."""
    message: Any = await DBOS.recv_async(topic, timeout_seconds=timeout_s)
    return message if isinstance(message, str) else None


def _use_write_ahead_log(database_url: str) -> None:
    # Kept in the file once set. Without it every reader blocks the writer.
    url = make_url(database_url)
    if url.drivername.startswith("sqlite") and url.database:
        connection = sqlite3.connect(url.database)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.close()
