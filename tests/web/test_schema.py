"""What the API says of itself is what it does, whatever it is sent (schemathesis)."""

import re

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.schemas import APIOperation
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.web.conftest import Site, a_volume
from triage.core.trouble import Trouble

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
BOUNDED = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
PUBLIC = {"/healthz", "/readyz"}
NOTHING_TO_GET_WRONG = PUBLIC | {"/api/problems"}
GIVES_AWAY = re.compile(r"/tmp|/home|triage/|\.py\b|Traceback|sqlite|Nightingale|4711|1\.2\.[34]\.\d")


@pytest.fixture
def operations(site: Site) -> list[APIOperation]:
    """Every operation, on a site with something in it and something wrong with it."""
    site.configure(PACS__ADDRESS="PACS@10.0.0.5:104", HTTP__API_TOKEN="0123456789abcdef")
    site.suspected(name="Nightingale^Florence", volume=a_volume())
    site.concluded()
    site.arrives()
    site.line.watchbook.seen({(Trouble.SENDER_SILENT, "MR1"): "no image from MR1"}, site.clock[0])
    schema = schemathesis.openapi.from_url(
        f"{site.server.url}/openapi.json", headers={"Authorization": "Bearer 0123456789abcdef"}
    )
    found = [result.ok() for result in schema.get_all_operations() if isinstance(result, Ok)]
    assert len(found) == 7
    return found


def asked(operation, headers: dict[str, str], answered, mode: GenerationMode) -> None:
    def ask(case, is_known: bool) -> None:
        if is_known and "series_instance_uid" in case.path_parameters:
            case.path_parameters["series_instance_uid"] = "1.2.3.1"
        answered(case, case.call(headers=headers))

    cases = operation.as_strategy(generation_mode=mode)
    BOUNDED(given(cases, st.booleans())(ask))()


@pytest.mark.parametrize("mode", list(GenerationMode))
def test_the_api_keeps_to_its_description(operations, mode: GenerationMode) -> None:
    def answered(case, answer) -> None:
        case.validate_response(answer, checks=CHECKS)
        if answer.status_code >= 400:
            assert not GIVES_AWAY.search(answer.text), answer.text

    for operation in operations:
        if mode is GenerationMode.NEGATIVE and operation.path in NOTHING_TO_GET_WRONG:
            continue
        asked(operation, {"Authorization": "Bearer 0123456789abcdef"}, answered, mode)


def test_a_stranger_gets_nothing_but_401(operations) -> None:
    def answered(case, answer) -> None:
        case.validate_response(answer, checks=CHECKS)
        assert answer.status_code == 401
        assert answer.json() == {"detail": "This needs a token."}

    for operation in operations:
        if operation.path not in PUBLIC:
            asked(operation, {}, answered, GenerationMode.POSITIVE)
