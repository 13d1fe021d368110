"""Logging in and out, and everything that must not work."""

import re
from datetime import timedelta
from html import unescape
from typing import Literal

import httpx
import pytest
from argon2 import PasswordHasher

from tests.web.conftest import PASSWORD, QUICK_HASHER, READER, START, Site
from triage.core.access import Role
from triage.core.audit import Action
from triage.edges.store import Accounts
from triage.web import wording

NEW = "five drunk walruses"


@pytest.fixture
def reader(site: Site) -> str:
    site.line.accounts.add(READER, PASSWORD, Role.READER, START)
    return READER


def log_in(client: httpx.Client, name: str, password: str, next: str = "/") -> httpx.Response:  # noqa: A002
    return client.post("/login", data={"name": name, "password": password, "next": next})


def form_key(page: str) -> str:
    found = re.search(r'name="form_key" value="([0-9a-f]{64})"', page)
    assert found is not None
    return found[1]


def test_a_login_opens_the_page_that_was_asked_for(site: Site, reader: str) -> None:
    series_id = site.suspected(name="Nightingale^Florence")
    browser = site.stranger()
    asked = browser.get(f"/series/{series_id}")
    assert (asked.status_code, asked.headers["location"]) == (303, f"/login?next=/series/{series_id}")
    assert "Nightingale" not in browser.get(asked.headers["location"]).text
    answer = log_in(browser, reader, PASSWORD, f"/series/{series_id}")
    assert (answer.status_code, answer.headers["location"]) == (303, f"/series/{series_id}")
    assert "Nightingale" in browser.get(f"/series/{series_id}").text


@pytest.mark.parametrize(
    ("settings", "name", "is_secure"),
    [
        ({}, "triage", False),
        ({"HTTP__PUBLIC_URL": "https://stroke.example"}, "__Host-triage", True),
        ({"HTTP__TLS_CERTIFICATE": "c.pem", "HTTP__TLS_KEY": "k.pem"}, "__Host-triage", True),
    ],
)
def test_the_cookie_is_as_safe_as_can_be(
    site: Site, reader: str, settings: dict[str, str], name: str, is_secure: bool
) -> None:
    site.configure(**settings)
    cookie = log_in(site.stranger(), reader, PASSWORD).headers["set-cookie"]
    value, *flags = cookie.split("; ")
    assert re.fullmatch(rf"{name}=[\w-]{{43}}", value)
    wanted = {"HttpOnly", "Path=/", "SameSite=lax", "Max-Age=57600"} | ({"Secure"} if is_secure else set())
    assert set(flags) == wanted


def test_nothing_that_opens_a_door_is_in_the_database(site: Site, reader: str) -> None:
    browser = site.stranger()
    log_in(browser, reader, PASSWORD)
    token = site.line.accounts.add_token("bridge", Role.READER, START)
    with site.store.engine.connect() as connection:
        kept = "".join(
            str(connection.exec_driver_sql(f"SELECT * FROM {table}").all())
            for table in ("account", "login", "api_token")
        )
    for secret in (PASSWORD, browser.cookies["triage"], token):
        assert secret not in kept
    assert "$argon2id$" in kept


@pytest.mark.parametrize(
    ("name", "password"),
    [
        (READER, "wrong"),
        ("nobody", PASSWORD),
        ("", ""),
        (READER, ""),
        (READER.upper(), PASSWORD),
        ("\0", "\0"),
    ],
)
def test_a_refusal_does_not_say_what_was_wrong(site: Site, reader: str, name: str, password: str) -> None:
    browser = site.stranger()
    answer = log_in(browser, name, password)
    assert answer.status_code == 403
    assert wording.LOGIN_WRONG in answer.text
    assert "set-cookie" not in answer.headers
    assert answer.text == log_in(site.stranger(), "somebody else", "something else").text


def test_an_unknown_name_costs_as_much_as_a_wrong_password(site: Site, reader: str) -> None:
    checked: list[str] = []

    class Counting(PasswordHasher):
        def verify(self, hash: str | bytes, password: str | bytes) -> Literal[True]:  # noqa: A002
            checked.append(str(hash))
            return super().verify(hash, password)

    accounts = Accounts(site.store.engine, Counting(time_cost=1, memory_cost=8, parallelism=1))
    assert accounts.with_password("nobody", PASSWORD) is None
    assert accounts.with_password(reader, "wrong") is None
    unknown, known = (each.split("$")[:4] for each in checked)
    assert unknown == known


def test_a_login_closes_the_one_before_it_in_no_other_browser(site: Site, reader: str) -> None:
    first, second = site.logged_in(reader), site.logged_in(reader)
    assert second.post("/logout").status_code == 303
    assert second.get("/").status_code == 303
    assert first.get("/").status_code == 200


def test_logged_out_the_cookie_opens_nothing(site: Site, reader: str) -> None:
    browser = site.stranger()
    log_in(browser, reader, PASSWORD)
    stolen = dict(browser.cookies)
    answer = browser.post("/logout", data={"form_key": form_key(browser.get("/").text)})
    assert answer.headers["location"] == "/login"
    assert "Max-Age=0" in answer.headers["set-cookie"]
    assert site.stranger(cookies=stolen).get("/").status_code == 303


def test_a_login_ends(site: Site, reader: str) -> None:
    site.configure(HTTP__SESSION_HOURS="2")
    browser = site.logged_in(reader)
    site.later(2 * 3600 - 1)
    assert browser.get("/").status_code == 200
    site.later(1)
    assert browser.get("/").status_code == 303


def test_a_disabled_account_is_out_at_once_and_stays_out(site: Site, reader: str) -> None:
    browser = site.logged_in(reader)
    site.line.accounts.disable(reader, site.clock[0])
    assert browser.get("/").status_code == 303
    assert log_in(site.stranger(), reader, PASSWORD).status_code == 403
    site.line.accounts.enable(reader)
    assert browser.get("/").status_code == 303
    assert log_in(site.stranger(), reader, PASSWORD).status_code == 303


# Guessing


def test_five_wrong_passwords_close_a_name_for_five_minutes(site: Site, reader: str) -> None:
    browser = site.stranger()
    for _ in range(5):
        assert log_in(browser, reader, "wrong").status_code == 403
    site.later(60)
    refused = log_in(browser, reader, PASSWORD)
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "240")
    assert wording.LOGIN_LATER in refused.text
    site.later(240)
    assert log_in(browser, reader, PASSWORD).status_code == 303


def test_trying_while_closed_does_not_keep_it_closed(site: Site, reader: str) -> None:
    browser = site.stranger()
    for _ in range(30):
        log_in(browser, reader, "wrong")
    site.later(300)
    assert log_in(browser, reader, PASSWORD).status_code == 303


def test_a_name_that_is_written_otherwise_is_the_same_name(site: Site, reader: str) -> None:
    browser = site.stranger()
    first, *rest = reader.split(" ")
    spellings = [reader, f" {reader}", f"{reader}\u200b", f"{reader}  ", "  ".join([first, *rest])]
    for spelling in spellings:
        assert log_in(browser, spelling, "wrong").status_code == 403
    tries = site.app.state.tries
    assert tries.begin((f"name {reader.casefold()}",), site.line.now()) is not None


def test_a_try_that_has_to_wait_is_not_written_down(site: Site, reader: str) -> None:
    browser = site.stranger()
    for _ in range(9):
        log_in(browser, reader, "wrong")
    refused = [e for e in site.line.audit.entries() if e.deed.action is Action.LOGIN_REFUSED]
    assert [entry.deed.actor for entry in refused] == [reader] * 5


def test_what_was_typed_for_a_name_that_is_none_is_not_kept(site: Site) -> None:
    log_in(site.stranger(), "my secret password", "wrong")
    (refused,) = [e for e in site.line.audit.entries() if e.deed.action is Action.LOGIN_REFUSED]
    assert refused.deed.actor == "unknown"


def test_an_address_cannot_go_through_many_names(site: Site, reader: str) -> None:
    browser = site.stranger()
    answers = [log_in(browser, f"name {number}", "wrong").status_code for number in range(7)]
    assert answers == [403] * 5 + [429] * 2
    assert log_in(browser, reader, PASSWORD).status_code == 429


def test_a_right_password_is_no_try(site: Site, reader: str) -> None:
    browser = site.stranger()
    for _ in range(8):
        assert log_in(browser, reader, PASSWORD).status_code == 303


# The password itself


def change(browser: httpx.Client, password: str, new: str, again: str | None = None) -> httpx.Response:
    return browser.post("/password", data={"password": password, "new": new, "again": again or new})


def test_another_password_closes_every_other_login(site: Site, reader: str) -> None:
    here, there = site.logged_in(reader), site.logged_in(reader)
    assert change(here, PASSWORD, NEW).headers["location"] == "/"
    assert here.get("/").status_code == 200
    assert there.get("/").status_code == 303
    assert log_in(site.stranger(), reader, PASSWORD).status_code == 403
    assert log_in(site.stranger(), reader, NEW).status_code == 303


@pytest.mark.parametrize(
    ("password", "new", "again", "status", "said"),
    [
        ("wrong", NEW, NEW, 403, wording.LOGIN_WRONG),
        (PASSWORD, NEW, NEW + "!", 422, wording.PASSWORDS_DIFFER),
        (PASSWORD, PASSWORD, PASSWORD, 422, wording.OLD_ONE_AGAIN),
        (PASSWORD, "too short", "too short", 422, "A password has 12 to 256 characters."),
        (PASSWORD, "ababababababab", "ababababababab", 422, "That password is too easy to guess."),
    ],
)
def test_a_password_that_will_not_do(
    site: Site, reader: str, password: str, new: str, again: str, status: int, said: str
) -> None:
    browser = site.logged_in(reader)
    answer = change(browser, password, new, again)
    assert answer.status_code == status
    assert said in unescape(answer.text)
    assert log_in(site.stranger(), reader, PASSWORD).status_code == 303


def test_a_one_time_password_opens_nothing_but_its_own_change(site: Site) -> None:
    password = site.line.accounts.add_first_admin(START)
    assert password is not None
    assert site.line.accounts.add_first_admin(START) is None, "there is an account now"
    series_id = site.suspected(name="Nightingale^Florence")
    browser = site.stranger()
    log_in(browser, "admin", password)
    asked = browser.get(f"/series/{series_id}")
    assert asked.headers["location"] == f"/password?next=/series/{series_id}"
    assert browser.get("/api/series").json() == {"detail": "Change the one-time password first."}
    page = browser.get(asked.headers["location"]).text
    assert "Yours is a one-time password." in page
    fields = {"password": password, "new": NEW, "again": NEW, "next": f"/series/{series_id}"}
    answer = browser.post("/password", data=fields | {"form_key": form_key(page)})
    assert answer.headers["location"] == f"/series/{series_id}"
    assert "Nightingale" in browser.get(f"/series/{series_id}").text


def test_a_hash_of_other_costs_is_renewed_when_its_password_is_seen(site: Site, reader: str) -> None:
    dearer = Accounts(site.store.engine, PasswordHasher(time_cost=2, memory_cost=16, parallelism=1))
    assert dearer.with_password(reader, "wrong") is None
    assert "m=8,t=1" in dearer.everyone()[0].password_hash
    assert dearer.with_password(reader, PASSWORD) is not None
    assert "m=16,t=2" in dearer.everyone()[0].password_hash
    assert dearer.with_password(reader, PASSWORD) is not None


def test_the_same_keys_on_another_system_are_the_same_password(site: Site) -> None:
    site.line.accounts.add("Dr Bob", "a caf\u00e9 in Paris", Role.READER, START)
    assert site.line.accounts.with_password("Dr Bob", "a cafe\u0301 in Paris") is not None


# Where to go after it


@pytest.mark.parametrize(
    "elsewhere",
    [
        "https://evil.example", "//evil.example", "/\\evil.example", "\\\\evil.example", "javascript:f()",
        "/\t/evil.example", "/\n/evil.example", "///evil.example", "evil.example", "",
    ],
)  # fmt: skip
def test_a_login_leads_to_no_other_site(site: Site, reader: str, elsewhere: str) -> None:
    assert log_in(site.stranger(), reader, PASSWORD, elsewhere).headers["location"] == "/"
    page = site.stranger().get("/login", params={"next": elsewhere}).text
    assert 'name="next" value="/"' in page


def test_hostile_text_in_the_forms_is_inert(site: Site, reader: str) -> None:
    hostile = '/"><script>alert(1)</script>'
    for answer in (
        site.stranger().get("/login", params={"next": hostile}),
        log_in(site.stranger(), hostile, hostile, hostile),
        site.logged_in(reader).get("/password", params={"next": hostile}),
    ):
        assert "<script>alert" not in answer.text
        assert "&lt;script&gt;alert(1)" in answer.text


def test_a_form_that_comes_too_late_leads_to_the_page_that_it_stood_on(site: Site) -> None:
    series_id = site.suspected()
    answer = site.stranger().post(f"/series/{series_id}/acknowledge")
    assert (answer.status_code, answer.headers["location"]) == (303, f"/login?next=/series/{series_id}")
    assert site.engine.told == []


def test_a_page_with_a_query_is_found_again(site: Site, reader: str) -> None:
    asked = site.stranger().get("/ignored?x=1&y=2")
    assert asked.headers["location"] == "/login?next=/ignored%3Fx%3D1%26y%3D2"


# Forms of other sites


@pytest.mark.parametrize("form", [{}, {"form_key": ""}, {"form_key": "0" * 64}, {"form_key": "\u00e9"}])
@pytest.mark.parametrize("path", ["/series/1/acknowledge", "/series/1/report/resend", "/logout", "/password"])
def test_a_form_without_its_key_changes_nothing(
    site: Site, reader: str, path: str, form: dict[str, str]
) -> None:
    site.suspected()
    browser = site.stranger()
    log_in(browser, reader, PASSWORD)
    assert browser.post(path, data=form).status_code == 403
    assert browser.get("/").status_code == 200
    assert site.engine.told == []


def test_the_key_of_another_login_does_not_fit(site: Site, reader: str) -> None:
    site.suspected()
    mine, other = site.stranger(), site.stranger()
    for browser in (mine, other):
        log_in(browser, reader, PASSWORD)
    keys = [form_key(browser.get("/series/1").text) for browser in (mine, other)]
    assert keys[0] != keys[1]
    assert mine.cookies["triage"] not in keys
    assert mine.post("/series/1/acknowledge", data={"form_key": keys[1]}).status_code == 403
    assert mine.post("/series/1/acknowledge", data={"form_key": keys[0]}).status_code == 303


def test_a_program_needs_no_key_and_cannot_use_a_browsers_cookie_beside_a_bad_token(
    site: Site, reader: str
) -> None:
    site.suspected()
    browser = site.logged_in(reader)
    refused = browser.get("/api/series", headers={"Authorization": "Bearer wrong"})
    assert refused.status_code == 401
    answer = site.program().post("/api/series/1.2.3.1/acknowledge", json={"by": "Dr Bob"})
    assert answer.status_code == 200


# Tokens


def test_a_token_in_the_environment_has_the_rights_of_a_reader(site: Site) -> None:
    site.configure(HTTP__API_TOKEN="0123456789abcdef")
    site.suspected()
    program = site.stranger(headers={"Authorization": "bearer 0123456789abcdef"})
    answer = program.post("/api/series/1.2.3.1/acknowledge", json={"by": "Dr Bob"})
    assert answer.json()["alert"]["acknowledged_by"] == "Dr Bob (by token http.api_token)"
    assert program.get("/accounts").status_code == 403


@pytest.mark.parametrize(
    "header",
    ["", "Bearer", "Bearer wrong", "Basic {token}", "{token}", "Bearer {token}x", "Bearer \xe9"],
)
def test_nothing_but_the_token_itself_opens(site: Site, header: str) -> None:
    token = site.line.accounts.add_token("bridge", Role.READER, START)
    stranger = site.stranger(headers=[(b"Authorization", header.format(token=token).encode("latin-1"))])
    answer = stranger.get("/api/series")
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert answer.json() == {"detail": "This needs a token."}


def test_a_revoked_token_opens_nothing(site: Site) -> None:
    program = site.program(name="bridge")
    assert program.get("/api/series").status_code == 200
    site.line.accounts.revoke_token("bridge", START + timedelta(days=1))
    assert program.get("/api/series").status_code == 401


def test_no_secret_is_in_the_log(site: Site, reader: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", "triage")
    browser = site.stranger()
    log_in(browser, reader, "wrong password")
    log_in(browser, reader, PASSWORD)
    assert "deed_recorded action=logged_in" in caplog.text
    for secret in (PASSWORD, "wrong password", browser.cookies["triage"], reader):
        assert secret not in caplog.text


def test_the_store_is_quick_here_only_because_it_is_told_to_be(site: Site) -> None:
    assert site.line.accounts.hasher is QUICK_HASHER
    assert Accounts(site.store.engine).hasher.memory_cost >= 64 * 1024
