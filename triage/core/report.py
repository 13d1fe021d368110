"""What goes back to the PACS: a Structured Report in the study it came from.

Comprehensive 3D SR (PS3.3 A.35.13) with root template TID 1500, "Measurement Report" (PS3.16), as IHE AI
Results asks for. One measurement group holds the DWI-ASPECTS category, its probability, the algorithm
and the source images. No public code for a DWI-ASPECTS group exists, so these few stand in a private
scheme, 99TRIAGE. The report is complete, unverified, and never prints a score the model did not give.
"""

import io
import re
import uuid
import warnings
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any, Final, cast

from highdicom.coding_schemes import CodingSchemeIdentificationItem
from highdicom.sr import (
    AlgorithmIdentification,
    CodedConcept,
    Comprehensive3DSR,
    DeviceObserverIdentifyingAttributes,
    FindingSite,
    LanguageOfContentItemAndDescendants,
    Measurement,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    ObservationContext,
    ObserverContext,
    QualitativeEvaluation,
    RelationshipTypeValues,
    SourceImageForMeasurementGroup,
    TextContentItem,
    TrackingIdentifier,
)
from pydicom import Dataset, dcmread, dcmwrite
from pydicom.charset import python_encoding
from pydicom.errors import InvalidDicomError
from pydicom.multival import MultiValue
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import UID, EnhancedSRStorage

from triage import __version__
from triage.core.bundle import ModelSpec
from triage.core.finding import Category, Finding, Outcome
from triage.core.volume import Reason, Rejection
from triage.errors import HeaderError

SCHEME: Final = "99TRIAGE"
SERIES_NUMBER: Final = 9900
SERIES_DESCRIPTION: Final = "DWI-ASPECTS triage report"
DISCLAIMER: Final = "Research software, not a medical device. Not for diagnosis."


def _private(value: str, meaning: str) -> Code:
    return Code(value, SCHEME, meaning)


GROUP: Final = _private("GROUP", "DWI-ASPECTS group")
CATEGORY: Final = _private("CATEGORY", "DWI-ASPECTS category")
REASON: Final = _private("REASON", "Reason why not analysed")
NOT_ASSESSED: Final = _private("NOTASSESSED", "Not analysed")
CATEGORIES: Final = {
    Category.ASPECTS_1_6: _private("LOW", "DWI-ASPECTS 1-6"),
    Category.ASPECTS_7_10: _private("HIGH", "DWI-ASPECTS 7-10"),
}
REASONS: Final = {
    Reason.NO_B1000: _private("NO_B1000", "No b=1000 volume in the series"),
    Reason.B_VALUE_UNKNOWN: _private("B_VALUE_UNKNOWN", "b-value not stated or not understood"),
    Reason.INCOMPLETE: _private("INCOMPLETE", "Slices are missing"),
    Reason.UNEVEN_SPACING: _private("UNEVEN_SPACING", "Slices are unevenly spaced"),
    Reason.MIXED_GEOMETRY: _private("MIXED_GEOMETRY", "Slices differ in geometry"),
    Reason.NOT_AXIAL: _private("NOT_AXIAL", "Volume is not axial"),
    Reason.LOSSY: _private("LOSSY", "Lossy compressed images"),
    Reason.UNREADABLE: _private("UNREADABLE", "Images could not be read"),
    Reason.INFERENCE_FAILED: _private("INFERENCE_FAILED", "Model gave no answer"),
}


def build_report(
    *,
    evidence: Sequence[Dataset],
    outcome: Outcome,
    model: ModelSpec,
    sop_instance_uid: str,
    series_instance_uid: str,
    device_uid: str,
    created_at: datetime,
    predecessor: Dataset | None = None,
    series_number: int = SERIES_NUMBER,
    institution_name: str = "",
    station_name: str = "",
) -> Dataset:
    """The outcome as a Comprehensive 3D SR: complete, unverified, the same for the same arguments.

    evidence: headers of the instances to reference, all of one study; pixels are not needed. For a
        Finding every b=1000 source, for a Rejection whatever was there. The first one gives the
        patient and study attributes; those it lacks, or holds malformed, are left empty.
    model: the bundle that judged, or would have.
    device_uid: of this installation; also its serial number.
    created_at: aware. Converted to the evidence's TimezoneOffsetFromUTC where it has one; otherwise
        its wall clock is written as it is, so pass the site's local time.
    predecessor: the earlier report that this one replaces; its header is enough.

    Raises HeaderError for evidence that cannot be referenced: without an identifying UID, or not an
    image. Raises ValueError for no evidence, more than one study, or a `created_at` without zone.

    Source: PS3.16 TID 1500, 1501, 4019; the private scheme is listed in docs/conformance.md.
    """
    if created_at.tzinfo is None:
        raise ValueError(f"created_at needs a time zone, got {created_at.isoformat()}")
    with warnings.catch_warnings():
        # Identifiers that break the standard's rules must still be repeated to the letter, or the
        # report does not find its study. pydicom warns about each, once more than anyone can act on.
        warnings.filterwarnings("ignore", module=r"pydicom\.")
        sources = _sources(evidence)
        document = Comprehensive3DSR(
            evidence=sources,
            content=_content(sources, outcome, model, device_uid, is_revision=predecessor is not None),
            series_instance_uid=series_instance_uid,
            series_number=series_number,
            series_description=SERIES_DESCRIPTION,
            sop_instance_uid=sop_instance_uid,
            instance_number=1,
            manufacturer="triage",
            manufacturer_model_name=model.name,
            device_serial_number=device_uid,
            software_versions=[__version__, model.version],
            institution_name=institution_name or None,
            is_complete=True,
            previous_versions=[predecessor] if predecessor is not None else None,
            coding_schemes=[CodingSchemeIdentificationItem(SCHEME, name="triage private codes")],
        )
        if station_name:
            document.StationName = station_name
        _identify(document, evidence[0])
        _set_clock(document, created_at, _zone(evidence[0]))
        _set_character_set(document, evidence[0])
    return cast(Dataset, document)


def as_enhanced_sr(report: Dataset) -> Dataset:
    """The same report, same SOP Instance UID, for a PACS that takes Enhanced SR only (PS3.3 A.35.2).

    Nothing in the content needs the richer class. Send one of the two, never both.
    """
    enhanced = from_bytes(to_bytes(report))
    enhanced.SOPClassUID = EnhancedSRStorage
    enhanced.file_meta.MediaStorageSOPClassUID = EnhancedSRStorage
    return enhanced


def to_bytes(report: Dataset) -> bytes:
    """The report as a DICOM file (PS3.10), Explicit VR Little Endian."""
    buffer = io.BytesIO()
    dcmwrite(buffer, report, enforce_file_format=True)
    return buffer.getvalue()


def from_bytes(file: bytes) -> Dataset:
    """The report that `to_bytes` wrote. Raises HeaderError for bytes that are not a DICOM file."""
    try:
        return dcmread(io.BytesIO(file))
    except InvalidDicomError as error:
        raise HeaderError("Report is not a DICOM file (PS3.10). Build it again from its outcome.") from error


def _sources(evidence: Sequence[Dataset]) -> list[Dataset]:
    if not evidence:
        raise ValueError("evidence must hold at least one instance, got none")
    sources = {source.SOPInstanceUID: source for source in map(_source, evidence)}
    studies = {source.StudyInstanceUID for source in sources.values()}
    if len(studies) > 1:
        raise ValueError(f"evidence must be of one study, got {len(studies)}")
    return list(sources.values())


def _source(header: Dataset) -> Dataset:
    # Only what a reference needs: highdicom copies and checks the rest, and scanners write odd things.
    source = Dataset()
    for keyword in ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"):
        value = _text(header, keyword)
        if not value:
            raise HeaderError(f"{keyword} is missing, so no report can refer to the instance. Send it again.")
        setattr(source, keyword, value)
    if not UID(source.SOPClassUID).keyword.endswith("ImageStorage"):
        raise HeaderError(f"SOP class {source.SOPClassUID} is not an image. A report refers to images only.")
    for keyword in _TYPE_2:
        setattr(source, keyword, None)
    return source


def _content(
    sources: Sequence[Dataset], outcome: Outcome, model: ModelSpec, device_uid: str, *, is_revision: bool
) -> MeasurementReport:
    group = MeasurementsAndQualitativeEvaluations(
        tracking_identifier=_tracking(sources[0], model),
        finding_type=GROUP,
        finding_sites=[FindingSite(codes.SCT.Brain)],
        algorithm_id=_algorithm(outcome, model),
        measurements=_measurements(outcome),
        qualitative_evaluations=_evaluations(outcome),
        source_images=[
            SourceImageForMeasurementGroup(source.SOPClassUID, source.SOPInstanceUID) for source in sources
        ],
    )
    # TID 1501 is extensible; highdicom's signature has no room for a comment.
    group[0].ContentSequence.extend(_comments(outcome, model, is_revision=is_revision))
    return MeasurementReport(
        observation_context=_observer(model, device_uid),
        procedure_reported=Code("24590-2", "LN", "MR Brain"),
        imaging_measurements=[group],
        title=codes.DCM.ImagingMeasurementReport,
        language_of_content_item_and_descendants=LanguageOfContentItemAndDescendants(
            CodedConcept("en-US", "RFC5646", "English (United States)")
        ),
    )


def _observer(model: ModelSpec, device_uid: str) -> ObservationContext:
    return ObservationContext(
        observer_device_context=ObserverContext(
            observer_type=codes.DCM.Device,
            observer_identifying_attributes=DeviceObserverIdentifyingAttributes(
                uid=device_uid,
                manufacturer_name="triage",
                model_name=model.name,
                serial_number=device_uid,
            ),
        )
    )


def _tracking(source: Dataset, model: ModelSpec) -> TrackingIdentifier:
    # Named after what is tracked, so that a revision of the report keeps it (PS3.5 B.2, UUID as UID).
    tracked = uuid.uuid5(uuid.NAMESPACE_OID, f"{source.SeriesInstanceUID} {GROUP.value} {model.name}")
    return TrackingIdentifier(uid=f"2.25.{tracked.int}", identifier="DWI-ASPECTS group")


def _algorithm(outcome: Outcome, model: ModelSpec) -> AlgorithmIdentification:
    parameters = [model.status]
    if isinstance(outcome, Finding):
        parameters.insert(0, f"DWI-ASPECTS 1-6 at or above probability {outcome.threshold:g}")
    return AlgorithmIdentification(
        name=model.name,
        version=f"{model.version}, SHA-256 {model.sha256}",
        manufacturer="triage",
        parameters=parameters,
    )


def _measurements(outcome: Outcome) -> list[Measurement]:
    if isinstance(outcome, Rejection):
        return []
    return [Measurement(codes.DCM.Probability, float(outcome.probability), codes.UCUM.NoUnits)]


def _evaluations(outcome: Outcome) -> list[QualitativeEvaluation]:
    if isinstance(outcome, Rejection):
        return [
            QualitativeEvaluation(CATEGORY, NOT_ASSESSED),
            QualitativeEvaluation(REASON, REASONS[outcome.reason]),
        ]
    return [QualitativeEvaluation(CATEGORY, CATEGORIES[outcome.category])]


def _comments(outcome: Outcome, model: ModelSpec, *, is_revision: bool) -> Iterator[TextContentItem]:
    lines = [f"{DISCLAIMER} {model.status}"]
    if isinstance(outcome, Rejection):
        lines.append(f"Not assessed: {outcome.detail} An infarct is neither suspected nor ruled out.")
    if is_revision:
        lines.append("Replaces an earlier report of this series.")
    for line in lines:
        yield TextContentItem(codes.DCM.Comment, line, RelationshipTypeValues.CONTAINS)


_TYPE_2: Final = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "StudyID",
    "ReferringPhysicianName",
)
_OPTIONAL: Final = ("IssuerOfPatientID", "PatientAge", "StudyDescription")
_DATE: Final = r"\d{4}(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])"
_FORMS: Final = {
    "PatientBirthDate": _DATE,
    "PatientSex": r"[MFO]",
    "PatientAge": r"\d{3}[DWMY]",
    "StudyDate": _DATE,
    "StudyTime": r"([01]\d|2[0-3])([0-5]\d([0-5]\d(\.\d{1,6})?)?)?",
    "TimezoneOffsetFromUTC": r"[+-](0\d|1[0-4])[0-5]\d",
}


def _identify(document: Dataset, header: Dataset) -> None:
    for keyword in _TYPE_2:
        setattr(document, keyword, _text(header, keyword) or None)
    for keyword in _OPTIONAL:
        if value := _text(header, keyword):
            setattr(document, keyword, value)


def _text(header: Dataset, keyword: str) -> str:
    value: Any = header.get(keyword)
    if isinstance(value, MultiValue):
        value = "\\".join(map(str, value))
    text = "" if value is None else str(value)
    return text if re.fullmatch(_FORMS.get(keyword, r"(?s:.*)"), text, re.ASCII) else ""


def _zone(header: Dataset) -> timezone | None:
    offset = _text(header, "TimezoneOffsetFromUTC")
    if not offset:
        return None
    minutes = int(offset[1:3]) * 60 + int(offset[3:])
    return timezone(timedelta(minutes=-minutes if offset[0] == "-" else minutes))


def _set_clock(document: Dataset, created_at: datetime, zone: timezone | None) -> None:
    # highdicom fills these from the machine's clock; a report must not depend on when it is built.
    if zone is not None:
        created_at = created_at.astimezone(zone)
        document.TimezoneOffsetFromUTC = created_at.strftime("%z")
    date, time = created_at.strftime("%Y%m%d"), created_at.strftime("%H%M%S.%f")
    for name in ("InstanceCreation", "Content", "Series"):
        setattr(document, f"{name}Date", date)
        setattr(document, f"{name}Time", time)
    for equipment in document.ContributingEquipmentSequence:
        equipment.ContributionDateTime = date + time


def _set_character_set(document: Dataset, header: Dataset) -> None:
    declared = header.get("SpecificCharacterSet") or []
    terms = [declared] if isinstance(declared, str) else [str(term) for term in declared]
    # A site's old workstations read the site's own character set, so it is kept where it suffices.
    if not _are_defined(terms) or not all(_hold(terms, text) for text in _texts(document)):
        document.SpecificCharacterSet = "ISO_IR 192"
    elif terms:
        document.SpecificCharacterSet = terms


def _are_defined(terms: Sequence[str]) -> bool:
    """Whether PS3.3 C.12.1.1.2 knows the terms, and their combination. None is the default repertoire."""
    extensions = [term for term in terms if term]
    if len(terms) > 1 and not all(term.startswith("ISO 2022 ") for term in extensions):
        return False
    return all(term in python_encoding for term in extensions)


def _hold(terms: Sequence[str], text: str) -> bool:
    encodings = [python_encoding[term] for term in terms if term]
    return text.isascii() or all(any(_encodes(name, character) for name in encodings) for character in text)


def _texts(document: Dataset) -> Iterator[str]:
    for element in document.iterall():
        if element.VR in ("LO", "PN", "SH", "LT", "ST", "UC", "UT"):
            yield str(element.value)


def _encodes(encoding: str, character: str) -> bool:
    try:
        character.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True
