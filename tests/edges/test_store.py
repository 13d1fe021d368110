"""What can become true in the database."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy.exc import IntegrityError

from triage.core.lifecycle import ENDED, AlertState, ReportState, SeriesState, moved
from triage.edges.store import Arrival, Assessment, BuiltReport, Conclusion, FollowUps, Store
from triage.edges.store.database import migrate
from triage.edges.store.tables import Base

T0 = datetime(2026, 1, 1, 3, 0, tzinfo=UTC)


@pytest.fixture
def store(tmp_path: Path):
    store = Store.open(f"sqlite:///{tmp_path}/t.db")
    yield store
    store.close()


def arrival(number: int, series: str = "1.2.3") -> Arrival:
    return Arrival(
        sop_instance_uid=f"{series}.{number}",
        series_instance_uid=series,
        study_instance_uid="1.2",
        calling_ae="SCANNER",
        patient_name="A^B",
        patient_id="1",
        description="dwi",
        sha256=f"{number:064d}",
        size_bytes=1,
        header="{}",
    )


def conclusion(sources: str = "a", category: str | None = "ASPECTS_1_6") -> Conclusion:
    return Conclusion(
        sources_sha256=sources,
        category=category,
        probability=0.9 if category else None,
        threshold=0.5,
        reason=None if category else "INCOMPLETE",
        model_name="tiny",
        model_version="0.0.1",
        model_sha256="0" * 64,
        model_status="Development weights",
    )


def conclude(
    store: Store, assessment: Assessment, number: int, *, sources: str = "a", urgent: bool = True
) -> FollowUps:
    report = BuiltReport(f"9.{number}", b"report", ReportState.PENDING)
    return store.conclude(
        assessment, conclusion(sources), report=report, urgent=urgent, at=T0, note="ASPECTS_1_6"
    )


def state_of(store: Store, series_id: int) -> SeriesState:
    return store.series(series_id).state


def events(store: Store, series_id: int) -> list[str]:
    view = store.view(series_id)
    assert view is not None
    return [event.event for event in view.timeline]


def test_migrations_make_exactly_the_tables(store: Store) -> None:
    with store.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []


def test_migrations_go_down_and_up_again(store: Store) -> None:
    migrate(store.engine, "base")
    assert set(sa.inspect(store.engine).get_table_names()) == {"alembic_version"}
    migrate(store.engine)
    assert "series" in sa.inspect(store.engine).get_table_names()


def test_commits_are_on_stable_storage(store: Store) -> None:
    with store.engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1


def test_a_naive_time_is_refused(store: Store) -> None:
    with pytest.raises(sa.exc.StatementError, match="naive"):
        store.register(arrival(1), datetime(2026, 1, 1))  # noqa: DTZ001


def test_registering_twice_under_one_uid_fails(store: Store) -> None:
    store.register(arrival(1), T0)
    with pytest.raises(IntegrityError, match="UNIQUE"):
        store.register(arrival(1), T0)


def test_instances_gather_in_their_series_until_someone_looks(store: Store) -> None:
    first = store.register(arrival(1), T0)
    series_id = first.series_id
    second = store.register(arrival(2), T0 + timedelta(seconds=1))
    assert (second.series_id, second.evaluated_up_to) == (series_id, 0)
    assert store.registration("1.2.3.2") == second
    assert store.not_yet_evaluated() == [(series_id, 0)]
    assessment = store.begin_assessment(series_id, 0, T0, "whole")
    assert state_of(store, series_id) is SeriesState.ANALYSING
    assert store.not_yet_evaluated() == []
    assert (
        store.register(arrival(3), T0).evaluated_up_to == assessment.up_to_instance_id == second.instance_id
    )
    assert len(store.headers_after(series_id, 0, up_to=assessment.up_to_instance_id)) == 2


def test_beginning_again_after_a_crash_is_the_same_assessment(store: Store) -> None:
    series_id = store.register(arrival(1), T0).series_id
    first = store.begin_assessment(series_id, 0, T0, "whole")
    store.register(arrival(2), T0)
    assert store.begin_assessment(series_id, 0, T0, "whole") == first
    assert events(store, series_id).count("complete") == 1


def test_concluding_again_after_a_crash_gives_the_same_follow_ups(store: Store) -> None:
    series_id = store.register(arrival(1), T0).series_id
    assessment = store.begin_assessment(series_id, 0, T0, "whole")
    first = conclude(store, assessment, 1)
    assert first.report_id is not None
    assert first.alert_id is not None
    assert conclude(store, assessment, 2) == first
    assert store.report(first.report_id).sop_instance_uid == "9.1"
    assert state_of(store, series_id) is SeriesState.ASSESSED


def test_later_instances_outside_the_volume_make_no_revision(store: Store) -> None:
    series_id = store.register(arrival(1), T0).series_id
    conclude(store, store.begin_assessment(series_id, 0, T0, "whole"), 1)
    evaluated = store.register(arrival(2), T0).evaluated_up_to
    assert conclude(store, store.begin_assessment(series_id, evaluated, T0, "quiet"), 2) == FollowUps()
    assert store.series(series_id).revision == 1
    assert events(store, series_id)[-1] == "nothing_new"


def test_a_late_slice_makes_a_revision_with_its_own_report(store: Store) -> None:
    series_id = store.register(arrival(1), T0).series_id
    conclude(store, store.begin_assessment(series_id, 0, T0, "whole"), 1)
    evaluated = store.register(arrival(2), T0).evaluated_up_to
    follow_ups = conclude(store, store.begin_assessment(series_id, evaluated, T0, "quiet"), 2, sources="b")
    assert follow_ups.report_id is not None
    view = store.view(series_id)
    assert view is not None
    assert view.series.revision == 2
    assert view.report is not None
    assert view.report.sop_instance_uid == "9.2"
    newest = store.newest_report(series_id)
    assert newest is not None
    assert newest.sop_instance_uid == "9.2"


def test_an_assessment_that_was_overtaken_says_nothing(store: Store) -> None:
    series_id = store.register(arrival(1), T0).series_id
    slow = store.begin_assessment(series_id, 0, T0, "quiet")
    evaluated = store.register(arrival(2), T0).evaluated_up_to
    conclude(store, store.begin_assessment(series_id, evaluated, T0, "quiet"), 2, sources="b")
    assert conclude(store, slow, 1) == FollowUps()
    assert store.series(series_id).revision == 1


def test_ignored_stays_out_of_the_worklist_but_can_be_asked_for(store: Store) -> None:
    series_id = store.register(arrival(1), T0).series_id
    assessment = store.begin_assessment(series_id, 0, T0, "quiet")
    store.ignore(assessment, T0, "no diffusion")
    store.ignore(assessment, T0, "no diffusion")
    assert events(store, series_id).count("ignored") == 1
    assert store.worklist() == []
    assert [view.series.id for view in store.overview(SeriesState.IGNORED)] == [series_id]


def test_a_judged_series_is_not_ignored_later(store: Store) -> None:
    series_id = store.register(arrival(1), T0).series_id
    conclude(store, store.begin_assessment(series_id, 0, T0, "whole"), 1)
    evaluated = store.register(arrival(2), T0).evaluated_up_to
    store.ignore(store.begin_assessment(series_id, evaluated, T0, "quiet"), T0, "no diffusion")
    assert state_of(store, series_id) is SeriesState.ASSESSED


def test_a_report_is_stored_once_however_often_it_is_said(store: Store) -> None:
    series_id = store.register(arrival(1), T0).series_id
    report_id = conclude(store, store.begin_assessment(series_id, 0, T0, "whole"), 1).report_id
    assert report_id is not None
    store.report_not_stored(report_id, T0, "down", final=False)
    store.report_not_stored(report_id, T0, "down", final=False)
    store.report_stored(report_id, T0, "at PACS")
    store.report_stored(report_id, T0, "at PACS")
    assert store.report(report_id).state is ReportState.STORED
    assert store.report(report_id).attempts == 3
    assert events(store, series_id)[-2:] == ["report_delayed", "report_stored"]


def test_a_report_given_up_is_shown_as_failed(store: Store) -> None:
    series_id = store.register(arrival(1), T0).series_id
    report_id = conclude(store, store.begin_assessment(series_id, 0, T0, "whole"), 1).report_id
    assert report_id is not None
    store.report_not_stored(report_id, T0, "refused", final=True)
    assert store.report(report_id).state is ReportState.FAILED
    assert events(store, series_id)[-1] == "report_failed"


def test_the_outcome_is_kept_even_without_a_report(store: Store) -> None:
    series_id = store.register(arrival(1), T0).series_id
    assessment = store.begin_assessment(series_id, 0, T0, "whole")
    follow_ups = store.conclude(assessment, conclusion(), report=None, urgent=True, at=T0, note="x")
    assert follow_ups.report_id is None
    assert follow_ups.alert_id is not None
    assert "report_failed" in events(store, series_id)


def test_an_alert_is_answered_once_and_by_name(store: Store) -> None:
    series_id = store.register(arrival(1), T0).series_id
    alert_id = conclude(store, store.begin_assessment(series_id, 0, T0, "whole"), 1).alert_id
    assert alert_id is not None
    for taken in (False, False, True):
        store.paged(alert_id, T0, rung=0, contact="Dr Lee", taken=taken)
    assert store.open_alerts() == 1
    assert store.acknowledge(series_id, "Dr Kim", T0) == alert_id
    assert store.acknowledge(series_id, "Dr Lee", T0) is None
    alert = store.alert(alert_id)
    assert (alert.state, alert.acknowledged_by, alert.acknowledged_at) == (
        AlertState.ACKNOWLEDGED,
        "Dr Kim",
        T0,
    )
    assert events(store, series_id)[-3:] == ["alert_failed", "alert_sent", "acknowledged"]
    store.paged(alert_id, T0, rung=1, contact="Dr Kim", taken=True)
    assert store.alert(alert_id).state is AlertState.ACKNOWLEDGED
    assert store.open_alerts() == 0


def test_a_calm_result_raises_no_alert(store: Store) -> None:
    series_id = store.register(arrival(1), T0).series_id
    follow_ups = conclude(store, store.begin_assessment(series_id, 0, T0, "whole"), 1, urgent=False)
    assert follow_ups.alert_id is None
    assert store.acknowledge(series_id, "Dr Kim", T0) is None


def test_other_content_under_a_known_uid_is_noted(store: Store) -> None:
    series_id = store.register(arrival(1), T0).series_id
    store.note_conflict("1.2.3.1", T0, "other content, kept out")
    store.note_conflict("9.9.9", T0, "of nobody")
    assert events(store, series_id) == ["first_instance", "conflicting_instance"]


def test_contents_are_found_for_a_long_series(store: Store) -> None:
    for number in range(1, 12):
        store.register(arrival(number), T0)
    uids = [f"1.2.3.{number}" for number in range(1, 12)]
    assert len(store.contents(uids)) == 11
    assert len(store.contents(uids * 100)) == 11


def test_unknown_series_is_nothing(store: Store) -> None:
    assert store.view(1) is None
    assert store.view_by_uid("1.2.3") is None
    assert store.registration("1.2.3") is None
    assert store.newest_report(1) is None


@pytest.mark.parametrize("current", SeriesState)
@pytest.mark.parametrize("to", SeriesState)
def test_no_state_leads_back_into_waiting(current: SeriesState, to: SeriesState) -> None:
    allowed = to in ENDED and current is not SeriesState.RECEIVING
    if current in (SeriesState.ASSESSED, SeriesState.NOT_ASSESSED) and to is SeriesState.IGNORED:
        allowed = False
    if (current, to) == (SeriesState.RECEIVING, SeriesState.ANALYSING):
        allowed = True
    if allowed:
        assert moved(current, to) is to
    else:
        with pytest.raises(ValueError, match=f"from {current.value} to {to.value}"):
            moved(current, to)


def test_an_open_alert_speaks_for_the_newer_result_and_is_answered_once(store: Store) -> None:
    series_id = store.register(arrival(1), T0).series_id
    first = conclude(store, store.begin_assessment(series_id, 0, T0, "whole"), 1)
    evaluated = store.register(arrival(2), T0).evaluated_up_to
    second = conclude(store, store.begin_assessment(series_id, evaluated, T0, "quiet"), 2, sources="b")
    assert second.alert_id == first.alert_id
    assert "alert_amended" in events(store, series_id)
    assert store.open_alerts() == 1
    assert store.acknowledge(series_id, "Dr Kim", T0) == first.alert_id
    assert store.open_alerts() == 0


def test_an_open_alert_stays_open_and_visible_when_a_later_result_is_calm(store: Store) -> None:
    series_id = store.register(arrival(1), T0).series_id
    first = conclude(store, store.begin_assessment(series_id, 0, T0, "whole"), 1)
    evaluated = store.register(arrival(2), T0).evaluated_up_to
    later = store.begin_assessment(series_id, evaluated, T0, "quiet")
    conclude(store, later, 2, sources="b", urgent=False)
    view = store.view(series_id)
    assert view is not None
    assert view.alert is not None
    assert view.alert.id == first.alert_id
    assert view.alert.state is AlertState.PENDING


def test_open_alerts_never_fall_off_the_worklist(store: Store) -> None:
    urgent_id = store.register(arrival(1, "1.2.3"), T0).series_id
    conclude(store, store.begin_assessment(urgent_id, 0, T0, "whole"), 1)
    for number in range(5):
        store.register(arrival(1, f"1.2.4.{number}"), T0 + timedelta(minutes=number + 1))
    assert store.worklist(limit=2)[0].series.id == urgent_id


def test_errors_of_the_database_name_no_uid(store: Store) -> None:
    store.register(arrival(1), T0)
    with pytest.raises(IntegrityError) as caught:
        store.register(arrival(1), T0)
    assert "1.2.3.1" not in str(caught.value)


def test_a_database_that_is_gone_does_not_answer(tmp_path: Path) -> None:
    store = Store.open(f"sqlite:///{tmp_path}/t.db")
    assert store.is_answering()
    with store.engine.execution_options(write=True).begin() as connection:
        connection.execute(sa.text("ALTER TABLE series RENAME TO elsewhere"))
    assert not store.is_answering()
    store.close()


def test_what_is_unfinished_is_found_at_a_start(store: Store) -> None:
    series_id = store.register(arrival(1), T0).series_id
    assert store.not_yet_evaluated() == [(series_id, 0)]
    assessment = store.begin_assessment(series_id, 0, T0, "whole")
    assert store.not_concluded() == [(series_id, 0)]
    follow_ups = conclude(store, assessment, 1)
    assert store.not_concluded() == []
    assert list(store.not_delivered()) == [follow_ups.report_id]
    assert list(store.not_answered()) == [follow_ups.alert_id]
    assert follow_ups.report_id is not None
    store.report_stored(follow_ups.report_id, T0, "at PACS")
    store.acknowledge(series_id, "Dr Kim", T0)
    assert list(store.not_delivered()) == []
    assert list(store.not_answered()) == []
