"""A real store, filled through its own methods, behind the real application."""

import json
import shutil
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import httpx
import numpy as np
import pytest
import uvicorn
from argon2 import PasswordHasher
from fastapi import FastAPI
from sqlalchemy import event
from starlette.types import ASGIApp, Receive, Scope, Send

from triage.config import Config, load
from triage.core.access import Role
from triage.core.escalation import OnCallLadder
from triage.core.lifecycle import ReportState
from triage.core.volume import DwiVolume, VolumeKind
from triage.edges.pager import Contact
from triage.edges.store import (
    Accounts,
    Arrival,
    AuditTrail,
    BuiltReport,
    Conclusion,
    FollowUps,
    Store,
    Watchbook,
)
from triage.edges.volumes import Shelf
from triage.flow.line import Line
from triage.flow.on_call import OnCall
from triage.web.app import create_app
from triage.web.auth import FORM_KEY_HEADER, Browser, is_secure, login_lasts

START = datetime(2026, 3, 1, 3, 0, tzinfo=UTC)
PASSWORD = "four sober walruses"
QUICK_HASHER = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
READER = "Dr Ada"
STATUS = "Development weights: trained on synthetic heads"


@dataclass
class Listener:
    """Stands where the workflow engine does and keeps what it is told."""

    told: list[tuple[str, ...]] = field(default_factory=list)
    revived: list[tuple[object, ...]] = field(default_factory=list)

    def tell(self, *message: str) -> None:
        self.told.append(message)

    def revive(self, *workflow: object) -> None:
        self.revived.append(workflow)


@dataclass
class Site:
    """The application with its store, and short ways to make things happen to a series.

    client: a browser in which a reader is logged in. program: one with a reader's token.
    """

    line: Line
    app: FastAPI
    server: "WebServer"
    engine: Listener
    clock: list[datetime]
    readiness: list[str | None]
    arrived: int = 0
    opened: list[httpx.Client] = field(default_factory=list)
    clients: dict[Role, httpx.Client] = field(default_factory=dict)

    def configure(self, **settings: str) -> None:
        """The same site with another configuration; keyword arguments are variables without TRIAGE_."""
        config = load(None, {f"TRIAGE_{key}": value for key, value in settings.items()})
        self.line = replace(self.line, config=config)
        self.server.app = self.app = create_app(self.line, lambda: self.readiness[0])

    @property
    def client(self) -> httpx.Client:
        return self.browser(Role.READER)

    def browser(self, role: Role) -> httpx.Client:
        """A browser in which somebody of that role is logged in; its requests carry the form key."""
        if role not in self.clients:
            name = READER if role is Role.READER else f"a {role}"
            self.line.accounts.add(name, PASSWORD, role, self.clock[0])
            self.clients[role] = self.logged_in(name)
        return self.clients[role]

    def logged_in(self, name: str) -> httpx.Client:
        """Another browser in which that account is logged in, without going through the form."""
        (account,) = (each for each in self.line.accounts.everyone() if each.name == name)
        lasts = login_lasts(self.line.config)
        token = self.line.accounts.open_login(account.id, self.clock[0], lasts)
        cookie = "__Host-triage" if is_secure(self.line.config) else "triage"
        headers = {FORM_KEY_HEADER: Browser(token, False).form_key}
        return self.stranger(cookies={cookie: token}, headers=headers)

    def program(self, role: Role = Role.READER, name: str = "pacs-bridge") -> httpx.Client:
        """A program with a token of that role."""
        token = self.line.accounts.add_token(name, role, self.clock[0])
        return self.stranger(headers={"Authorization": f"Bearer {token}"})

    def stranger(self, **how: Any) -> httpx.Client:
        """Somebody who shows nothing of their own."""
        client = httpx.Client(base_url=self.server.url, **how)
        self.opened.append(client)
        return client

    @property
    def store(self) -> Store:
        return self.line.store

    def later(self, seconds: float) -> datetime:
        self.clock[0] += timedelta(seconds=seconds)
        return self.clock[0]

    def arrives(self, name: str = "Doe^Jane", *, patient_id: str = "4711", description: str = "DWI") -> int:
        self.arrived += 1
        return self.adds_image(self.arrived, 0, name, patient_id, description)

    def adds_image(
        self,
        number: int,
        image: int,
        name: str = "Doe^Jane",
        patient_id: str = "4711",
        description: str = "DWI",
    ) -> int:
        arrival = Arrival(
            sop_instance_uid=f"1.2.3.{number}.{image}",
            series_instance_uid=f"1.2.3.{number}",
            study_instance_uid=f"1.2.4.{number}",
            calling_ae="SCANNER",
            patient_name=name,
            patient_id=patient_id,
            description=description,
            sha256="0" * 64,
            size_bytes=1,
            header="{}",
        )
        return self.store.register(arrival, self.later(1)).series_id

    def analysing(self, **who: Any) -> int:
        series_id = self.arrives(**who)
        self.store.begin_assessment(series_id, 0, self.later(0.5), "whole")
        return series_id

    def ignored(self, **who: Any) -> int:
        series_id = self.arrives(**who)
        assessment = self.store.begin_assessment(series_id, 0, self.later(0.5), "whole")
        self.store.ignore(assessment, self.later(0.5), "no diffusion")
        return series_id

    def concluded(
        self,
        probability: float | None = None,
        *,
        reason: str = "INCOMPLETE",
        volume: DwiVolume | None = None,
        report_state: ReportState = ReportState.PENDING,
        report: bool = True,
        sources: str = "a",
        series_id: int | None = None,
        after: int = 0,
        **who: Any,
    ) -> tuple[int, FollowUps]:
        if series_id is None:
            series_id = self.arrives(**who)
        assessment = self.store.begin_assessment(series_id, after, self.later(0.25), "whole")
        if volume is not None:
            self.line.shelf.put(assessment.result_id, volume, np.array([1.0, 2.5]))
        is_urgent = probability is not None and probability >= 0.5
        category = None if probability is None else "ASPECTS_1_6" if is_urgent else "ASPECTS_7_10"
        has_volume = probability is not None
        conclusion = Conclusion(
            sources_sha256=sources,
            category=category,
            probability=probability,
            threshold=0.5,
            reason=None if category else reason,
            detail=None if category else "Slice gap 9.8 mm at position 31, expected 5.0.",
            b_value=1000.0 if has_volume else None,
            volume_kind="TRACE" if has_volume else None,
            slices=6 if has_volume else None,
            spacing_mm=json.dumps(volume.spacing_mm if volume else [4.0, 2.0, 2.0]) if has_volume else None,
            model_name="rrcnn",
            model_version="0.1.0",
            model_sha256="b" * 64,
            model_status=STATUS,
        )
        follow_ups = self.store.conclude(
            assessment,
            conclusion,
            report=BuiltReport(f"1.2.9.{assessment.result_id}", b"DICM report", report_state)
            if report
            else None,
            urgent=is_urgent,
            at=self.later(1.5),
            note="concluded",
        )
        return series_id, follow_ups

    def suspected(self, probability: float = 0.93, *, paged: bool = True, **who: Any) -> int:
        series_id, follow_ups = self.concluded(probability, **who)
        if paged and follow_ups.alert_id is not None:
            self.paged(follow_ups.alert_id, 0.5)
        return series_id

    def paged(self, alert_id: int, seconds: float = 1, *, taken: bool = True) -> None:
        self.store.paged(alert_id, self.later(seconds), rung=0, contact="Dr Lee", taken=taken)

    def page(self, path: str = "/", status_code: int = 200) -> str:
        answer = self.client.get(path)
        assert answer.status_code == status_code
        return answer.text


def a_volume(spacing_mm: tuple[float, float, float] = (4.0, 2.0, 2.0)) -> DwiVolume:
    """Six slices of eight rows and twelve columns, every voxel of its own value."""
    voxels_ZYX = np.arange(6 * 8 * 12, dtype=np.float32).reshape(6, 8, 12)
    return DwiVolume(
        voxels_ZYX=voxels_ZYX,
        affine_lps=np.diag([spacing_mm[2], spacing_mm[1], spacing_mm[0], 1.0]),
        b_value=1000.0,
        kind=VolumeKind.TRACE,
        source_sop_instance_uids=(),
    )


ON_CALL = OnCall(ladder=OnCallLadder((180.0,)), rungs=((Contact("Dr Lee", ()),),))


class WebServer:
    """A real server on a free port; `app` can be changed while it runs."""

    app: ASGIApp

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        config = uvicorn.Config(self._answer, lifespan="off", interface="asgi3", log_level="error")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]})

    def __enter__(self) -> "WebServer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join()

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


@pytest.fixture(scope="session")
def web_server() -> Iterator[WebServer]:
    """One server for all tests: starting it is slow, changing its application is not."""
    with WebServer() as server:
        yield server


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated database without a row, to be copied."""
    path = tmp_path_factory.mktemp("database") / "empty.db"
    Store.open(f"sqlite:///{path}").close()
    return path


def quick_store(path: Path) -> Store:
    """A store that does not wait for the disk."""
    store = Store.open(f"sqlite:///{path}")
    store.close()
    event.listen(store.engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous=OFF"))
    return store


@pytest.fixture
def site(tmp_path: Path, empty_database: Path, web_server: WebServer) -> Iterator[Site]:
    """An empty site, with one alert channel set up."""
    shutil.copy(empty_database, tmp_path / "t.db")
    store, engine, clock = quick_store(tmp_path / "t.db"), Listener(), [START]
    readiness: list[str | None] = [None]
    line = Line(
        config=Config(),
        store=store,
        watchbook=Watchbook(store.engine),
        audit=AuditTrail(store.engine),
        accounts=Accounts(store.engine, QUICK_HASHER),
        inbox=cast(Any, None),
        shelf=Shelf(tmp_path / "volumes"),
        model=cast(Any, None),
        on_call=ON_CALL,
        engine=cast(Any, engine),
        now=lambda: clock[0],
        device_uid="1.2.5",
    )
    web_server.app = app = create_app(line, lambda: readiness[0])
    site = Site(line, app, web_server, engine, clock, readiness)
    yield site
    for client in site.opened:
        client.close()
    store.close()
