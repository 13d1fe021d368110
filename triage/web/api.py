"""The JSON that other systems build on. Keys are always present; times are RFC 3339, UTC."""

import json
import re
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Literal, TypeAlias

from fastapi import APIRouter, Depends, HTTPException
from fastapi import Path as PathParameter
from fastapi.exceptions import RequestValidationError
from fastapi.security import HTTPBearer
from pydantic import AfterValidator, BaseModel, Field, StringConstraints
from starlette.responses import JSONResponse, Response

from triage.core.access import LONGEST_NAME, clean_name
from triage.core.audit import Action
from triage.core.finding import Category
from triage.core.lifecycle import AlertState, ReportState, SeriesState
from triage.core.trouble import MEANINGS, Trouble
from triage.core.volume import Reason, VolumeKind
from triage.edges.store import Alert, Event, Report, Result, SeriesView
from triage.flow.alert import acknowledge
from triage.flow.deliver import resend
from triage.flow.line import Line
from triage.web.auth import AskedBy
from triage.web.deeds import note_deed
from triage.web.state import LineInUse, Readiness, ViewsInUse


class OutcomeJson(BaseModel):
    """A category with its probability of DWI-ASPECTS 1-6, or the reason why there is none."""

    category: Category | None
    probability: float | None
    threshold: float | None
    reason: Reason | None
    detail: str | None


class VolumeJson(BaseModel):
    """The judged volume. `b_value` in s/mm2, `spacing_mm` of (slices, rows, columns)."""

    b_value: float
    kind: VolumeKind
    slices: int
    spacing_mm: tuple[float, float, float]


class ModelJson(BaseModel):
    """The model that judged, or would have, and what its weights are."""

    name: str
    version: str
    sha256: str
    status: str


class EventJson(BaseModel):
    """One line of the timeline."""

    at: datetime
    event: str
    detail: str


class ReportJson(BaseModel):
    """Where the Structured Report is. `none` with a UID: built and kept, but no PACS is configured."""

    state: ReportState
    sop_instance_uid: str | None


class AlertJson(BaseModel):
    """Whether a person was called and has answered."""

    state: Literal["none", "sent", "acknowledged"]
    acknowledged_by: str | None
    acknowledged_at: datetime | None


class SeriesJson(BaseModel):
    """One series with its newest result and what became of it."""

    series_instance_uid: str
    study_instance_uid: str
    revision: int
    state: SeriesState
    outcome: OutcomeJson
    volume: VolumeJson | None
    model: ModelJson | None
    timeline: list[EventJson]
    report: ReportJson
    alert: AlertJson


class HealthJson(BaseModel):
    """The process answers."""

    status: Literal["ok"]


class ReadyJson(BaseModel):
    """The service can do its work."""

    status: Literal["ready"]


class NotReadyJson(BaseModel):
    """The service cannot do its work, and why."""

    status: Literal["not ready"]
    reason: str


class PersonJson(BaseModel):
    """For whom a program acts."""

    by: Annotated[
        str,
        StringConstraints(max_length=LONGEST_NAME),
        AfterValidator(clean_name),
        Field(min_length=1, examples=["Dr Ada Lovelace"]),
    ]


class TroubleJson(BaseModel):
    """Something wrong with the service itself. `subject`: which one, where there can be several."""

    kind: Trouble
    meaning: str
    subject: str
    detail: str
    opened_at: datetime


class ProblemJson(BaseModel):
    """What went wrong, without naming a series."""

    detail: str


async def _person(actor: AskedBy, body: PersonJson | None = None) -> str:
    """Whose deed it is: a browser's own account, or whom a program names."""
    if actor.browser is not None:
        return actor.name
    if body is None:
        missing = {"type": "missing", "loc": ("body",), "msg": "Field required"}
        raise RequestValidationError([missing])
    return actor.on_behalf_of(body.by)


Person: TypeAlias = Annotated[str, Depends(_person)]
SeriesUid: TypeAlias = Annotated[str, PathParameter(examples=["1.2.840.113619.2.5.1"])]

_BEARER = HTTPBearer(
    auto_error=False, description="A token made by `triage token add`, or that of http.api_token."
)

_Responses: TypeAlias = dict[int | str, dict[str, Any]]
_NOT_READY: _Responses = {503: {"model": NotReadyJson, "description": "Not ready"}}
_REFUSED: _Responses = {
    401: {"model": ProblemJson, "description": "No token, or none that is in force"},
    403: {"model": ProblemJson, "description": "The token's role may not do this"},
}
_UNREADABLE: _Responses = {
    400: {"model": ProblemJson, "description": "The body is not UTF-8"},
    411: {"model": ProblemJson, "description": "The body's length is not stated"},
    413: {"model": ProblemJson, "description": "The body is larger than 64 KiB"},
}
_NOT_FOUND: _Responses = {404: {"model": ProblemJson, "description": "No such series"}}
_NOTHING_OPEN: _Responses = {409: {"model": ProblemJson, "description": "Nothing to acknowledge"}}
_NOT_TO_SEND: _Responses = {
    409: {"model": ProblemJson, "description": "There is no report, no PACS, or it is on its way already"}
}

health = APIRouter(tags=["health"])

# The tokens were checked before any route was looked for; this says so to who reads the schema.
router = APIRouter(tags=["series"], dependencies=[Depends(_BEARER)], responses=_REFUSED)


@health.get("/healthz")
async def healthz() -> HealthJson:
    """Answers as long as the process does."""
    return HealthJson(status="ok")


@health.get("/readyz", response_model=ReadyJson, responses=_NOT_READY)
def readyz(is_ready: Readiness) -> Response:
    """200 when studies can be received and judged, else 503 and why not."""
    reason = is_ready()
    if reason is None:
        return JSONResponse(ReadyJson(status="ready").model_dump())
    return JSONResponse(NotReadyJson(status="not ready", reason=reason).model_dump(), status_code=503)


@router.get("/api/series")
def list_series(line: LineInUse, state: SeriesState | None = None) -> list[SeriesJson]:
    """The newest series first, at most 200; of one state only, where one is given."""
    views = line.store.overview(state)
    timelines = line.store.timelines([view.series.id for view in views])
    return [describe(view, timelines.get(view.series.id, ())) for view in views]


@router.get("/api/series/{series_instance_uid}", responses=_NOT_FOUND)
def one_series(
    series_instance_uid: SeriesUid, line: LineInUse, actor: AskedBy, views: ViewsInUse
) -> SeriesJson:
    """One series by its Series Instance UID."""
    view = _find(line, series_instance_uid)
    if views.begins(actor, view.series.id, line.now()):
        note_deed(line, actor, Action.STUDY_VIEWED, view.series.id)
    return describe(view, view.timeline)


@router.post(
    "/api/series/{series_instance_uid}/acknowledge", responses=_UNREADABLE | _NOT_FOUND | _NOTHING_OPEN
)
def acknowledge_series(
    series_instance_uid: SeriesUid, line: LineInUse, actor: AskedBy, person: Person
) -> SeriesJson:
    """A person has seen the alert: no further page. 409 where there is nothing to acknowledge."""
    series_id = _find(line, series_instance_uid).series.id
    if not acknowledge(line, series_id, person, actor.address):
        raise HTTPException(409, "This series has no alert to acknowledge.")
    view = _find(line, series_instance_uid)
    return describe(view, view.timeline)


@router.post(
    "/api/series/{series_instance_uid}/report/resend", responses=_UNREADABLE | _NOT_FOUND | _NOT_TO_SEND
)
def resend_report(
    series_instance_uid: SeriesUid, line: LineInUse, actor: AskedBy, person: Person
) -> SeriesJson:
    """The newest report goes to the PACS once more, under the same UID."""
    view = _find(line, series_instance_uid)
    if view.report is None:
        raise HTTPException(409, "This series has no report.")
    if line.config.pacs.address is None:
        raise HTTPException(409, "No PACS is set up.")
    if not resend(line, view.report.id, person, actor.address):
        raise HTTPException(409, "This report is on its way already.")
    view = _find(line, series_instance_uid)
    return describe(view, view.timeline)


@router.get("/api/problems", tags=["health"])
def list_problems(line: LineInUse) -> list[TroubleJson]:
    """What is wrong with the service itself now, the oldest first. Empty: nothing."""
    return [
        TroubleJson(
            kind=Trouble(problem.kind),
            meaning=MEANINGS[Trouble(problem.kind)],
            subject=problem.subject,
            detail=problem.detail,
            opened_at=problem.opened_at,
        )
        for problem in line.watchbook.open_problems()
    ]


def describe(view: SeriesView, timeline: Sequence[Event]) -> SeriesJson:
    """One series as other systems see it."""
    return SeriesJson(
        series_instance_uid=view.series.series_instance_uid,
        study_instance_uid=view.series.study_instance_uid,
        revision=view.series.revision,
        state=view.series.state,
        outcome=_outcome(view.result),
        volume=_volume(view.result),
        model=_model(view.result),
        timeline=[EventJson(at=event.at, event=event.event, detail=event.detail) for event in timeline],
        report=_report(view.report),
        alert=_alert(view.alert),
    )


def _find(line: Line, series_instance_uid: str) -> SeriesView:
    # Some databases refuse a string that no UID can be (a NUL, for one) instead of finding nothing.
    is_uid = re.fullmatch(r"[0-9.]{1,64}", series_instance_uid, re.ASCII)
    view = line.store.view_by_uid(series_instance_uid) if is_uid else None
    if view is None:
        raise HTTPException(404, "No such series.")
    return view


def _outcome(result: Result | None) -> OutcomeJson:
    if result is None:
        return OutcomeJson(category=None, probability=None, threshold=None, reason=None, detail=None)
    return OutcomeJson(
        category=None if result.category is None else Category(result.category),
        probability=result.probability,
        threshold=result.threshold,
        reason=None if result.reason is None else Reason(result.reason),
        detail=result.detail,
    )


def _volume(result: Result | None) -> VolumeJson | None:
    if result is None or result.b_value is None:
        return None
    return VolumeJson.model_validate(
        {
            "b_value": result.b_value,
            "kind": result.volume_kind,
            "slices": result.slices,
            "spacing_mm": json.loads(result.spacing_mm or "null"),
        }
    )


def _model(result: Result | None) -> ModelJson | None:
    if result is None:
        return None
    return ModelJson.model_validate(
        {
            "name": result.model_name,
            "version": result.model_version,
            "sha256": result.model_sha256,
            "status": result.model_status,
        }
    )


def _report(report: Report | None) -> ReportJson:
    if report is None:
        return ReportJson(state=ReportState.NONE, sop_instance_uid=None)
    return ReportJson(state=report.state, sop_instance_uid=report.sop_instance_uid)


def _alert(alert: Alert | None) -> AlertJson:
    if alert is None or alert.state is AlertState.PENDING:
        # Nothing was sent yet, which is what other systems ask.
        return AlertJson(state="none", acknowledged_by=None, acknowledged_at=None)
    return AlertJson(
        state="acknowledged" if alert.state is AlertState.ACKNOWLEDGED else "sent",
        acknowledged_by=alert.acknowledged_by,
        acknowledged_at=alert.acknowledged_at,
    )
