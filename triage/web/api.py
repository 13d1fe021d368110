"""The JSON that other systems build on. Keys are always present; times are RFC 3339, UTC."""

import json
import re
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Annotated, Any, Literal, TypeAlias

from fastapi import APIRouter, Depends, HTTPException
from pydantic import AfterValidator, BaseModel, Field, StringConstraints
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from triage.core.finding import Category
from triage.core.lifecycle import AlertState, ReportState, SeriesState
from triage.core.volume import Reason, VolumeKind
from triage.edges.store import Alert, Event, Report, Result, SeriesView
from triage.flow.alert import acknowledge
from triage.flow.line import Line

LONGEST_NAME = 80


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


def clean_name(name: str) -> str:
    """A name as it is kept: one line, single spaces, printable. Raises ValueError where nothing is left.

    >>> clean_name("  Dr\\n Ada  Lovelace ")
    'Dr Ada Lovelace'
    """
    cleaned = "".join(letter for letter in " ".join(name.split()) if letter.isprintable()).strip()
    if not cleaned:
        raise ValueError("a name is needed")
    return cleaned


class AcknowledgementJson(BaseModel):
    """Who answers the alert."""

    by: Annotated[
        str,
        StringConstraints(max_length=LONGEST_NAME),
        AfterValidator(clean_name),
        Field(min_length=1, examples=["Dr Ada Lovelace"]),
    ]


class ProblemJson(BaseModel):
    """What went wrong, without naming a series."""

    detail: str


async def _line(request: Request) -> Line:
    line: Line = request.app.state.line
    return line


async def _readiness(request: Request) -> Callable[[], str | None]:
    is_ready: Callable[[], str | None] = request.app.state.is_ready
    return is_ready


LineInUse: TypeAlias = Annotated[Line, Depends(_line)]
Readiness: TypeAlias = Annotated[Callable[[], str | None], Depends(_readiness)]

router = APIRouter(tags=["series"])

_Responses: TypeAlias = dict[int | str, dict[str, Any]]
_NOT_FOUND: _Responses = {404: {"model": ProblemJson, "description": "No such series"}}
_NOT_READY: _Responses = {503: {"model": NotReadyJson, "description": "Not ready"}}
_NOTHING_OPEN: _Responses = {409: {"model": ProblemJson, "description": "Nothing to acknowledge"}}


@router.get("/healthz", tags=["health"])
async def healthz() -> HealthJson:
    """Answers as long as the process does."""
    return HealthJson(status="ok")


@router.get("/readyz", tags=["health"], response_model=ReadyJson, responses=_NOT_READY)
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
def one_series(series_instance_uid: str, line: LineInUse) -> SeriesJson:
    """One series by its Series Instance UID."""
    view = _find(line, series_instance_uid)
    return describe(view, view.timeline)


@router.post("/api/series/{series_instance_uid}/acknowledge", responses=_NOT_FOUND | _NOTHING_OPEN)
def acknowledge_series(
    series_instance_uid: str, acknowledgement: AcknowledgementJson, line: LineInUse
) -> SeriesJson:
    """A person has seen the alert: no further page. 409 where there is nothing to acknowledge."""
    view = _find(line, series_instance_uid)
    if not acknowledge(line, view.series.id, acknowledgement.by):
        raise HTTPException(409, "This series has no alert to acknowledge.")
    return one_series(series_instance_uid, line)


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
