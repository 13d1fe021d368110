"""Headers, foreign requests, and what errors give away."""

import pytest

from tests.web.conftest import Site, a_volume

NAME = "Nightingale^Florence"


@pytest.mark.parametrize(
    "path",
    ["/", "/worklist", "/ignored", "/series/1", "/series/1/slices/0.png", "/series/1/report.dcm", "/series/9",
     "/login", "/password", "/accounts",
     "/api/series", "/healthz", "/static/triage.css", "/static/triage.js", "/static/icon.svg", "/no/such"],
)  # fmt: skip
def test_every_answer_is_hardened(site: Site, path: str) -> None:
    site.suspected(volume=a_volume())
    headers = site.client.get(path).headers
    assert headers["content-security-policy"] == (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
        " form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    )
    assert "camera=()" in headers["permissions-policy"]
    assert "strict-transport-security" not in headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "same-origin"
    assert headers["cache-control"] == ("no-cache" if path.startswith("/static") else "no-store")


def test_who_came_by_https_is_told_to_stay_there(site: Site) -> None:
    site.configure(HTTP__PUBLIC_URL="https://stroke.example")
    for path in ("/login", "/healthz", "/no/such"):
        assert site.stranger().get(path).headers["strict-transport-security"] == "max-age=31536000"


def test_pages_keep_to_their_own_policy(site: Site) -> None:
    page = site.page(f"/series/{site.suspected(volume=a_volume())}")
    for forbidden in ("style=", "<style", "onclick", "http://", "https://", "<script>"):
        assert forbidden not in page


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {"Origin": "https://evil.example"},
        {"Origin": "null"},
    ],
)  # fmt: skip
def test_another_site_cannot_acknowledge(site: Site, headers: dict[str, str]) -> None:
    series_id = site.suspected()
    for answer in (
        site.client.post(f"/series/{series_id}/acknowledge", data={"by": "x"}, headers=headers),
        site.client.post("/api/series/1.2.3.1/acknowledge", json={"by": "x"}, headers=headers),
    ):
        assert answer.status_code == 403
        assert "content-security-policy" in answer.headers
    assert site.engine.told == []


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Sec-Fetch-Site": "same-origin", "Origin": "null"},
        {"Origin": "http://127.0.0.1:8080"},
        {"Origin": "own"},
    ],
)
def test_our_own_page_and_programs_can_acknowledge(site: Site, headers: dict[str, str]) -> None:
    own = {name: str(site.client.base_url) if value == "own" else value for name, value in headers.items()}
    series_id = site.suspected()
    answer = site.client.post(f"/series/{series_id}/acknowledge", data={"by": "x"}, headers=own)
    assert answer.status_code == 303


@pytest.mark.parametrize(
    "path", ["/series/99", "/series/99999999999999999999", "/series/x", "/series/1.2.3.1", "/x"]
)
def test_a_missing_page_says_nothing_of_what_was_asked(site: Site, path: str) -> None:
    site.suspected(name=NAME)
    page = site.page(path, 404)
    assert "There is no such page." in page
    assert path not in page
    assert "Nightingale" not in page


def test_a_failure_shows_no_cause_and_no_patient(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    site.suspected(name=NAME)
    with site.store.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE series RENAME TO gone")
    for path in ("/", "/series/1", "/api/series/1.2.3.1"):
        answer = site.client.get(path)
        assert answer.status_code == 500
        assert "content-security-policy" in answer.headers
        for secret in ("1.2.3", "Nightingale", "sqlite", "Traceback", "series/1"):
            assert secret not in answer.text
    assert "request_failed route=/series/{series_id:int} reason=OperationalError" in caplog.text
    assert "1.2.3" not in caplog.text


def test_an_unknown_method_is_no_page(site: Site) -> None:
    assert site.client.delete("/").status_code == 405
    assert site.client.delete("/api/series").json() == {"detail": "Method Not Allowed"}
