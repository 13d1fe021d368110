"""Every page, and the application that serves it beside the JSON of `api`.

Addresses of pages carry our row ids only: addresses end up in histories and proxy logs.
"""

import json
import logging
from collections.abc import Awaitable, Callable
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import jinja2
from fastapi import APIRouter, Depends, FastAPI, Form, HTTPException
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.templating import Jinja2Templates

from triage import __version__
from triage.core.lifecycle import SeriesState
from triage.core.report import DISCLAIMER
from triage.core.volume import Triple
from triage.edges.store import Result, SeriesView
from triage.errors import origin
from triage.flow.alert import acknowledge
from triage.flow.line import Line
from triage.web import api, guard, pages, wording
from triage.web.api import LONGEST_NAME, LineInUse, clean_name
from triage.web.pictures import Pictures, pictures_of

_log = logging.getLogger(__name__)

_HERE = Path(__file__).parent
_VOLUMES_IN_MEMORY = 8
_LARGEST_ROW_ID = 2**31 - 1

_PROBLEMS = {
    403: "This request came from another site and was refused.",
    404: "There is no such page.",
    405: "There is no such page.",
    500: "This page could not be shown. The images received are kept; read the study in the PACS.",
}


def create_app(line: Line, is_ready: Callable[[], str | None]) -> FastAPI:
    """The web application: nothing runs before it is served.

    is_ready: None when the service can do its work, else the reason why not.
    """
    # The documentation pages would load scripts from another host; /openapi.json stays.
    app = FastAPI(title="triage", version=__version__, docs_url=None, redoc_url=None)
    app.state.line = line
    app.state.is_ready = is_ready
    app.state.pictures = lru_cache(_VOLUMES_IN_MEMORY)(lambda *key: _load_pictures(line, *key))
    app.include_router(api.router)
    app.include_router(router)
    app.mount("/static", StaticFiles(directory=_HERE / "static"))
    app.add_exception_handler(StarletteHTTPException, _show_problem)
    app.add_exception_handler(RequestValidationError, _show_invalid)
    app.middleware("http")(_guarded)
    return app


async def _pictures(request: Request) -> Callable[[int, Triple], Pictures]:
    pictures: Callable[[int, Triple], Pictures] = request.app.state.pictures
    return pictures


PictureShelf: TypeAlias = Annotated[Callable[[int, Triple], Pictures], Depends(_pictures)]

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)


@router.get("/")
def worklist_page(request: Request, line: LineInUse) -> Response:
    """The worklist."""
    return _render(request, "worklist.html", worklist=_worklist(line), dicom=line.config.dicom)


@router.get("/worklist")
def worklist_fragment(request: Request, line: LineInUse) -> Response:
    """The part of the worklist that changes."""
    return _render(request, "_worklist.html", worklist=_worklist(line), dicom=line.config.dicom)


@router.get("/ignored")
def ignored_page(request: Request, line: LineInUse) -> Response:
    """Series that were set aside."""
    views, now = line.store.overview(SeriesState.IGNORED), line.now()
    rows = [pages.row_of(view, now, is_paging=_is_paging(line)) for view in views]
    return _render(request, "ignored.html", rows=rows)


@router.get("/series/{series_id:int}")
def study_page(request: Request, series_id: int, line: LineInUse, shelf: PictureShelf) -> Response:
    """One series."""
    return _render_study(request, line, _find(line, series_id), shelf)


@router.post("/series/{series_id:int}/acknowledge")
def acknowledge_from_page(
    request: Request, series_id: int, line: LineInUse, shelf: PictureShelf, by: Annotated[str, Form()] = ""
) -> Response:
    """Keep who answered, and show the page again; sent twice, the first name stays."""
    view = _find(line, series_id)
    try:
        name = clean_name(by[:LONGEST_NAME])
    except ValueError:
        return _render_study(request, line, view, shelf, problem="Enter your name.", status_code=422)
    acknowledge(line, series_id, name)
    return RedirectResponse(f"/series/{series_id}", status_code=303)


@router.get("/series/{series_id:int}/slices/{index:int}.png")
def slice_picture(series_id: int, index: int, line: LineInUse, shelf: PictureShelf) -> Response:
    """One slice of the newest result's volume."""
    pictures = _pictures_of(_find(line, series_id).result, shelf)
    try:
        if pictures is not None:
            return Response(pictures.png(index), media_type="image/png")
    except IndexError:
        pass
    raise HTTPException(404)


@router.get("/series/{series_id:int}/report.dcm")
def report_file(series_id: int, line: LineInUse) -> Response:
    """The Structured Report of the newest result, as a DICOM file."""
    view = _find(line, series_id)
    if view.report is None:
        raise HTTPException(404)
    report = line.store.report(view.report.id)
    disposition = f'attachment; filename="triage-report-{series_id}.dcm"'
    return Response(
        report.dicom, media_type="application/dicom", headers={"Content-Disposition": disposition}
    )


def _templates() -> Jinja2Templates:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(disclaimer=DISCLAIMER, wording=wording, longest_name=LONGEST_NAME)
    return Jinja2Templates(env=environment)


TEMPLATES = _templates()


def _render(request: Request, name: str, status_code: int = 200, **shown: Any) -> Response:
    return TEMPLATES.TemplateResponse(request, name, shown, status_code=status_code)


def _render_study(
    request: Request,
    line: Line,
    view: SeriesView,
    shelf: PictureShelf,
    *,
    problem: str = "",
    status_code: int = 200,
) -> Response:
    study = pages.study(view, line.now(), is_paging=_is_paging(line))
    pictures = _pictures_of(view.result, shelf)
    return _render(request, "study.html", status_code, study=study, pictures=pictures, problem=problem)


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


def _pictures_of(result: Result | None, shelf: Callable[[int, Triple], Pictures]) -> Pictures | None:
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
        response = _problem(request, 403)
    else:
        try:
            response = await answer(request)
        except Exception as error:  # noqa: BLE001 - its trace holds what the database was asked: UIDs and names
            response = _failure(request, error)
    guard.harden(response.headers, request.url.path)
    return response


def _failure(request: Request, error: Exception) -> Response:
    route = getattr(request.scope.get("route"), "path", "none")
    _log.error("request_failed route=%s reason=%s", route, origin(error))
    return _problem(request, 500, "This request failed.")


async def _show_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, StarletteHTTPException)  # noqa: S101 - registered for it
    return _problem(request, error.status_code, error.detail)


async def _show_invalid(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for it
    # Without the input: it may be what the caller knows of a patient.
    problems = [{key: each[key] for key in ("type", "loc", "msg")} for each in error.errors()]
    return JSONResponse({"detail": problems}, status_code=422)


def _problem(request: Request, status_code: int, detail: str = "") -> Response:
    words = _PROBLEMS.get(status_code, _PROBLEMS[500])
    if request.url.path.startswith("/api/"):
        return JSONResponse({"detail": detail or words}, status_code=status_code)
    return _render(request, "problem.html", status_code, words=words)
