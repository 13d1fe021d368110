"""The first start lets one person in, once."""

import re
from collections.abc import Callable
from pathlib import Path

import httpx

from tests.conftest import ServiceProcess


def test_the_first_start_says_a_one_time_password_once(
    service_process: Callable[..., ServiceProcess], tiny_bundle: Path
) -> None:
    service = service_process(MODEL__PATH=str(tiny_bundle))
    service.start()
    (password,) = re.findall(r"as admin with the one-time password ([\w-]+)\n", service.log.read_text())
    with httpx.Client(base_url=service.address) as browser:
        answer = browser.post("/login", data={"name": "admin", "password": password})
        assert answer.status_code == 303
        assert browser.get("/").headers["location"] == "/password"
        assert browser.get("/api/series").status_code == 403
    service.stop()
    service.start()
    assert service.log.read_text().count("one-time password") == 1
    assert service.get("/api/series") == []
