"""A service that kills itself at a chosen point, without a hook in the product.

Run as `python -m tests.soak.killed_at`, it imports the service once and then makes a process of it for every
line of JSON it reads, by fork: the imports are nearly all of a start's time, and a soak needs hundreds of
starts. The process that is killed is a whole service of its own; nothing of its memory reaches the next one.
"""

import functools
import importlib
import inspect
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

When: TypeAlias = Literal["before", "commit", "after"]


@dataclass(frozen=True, slots=True)
class Point:
    """A place in the service's code.

    target: `module:name`, as the caller looks it up.
    when: before the call; within it, right before its transaction is committed; after it, before the caller
        has done anything with the answer.
    passage: on which passage it kills in the first round of a soak.
    """

    target: str
    when: When
    passage: int = 1

    def __str__(self) -> str:
        return f"{self.target.removeprefix('triage.')} {self.when}"


_STORE = "triage.edges.store:Store"
_ENGINE = "triage.edges.engine:Engine"
_RECORDS = "dbos._sys_db:SystemDatabase"

START_POINTS = (
    Point(f"{_STORE}.open", "after"),
    Point("triage.service:open_inbox", "after"),
    Point(f"{_ENGINE}.launch", "before"),
    Point(f"{_ENGINE}.launch", "after"),
    Point("triage.service:resume", "before"),
    Point("triage.service:resume", "after"),
    Point(f"{_RECORDS}.reenqueue_for_recovery", "before"),
    Point(f"{_RECORDS}.reenqueue_for_recovery", "after"),
    Point("triage.flow.watch:Watch.start", "after"),
)
"""Passed at a start that finds something unfinished."""

STUDY_POINTS = (
    Point("triage.edges.disk:os.fsync", "before", 5),
    Point("pathlib:Path.replace", "before", 3),
    Point("pathlib:Path.replace", "after", 4),
    Point("triage.edges.inbox:Inbox.keep", "after", 2),
    Point(f"{_STORE}.register", "before"),
    Point(f"{_STORE}.register", "commit"),
    Point(f"{_STORE}.register", "commit", 7),
    Point(f"{_STORE}.register", "after"),
    Point(f"{_STORE}.register", "after", 9),
    Point("triage.flow.gather:Gatherer.notice", "before", 3),
    Point("triage.flow.gather:Gatherer.notice", "after", 5),
    Point("triage.service:receive", "after", 6),
    Point(f"{_ENGINE}.start", "before"),
    Point(f"{_ENGINE}.start", "after"),
    Point("triage.flow.gather:judge_completeness", "after", 2),
    Point(f"{_STORE}.begin_assessment", "before"),
    Point(f"{_STORE}.begin_assessment", "commit"),
    Point(f"{_STORE}.begin_assessment", "after"),
    Point("triage.flow.analyse:judge", "before"),
    Point("triage.flow.analyse:judge", "after"),
    Point("triage.edges.volumes:Shelf.put", "after"),
    Point("triage.flow.analyse:_build_report", "after"),
    Point(f"{_STORE}.conclude", "before"),
    Point(f"{_STORE}.conclude", "commit"),
    Point(f"{_STORE}.conclude", "after"),
    Point(f"{_ENGINE}.start_child", "before"),
    Point(f"{_ENGINE}.start_child", "after"),
    Point("triage.edges.dimse:send", "before"),
    Point("triage.edges.dimse:send", "after"),
    Point(f"{_STORE}.report_stored", "commit"),
    Point(f"{_STORE}.report_stored", "after"),
    Point("triage.flow.alert:is_acknowledged", "after", 2),
    Point("triage.flow.alert:call", "before"),
    Point("triage.flow.alert:call", "after"),
    Point("triage.flow.alert:call", "after", 2),
    Point(f"{_STORE}.paged", "commit", 2),
    Point(f"{_STORE}.paged", "after", 2),
    Point(f"{_STORE}.acknowledge", "before"),
    Point(f"{_STORE}.acknowledge", "commit"),
    Point(f"{_STORE}.acknowledge", "after"),
    Point(f"{_ENGINE}.tell", "before"),
    Point(f"{_ENGINE}.tell", "after"),
    Point(f"{_RECORDS}.init_workflow", "before"),
    Point(f"{_RECORDS}.init_workflow", "after"),
    Point(f"{_RECORDS}.record_operation_result", "before", 2),
    Point(f"{_RECORDS}.record_operation_result", "after", 2),
    Point(f"{_RECORDS}.update_workflow_outcome", "before"),
    Point(f"{_RECORDS}.update_workflow_outcome", "after", 2),
    Point(f"{_RECORDS}.recv_consume", "before"),
    Point(f"{_RECORDS}.recv_consume", "after"),
)
"""Passed by every urgent study on its way to an acknowledged page."""

TROUBLE_POINTS = (
    Point(f"{_STORE}.report_not_stored", "commit"),
    Point(f"{_STORE}.report_not_stored", "after"),
    Point(f"{_RECORDS}.record_sleep", "after", 2),
    Point("triage.flow.alert:notify_technologist", "before"),
    Point("triage.flow.alert:notify_technologist", "after"),
)
"""Passed where the PACS says "later", or a series cannot be judged."""

FREE_POINTS = (
    Point("triage.edges.inbox:Inbox.remove", "before"),
    Point("triage.edges.inbox:Inbox.remove", "after", 5),
    Point("triage.edges.volumes:Shelf.remove", "after"),
    Point(f"{_STORE}.freed", "before"),
    Point(f"{_STORE}.freed", "commit"),
    Point(f"{_STORE}.freed", "after"),
)
"""Passed where the images of finished series are deleted."""

_transaction = threading.local()


def arm(point: Point, passage: int) -> None:
    """From now on the process kills itself when it passes the point for the `passage`-th time."""
    module, _, path = point.target.partition(":")
    owner: Any = importlib.import_module(module)
    *owners, name = path.split(".")
    for each in owners:
        owner = getattr(owner, each)
    raw = inspect.getattr_static(owner, name)
    function = raw.__func__ if isinstance(raw, classmethod) else raw
    wrapped = _wrap(function, _Fuse(point, passage))
    setattr(owner, name, classmethod(wrapped) if isinstance(raw, classmethod) else wrapped)


class _Fuse:
    """Counts passages and kills on the last one."""

    def __init__(self, point: Point, passage: int) -> None:
        self._point, self._left, self._lock = point, passage, threading.Lock()
        if point.when == "commit":
            from sqlalchemy import Engine, event

            event.listen(Engine, "commit", lambda _: self._pass_if(getattr(_transaction, "is_ours", False)))

    def before(self) -> None:
        self._pass_if(self._point.when == "before")
        _transaction.is_ours = True

    def after(self) -> None:
        self.left()
        self._pass_if(self._point.when == "after")

    def left(self) -> None:
        _transaction.is_ours = False

    def _pass_if(self, is_here: bool) -> None:
        if not is_here:
            return
        with self._lock:
            self._left -= 1
            if self._left == 0:
                os.write(2, f"killed_at {self._point}\n".encode())
                os.kill(os.getpid(), signal.SIGKILL)


def _wrap(function: Callable[..., Any], fuse: _Fuse) -> Callable[..., Any]:
    async def coroutine(*arguments: Any, **named: Any) -> Any:
        fuse.before()
        answer = await function(*arguments, **named)
        fuse.after()
        return answer

    def generator(*arguments: Any, **named: Any) -> Iterator[Any]:
        fuse.before()
        for answer in function(*arguments, **named):
            fuse.after()
            yield answer

    def plain(*arguments: Any, **named: Any) -> Any:
        fuse.before()
        try:
            answer = function(*arguments, **named)
        except BaseException:
            fuse.left()
            raise
        fuse.after()
        return answer

    wrapped: Callable[..., Any] = plain
    if inspect.iscoroutinefunction(function):
        wrapped = coroutine
    elif inspect.isgeneratorfunction(function):
        wrapped = generator
    return functools.wraps(function)(wrapped)


def main() -> None:
    """Make a service of every request, and say its process ID; say how one ended that is asked for."""
    _load_once()
    for line in sys.stdin:
        request = json.loads(line)
        if "reap" in request:
            _, status = os.waitpid(request["reap"], 0)
            answer = os.waitstatus_to_exitcode(status)
        else:
            answer = os.fork() or _serve(request)
        print(answer, flush=True)


def _load_once() -> None:
    """Whatever a service loads at its start or with its first study, before there is one."""
    import apprise
    from highdicom._standard_utils import is_attribute_in_iod
    from pydicom.uid import Comprehensive3DSRStorage

    import triage.cli
    import triage.edges.telemetry
    import triage.service  # noqa: F401

    is_attribute_in_iod("PatientName", Comprehensive3DSRStorage)
    apprise.Apprise().add("json://127.0.0.1")


def _serve(request: dict[str, Any]) -> int:
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(Path(request["log"]).parent)
    status = 1
    try:
        import triage.flow.watch
        from triage.cli import main as triage_main

        # Freeing has ten minutes between its rounds; a soak has less in all.
        triage.flow.watch._FREE_EVERY_S = 0.2
        if request["point"] is not None:
            arm(Point(*request["point"]), request["passage"])
        status = triage_main(["serve"])
    finally:
        os._exit(status)


if __name__ == "__main__":
    main()
