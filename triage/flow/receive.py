"""One C-STORE request: on stable storage and registered, and only then success."""

import hashlib
import io
import logging
import shutil

from pydicom import Dataset, dcmread
from sqlalchemy.exc import IntegrityError, OperationalError

from triage.core.dataset import parse
from triage.core.diffusion import read_header, to_json
from triage.edges.dimse import ReceivedObject, Status
from triage.edges.store import Arrival, Registration
from triage.errors import HeaderError, origin
from triage.flow.gather import Gatherer
from triage.flow.line import Line

_log = logging.getLogger(__name__)


def receive(line: Line, gatherer: Gatherer, received: ReceivedObject) -> Status:
    """Keep one object and see to it that its series is followed to an end.

    Success is answered when the bytes are on stable storage, the row is committed, and a durable workflow
    waits for the rest of the series. Never raises: what cannot be kept is answered with a failure, so that
    the sender keeps it.
    """
    try:
        return _receive(line, gatherer, received)
    except HeaderError as error:
        _log.warning("instance_refused status=%s reason=%s", Status.CANNOT_UNDERSTAND.name, error)
        return Status.CANNOT_UNDERSTAND
    except OSError as error:
        _log.error("instance_refused status=%s reason=%s", Status.OUT_OF_RESOURCES.name, error.strerror)
        return Status.OUT_OF_RESOURCES
    except OperationalError as error:
        # The database is full, locked or away: it may pass, and most senders give up at 0xC000 alone.
        _log.error("instance_refused status=%s reason=%s", Status.OUT_OF_RESOURCES.name, origin(error))
        return Status.OUT_OF_RESOURCES
    except Exception as error:  # noqa: BLE001 - the association must answer, whatever happened
        _log.error("instance_refused status=%s reason=%s", Status.PROCESSING_FAILURE.name, origin(error))
        return Status.PROCESSING_FAILURE


def _receive(line: Line, gatherer: Gatherer, received: ReceivedObject) -> Status:
    limit_bytes = line.config.dicom.series_limit_bytes
    dataset = parse(received.content, with_pixels=False, limit_bytes=limit_bytes)
    header = read_header(dataset)
    if header.sop_instance_uid != received.sop_instance_uid or header.sop_class_uid != received.sop_class_uid:
        return Status.DATA_SET_DOES_NOT_MATCH
    just_kept = None
    registered = line.store.registration(header.sop_instance_uid)
    if registered is None:
        if _is_disk_low(line, len(received.content)):
            return Status.OUT_OF_RESOURCES
        arrival = Arrival(
            sop_instance_uid=header.sop_instance_uid,
            series_instance_uid=header.series_instance_uid,
            study_instance_uid=header.study_instance_uid,
            calling_ae=received.calling_ae,
            patient_name=_text(dataset, "PatientName"),
            patient_id=_text(dataset, "PatientID"),
            description=_text(dataset, "SeriesDescription"),
            sha256=line.inbox.keep(received.content),
            size_bytes=len(received.content),
            header=to_json(header),
        )
        just_kept = arrival.sha256
        registered = _register(line, arrival)
    if registered.sha256 == just_kept or _is_same(line, registered.sha256, received.content):
        # Also for an instance that was here: its first sender may have been answered with a failure
        # after it was registered and before anybody followed it.
        if registered.instance_id > registered.evaluated_up_to:
            gatherer.notice(registered.series_id, registered.evaluated_up_to)
        if registered.is_freed:
            line.store.came_back(registered.series_id)
        return Status.SUCCESS
    line.store.note_conflict(
        header.sop_instance_uid, line.now(), f"other content from {received.calling_ae}, kept out"
    )
    return Status.DIFFERENT_CONTENT


def _register(line: Line, arrival: Arrival) -> Registration:
    """How the instance is registered: by this call, or by another association at the same moment."""
    try:
        return line.store.register(arrival, line.now())
    except IntegrityError:
        # Either the instance or its series was new to both.
        registered = line.store.registration(arrival.sop_instance_uid)
        return registered or line.store.register(arrival, line.now())


def _is_disk_low(line: Line, size_bytes: int) -> bool:
    """Whether keeping that much would go into the reserve, which results and workflows need."""
    free_bytes = shutil.disk_usage(line.inbox.folder).free
    if free_bytes - size_bytes >= line.config.store.reserve_bytes:
        return False
    _log.error("instance_refused status=%s reason=reserve", Status.OUT_OF_RESOURCES.name)
    return True


def _is_same(line: Line, sha256: str, content: bytes) -> bool:
    """Whether the content is what is registered, also when it came in another transfer syntax."""
    if hashlib.sha256(content).hexdigest() == sha256:
        # A file that the disk has lost is healed by its sender.
        line.inbox.keep(content)
        return True
    try:
        kept = line.inbox.read(sha256)
    except FileNotFoundError:
        # Freed, or lost: there is nothing that it could be the same as.
        return False
    return dcmread(io.BytesIO(kept)) == dcmread(io.BytesIO(content))


def _text(dataset: Dataset, keyword: str) -> str:
    value = dataset.get(keyword)
    # PostgreSQL knows no NUL, and pydicom strips it at the end only.
    return "" if value is None else str(value).replace("\x00", "\ufffd")
