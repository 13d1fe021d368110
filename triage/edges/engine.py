"""The durable engine (DBOS Transact): workflows that go on after a crash where they stopped.

A workflow is a coroutine that is replayed from the beginning after a crash; each finished `step`, `sleep`
and `receive` in it answers from its record instead of running again. So everything a workflow does to the
world is a step, and every step must bear to run twice: a crash can fall between its work and its record.
"""

import asyncio
import logging
import math
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from dbos import DBOS, DBOSConfig, SetWorkflowID, StepOptions
from sqlalchemy import make_url

from triage.errors import origin

_log = logging.getLogger(__name__)

Answer = TypeVar("Answer")
Workflow = Callable[..., Awaitable[None]]

# Recovery looks for workflows of its own version and executor only: both are fixed, so that an upgrade
# and a restart still find what was in flight.
_APPLICATION_VERSION = "1"
_EXECUTOR = "triage"
_UNDER_WAY = frozenset({"PENDING", "ENQUEUED", "DELAYED"})


class _Interrupted(BaseException):
    """The workflow cannot go on in this process: it stops, or something failed that should not.

    DBOS records any Exception, cancellation among them, as the end of the workflow, and would never take
    it up again. What is not an Exception leaves it pending, as a crash does.
    """


_TRIES_TO_GO_ON = 3
# The engine takes up interrupted workflows in a thread of its own; only after that is one stranded.
_RECOVERY_TAKES_S = 30.0


@dataclass(slots=True)
class _Interruption:
    """A workflow that stands still since something failed in it."""

    name: str
    arguments: tuple[int | str, ...]
    times: int = 0
    is_due: bool = False


class _StepFailed(Exception):
    """One try of a step failed; another will follow."""


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
            # Its lines carry the text of exceptions, and with it what a peer sent. We log what failed.
            "log_level": "CRITICAL",
            "enable_otlp": False,
        }
        DBOS(config=config)
        self._workflows: dict[str, Workflow] = {}
        self._interrupted: dict[str, _Interruption] = {}
        self._running: Counter[str] = Counter()
        self._recovered_by = math.inf

    def register(self, name: str, workflow: Workflow) -> None:
        """Make a coroutine function known under a name that must never change: recovery looks it up."""

        async def run(*arguments: int | str) -> None:
            workflow_id = DBOS.workflow_id or ""
            self._running[workflow_id] += 1
            try:
                await workflow(*arguments)
                self._interrupted.pop(workflow_id, None)
            except asyncio.CancelledError:
                raise _Interrupted from None
            except Exception as error:  # noqa: BLE001 - a recorded failure would never be taken up again
                _log.error("workflow_interrupted name=%s reason=%s", name, origin(error))
                self._note_interruption(workflow_id, name, arguments)
                raise _Interrupted from None
            finally:
                self._running[workflow_id] -= 1
                if not self._running[workflow_id]:
                    del self._running[workflow_id]

        # A study must not be given up because the machine was restarted too often.
        self._workflows[name] = DBOS.workflow(name=name, max_recovery_attempts=None)(run)

    def launch(self) -> None:
        """Start, and take up every workflow that a crash interrupted."""
        DBOS.launch()
        self._recovered_by = time.monotonic() + _RECOVERY_TAKES_S

    def stop(self) -> None:
        """Stop; unfinished workflows go on at the next launch."""
        DBOS.destroy(destroy_registry=True)

    def start(self, name: str, workflow_id: str, *arguments: int | str) -> None:
        """Start a workflow, from anywhere but a workflow. One that exists under this ID goes on as it was."""
        with SetWorkflowID(workflow_id):
            DBOS.start_workflow(self._workflows[name], *arguments)

    def revive(self, name: str, workflow_id: str, *arguments: int | str) -> None:
        """See to it that a workflow is under way whose work is known to be unfinished.

        One that has ended, or of which nothing is recorded (a lost or restored database), begins anew. One
        that is recorded as running, and is not, goes on: whatever kept the engine from taking it up.
        """
        status = DBOS.get_workflow_status(workflow_id)
        if status is not None and status.status in _UNDER_WAY:
            if self._is_stranded(workflow_id, status.status):
                _log.warning("workflow_stranded name=%s", name)
                DBOS.resume_workflow(workflow_id)
            return
        if status is not None:
            DBOS.delete_workflow(workflow_id)
        _log.warning("workflow_revived name=%s", name)
        self.start(name, workflow_id, *arguments)

    def knows(self, workflow_id: str) -> bool:
        """Whether anything is recorded of a workflow."""
        return DBOS.get_workflow_status(workflow_id) is not None

    def take_up_interrupted(self) -> None:
        """Let every workflow go on that something interrupted in this process: a database that failed.

        One that cannot go on where it was, because its record does not fit the code, begins anew.
        """
        for workflow_id, interruption in list(self._interrupted.items()):
            if not interruption.is_due:
                continue
            interruption.is_due = False
            try:
                self._take_up(workflow_id, interruption)
            except BaseException:
                interruption.is_due = True
                raise
            _log.warning("workflow_taken_up name=%s times=%d", interruption.name, interruption.times)

    def _take_up(self, workflow_id: str, interruption: _Interruption) -> None:
        if interruption.times <= _TRIES_TO_GO_ON:
            DBOS.resume_workflow(workflow_id)
        else:
            DBOS.delete_workflow(workflow_id)
            self.start(interruption.name, workflow_id, *interruption.arguments)

    def _note_interruption(self, workflow_id: str, name: str, arguments: tuple[int | str, ...]) -> None:
        known = self._interrupted.setdefault(workflow_id, _Interruption(name, arguments))
        known.times, known.is_due = known.times + 1, True

    def _is_stranded(self, workflow_id: str, status: str) -> bool:
        interruption = self._interrupted.get(workflow_id)
        is_known = bool(self._running[workflow_id]) or (interruption is not None and interruption.is_due)
        return status == "PENDING" and not is_known and time.monotonic() > self._recovered_by

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

    Work that raises is tried again every two seconds for as long as it takes: an exception that gets this
    far is a disk or a database that fails, and nobody may be forgotten because it failed for a night.
    """

    def attempt() -> Answer:
        try:
            return work(*arguments)
        except Exception as error:  # noqa: BLE001 - raised anew below
            reason = origin(error)
        _log.error("step_failed step=%s reason=%s", work.__name__, reason)
        # A new one, outside the handler: every try's exception is kept until the step succeeds, and the
        # first one holds all that the work had in hand.
        raise _StepFailed(reason)

    options: StepOptions = {
        "name": work.__name__,
        "retries_allowed": True,
        "interval_seconds": 2.0,
        "backoff_rate": 1.0,
        "max_attempts": sys.maxsize,
    }
    return await DBOS.run_step_async(options, attempt)


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
