"""Every route, and who may use it."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI

from tests.web.conftest import Site, a_volume
from triage.core.access import Role
from triage.web.auth import Actor, is_public
from triage.web.deeds import Views

PUBLIC = {("GET", "/login"), ("POST", "/login"), ("GET", "/healthz"), ("GET", "/readyz")}
OWN = {("POST", "/logout"), ("GET", "/password"), ("POST", "/password")}


def routes_of(routes: Any) -> Iterator[tuple[str, str]]:
    for route in routes:
        if hasattr(route, "original_router"):
            yield from routes_of(route.original_router.routes)
        elif getattr(route, "methods", None):
            for method in sorted(route.methods - {"HEAD"}):
                yield method, route.path


def address(path: str) -> str:
    values = {"series_id": "1", "index": "0", "series_instance_uid": "1.2.3.1"}
    return re.sub(r"\{(\w+)(?::\w+)?\}", lambda found: values[found[1]], path)


def every_route(app: FastAPI) -> list[tuple[str, str]]:
    found = list(routes_of(app.routes))
    assert len(found) > 20
    assert ("POST", "/series/{series_id:int}/acknowledge") in found
    return found


def test_only_these_are_open_to_everybody(site: Site) -> None:
    assert {(method, path) for method, path in every_route(site.app) if is_public(path)} == PUBLIC


def test_nothing_else_is_open_to_a_stranger(site: Site) -> None:
    site.suspected(name="Nightingale^Florence", volume=a_volume())
    unknown = [("GET", "/api/nothing"), ("POST", "/nothing"), ("DELETE", "/api/series"), ("PUT", "/")]
    for method, path in {*every_route(site.app), *unknown} - PUBLIC:
        answer = site.stranger().request(method, address(path))
        if path.startswith("/api/") or path == "/openapi.json":
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer"), path
        else:
            assert answer.status_code == 303, path
            assert answer.headers["location"].startswith("/login"), path
        for secret in ("Nightingale", "4711", "1.2.3.1", "ASPECTS"):
            assert secret not in answer.text
    assert site.engine.told == []


def test_a_route_that_is_new_is_closed_before_anybody_thinks_of_it(site: Site) -> None:
    @site.app.get("/new")
    @site.app.post("/new")
    def new() -> str:
        return "open"

    assert site.stranger().get("/new").status_code == 303
    assert site.browser(Role.VIEWER).get("/new").text == '"open"'
    assert site.browser(Role.VIEWER).post("/new").status_code == 403
    assert site.browser(Role.READER).post("/new").text == '"open"'


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("shows", ["a cookie", "a token"])
def test_each_role_may_do_what_it_is_for(site: Site, role: Role, shows: str) -> None:
    site.configure(PACS__ADDRESS="PACS@10.0.0.5:104")
    site.suspected(volume=a_volume())
    somebody = site.browser(role) if shows == "a cookie" else site.program(role)
    for method, path in every_route(site.app):
        if (method, path) in PUBLIC | OWN:
            continue
        needed = (
            Role.ADMIN if path.startswith("/accounts") else Role.VIEWER if method == "GET" else Role.READER
        )
        answer = somebody.request(method, address(path), json={"by": "Dr Bob"} if method == "POST" else None)
        assert (answer.status_code == 403) != role.includes(needed), (method, path, answer.text)
        assert answer.status_code < 500


def test_the_host_header_opens_nothing(site: Site) -> None:
    site.suspected(name="Nightingale^Florence")
    for host in ("x/static/?", "x/login?", "x/static/#", "static"):
        answer = site.stranger().get("/series/1", headers={"Host": host})
        assert answer.status_code in (303, 400)
        assert "Nightingale" not in answer.text


@pytest.mark.parametrize(
    "path", ["//", "/static/../series/1", "/static/%2e%2e/series/1", "/login/../series/1", "//static/x"]
)
def test_other_ways_to_write_a_path_open_nothing(site: Site, path: str) -> None:
    site.suspected(name="Nightingale^Florence")
    answer = site.stranger().get(path)
    assert answer.status_code in (303, 404)
    assert "Nightingale" not in answer.text


def test_a_request_that_is_too_large_is_not_read(site: Site) -> None:
    for client in (site.stranger(), site.program()):
        assert client.post("/login", content=b"x" * 65_537).status_code == 413
        assert client.post("/login", content=iter([b"x"])).status_code == 411
        assert client.post("/api/series/1.2.3.1/acknowledge", content=b"x" * 65_537).status_code == 413


def test_health_says_no_more_to_a_stranger_than_its_reason(site: Site) -> None:
    site.readiness[0] = "the DICOM port is closed"
    answer = site.stranger().get("/readyz")
    assert answer.json() == {"status": "not ready", "reason": "the DICOM port is closed"}


# The administrator's page


def test_an_administrator_lets_somebody_in_and_out_again(site: Site) -> None:
    admin = site.browser(Role.ADMIN)
    page = admin.post("/accounts", data={"name": "Dr Bob", "role": "reader"}).text
    (password,) = re.findall(r"<code>([\w-]+)</code>", page)
    assert password not in admin.get("/accounts").text
    bob = site.stranger()
    assert bob.post("/login", data={"name": "Dr Bob", "password": password}).status_code == 303
    assert bob.get("/").headers["location"] == "/password"
    page = admin.post("/accounts/password", data={"name": "Dr Bob"}).text
    (another,) = re.findall(r"<code>([\w-]+)</code>", page)
    assert another != password
    assert bob.get("/").headers["location"] == "/login"
    assert admin.post("/accounts/disable", data={"name": "Dr Bob"}).status_code == 303
    assert bob.post("/login", data={"name": "Dr Bob", "password": another}).status_code == 403
    assert admin.post("/accounts/enable", data={"name": "Dr Bob"}).status_code == 303
    assert bob.post("/login", data={"name": "Dr Bob", "password": another}).status_code == 303


def test_an_administrator_gives_a_program_a_token_and_takes_it_back(site: Site) -> None:
    admin = site.browser(Role.ADMIN)
    page = admin.post("/accounts/token", data={"name": "pacs-bridge", "role": "viewer"}).text
    (token,) = re.findall(r"<code>([\w-]+)</code>", page)
    assert token not in admin.get("/accounts").text
    program = site.stranger(headers={"Authorization": f"Bearer {token}"})
    assert program.get("/api/series").status_code == 200
    assert program.post("/api/series/1.2.3.1/acknowledge", json={"by": "x"}).status_code == 403
    assert admin.post("/accounts/token/revoke", data={"name": "pacs-bridge"}).status_code == 303
    assert program.get("/api/series").status_code == 401


@pytest.mark.parametrize(
    ("path", "name", "said"),
    [
        ("/accounts", "a admin", "is taken"),
        ("/accounts", " ", "A name has 1 to 80 printable characters."),
        ("/accounts/password", "nobody", "There is no account"),
        ("/accounts/disable", "nobody", "There is no account"),
        ("/accounts/disable", "a admin", "Nobody can disable their own account."),
        ("/accounts/enable", "nobody", "There is no account"),
        ("/accounts/token", "x" * 61, "A name has 1 to 60 printable characters."),
        ("/accounts/token/revoke", "nobody", "There is no token"),
    ],
)
def test_what_cannot_be_done_is_explained(site: Site, path: str, name: str, said: str) -> None:
    answer = site.browser(Role.ADMIN).post(path, data={"name": name})
    assert answer.status_code == 409
    assert said in answer.text


# What is recorded


def deeds(text: str) -> list[str]:
    return re.findall(r"deed_recorded action=(\w+)", text)


def test_a_study_on_the_screen_is_one_view_however_often_it_asks(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "triage")
    series_id = site.suspected(volume=a_volume())
    for _ in range(4):
        site.page(f"/series/{series_id}")
        site.client.get(f"/series/{series_id}/slices/1.png")
        site.later(120)
    assert deeds(caplog.text) == ["study_viewed"]
    site.later(300)
    site.client.get(f"/series/{series_id}/slices/1.png")
    site.browser(Role.ADMIN).get(f"/series/{series_id}")
    site.client.get(f"/series/{series_id}/report.dcm")
    assert deeds(caplog.text) == ["study_viewed", "study_viewed", "study_viewed", "report_downloaded"]


def test_views_forget_the_oldest(site: Site) -> None:
    views = Views(most=2)
    actor = Actor(name="Dr Ada", role=Role.READER, address="127.0.0.1")
    assert [views.begins(actor, number, site.clock[0]) for number in (1, 2, 3, 3, 1)] == [
        True, True, True, False, True
    ]  # fmt: skip
