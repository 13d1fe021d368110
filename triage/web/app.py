"""Every page, and the application that serves it beside the JSON of `api`.

Addresses of pages carry our row ids only: addresses end up in histories and proxy logs.
"""

import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from functools import lru_cache
from pathlib import Path

from fastapi import APIRouter, FastAPI, HTTPException
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.staticfiles import StaticFiles

from triage import __version__
from triage.core.audit import Action
from triage.core.lifecycle import SeriesState
from triage.core.volume import Triple
from triage.edges.store import Result, SeriesView
from triage.errors import origin
from triage.flow.alert import acknowledge
from triage.flow.deliver import resend
from triage.flow.line import Line
from triage.web import api, auth, guard, login, pages, people
from triage.web.auth import AskedBy
from triage.web.deeds import Views, note_deed
from triage.web.pictures import Pictures, pictures_of
from triage.web.rendering import render
from triage.web.state import LineInUse, PictureShelf, PicturesInUse, ViewsInUse
from triage.web.tries import Tries

_log = logging.getLogger(__name__)

_HERE = Path(__file__).parent
_VOLUMES_IN_MEMORY = 8
_LARGEST_ROW_ID = 2**31 - 1

_PROBLEMS = {
    404: "There is no such page.",
    405: "There is no such page.",
    409: "There is nothing to send, or it is on its way already.",
    500: "This page could not be shown. The images received are kept; read the study in the PACS.",
}
_CROSS_SITE = "This request came from another site and was refused."


def create_app(line: Line, is_ready: Callable[[], str | None]) -> FastAPI:
    """The web application: nothing runs before it is served.

    is_ready: None when the service can do its work, else the reason why not.
    """
    # The documentation pages would load scripts from another host; /openapi.json stays, for who is known.
    app = FastAPI(title="triage", version=__version__, docs_url=None, redoc_url=None)
    app.state.line = line
    app.state.is_ready = is_ready
    app.state.pictures = lru_cache(_VOLUMES_IN_MEMORY)(lambda *key: _load_pictures(line, *key))
    app.state.tries = Tries(line.config.http.login_tries)
    app.state.views = Views()
    for routes in (api.health, api.router, login.router, people.router, router):
        app.include_router(routes)
    app.mount("/static", StaticFiles(directory=_HERE / "static"))
    app.add_exception_handler(StarletteHTTPException, _show_problem)
    app.add_exception_handler(RequestValidationError, _show_invalid)
    app.middleware("http")(_guarded)
    return app


router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)


@router.get("/")
def worklist_page(request: Request, line: LineInUse) -> Response:
    """The worklist."""
    return _render_worklist(request, line, "worklist.html")


@router.get("/worklist")
def worklist_fragment(request: Request, line: LineInUse) -> Response:
    """The part of the worklist that changes."""
    return _render_worklist(request, line, "_worklist.html")


@router.get("/ignored")
def ignored_page(request: Request, line: LineInUse) -> Response:
    """Series that were set aside."""
    views, now = line.store.overview(SeriesState.IGNORED), line.now()
    rows = [pages.row_of(view, now, is_paging=_is_paging(line)) for view in views]
    return render(request, "ignored.html", rows=rows)


@router.get("/series/{series_id:int}")
def study_page(
    request: Request, series_id: int, line: LineInUse, shelf: PicturesInUse, actor: AskedBy, views: ViewsInUse
) -> Response:
    """One series."""
    view = _find(line, series_id)
    if views.begins(actor, series_id, line.now()):
        note_deed(line, actor, Action.STUDY_VIEWED, series_id)
    study = pages.study(view, line.now(), is_paging=_is_paging(line))
    pictures = _pictures_of(view.result, shelf)
    has_pacs = line.config.pacs.address is not None
    return render(request, "study.html", study=study, pictures=pictures, has_pacs=has_pacs)


@router.post("/series/{series_id:int}/acknowledge")
def acknowledge_from_page(series_id: int, line: LineInUse, actor: AskedBy) -> Response:
    """Keep who answered, and show the page again; sent twice, the first name stays."""
    _find(line, series_id)
    acknowledge(line, series_id, actor.name, actor.address)
    return RedirectResponse(f"/series/{series_id}", status_code=303)


@router.post("/series/{series_id:int}/report/resend")
def resend_from_page(series_id: int, line: LineInUse, actor: AskedBy) -> Response:
    """Send the newest report once more, and show the page again."""
    report = _find(line, series_id).report
    if report is None or line.config.pacs.address is None:
        raise HTTPException(409)
    resend(line, report.id, actor.name, actor.address)
    return RedirectResponse(f"/series/{series_id}", status_code=303)


@router.get("/series/{series_id:int}/slices/{index:int}.png")
def slice_picture(
    series_id: int, index: int, line: LineInUse, shelf: PicturesInUse, actor: AskedBy, views: ViewsInUse
) -> Response:
    """One slice of the newest result's volume."""
    pictures = _pictures_of(_find(line, series_id).result, shelf)
    if pictures is None or index >= len(pictures.grey_ZYX):
        raise HTTPException(404)
    if views.begins(actor, series_id, line.now()):
        note_deed(line, actor, Action.STUDY_VIEWED, series_id)
    return Response(pictures.png(index), media_type="image/png")


@router.get("/series/{series_id:int}/report.dcm")
def report_file(series_id: int, line: LineInUse, actor: AskedBy) -> Response:
    """The Structured Report of the newest result, as a DICOM file."""
    view = _find(line, series_id)
    if view.report is None:
        raise HTTPException(404)
    report = line.store.report(view.report.id)
    note_deed(line, actor, Action.REPORT_DOWNLOADED, series_id)
    disposition = f'attachment; filename="triage-report-{series_id}.dcm"'
    return Response(
        report.dicom, media_type="application/dicom", headers={"Content-Disposition": disposition}
    )


def _render_worklist(request: Request, line: Line, name: str) -> Response:
    problems = pages.problems(line.watchbook.open_problems())
    return render(request, name, worklist=_worklist(line), problems=problems, dicom=line.config.dicom)


def _worklist(line: Line) -> pages.Worklist:
    return pages.worklist(
        line.store.worklist(), line.now(), open_alerts=line.store.open_alerts(), is_paging=_is_paging(line)
    )


def _is_paging(line: Line) -> bool:
    return line.on_call.is_anybody


def _find(line: Line, series_id: int) -> SeriesView:
    view = line.store.view(series_id) if series_id <= _LARGEST_ROW_ID else None
    if view is None:
        raise HTTPException(404)
    return view


def _pictures_of(result: Result | None, shelf: PictureShelf) -> Pictures | None:
    """The newest result's volume, or None where none was made or it is no longer kept."""
    if result is None or result.spacing_mm is None:
        return None
    slice_mm, row_mm, column_mm = json.loads(result.spacing_mm)
    try:
        return shelf(result.id, (slice_mm, row_mm, column_mm))
    except FileNotFoundError:
        return None


def _load_pictures(line: Line, result_id: int, spacing_mm: Triple) -> Pictures:
    return pictures_of(line.shelf.voxels(result_id), line.shelf.slice_positions(result_id), spacing_mm)


async def _guarded(request: Request, answer: Callable[[Request], Awaitable[Response]]) -> Response:
    line: Line = request.app.state.line
    if guard.is_cross_site(request.method, request.headers, line.config.http.public_url):
        response = _problem(request, 403, _CROSS_SITE)
    else:
        try:
            refusal = await auth.admit(request, line)
            response = await answer(request) if refusal is None else _refuse(request, refusal)
        except Exception as error:  # noqa: BLE001 - its trace holds what the database was asked: UIDs and names
            response = _failure(request, error)
    guard.harden(response.headers, request.scope["path"], is_secure=auth.is_secure(line.config))
    return response


def _refuse(request: Request, refusal: auth.Refusal) -> Response:
    if refusal.location:
        return RedirectResponse(refusal.location, status_code=refusal.status_code)
    return _problem(request, refusal.status_code, refusal.detail, refusal.headers)


def _failure(request: Request, error: Exception) -> Response:
    route = getattr(request.scope.get("route"), "path", "none")
    _log.error("request_failed route=%s reason=%s", route, origin(error))
    return _problem(request, 500, "This request failed.")


async def _show_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, StarletteHTTPException)  # noqa: S101 - registered for it
    return _problem(request, error.status_code, error.detail, error.headers)


async def _show_invalid(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for it
    # Without the input: it may be what the caller knows of a patient.
    problems = [{key: each[key] for key in ("type", "loc", "msg")} for each in error.errors()]
    return JSONResponse({"detail": problems}, status_code=422)


def _problem(
    request: Request, status_code: int, detail: str, headers: Mapping[str, str] | None = None
) -> Response:
    words = _PROBLEMS.get(status_code, detail)
    if auth.is_for_programs(request.scope["path"]):
        return JSONResponse({"detail": detail or words}, status_code, headers)
    response = render(request, "problem.html", status_code, words=words)
    response.headers.update(headers or {})
    return response
