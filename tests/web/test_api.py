"""The JSON that other systems build on."""

from datetime import timedelta
from typing import Any

import pytest

from tests.web.conftest import READER, STATUS, Site
from triage.core.trouble import MEANINGS, Trouble

BEFORE_A_RESULT = {
    "outcome": {"category": None, "probability": None, "threshold": None, "reason": None, "detail": None},
    "volume": None,
    "model": None,
    "report": {"state": "none", "sop_instance_uid": None},
    "alert": {"state": "none", "acknowledged_by": None, "acknowledged_at": None},
}
MODEL = {"name": "rrcnn", "version": "0.1.0", "sha256": "b" * 64, "status": STATUS}


def get(site: Site, path: str, status_code: int = 200):
    answer = site.client.get(path)
    assert answer.status_code == status_code
    return answer.json()


@pytest.mark.parametrize("state", ["receiving", "analysing", "ignored"])
def test_every_key_is_there_before_a_result(site: Site, state: str) -> None:
    getattr(site, {"receiving": "arrives"}.get(state, state))()
    series = get(site, "/api/series/1.2.3.1")
    timeline = series.pop("timeline")
    assert timeline[0] == {
        "at": "2026-03-01T03:00:01Z", "event": "first_instance", "detail": "from SCANNER"
    }  # fmt: skip
    assert series == {
        "series_instance_uid": "1.2.3.1",
        "study_instance_uid": "1.2.4.1",
        "revision": 1,
        "state": state,
        **BEFORE_A_RESULT,
    }


def test_an_assessed_series(site: Site) -> None:
    site.suspected()
    series = get(site, "/api/series/1.2.3.1")
    timeline = series.pop("timeline")
    assert [line["event"] for line in timeline] == [
        "first_instance", "last_instance", "complete", "analysed", "alert_sent"
    ]  # fmt: skip
    assert all(line["at"].endswith("Z") for line in timeline)
    assert series == {
        "series_instance_uid": "1.2.3.1",
        "study_instance_uid": "1.2.4.1",
        "revision": 1,
        "state": "assessed",
        "outcome": {
            "category": "ASPECTS_1_6", "probability": 0.93, "threshold": 0.5, "reason": None, "detail": None
        },
        "volume": {"b_value": 1000, "kind": "TRACE", "slices": 6, "spacing_mm": [4.0, 2.0, 2.0]},
        "model": MODEL,
        "report": {"state": "pending", "sop_instance_uid": "1.2.9.1"},
        "alert": {"state": "sent", "acknowledged_by": None, "acknowledged_at": None},
    }  # fmt: skip


def test_a_series_that_was_not_assessed(site: Site) -> None:
    site.concluded()
    series = get(site, "/api/series/1.2.3.1")
    assert series["state"] == "not_assessed"
    assert series["outcome"]["category"] is None
    assert series["outcome"]["probability"] is None
    assert series["outcome"]["reason"] == "INCOMPLETE"
    assert "9.8 mm" in series["outcome"]["detail"]
    assert (series["volume"], series["model"]) == (None, MODEL)
    assert series["alert"]["state"] == "none"


def test_an_alert_that_nobody_got_yet_is_none(site: Site) -> None:
    site.suspected(paged=False)
    assert get(site, "/api/series/1.2.3.1")["alert"]["state"] == "none"


def test_a_result_without_a_report(site: Site) -> None:
    site.concluded(0.1, report=False)
    assert get(site, "/api/series/1.2.3.1")["report"] == {"state": "none", "sop_instance_uid": None}


def test_the_list_has_the_newest_first_each_with_its_timeline(site: Site) -> None:
    site.concluded(0.1)
    site.arrives()
    listed = get(site, "/api/series")
    assert [series["series_instance_uid"] for series in listed] == ["1.2.3.2", "1.2.3.1"]
    assert listed == [get(site, f"/api/series/{series['series_instance_uid']}") for series in listed]


def test_the_list_of_one_state(site: Site) -> None:
    site.concluded(0.1)
    site.ignored()
    assert [series["state"] for series in get(site, "/api/series?state=ignored")] == ["ignored"]


def test_an_unknown_state_is_refused(site: Site) -> None:
    assert site.client.get("/api/series?state=1.2.3.99").status_code == 422
    assert "1.2.3.99" not in site.client.get("/api/series?state=1.2.3.99").text


@pytest.mark.parametrize("uid", ["9.9.9", "x" * 70, "%00", "1.2%0A", "١"])
def test_an_unknown_series_is_404_and_not_repeated(site: Site, uid: str) -> None:
    for answer in (
        site.client.get(f"/api/series/{uid}"),
        site.client.post(f"/api/series/{uid}/acknowledge", json={"by": "Dr Who"}),
    ):
        assert answer.status_code == 404
        assert answer.json() == {"detail": "No such series."}


def test_acknowledging_keeps_who_and_when_and_stops_the_pages(site: Site) -> None:
    site.suspected()
    site.later(60)
    answer = site.program().post("/api/series/1.2.3.1/acknowledge", json={"by": "  Dr Bob\nLovelace "})
    assert answer.status_code == 200
    assert answer.json()["alert"] == {
        "state": "acknowledged",
        "acknowledged_by": "Dr Bob Lovelace (by token pacs-bridge)",
        "acknowledged_at": "2026-03-01T03:01:03.250000Z",
    }
    assert answer.json()["timeline"][-1]["event"] == "acknowledged"
    assert site.engine.told == [("alert-1", "news", "acknowledged")]


@pytest.mark.parametrize("how", [{}, {"json": {"by": "Somebody Else"}}])
def test_a_browser_acknowledges_in_nobody_elses_name(site: Site, how: dict[str, Any]) -> None:
    site.suspected()
    answer = site.client.post("/api/series/1.2.3.1/acknowledge", **how)
    assert answer.json()["alert"]["acknowledged_by"] == READER


def test_there_is_nothing_to_acknowledge_twice(site: Site) -> None:
    site.suspected()
    site.client.post("/api/series/1.2.3.1/acknowledge")
    again = site.client.post("/api/series/1.2.3.1/acknowledge", json={"by": "Dr Bob"})
    assert again.status_code == 409
    assert get(site, "/api/series/1.2.3.1")["alert"]["acknowledged_by"] == "Dr Ada"


def test_there_is_nothing_to_acknowledge_without_an_alert(site: Site) -> None:
    site.concluded(0.1)
    assert site.client.post("/api/series/1.2.3.1/acknowledge", json={"by": "Dr Ada"}).status_code == 409


@pytest.mark.parametrize(
    "body", [None, {}, {"by": ""}, {"by": " \n "}, {"by": "\u200b"}, {"by": "x" * 81}, {"by": 1}, []]
)
def test_an_acknowledgement_needs_a_name(site: Site, body: object) -> None:
    site.suspected()
    answer = site.program().post("/api/series/1.2.3.1/acknowledge", json=body)
    assert answer.status_code == 422
    assert all(set(problem) == {"type", "loc", "msg"} for problem in answer.json()["detail"])


def test_a_report_is_sent_again_for_whoever_wants_it(site: Site) -> None:
    site.configure(PACS__ADDRESS="PACS@10.0.0.5:104")
    _, follow_ups = site.concluded(0.1)
    assert follow_ups.report_id is not None
    program, path = site.program(), "/api/series/1.2.3.1/report/resend"
    assert program.post(path, json={"by": "Dr Bob"}).status_code == 409, "it is on its way"
    site.store.report_not_stored(follow_ups.report_id, site.later(1), "refused", final=True)
    answer = program.post(path, json={"by": "Dr Bob"})
    assert (answer.status_code, answer.json()["report"]["state"]) == (200, "pending")
    assert answer.json()["timeline"][-1]["event"] == "report_requeued"
    assert answer.json()["timeline"][-1]["detail"] == "by Dr Bob (by token pacs-bridge)"
    assert site.engine.revived == [("deliver", f"deliver-{follow_ups.report_id}", follow_ups.report_id)]


@pytest.mark.parametrize("has_pacs", [True, False])
def test_there_is_nothing_to_send_again_without_a_report_or_a_pacs(site: Site, has_pacs: bool) -> None:
    site.configure(PACS__ADDRESS="PACS@10.0.0.5:104" if has_pacs else "")
    site.concluded(0.1, report=not has_pacs)
    answer = site.program().post("/api/series/1.2.3.1/report/resend", json={"by": "Dr Bob"})
    assert answer.status_code == 409
    assert site.engine.revived == []


def test_what_is_wrong_with_the_service(site: Site) -> None:
    assert get(site, "/api/problems") == []
    site.line.watchbook.seen({(Trouble.SENDER_SILENT, "MR1"): "no image from MR1"}, site.clock[0])
    assert get(site, "/api/problems") == [
        {
            "kind": "SENDER_SILENT",
            "meaning": MEANINGS[Trouble.SENDER_SILENT],
            "subject": "MR1",
            "detail": "no image from MR1",
            "opened_at": "2026-03-01T03:00:00Z",
        }
    ]
    site.line.watchbook.seen({}, site.clock[0] + timedelta(minutes=1))
    assert get(site, "/api/problems") == []


def test_health_and_readiness(site: Site) -> None:
    assert get(site, "/healthz") == {"status": "ok"}
    assert get(site, "/readyz") == {"status": "ready"}
    site.readiness[0] = "the DICOM port is closed"
    assert get(site, "/readyz", 503) == {"status": "not ready", "reason": "the DICOM port is closed"}


def test_the_description_of_the_api_is_served_and_complete(site: Site) -> None:
    described = get(site, "/openapi.json")
    assert set(described["paths"]) == {
        "/healthz", "/readyz", "/api/series", "/api/series/{series_instance_uid}",
        "/api/series/{series_instance_uid}/acknowledge", "/api/series/{series_instance_uid}/report/resend",
        "/api/problems",
    }  # fmt: skip
    series = described["components"]["schemas"]["SeriesJson"]
    assert set(series["required"]) == set(series["properties"])
    assert set(described["paths"]["/api/series/{series_instance_uid}/acknowledge"]["post"]["responses"]) == {
        "200", "400", "401", "403", "404", "409", "411", "413", "422"
    }  # fmt: skip
    for path, operations in described["paths"].items():
        for operation in operations.values():
            assert bool(operation.get("security")) == path.startswith("/api/")
    assert described["components"]["securitySchemes"]["HTTPBearer"]["scheme"] == "bearer"


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
def test_no_page_loads_from_another_host(site: Site, path: str) -> None:
    assert site.client.get(path).status_code == 404
