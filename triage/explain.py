"""What a folder of DICOM files is to us: each series, its b-values and where they stand, and what is judged.

Nothing here names a patient: series are numbered in the order of their UIDs, and texts that somebody typed
(descriptions, comments, protocol names) are neither read nor shown.
"""

import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydicom.tag import Tag
from pydicom.uid import UID

from triage.config import DicomSettings
from triage.core.b_values import remarks, with_stated_b_value
from triage.core.completeness import judge_completeness
from triage.core.dataset import parse
from triage.core.diffusion import read_header
from triage.core.elements import integer, text
from triage.core.header import BSource, DwiFrame, FrameKind, InstanceHeader
from triage.core.volume import (
    DwiVolume,
    NotDiffusion,
    Rejection,
    VolumeKind,
    VolumePlan,
    assemble,
    choose,
)
from triage.errors import HeaderError

KINDS: Final = {
    FrameKind.B0: "b=0",
    FrameKind.TRACE: "trace",
    FrameKind.DIRECTIONAL: "single direction",
    FrameKind.DERIVED_MAP: "computed map",
    FrameKind.UNKNOWN: "diffusion kind not stated",
}


@dataclass(frozen=True, slots=True)
class Found:
    """An instance and the file that it is in."""

    path: Path
    header: InstanceHeader
    series_number: int | None
    description: str
    transfer_syntax: str


def explain_folder(folder: Path, settings: DicomSettings, *, calling_ae: str = "") -> Iterator[str]:
    """The lines of the explanation. Whatever a file holds, this ends and says what it found.

    settings: the b-value window, the operator's rules and the size limit that are in force.
    calling_ae: whose rules count; the folder does not tell who would send it.
    """
    with warnings.catch_warnings():
        # pydicom warns with the value that it dislikes, and that may be a name.
        warnings.simplefilter("ignore")
        yield from _explain_folder(folder, settings, calling_ae)


def _explain_folder(folder: Path, settings: DicomSettings, calling_ae: str) -> Iterator[str]:
    series: dict[str, list[Found]] = {}
    refused: Counter[str] = Counter()
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    for path in paths:
        try:
            found = _read(path, settings.series_limit_bytes)
        except (HeaderError, OSError) as error:
            refused[error.strerror or "cannot be read" if isinstance(error, OSError) else str(error)] += 1
        else:
            series.setdefault(found.header.series_instance_uid, []).append(found)
    yield f"{len(paths)} files: {len(paths) - refused.total()} DICOM instances in {len(series)} series"
    for reason, count in refused.most_common():
        yield f"  {count} left out: {reason}"
    for number, uid in enumerate(sorted(series), 1):
        yield ""
        yield from _explain_series(number, series[uid], settings, calling_ae)


def _read(path: Path, limit_bytes: int) -> Found:
    if path.stat().st_size > limit_bytes:
        raise HeaderError(f"file is larger than {limit_bytes >> 20} MiB")
    dataset = parse(path.read_bytes(), with_pixels=False, limit_bytes=limit_bytes)
    syntax = getattr(dataset.file_meta, "TransferSyntaxUID", None)
    return Found(
        path=path,
        header=read_header(dataset),
        series_number=integer(dataset, Tag("SeriesNumber")),
        description=text(dataset, Tag("SeriesDescription")),
        transfer_syntax=_name(str(syntax)) if syntax else "not stated",
    )


def _explain_series(
    number: int, instances: Sequence[Found], settings: DicomSettings, calling_ae: str
) -> Iterator[str]:
    first = instances[0]
    stated = "no SeriesNumber" if first.series_number is None else f"SeriesNumber {first.series_number}"
    yield f"Series {number} ({stated})"
    b_value = settings.b_value_for(calling_ae, first.description)
    headers = with_stated_b_value((found.header for found in instances), b_value)
    objects = Counter(_name(header.sop_class_uid) for header in headers)
    yield _line("objects", (f"{count} x {name}" for name, count in sorted(objects.items())))
    yield _line("encoding", sorted({found.transfer_syntax for found in instances}))
    frames = [frame for header in headers for frame in header.frames]
    weighted = [frame for frame in frames if frame.kind is not FrameKind.DERIVED_MAP]
    if frames:
        yield _line("images", _images(frames))
        yield _line("geometry", _geometry(frames))
    if weighted:
        yield _line("b-values", _b_values(weighted))
    for remark in remarks(headers):
        yield _line("note", [remark])
    completeness = judge_completeness(headers, b_window=settings.b_window)
    start = "at once" if completeness.is_whole else f"after {settings.quiet_s:g} s without another image"
    outcome = _outcome(choose(headers, b_window=settings.b_window), instances, settings)
    if not isinstance(outcome, NotDiffusion):
        yield _line("when", [f"{start} ({completeness.detail})"])
    yield _line("judged", _verdict(outcome))


def _outcome(
    plan: VolumePlan | Rejection | NotDiffusion, instances: Sequence[Found], settings: DicomSettings
) -> VolumePlan | Rejection | NotDiffusion:
    """The plan, if its pixels can be read as well."""
    if not isinstance(plan, VolumePlan):
        return plan
    limit_bytes = settings.series_limit_bytes
    wanted = set(plan.source_sop_instance_uids)
    paths = {found.header.sop_instance_uid: found.path for found in instances}
    datasets = {}
    for uid in sorted(wanted):
        try:
            datasets[uid] = parse(paths[uid].read_bytes(), with_pixels=True, limit_bytes=limit_bytes)
        except (HeaderError, OSError):
            continue
    volume = assemble(plan, datasets, limit_bytes=limit_bytes)
    return plan if isinstance(volume, DwiVolume) else volume


def _verdict(outcome: VolumePlan | Rejection | NotDiffusion) -> list[str]:
    match outcome:
        case NotDiffusion():
            return [f"no, and nobody is told: {outcome.detail}"]
        case Rejection():
            return [f"NO, {outcome.reason.value}: {outcome.detail}"]
        case VolumePlan():
            how = "the scanner's trace images"
            if outcome.kind is VolumeKind.DIRECTIONAL_MEAN:
                how = f"the geometric mean of {outcome.direction_count} directions"
            between, rows, columns = outcome.spacing_mm
            size = (
                f"{outcome.slice_count} slices {between:.2f} mm apart, pixels {rows:.2f} x {columns:.2f} mm"
            )
            return [f"YES: b={outcome.b_value:.0f}, {how}, {size}"]


def _images(frames: Sequence[DwiFrame]) -> Iterator[str]:
    counts = Counter(frame.kind for frame in frames)
    return (f"{count} {KINDS[kind]}" for kind, count in sorted(counts.items()))


def _b_values(frames: Sequence[DwiFrame]) -> Iterator[str]:
    counts = Counter((frame.b_value, frame.b_source) for frame in frames)
    for (b_value, source), count in sorted(counts.items(), key=lambda entry: entry[0][0] or 0):
        if source is BSource.NONE:
            yield f"none that we can read in {count} images"
        else:
            yield f"{b_value:g} in {count} images, from {source.place}"


def _geometry(frames: Sequence[DwiFrame]) -> Iterator[str]:
    counts = Counter((frame.rows, frame.columns, _plane(frame.orientation)) for frame in frames)
    for (rows, columns, lies), count in counts.most_common():
        yield f"{count} images of {rows} x {columns}, {lies}"
    unplaced = sum(frame.position_lps_mm is None for frame in frames)
    if unplaced:
        yield f"{unplaced} without a position"


def _plane(orientation: Sequence[float] | None) -> str:
    if orientation is None:
        return "orientation not stated"
    rx, ry, rz, cx, cy, cz = orientation
    normal = (abs(ry * cz - rz * cy), abs(rz * cx - rx * cz), abs(rx * cy - ry * cx))
    return ("sagittal", "coronal", "axial")[normal.index(max(normal))]


def _name(uid: str) -> str:
    name = UID(uid).name
    return f"unknown class {uid[:64]}" if name == uid else name


def _line(label: str, parts: Iterable[str]) -> str:
    return f"  {label:<9}" + f"\n{'':<11}".join(parts)
