"""What the worklist and the page of one study say."""

import html
import re
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from tests.web.conftest import PASSWORD, READER, START, STATUS, Site, a_volume
from triage.core.access import Role
from triage.core.escalation import OnCallLadder
from triage.core.lifecycle import ReportState
from triage.core.report import DISCLAIMER
from triage.core.trouble import MEANINGS, Trouble
from triage.core.volume import Reason
from triage.flow.on_call import OnCall
from triage.web import pages, wording
from triage.web.app import create_app


def links(page: str) -> list[int]:
    return [int(number) for number in re.findall(r'href="/series/(\d+)"', page)]


def words(page: str) -> str:
    """What a reader reads: no tags, no attributes."""
    body = page[page.index("<body>") :] if "<body>" in page else page
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", body)).split())


# The worklist


def test_an_empty_worklist_says_where_to_send(site: Site) -> None:
    shown = words(site.page())
    assert "AE title TRIAGE" in shown
    assert "Port 11112" in shown
    assert wording.SUMMARY_NONE in shown


def test_the_worklist_has_the_most_urgent_first(site: Site) -> None:
    low = site.concluded(0.1)[0]
    answered = site.suspected()
    site.store.acknowledge(answered, "Dr Ada", site.later(1))
    first_open = site.suspected()
    not_analysed = site.concluded()[0]
    receiving = site.arrives()
    analysing = site.analysing()
    second_open = site.suspected(paged=False)
    site.ignored()
    page = site.page()
    assert links(page) == [second_open, first_open, not_analysed, analysing, receiving, answered, low]
    headings = [wording.GROUP_OPEN, wording.GROUP_NOT_ANALYSED, wording.GROUP_RUNNING, wording.GROUP_DONE]
    places = [words(page).index(heading) for heading in headings]
    assert places == sorted(places)
    assert wording.SUMMARY_MANY.format(count=2) in page
    assert "<title>(2) Worklist" in page


def test_a_row_says_everything_in_words(site: Site) -> None:
    site.suspected(name="Okafor^Ngozi^A", patient_id="00418832", description="Ax DWI")
    site.later(180)
    shown = words(site.page())
    for part in (
        wording.SUSPECTED, wording.SUMMARY_ONE, "Okafor, Ngozi A", "00418832", "Ax DWI", "3 min ago", "0.93",
        "threshold 0.50", wording.PAGED, wording.REPORT_PENDING,
    ):  # fmt: skip
        assert part in shown


def test_each_kind_has_its_own_shape(site: Site) -> None:
    site.suspected()
    site.concluded(0.1)
    site.concluded()
    site.arrives()
    shapes = re.findall(r'<svg class="icon".*?</svg>', site.page(), re.DOTALL)
    assert len(set(shapes)) == 4


def test_the_bar_marks_the_threshold(site: Site) -> None:
    site.concluded(0.25)
    page = site.page()
    assert '<rect class="value" width="25.0" height="10"/>' in page
    assert '<path class="threshold" d="M50.0 0v10"/>' in page


def test_the_fragment_is_what_changes(site: Site) -> None:
    site.suspected()
    fragment = site.page("/worklist")
    assert "<html" not in fragment
    assert fragment.count("data-live") == 3
    assert fragment.strip() in site.page()


def test_an_open_alert_keeps_its_series_on_top_whatever_came_later(site: Site) -> None:
    series_id = site.suspected()
    site.adds_image(1, 1)
    site.concluded(0.1, sources="b", series_id=series_id, after=1)
    page = site.page()
    assert wording.GROUP_OPEN in page
    assert wording.GROUP_DONE not in page
    assert wording.EARLIER_ALERT in page


def test_open_alerts_that_the_list_is_too_short_for_are_counted() -> None:
    shown = pages.worklist([], datetime(2026, 3, 1, 3, tzinfo=UTC), open_alerts=2, is_paging=True)
    assert shown.notice == wording.ALERTS_ELSEWHERE.format(count=2)


def test_series_that_were_set_aside_have_their_own_page(site: Site) -> None:
    series_id = site.ignored(description="t2_flair")
    assert links(site.page()) == []
    page = site.page("/ignored")
    assert links(page) == [series_id]
    assert "t2_flair" in page
    assert wording.IGNORED_ADVICE in page
    study = words(site.page(f"/series/{series_id}"))
    assert wording.IGNORED in study
    assert "no diffusion" in study


# The page of one study


def test_a_suspected_study(site: Site) -> None:
    series_id = site.suspected(volume=a_volume())
    page = site.page(f"/series/{series_id}")
    shown = words(page)
    for part in (
        wording.SUSPECTED, wording.SUSPECTED_ADVICE, "Model rrcnn 0.1.0", STATUS, DISCLAIMER, "0.93",
        "Threshold in use: 0.50", wording.PROBABILITY, wording.THRESHOLD_MEANING, wording.ORIENTATION,
        "b = 1000 s/mm²", wording.PAGED, wording.REPORT_PENDING,
    ):  # fmt: skip
        assert part in shown
    assert "<h1>DWI-ASPECTS 1-6 suspected</h1>" in page
    assert page.count('loading="lazy"') == 6
    assert page.count('<li class="seen">') == 3
    assert "2 to 4 of 6" in shown


def test_a_study_that_is_not_suspected_is_not_called_normal(site: Site) -> None:
    series_id, _ = site.concluded(0.1)
    page = site.page(f"/series/{series_id}")
    assert f"<h1>{wording.NOT_SUSPECTED}</h1>" in page
    assert wording.NOT_SUSPECTED_ADVICE in page
    assert wording.SUSPECTED not in page.replace(wording.THRESHOLD_MEANING, "")
    assert wording.NOBODY_PAGED in page
    assert f'action="/series/{series_id}/acknowledge"' not in page


@pytest.mark.parametrize("reason", list(Reason))
def test_a_study_that_was_not_analysed_never_looks_like_a_result(site: Site, reason: Reason) -> None:
    series_id, _ = site.concluded(reason=reason.value)
    for page in (site.page(f"/series/{series_id}"), site.page()):
        assert wording.NOT_ANALYSED in page
        assert wording.REASONS[reason] in page
        for misleading in ("7-10", "1-6 suspected", "not suspected</", 'class="bar"', "not-suspected"):
            assert misleading not in page.replace(wording.GROUP_DONE, "")
    page = site.page(f"/series/{series_id}")
    assert wording.NOT_ANALYSED_ADVICE in page
    assert "Slice gap 9.8 mm at position 31" in page
    assert wording.NO_PICTURES in page


@pytest.mark.parametrize(
    ("state", "said"),
    [("arrives", wording.RECEIVING), ("analysing", wording.ANALYSING), ("ignored", wording.IGNORED)],
)
def test_a_study_without_a_result(site: Site, state: str, said: str) -> None:
    page = site.page(f"/series/{getattr(site, state)()}")
    assert f"<h1>{said}</h1>" in page
    assert (wording.NO_PICTURES_YET in page) == (state != "ignored")
    assert wording.NO_REPORT in page
    assert "report.dcm" not in page
    assert "7-10" not in page


def test_the_delays_count_from_the_last_image(site: Site) -> None:
    series_id, follow_ups = site.concluded(0.9)
    assert follow_ups.alert_id is not None
    assert follow_ups.report_id is not None
    site.paged(follow_ups.alert_id, 0.5)
    site.store.report_stored(follow_ups.report_id, site.later(70), "")
    shown = words(site.page(f"/series/{series_id}"))
    assert "result 1.8 s page sent 2.2 s report in the PACS 1 min 12 s" in shown
    assert "Result reached +1.5 s" in shown


def test_a_later_image_is_announced_until_it_was_looked_at(site: Site) -> None:
    series_id, _ = site.concluded(0.1)
    site.adds_image(1, 1)
    assert wording.NEWER_IMAGES in site.page(f"/series/{series_id}")
    site.concluded(0.1, series_id=series_id, after=1)
    page = site.page(f"/series/{series_id}")
    assert wording.NEWER_IMAGES not in page
    assert wording.EVENTS["nothing_new"] in page


def test_a_new_revision_says_that_it_replaces_a_result(site: Site) -> None:
    series_id, _ = site.concluded(0.1)
    site.adds_image(1, 1)
    site.concluded(0.9, sources="b", series_id=series_id, after=1)
    page = site.page(f"/series/{series_id}")
    assert wording.REVISED.format(revision=2) in page
    assert wording.SUSPECTED in page


def test_the_key_changes_with_what_must_be_loaded_anew(site: Site) -> None:
    def key() -> str:
        (found,) = re.findall(r'data-key="([^"]*)"', site.page("/series/1"))
        return found

    site.arrives()
    keys = [key()]
    site.store.begin_assessment(1, 0, site.later(1), "whole")
    keys.append(key())
    site.concluded(0.9, series_id=1)
    keys.append(key())
    site.store.acknowledge(1, "Dr Ada", site.later(1))
    keys.append(key())
    assert len(set(keys)) == 4


def test_events_that_nobody_named_are_shown_too(site: Site) -> None:
    view = replace_events(site, "purged_later")
    assert pages.study(view, START, is_paging=True).timeline[0].words == "Purged later"


def replace_events(site: Site, name: str):
    view = site.store.view(site.arrives())
    assert view is not None
    view.timeline[0].event = name
    return view


def test_no_delays_without_a_last_image(site: Site) -> None:
    view = replace_events(site, "analysed")
    assert pages.study(view, START, is_paging=True).delays == []


# Report and alert


def test_the_report_in_every_state(site: Site) -> None:
    series_id, follow_ups = site.concluded(0.1)
    assert follow_ups.report_id is not None
    site.store.report_not_stored(follow_ups.report_id, site.later(1), "PACS did not answer", final=False)
    page = site.page(f"/series/{series_id}")
    assert wording.REPORT_DELAYED in page
    assert "PACS did not answer" in page
    site.store.report_not_stored(follow_ups.report_id, site.later(1), "PACS refused", final=True)
    assert wording.REPORT_FAILED in site.page(f"/series/{series_id}")
    site.store.report_stored(follow_ups.report_id, site.later(1), "at PACS")
    assert wording.REPORT_STORED in site.page(f"/series/{series_id}")


def test_a_report_that_stays_here(site: Site) -> None:
    series_id, _ = site.concluded(0.1, report_state=ReportState.NONE)
    assert wording.REPORT_KEPT in site.page(f"/series/{series_id}")


def test_a_report_that_could_not_be_built(site: Site) -> None:
    series_id, _ = site.concluded(0.1, report=False)
    assert wording.REPORT_NOT_BUILT in site.page(f"/series/{series_id}")
    site.page(f"/series/{series_id}/report.dcm", 404)


def test_the_report_can_be_downloaded(site: Site) -> None:
    series_id, _ = site.concluded(0.1)
    answer = site.client.get(f"/series/{series_id}/report.dcm")
    assert answer.content == b"DICM report"
    assert answer.headers["content-type"] == "application/dicom"
    assert answer.headers["content-disposition"] == f'attachment; filename="triage-report-{series_id}.dcm"'


def test_the_alert_in_every_state(site: Site) -> None:
    series_id, follow_ups = site.concluded(0.9)
    alert_id = follow_ups.alert_id
    assert alert_id is not None
    assert wording.PAGE_PENDING in site.page(f"/series/{series_id}")
    site.paged(alert_id, taken=False)
    page = site.page(f"/series/{series_id}")
    assert wording.PAGE_FAILED in page
    assert "no channel of Dr Lee (rung 1) took the message" in page
    site.paged(alert_id)
    assert wording.PAGED in site.page(f"/series/{series_id}")
    site.store.acknowledge(series_id, "Dr Ada", site.later(1))
    assert wording.ACKNOWLEDGED.format(by="Dr Ada") in site.page(f"/series/{series_id}")


def test_an_alert_without_a_channel_can_still_be_acknowledged(site: Site, web_server) -> None:
    web_server.app = create_app(replace(site.line, on_call=OnCall(ladder=OnCallLadder(()))), lambda: None)
    page = site.page(f"/series/{site.suspected(paged=False)}")
    assert wording.NO_CHANNEL in page
    assert '/acknowledge"' in page


def test_an_alert_of_an_earlier_result_can_be_acknowledged(site: Site) -> None:
    series_id = site.suspected()
    site.adds_image(1, 1)
    site.concluded(0.1, sources="b", series_id=series_id, after=1)
    page = site.page(f"/series/{series_id}")
    assert wording.NOT_SUSPECTED in page
    assert wording.EARLIER_ALERT in page
    site.client.post(f"/series/{series_id}/acknowledge")
    assert site.engine.told == [("alert-1", "news", "acknowledged")]
    assert wording.EARLIER_ALERT not in site.page(f"/series/{series_id}")


def test_acknowledging_on_the_page_is_in_ones_own_name(site: Site) -> None:
    series_id = site.suspected()
    page = site.page(f"/series/{series_id}")
    assert f"Your name, <bdi>{READER}</bdi>, and the time are kept." in page
    answer = site.client.post(f"/series/{series_id}/acknowledge", data={"by": "Somebody Else"})
    assert (answer.status_code, answer.headers["location"]) == (303, f"/series/{series_id}")
    page = site.page(f"/series/{series_id}")
    assert wording.ACKNOWLEDGED.format(by=READER) in page
    assert f"2026-03-01 03:00:0{site.clock[0].second}" in page
    assert '/acknowledge"' not in page
    again = site.browser(Role.ADMIN).post(f"/series/{series_id}/acknowledge")
    assert again.status_code == 303
    assert wording.ACKNOWLEDGED.format(by=READER) in site.page(f"/series/{series_id}")
    assert len(site.engine.told) == 1


def test_who_may_only_look_has_no_buttons(site: Site) -> None:
    site.configure(PACS__ADDRESS="PACS@10.0.0.5:104")
    series_id, follow_ups = site.concluded(0.9)
    assert follow_ups.report_id is not None
    site.store.report_not_stored(follow_ups.report_id, site.later(1), "refused", final=True)
    viewed, read = (
        site.browser(role).get(f"/series/{series_id}").text for role in (Role.VIEWER, Role.READER)
    )
    for action in (f"/series/{series_id}/acknowledge", f"/series/{series_id}/report/resend"):
        assert f'action="{action}"' in read
        assert f'action="{action}"' not in viewed
    assert "Your account may look, not acknowledge." in viewed


def test_a_report_that_was_given_up_is_sent_again_from_the_page(site: Site) -> None:
    site.configure(PACS__ADDRESS="PACS@10.0.0.5:104")
    series_id, follow_ups = site.concluded(0.1)
    assert follow_ups.report_id is not None
    path = f"/series/{series_id}/report/resend"
    assert path not in site.page(f"/series/{series_id}"), "it is on its way"
    site.store.report_not_stored(follow_ups.report_id, site.later(1), "refused", final=True)
    assert path in site.page(f"/series/{series_id}")
    answer = site.client.post(path)
    assert (answer.status_code, answer.headers["location"]) == (303, f"/series/{series_id}")
    shown = words(site.page(f"/series/{series_id}"))
    assert wording.REPORT_PENDING in shown
    assert f"{wording.EVENTS['report_requeued']} +0.00 s by {READER}" in shown
    assert site.engine.revived == [("deliver", f"deliver-{follow_ups.report_id}", follow_ups.report_id)]


def test_there_is_no_report_to_send_again_without_a_pacs(site: Site) -> None:
    series_id, _ = site.concluded(0.1, report_state=ReportState.NONE)
    assert "resend" not in site.page(f"/series/{series_id}")
    assert site.client.post(f"/series/{series_id}/report/resend").status_code == 409
    assert site.engine.revived == []


def test_the_services_own_troubles_are_on_the_worklist(site: Site) -> None:
    detail = "no image from MR1<script>"
    site.line.watchbook.seen({(Trouble.SENDER_SILENT, "MR1<script>"): detail}, site.later(1))
    for path in ("/", "/worklist"):
        page = site.page(path)
        assert f"{MEANINGS[Trouble.SENDER_SILENT]}. {detail}. Noticed 2026-03-01 03:00:01 UTC" in words(page)
        assert "<script>" not in page
    site.line.watchbook.seen({}, site.later(1))
    assert MEANINGS[Trouble.SENDER_SILENT] not in site.page()


# Whatever was sent to us


def test_hostile_text_is_inert(site: Site) -> None:
    hostile = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"
    series_id, follow_ups = site.concluded(
        0.9, name=f"{hostile}^x", patient_id=hostile, description=f"{hostile}{{{{ 7*7 }}}}"
    )
    assert follow_ups.report_id is not None
    site.store.report_not_stored(follow_ups.report_id, site.later(1), hostile, final=False)
    site.store.acknowledge(series_id, hostile, site.later(1))
    site.line.accounts.add(hostile, PASSWORD, Role.ADMIN, START)
    browser = site.logged_in(hostile)
    site.ignored(name=hostile, patient_id=hostile, description=hostile)
    for path in ("/", "/worklist", "/ignored", f"/series/{series_id}", "/accounts", "/password", "/no/such"):
        page = browser.get(path).text
        assert "&lt;script&gt;" in page
        assert "<script>" not in page
        assert "<img src=x" not in page
        assert "49" not in words(page)


def test_no_uid_is_in_any_page(site: Site) -> None:
    series_id = site.suspected(volume=a_volume())
    for path in ("/", f"/series/{series_id}"):
        assert "1.2.3." not in site.page(path)
        assert "1.2.9." not in site.page(path)
