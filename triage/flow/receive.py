"""One C-STORE request: on stable storage and registered, and only then success."""

import io
import logging

from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError
from sqlalchemy.exc import IntegrityError

from triage.core.diffusion import read_header, to_json
from triage.edges.dimse import ReceivedObject, Status
from triage.edges.store import Arrival
from triage.errors import HeaderError
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
    except Exception as error:  # noqa: BLE001 - the association must answer, whatever happened
        _log.error(
            "instance_refused status=%s reason=%s", Status.PROCESSING_FAILURE.name, type(error).__name__
        )
        return Status.PROCESSING_FAILURE


def _receive(line: Line, gatherer: Gatherer, received: ReceivedObject) -> Status:
    dataset = _read_without_pixels(received.content)
    header = read_header(dataset)
    if header.sop_instance_uid != received.sop_instance_uid or header.sop_class_uid != received.sop_class_uid:
        return Status.DATA_SET_DOES_NOT_MATCH
    registered = line.store.sha256_of(header.sop_instance_uid)
    if registered is None:
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
        try:
            series_id, evaluated_up_to = line.store.register(arrival, line.now())
        except IntegrityError:
            # Another association has registered the same instance since we looked.
            registered = line.store.sha256_of(header.sop_instance_uid)
        else:
            gatherer.notice(series_id, evaluated_up_to)
            return Status.SUCCESS
    if registered is not None and _is_same(line, registered, received.content):
        return Status.SUCCESS
    line.store.note_conflict(
        header.sop_instance_uid, line.now(), f"other content from {received.calling_ae}, kept out"
    )
    return Status.DIFFERENT_CONTENT


def _is_same(line: Line, sha256: str, content: bytes) -> bool:
    """Whether the content is what is registered, also when it came in another transfer syntax."""
    kept = line.inbox.read(sha256)
    return kept == content or dcmread(io.BytesIO(kept)) == dcmread(io.BytesIO(content))


def _read_without_pixels(content: bytes) -> Dataset:
    try:
        return dcmread(io.BytesIO(content), stop_before_pixels=True)
    except (InvalidDicomError, EOFError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise HeaderError(f"data set cannot be parsed ({type(error).__name__})") from error


def _text(dataset: Dataset, keyword: str) -> str:
    value = dataset.get(keyword)
    return "" if value is None else str(value)
