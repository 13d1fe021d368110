"""The pages in a real browser, and an acknowledgement with the real engine."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from starlette.types import Receive, Scope, Send

from tests.browser import Browser, open_browser
from tests.conftest import until
from tests.web.conftest import PASSWORD, READER, Site, WebServer, a_volume
from triage.core.access import Role
from triage.core.trouble import MEANINGS, Trouble
from triage.edges.engine import Engine, receive
from triage.flow.alert import alert_workflow_id
from triage.web import wording
from triage.web.app import create_app


@pytest.fixture
def browser(site: Site, web_server: WebServer, tmp_path: Path) -> Iterator[Browser]:
    """A browser in which a reader has logged in through the form; nothing on any page may be blocked."""
    site.browser(Role.READER)
    with open_browser(tmp_path) as browser:
        browser.open(web_server.url)
        browser.log_in(READER, PASSWORD)
        yield browser


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


def test_the_worklist_updates_itself(site: Site, web_server: WebServer, browser: Browser) -> None:
    site.concluded(0.1)
    browser.open(web_server.url)
    site.suspected(name="Okafor^Ngozi")
    site.line.watchbook.seen({(Trouble.DISK_LOW, ""): "4.2 GB free"}, site.clock[0])
    browser.wait_for("document.title == '(1) Worklist - triage'")
    page = browser.html
    assert page.index("Okafor, Ngozi") < page.index("Doe, Jane")
    assert MEANINGS[Trouble.DISK_LOW] in page
    assert 'role="alert" hidden' in page
    assert browser.complaints == []


def test_a_study_shows_its_result_and_pictures_when_they_are_there(
    site: Site, web_server: WebServer, browser: Browser
) -> None:
    series_id = site.analysing()
    browser.open(f"{web_server.url}/series/{series_id}")
    site.concluded(0.9, series_id=series_id, volume=a_volume())
    browser.wait_for("document.querySelector('.position')?.textContent == '3 / 6'")
    page = browser.html
    assert f"<h1>{wording.SUSPECTED}</h1>" in page
    assert 'aria-label="Slice 3 of 6, used by the network"' in page
    assert browser.complaints == []


def test_a_lost_connection_is_said(site: Site, web_server: WebServer, browser: Browser) -> None:
    site.suspected()
    browser.open(web_server.url)

    def fail() -> None:
        raise ConnectionError

    for number in range(1, 30):
        at_request(web_server, "/worklist", number, fail)
    browser.wait_for("document.body.innerText.includes('Connection lost. What you see is ')")
    assert wording.SUSPECTED in browser.html


def test_the_person_who_was_paged_answers(site: Site, web_server: WebServer, tmp_path: Path) -> None:
    site.browser(Role.READER)
    series_id = site.suspected(name="Okafor^Ngozi", volume=a_volume())
    with open_browser(tmp_path) as browser:
        browser.open(f"{web_server.url}/series/{series_id}")
        assert "Okafor" not in browser.html
        browser.log_in(READER, PASSWORD)
        assert browser.run("location.pathname") == f"/series/{series_id}"
        browser.click("form[action$=acknowledge] button")
        browser.wait_for(f"document.body.innerText.includes('Acknowledged by {READER}')")
        browser.click(".who button")
        browser.wait_for("location.pathname == '/login'")
        browser.open(f"{web_server.url}/series/{series_id}")
        assert browser.run("location.pathname") == "/login"
        assert browser.complaints == []
    assert site.engine.told == [("alert-1", "news", "acknowledged")]


def test_a_page_that_is_open_when_its_login_ends_shows_the_login(
    site: Site, web_server: WebServer, browser: Browser
) -> None:
    series_id = site.suspected()
    for path in ("/", f"/series/{series_id}"):
        browser.open(web_server.url + path)
        site.line.accounts.set_password(READER, PASSWORD)
        browser.wait_for("location.pathname == '/login' && document.readyState == 'complete'")
        browser.log_in(READER, PASSWORD)
        assert browser.run("location.pathname") == path


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
        answer = site.client.post(f"/series/{series_id}/acknowledge")
        assert answer.status_code == 303
        assert until(lambda: heard, 20, "the workflow to hear of it") == ["acknowledged"]
        assert wording.ACKNOWLEDGED.format(by=READER) in site.page(f"/series/{series_id}")
    finally:
        engine.stop()
