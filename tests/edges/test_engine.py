"""A workflow goes on: after an exception, and where nobody took it up."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from dbos import DBOS

from tests.conftest import until
from triage.edges import engine as engine_module
from triage.edges.engine import Engine, Workflow, receive, step

Open = Callable[..., Engine]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Open]:
    """An engine that runs, with these workflows; opened again, the one before it is stopped."""
    running: list[Engine] = []

    def stop() -> None:
        while running:
            running.pop().stop()

    def run(**workflows: Workflow) -> Engine:
        stop()
        engine = Engine(f"sqlite:///{tmp_path}/engine.db")
        for name, workflow in workflows.items():
            engine.register(name, workflow)
        engine.launch()
        running.append(engine)
        return engine

    yield run
    stop()


def test_a_workflow_that_failed_goes_on_where_it_was(opened: Open) -> None:
    steps: list[str] = []
    failures = [OSError("the disk"), OSError("still")]

    async def work(_: int) -> None:
        await step(steps.append, "first")
        if failures:
            raise failures.pop()
        await step(steps.append, "second")

    engine = opened(work=work)
    engine.start("work", "w-1", 1)

    def is_done() -> bool:
        engine.take_up_interrupted()
        return steps == ["first", "second"]

    until(is_done, what="both steps, each once")


def test_a_workflow_that_keeps_failing_begins_anew(opened: Open) -> None:
    steps: list[str] = []
    failures = [OSError("the record")] * 4

    async def work(_: int) -> None:
        await step(steps.append, "first")
        if failures:
            raise failures.pop()
        await step(steps.append, "second")

    engine = opened(work=work)
    engine.start("work", "w-1", 1)

    def is_done() -> bool:
        engine.take_up_interrupted()
        return steps == ["first", "first", "second"]

    until(is_done, what="a new beginning")


def test_a_workflow_that_nobody_took_up_at_the_start_is_found(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "_RECOVERY_TAKES_S", 0.0)
    heard: list[str | None] = []

    begun: list[int] = []

    async def work(_: int) -> None:
        await step(begun.append, 1)
        heard.append(await receive("news", 60))

    opened(work=work).start("work", "w-1", 1)
    until(lambda: begun, what="its start")
    # The engine of this start does not know the workflow, so its recovery fails.
    engine = opened()
    until(lambda: status_of("w-1") == "ENQUEUED", what="the recovery to begin")
    until(lambda: status_of("w-1") == "PENDING", what="the recovery to fail")
    engine.register("work", work)
    engine.tell("w-1", "news", "hello")

    def is_heard() -> bool:
        engine.revive("work", "w-1", 1)
        return heard == ["hello"]

    until(is_heard, what="the workflow to go on")


def status_of(workflow_id: str) -> str:
    status = DBOS.get_workflow_status(workflow_id)
    return "" if status is None else status.status


def test_a_workflow_that_runs_is_left_alone(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "_RECOVERY_TAKES_S", 0.0)
    starts: list[int] = []

    async def work(number: int) -> None:
        starts.append(number)
        await receive("news", 60)

    engine = opened(work=work)
    engine.start("work", "w-1", 1)
    until(lambda: starts, what="its start")
    for _ in range(5):
        engine.revive("work", "w-1", 1)
    engine.tell("w-1", "news", "end")
    until(lambda: not engine._running["w-1"], what="its end")
    assert starts == [1]
