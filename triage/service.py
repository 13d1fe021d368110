"""The composition root: configuration -> edges -> workflows, SCP and web. Start, self-check, stop."""

import contextlib
import logging
import socket
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from pydicom.uid import generate_uid

from triage import __version__
from triage.config import Config, DicomSettings
from triage.core.audit import OURSELVES, Action, Deed
from triage.core.audit_kinds import AuditSource
from triage.edges.dimse import Admission, Scp, Tls, start_scp
from triage.edges.disk import remove_unfinished, write_durably
from triage.edges.engine import Engine
from triage.edges.inbox import open_inbox
from triage.edges.inference import Model, newest_bundle, open_model
from triage.edges.store import Accounts, AuditTrail, Store, Watchbook
from triage.edges.syslog import open_syslog
from triage.edges.volumes import Shelf
from triage.errors import ConfigError
from triage.flow.alert import alert, tell_technologist
from triage.flow.analyse import analyse
from triage.flow.deliver import deliver
from triage.flow.forward_audit import AuditForwarder
from triage.flow.gather import Gatherer, wait_for_silence
from triage.flow.line import Line
from triage.flow.on_call import open_on_call
from triage.flow.receive import receive
from triage.flow.resume import resume
from triage.flow.watch import Watch
from triage.web.app import create_app
from triage.web.server import check_tls, serve

_log = logging.getLogger(__name__)

_WORKFLOWS: dict[str, Callable[..., Awaitable[None]]] = {
    "wait_for_silence": wait_for_silence,
    "analyse": analyse,
    "deliver": deliver,
    "alert": alert,
    "tell_technologist": tell_technologist,
}


@dataclass(frozen=True, slots=True)
class Service:
    """A service that is ready: it listens for DICOM, and `serve_web` answers browsers.

    one_time_password: of the administrator that the first start made; empty at every other start.
    """

    line: Line
    scp: Scp
    gatherer: Gatherer
    watch: Watch
    one_time_password: str = field(repr=False)

    def serve_web(self) -> None:
        """Answer HTTP until SIGINT or SIGTERM."""
        serve(create_app(self.line, self._not_ready), self.line.config)

    def _not_ready(self) -> str | None:
        if not self.scp.is_listening:
            return "the DICOM port is closed"
        if not self.gatherer.is_alive:
            return "nobody asks whether series are whole"
        if not self.watch.is_alive:
            return "nobody watches over the service"
        if not self.line.store.is_answering():
            return "the database does not answer"
        return None


@contextlib.contextmanager
def running(config: Config) -> Iterator[Service]:
    """A service with the model checked, the interrupted work taken up, and the DICOM port open.

    Raises TriageError or OSError naming what stands in the way, before any port is open.
    """
    check_tls(config)
    with contextlib.ExitStack() as stack:
        line = _build(config, stack)
        _keep_the_trail(line, stack)
        gatherer = Gatherer(line)
        for name, workflow in _WORKFLOWS.items():
            line.engine.register(name, partial(workflow, line))
        line.engine.launch()
        gatherer.start()
        stack.callback(gatherer.stop)
        resume(line, gatherer)
        watch = Watch(line, gatherer)
        watch.start()
        stack.callback(watch.stop)
        scp = start_scp(
            ae_title=config.dicom.ae_title,
            host=config.dicom.host,
            port=config.dicom.port,
            store=partial(receive, line, gatherer),
            admission=_admission(config.dicom),
            tls=_tls(config.dicom),
        )
        stack.callback(scp.stop)
        _log.info("service_ready dicom_port=%d provider=%s", scp.port, line.model.provider)
        if not line.on_call.is_anybody:
            _log.warning("alerts_not_configured key=alerts.ladder")
        yield Service(line, scp, gatherer, watch, line.accounts.add_first_admin(line.now()) or "")


def _admission(dicom: DicomSettings) -> Admission:
    return Admission(
        max_associations=dicom.max_associations,
        max_associations_per_peer=dicom.max_associations_per_peer,
        max_pdu_bytes=dicom.max_pdu_bytes,
        max_dataset_bytes=dicom.series_limit_bytes,
        idle_s=dicom.idle_s,
        ae_titles=dicom.allowed_ae_titles,
        addresses=dicom.allowed_addresses,
    )


def _tls(dicom: DicomSettings) -> Tls | None:
    if dicom.tls_certificate is None or dicom.tls_key is None:
        return None
    return Tls(dicom.tls_certificate, dicom.tls_key, dicom.tls_client_ca)


def _build(config: Config, stack: contextlib.ExitStack) -> Line:
    folder = config.store.dir
    folder.mkdir(parents=True, exist_ok=True)
    remove_unfinished(folder)
    model = open_chosen_model(config)
    database_url = config.store.database_url.get_secret_value()
    store = Store.open(database_url)
    stack.callback(store.close)
    engine = Engine(_engine_url(database_url))
    stack.callback(engine.stop)
    return Line(
        config=config,
        store=store,
        watchbook=Watchbook(store.engine),
        audit=AuditTrail(store.engine),
        accounts=Accounts(store.engine),
        inbox=open_inbox(folder / "inbox"),
        shelf=Shelf(folder / "volumes"),
        model=model,
        on_call=open_on_call(config),
        engine=engine,
        now=lambda: datetime.now(UTC),
        device_uid=_device_uid(folder),
    )


@contextlib.contextmanager
def opened_store(config: Config) -> Iterator[Store]:
    """The database of a service that may be running beside us. Raises ConfigError where there is none."""
    url = config.store.database_url.get_secret_value()
    if url.startswith("sqlite") and not Path(url.partition("///")[2]).exists():
        raise ConfigError(
            f"store.dir: there is no database in {config.store.dir}. Name the service's --config."
        )
    store = Store.open(url)
    try:
        yield store
    finally:
        store.close()


def _keep_the_trail(line: Line, stack: contextlib.ExitStack) -> None:
    """Record that the service starts and, at its end, that it stops; forward both and all between."""
    config = line.config
    if config.audit.syslog_address:
        repository = open_syslog(
            config.audit.syslog_address,
            ca=config.audit.syslog_ca,
            certificate=config.audit.tls_certificate,
            key=config.audit.tls_key,
        )
        source = AuditSource(
            host=socket.gethostname(),
            url=config.http.public_url,
            ae_title=config.dicom.ae_title,
            pacs=config.pacs.address.ae_title if config.pacs.address else "",
        )
        forwarder = AuditForwarder(line.audit, repository, source)
        forwarder.start()
        stack.callback(forwarder.stop)

    def record(action: Action) -> None:
        line.audit.record(Deed(actor=OURSELVES, action=action, detail=f"triage {__version__}"), line.now())

    record(Action.SERVICE_STARTED)
    stack.callback(record, Action.SERVICE_STOPPED)


def open_chosen_model(config: Config) -> Model:
    """The configured bundle, checked. Raises BundleError, or ConfigError for an unknown threshold."""
    folder = config.model.path or newest_bundle(installed_models())
    model = open_model(folder, config.model.device, config.model.intra_op_threads)
    if config.model.threshold and config.model.threshold not in model.spec.thresholds:
        names = ", ".join(sorted(model.spec.thresholds))
        raise ConfigError(
            f"model.threshold: {config.model.threshold!r} is not in {folder.name}/spec.json; it has {names}"
        )
    return model


def installed_models() -> Path:
    """The models/ folder beside the package."""
    return Path(__file__).parents[1] / "models"


def _engine_url(database_url: str) -> str:
    """The workflow engine's own database: a second SQLite file, or the same PostgreSQL server.

    >>> _engine_url("sqlite:///data/triage.db")
    'sqlite:///data/triage.engine.db'
    """
    if database_url.startswith("sqlite"):
        return database_url.removesuffix(".db") + ".engine.db"
    return database_url


def _device_uid(folder: Path) -> str:
    """This installation's UID, made once and kept beside the data."""
    path = folder / "device-uid"
    if not path.exists():
        content = generate_uid(None).encode()
        write_durably(path, lambda file: file.write(content))
    return path.read_text().strip()
