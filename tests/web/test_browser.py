"""The pages in a real browser, and an acknowledgement with the real engine."""

import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from starlette.types import Receive, Scope, Send

from tests.conftest import tool, until
from tests.web.conftest import Site, WebServer, a_volume
from triage.edges.engine import Engine, receive
from triage.flow.alert import alert_workflow_id
from triage.web import wording
from triage.web.app import create_app


def seen_by_browser(url: str, folder: Path, budget_ms: int = 6000) -> str:
    """The page as it stands after some seconds of the browser's own time."""
    command = [
        tool("chromium"), "--headless", "--no-sandbox", "--disable-gpu",
        f"--user-data-dir={folder / 'profile'}", f"--virtual-time-budget={budget_ms}", "--dump-dom", url,
    ]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


def at_request(server: WebServer, path: str, number: int, happen: Callable[[], object]) -> None:
    """Let something happen just before a page is answered for the n-th time."""
    app, asked = server.app, 0

    async def count(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal asked
        if scope["path"] == path:
            asked += 1
            if asked == number:
                happen()
        await app(scope, receive, send)

    server.app = count


def test_the_worklist_updates_itself(site: Site, web_server: WebServer, tmp_path: Path) -> None:
    site.concluded(0.1)
    at_request(web_server, "/worklist", 2, lambda: site.suspected(name="Okafor^Ngozi"))
    page = seen_by_browser(f"{web_server.url}/", tmp_path)
    assert page.index("Okafor, Ngozi") < page.index("Doe, Jane")
    assert "<title>(1) Worklist - triage</title>" in page
    assert 'role="alert" hidden' in page


def test_a_study_shows_its_result_and_pictures_when_they_are_there(
    site: Site, web_server: WebServer, tmp_path: Path
) -> None:
    series_id = site.analysing()
    happen = lambda: site.concluded(0.9, series_id=series_id, volume=a_volume())  # noqa: E731
    at_request(web_server, f"/series/{series_id}", 2, happen)
    page = seen_by_browser(f"{web_server.url}/series/{series_id}", tmp_path)
    assert f"<h1>{wording.SUSPECTED}</h1>" in page
    assert '<output class="position" aria-hidden="true">3 / 6</output>' in page
    assert 'aria-label="Slice 3 of 6, used by the network"' in page


def test_a_lost_connection_is_said(site: Site, web_server: WebServer, tmp_path: Path) -> None:
    site.suspected()

    def fail() -> None:
        raise ConnectionError

    for number in range(1, 30):
        at_request(web_server, "/worklist", number, fail)
    page = seen_by_browser(f"{web_server.url}/", tmp_path, budget_ms=20000)
    assert "Connection lost. What you see is " in page
    assert wording.SUSPECTED in page


def test_an_acknowledgement_reaches_the_workflow_that_pages(
    site: Site, web_server: WebServer, tmp_path: Path
) -> None:
    heard: list[str | None] = []

    async def pages_until_answered(_alert_id: int) -> None:
        heard.append(await receive("news", 30))

    engine = Engine(f"sqlite:///{tmp_path}/engine.db")
    engine.register("alert", pages_until_answered)
    engine.launch()
    try:
        web_server.app = create_app(replace(site.line, engine=engine), lambda: None)
        series_id = site.suspected()
        engine.start("alert", alert_workflow_id(1), 1)
        answer = site.client.post("/api/series/1.2.3.1/acknowledge", json={"by": "Dr Ada"})
        assert answer.status_code == 200
        assert until(lambda: heard, 20, "the workflow to hear of it") == ["acknowledged"]
        assert wording.ACKNOWLEDGED.format(by="Dr Ada") in site.page(f"/series/{series_id}")
    finally:
        engine.stop()
