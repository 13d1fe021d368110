"""What the application holds for all its requests."""

from collections.abc import Callable
from typing import Annotated, TypeAlias

from fastapi import Depends
from starlette.requests import Request

from triage.core.volume import Triple
from triage.flow.line import Line
from triage.web.deeds import Views
from triage.web.pictures import Pictures
from triage.web.tries import Tries

PictureShelf: TypeAlias = Callable[[int, Triple], Pictures]


async def _line(request: Request) -> Line:
    line: Line = request.app.state.line
    return line


async def _readiness(request: Request) -> Callable[[], str | None]:
    is_ready: Callable[[], str | None] = request.app.state.is_ready
    return is_ready


async def _pictures(request: Request) -> PictureShelf:
    pictures: PictureShelf = request.app.state.pictures
    return pictures


async def _tries(request: Request) -> Tries:
    tries: Tries = request.app.state.tries
    return tries


async def _views(request: Request) -> Views:
    views: Views = request.app.state.views
    return views


LineInUse: TypeAlias = Annotated[Line, Depends(_line)]
Readiness: TypeAlias = Annotated[Callable[[], str | None], Depends(_readiness)]
PicturesInUse: TypeAlias = Annotated[PictureShelf, Depends(_pictures)]
TriesInUse: TypeAlias = Annotated[Tries, Depends(_tries)]
ViewsInUse: TypeAlias = Annotated[Views, Depends(_views)]
