"""Frames as an even stack of slices, or why they make none.

- Positions are compared along the slice normal, row x column (PS3.3 C.7.6.2.1.1). Two images within 0.1 mm
  share a position. Distances must agree within 5%; one that is as close to a multiple of the smallest, or
  of the spacing that the header states, is a gap; any other is uneven spacing.
- An axial stack's normal lies within 45 degrees of the patient's long axis.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from statistics import median_high
from typing import Final, NamedTuple

from triage.core.header import DwiFrame, FrameKind, InstanceHeader, Triple
from triage.core.rejection import Reason, Rejection

SAME_POSITION_MM: Final = 0.1
SIDEWAYS_MAX_MM: Final = 1.0
SPACING_TOLERANCE: Final = 0.05
COSINE_TOLERANCE: Final = 1e-3
PIXEL_SPACING_TOLERANCE_MM: Final = 1e-3
AXIAL_MAX_DEG: Final = 45.0


class VolumeKind(StrEnum):
    """How the b=1000 volume came about."""

    TRACE = "TRACE"
    DIRECTIONAL_MEAN = "DIRECTIONAL_MEAN"


class SourceFrame(NamedTuple):
    """A frame and the instance that it is in."""

    header: InstanceHeader
    frame: DwiFrame


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumePlan:
    """Which frames make the b=1000 volume: evenly spaced, all of one geometry.

    b_value: of the shell, s/mm2.
    slices: caudal to cranial, at least two; each holds its directions, or the one trace image.
    promised_slices: what the scanner announced, at most `slice_count`; None when it announced nothing.
    """

    b_value: float
    kind: VolumeKind
    slices: tuple[tuple[SourceFrame, ...], ...]
    promised_slices: int | None

    @property
    def spacing_mm(self) -> Triple:
        """Centre-to-centre distance of (slices, rows, columns), from the positions."""
        first, last = self.slices[0][0].frame, self.slices[-1][0].frame
        low, high = first.position_lps_mm or (), last.position_lps_mm or ()
        rows_mm, columns_mm = first.pixel_spacing_mm or (0.0, 0.0)
        return math.dist(low, high) / (len(self.slices) - 1), rows_mm, columns_mm

    @property
    def slice_count(self) -> int:
        """Slice positions."""
        return len(self.slices)

    @property
    def direction_count(self) -> int:
        """Images that are averaged at each position."""
        return len(self.slices[0])

    @property
    def source_sop_instance_uids(self) -> tuple[str, ...]:
        """Every instance whose pixels are needed, sorted."""
        return tuple(sorted({source.header.sop_instance_uid for slice_ in self.slices for source in slice_}))


def stack(kind: VolumeKind, sources: Sequence[SourceFrame]) -> VolumePlan | Rejection:
    """The sources as an even stack of slices."""
    b_value = median_high(source.frame.b_value or 0.0 for source in sources)
    label = f"b={b_value:.0f}"
    if (mixed := _mixed_geometry(sources, label)) is not None:
        return mixed
    slices = _by_position(sources)
    if all(
        len(slice_.sources) == 1 and slice_.sources[0].frame.kind is FrameKind.UNKNOWN for slice_ in slices
    ):
        kind = VolumeKind.TRACE
    promised = max(source.header.promised_slices or 0 for source in sources)
    irregular = (
        _doubled(kind, slices, label)
        or _uneven(slices, promised, label)
        or _missing_directions(slices, label)
    )
    if irregular is not None:
        return irregular
    return VolumePlan(
        b_value=b_value,
        kind=kind,
        slices=tuple(tuple(sorted(slice_.sources, key=_direction_order)) for slice_ in slices),
        promised_slices=promised or None,
    )


def cut_short(plan: VolumePlan, b0: Sequence[SourceFrame]) -> Rejection | None:
    """Why the volume is not all of the head: b=0 goes on where it ends, as after an interrupted scan.

    b0: of the same series. Only those of the volume's own stack and geometry are compared, and only where
    they cover all of it.
    """
    sources = [slice_[0] for slice_ in plan.slices]
    like = sources[0].frame
    alike = [
        source
        for source in b0
        if _is_placed(source.frame)
        and (source.frame.rows, source.frame.columns) == (like.rows, like.columns)
        and not _differ(source.frame.orientation, like.orientation, COSINE_TOLERANCE)
        and source.frame.stack_id == like.stack_id
    ]
    if not alike:
        return None
    # One sort for both: positions along two normals that differ in the last digit do not compare.
    kinds = [
        (place, {source.frame.kind is FrameKind.B0 for source in place.sources})
        for place in _by_position([*sources, *alike])
    ]
    beyond = [place for place, is_b0 in kinds if is_b0 == {True}]
    if not beyond or any(is_b0 == {False} for _, is_b0 in kinds):
        return None
    found = f"{plan.slice_count} of the {len(kinds)} positions of b=0, none at z = {beyond[0].z_mm:.1f} mm"
    return Rejection(Reason.INCOMPLETE, f"b={plan.b_value:.0f}: {found}")


def _mixed_geometry(sources: Sequence[SourceFrame], label: str) -> Rejection | None:
    frames = [source.frame for source in sources]
    unplaced = sum(not _is_placed(frame) for frame in frames)
    if unplaced:
        found = f"{unplaced} of {len(frames)} images lack position, orientation, pixel spacing or matrix"
        return Rejection(Reason.UNREADABLE, f"{label}: {found}")
    geometries = Counter(
        (frame.rows, frame.columns, frame.orientation, frame.pixel_spacing_mm) for frame in frames
    )
    rows, columns, orientation, spacing = geometries.most_common(1)[0][0]
    for other_rows, other_columns, other_orientation, other_spacing in geometries:
        if (other_rows, other_columns) != (rows, columns):
            found = f"matrices {rows} x {columns} and {other_rows} x {other_columns}"
        elif _differ(other_orientation, orientation, COSINE_TOLERANCE):
            found = f"orientations {_joined(orientation)} and {_joined(other_orientation)}"
        elif _differ(other_spacing, spacing, PIXEL_SPACING_TOLERANCE_MM):
            found = f"pixel spacings {_joined(spacing)} and {_joined(other_spacing)} mm"
        else:
            continue
        return Rejection(Reason.MIXED_GEOMETRY, f"{label}: {found} in one volume")
    tilt_deg = math.degrees(math.acos(min(1.0, _upward_normal(frames[0])[2])))
    if tilt_deg > AXIAL_MAX_DEG:
        found = f"slices are {tilt_deg:.0f}° off axial, at most {AXIAL_MAX_DEG:.0f}° is judged"
        return Rejection(Reason.NOT_AXIAL, f"{label}: {found}")
    return None


def _is_placed(frame: DwiFrame) -> bool:
    is_placed = None not in (frame.position_lps_mm, frame.orientation, frame.pixel_spacing_mm)
    return is_placed and frame.rows > 0 and frame.columns > 0


def _differ(one: Sequence[float] | None, other: Sequence[float] | None, tolerance: float) -> bool:
    return any(abs(a - b) > tolerance for a, b in zip(one or (), other or (), strict=True))


def _joined(numbers: Sequence[float] | None) -> str:
    return "\\".join(f"{number:.3g}" for number in numbers or ())


def _upward_normal(frame: DwiFrame) -> Triple:
    """The slice normal that points to the head."""
    rx, ry, rz, cx, cy, cz = frame.orientation or (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
    x, y, z = ry * cz - rz * cy, rz * cx - rx * cz, rx * cy - ry * cx
    length = math.copysign(math.hypot(x, y, z), z)
    return x / length, y / length, z / length


class Slice(NamedTuple):
    """All images at one position; `along_mm` is measured along the upward normal."""

    along_mm: float
    z_mm: float
    sources: list[SourceFrame]


def _by_position(sources: Sequence[SourceFrame]) -> list[Slice]:
    """The slices, caudal to cranial."""
    nx, ny, nz = _upward_normal(sources[0].frame)
    slices: list[Slice] = []
    placed = []
    for source in sources:
        x, y, z = source.frame.position_lps_mm or (0.0, 0.0, 0.0)
        placed.append((x * nx + y * ny + z * nz, z, source))
    for along_mm, z_mm, source in sorted(placed, key=lambda place: place[0]):
        if slices and along_mm - slices[-1].along_mm <= SAME_POSITION_MM:
            slices[-1].sources.append(source)
        else:
            slices.append(Slice(along_mm, z_mm, [source]))
    return slices


def _direction_order(source: SourceFrame) -> tuple[object, ...]:
    frame = source.frame
    return (frame.direction or (), frame.direction_index or 0, source.header.sop_instance_uid, frame.index)


def _direction_of(frame: DwiFrame) -> object:
    """What tells the directions of a shell apart: the vector, else the vendor's number, else nothing."""
    if frame.direction is None:
        return frame.direction_index
    x, y, z = frame.direction
    return round(x, 3) + 0.0, round(y, 3) + 0.0, round(z, 3) + 0.0


def _doubled(kind: VolumeKind, slices: Sequence[Slice], label: str) -> Rejection | None:
    usual = Counter(len(slice_.sources) for slice_ in slices).most_common(1)[0][0]
    for slice_ in slices:
        known = [key for source in slice_.sources if (key := _direction_of(source.frame)) is not None]
        is_repeated = len(set(known)) < len(known)
        is_one_too_many = len(slice_.sources) > 1 and (kind is VolumeKind.TRACE or (usual == 1 and not known))
        if is_repeated or is_one_too_many:
            found = f"{len(slice_.sources)} images at z = {slice_.z_mm:.1f} mm show the same"
            return Rejection(Reason.MIXED_GEOMETRY, f"{label}: {found}")
    return None


def _missing_directions(slices: Sequence[Slice], label: str) -> Rejection | None:
    directions = {_direction_of(source.frame) for slice_ in slices for source in slice_.sources}
    expected = max(len(directions), max(len(slice_.sources) for slice_ in slices))
    for slice_ in slices:
        if len(slice_.sources) < expected:
            found = f"{len(slice_.sources)} of {expected} directions at z = {slice_.z_mm:.1f} mm"
            return Rejection(Reason.INCOMPLETE, f"{label}: {found}")
    return None


def _uneven(slices: Sequence[Slice], promised: int, label: str) -> Rejection | None:
    """Why the positions make no even stack: a gap, too few of them, uneven distances, a sideways shift."""
    of = f" of {promised}" if promised > len(slices) else ""
    counted = f"{label}: {len(slices)}{of} position{'s' if of or len(slices) != 1 else ''}"
    if len(slices) < 2:
        return Rejection(Reason.INCOMPLETE, counted)
    gaps_mm = [above.along_mm - below.along_mm for below, above in pairwise(slices)]
    step_mm = _step_mm(slices, gaps_mm)
    gap_at = ""
    for gap_mm, (below, above) in zip(gaps_mm, pairwise(slices), strict=True):
        steps = max(1, round(gap_mm / step_mm))
        if abs(gap_mm - steps * step_mm) > SPACING_TOLERANCE * step_mm:
            found = f"{gap_mm:.2f} mm above z = {below.z_mm:.1f} mm, {step_mm:.2f} mm elsewhere"
            return Rejection(Reason.UNEVEN_SPACING, f"{label}: slice distance {found}")
        if steps > 1 and not gap_at:
            gap_at = f", gap at z = {below.z_mm + (above.z_mm - below.z_mm) / steps:.1f} mm"
    if gap_at or of:
        return Rejection(Reason.INCOMPLETE, counted + gap_at)
    sideways_mm = _sideways_mm(slices)
    if sideways_mm > SIDEWAYS_MAX_MM:
        return Rejection(
            Reason.MIXED_GEOMETRY, f"{label}: images are shifted sideways by {sideways_mm:.1f} mm"
        )
    return None


def _step_mm(slices: Sequence[Slice], gaps_mm: Sequence[float]) -> float:
    """The distance of neighbours: what the smallest distances have in common, or a fraction that the
    header states. (0018,0088) alone is not to be trusted: multiband GE writes a multiple.
    """
    small = sorted(gap_mm for gap_mm in gaps_mm if gap_mm < 1.5 * min(gaps_mm))
    step_mm = small[len(small) // 2]
    stated_mm = slices[0].sources[0].header.slice_spacing_mm or step_mm
    times = round(step_mm / stated_mm)
    is_multiple = times > 1 and abs(step_mm - times * stated_mm) <= SPACING_TOLERANCE * stated_mm
    return stated_mm if is_multiple else step_mm


def _sideways_mm(slices: Sequence[Slice]) -> float:
    """The largest distance of an image from the line through the first along the normal."""
    normal = _upward_normal(slices[0].sources[0].frame)
    origin = slices[0].sources[0].frame.position_lps_mm or (0.0, 0.0, 0.0)
    largest = 0.0
    for slice_ in slices:
        for source in slice_.sources:
            place = source.frame.position_lps_mm or (0.0, 0.0, 0.0)
            offset = [a - b for a, b in zip(place, origin, strict=True)]
            along = sum(a * b for a, b in zip(offset, normal, strict=True))
            largest = max(largest, math.sqrt(max(0.0, sum(a * a for a in offset) - along * along)))
    return largest
