"""What one header says, as values: the frames of an instance, and how they are kept as text."""

import json
import re
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any, Final, TypeAlias

from triage.errors import HeaderError

Triple: TypeAlias = tuple[float, float, float]
Orientation: TypeAlias = tuple[float, float, float, float, float, float]

B0_MAX: Final = 50.0
"""s/mm2; at or below it an image counts as b=0 (7 T Siemens writes 5, UIH 1.25)."""


class FrameKind(StrEnum):
    """What a frame shows."""

    B0 = "B0"
    TRACE = "TRACE"
    DIRECTIONAL = "DIRECTIONAL"
    DERIVED_MAP = "DERIVED_MAP"
    UNKNOWN = "UNKNOWN"


class BSource(StrEnum):
    """Where a b-value came from, in the order in which the sources count."""

    STANDARD = "STANDARD"
    GE = "GE"
    SIEMENS = "SIEMENS"
    SIEMENS_CSA = "SIEMENS_CSA"
    SIEMENS_NAME = "SIEMENS_NAME"
    PHILIPS = "PHILIPS"
    UIH = "UIH"
    CANON = "CANON"
    RULE = "RULE"
    NONE = "NONE"

    @property
    def place(self) -> str:
        """The element, as a scanner's or a PACS's viewer shows it."""
        return PLACES[self]


PLACES: Final = {
    BSource.STANDARD: "(0018,9087) DiffusionBValue",
    BSource.GE: "GE (0043,1039)",
    BSource.SIEMENS: "Siemens (0019,100C)",
    BSource.SIEMENS_CSA: "Siemens CSA header (0029,1010)",
    BSource.SIEMENS_NAME: "Siemens sequence name",
    BSource.PHILIPS: "Philips (2001,1003)",
    BSource.UIH: "UIH (0065,1009)",
    BSource.CANON: "Canon comment (0020,4000)",
    BSource.RULE: "dicom.b_value_rules in the configuration",
    BSource.NONE: "nowhere",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DwiFrame:
    """One image plane: a classic image, a frame of Enhanced MR, or a tile of a mosaic.

    index: frame or tile number, from 0.
    tile_origin: (row, column) of the tile's first pixel in the mosaic; None where the frame is no tile.
    rows, columns: of this plane.
    position_lps_mm: centre of the first pixel (PS3.3 C.7.6.2.1.1); None when it cannot be known.
    orientation: direction cosines of the row, then of the column; None when absent or no rotation.
    pixel_spacing_mm: distance between rows, then between columns (PS3.3 10.7.1.3).
    b_value: s/mm2; None when no reader found one.
    direction: gradient direction as written (LPS or scanner axes): it only tells directions apart.
    direction_index: the vendor's number of the direction, for the same purpose.
    stack_id: (0020,9056), which tells several stacks of one Enhanced image apart.
    contradiction: the first other source that states another b-value, and what it states.
    """

    index: int
    tile_origin: tuple[int, int] | None
    rows: int
    columns: int
    position_lps_mm: Triple | None
    orientation: Orientation | None
    pixel_spacing_mm: tuple[float, float] | None
    b_value: float | None
    b_source: BSource
    kind: FrameKind
    direction: Triple | None
    direction_index: int | None
    contradiction: tuple[BSource, float] | None = None
    stack_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceHeader:
    """Everything later decisions need from one instance, without its pixels.

    frames: empty for anything that is not an MR image (report, presentation state, raw data).
    acquisition_number: (0020,0012); the images that `images_in_acquisition` counts share it.
    is_self_contained: whole volumes come in this one instance: Enhanced MR that is not part of a
        concatenation (PS3.3 C.7.6.16.2.2.4), a mosaic.
    looks_like_diffusion: the header says so in its image type, contrast, description or b-values.
    promised_slices: slice positions of the acquisition, as the scanner planned them.
    promised_directions: gradient directions of the acquisition.
    images_in_acquisition: (0020,1002), images of the whole acquisition.
    temporal_positions: (0020,0105), volumes of the whole series where each is one instance.
    slice_spacing_mm: centre to centre, where the header can mean nothing else.
    is_lossy: its pixels went through a lossy compression, now or earlier (PS3.3 C.7.6.1.1.5).

    Raises HeaderError when a UID is malformed (PS3.5 section 9).
    """

    sop_instance_uid: str
    sop_class_uid: str
    series_instance_uid: str
    study_instance_uid: str
    modality: str
    frames: tuple[DwiFrame, ...]
    acquisition_number: int | None = None
    is_self_contained: bool = False
    looks_like_diffusion: bool = False
    promised_slices: int | None = None
    promised_directions: int | None = None
    images_in_acquisition: int | None = None
    temporal_positions: int | None = None
    slice_spacing_mm: float | None = None
    is_lossy: bool = False

    def __post_init__(self) -> None:
        for name in ("sop_instance_uid", "sop_class_uid", "series_instance_uid", "study_instance_uid"):
            _check_uid(name, getattr(self, name))

    @property
    def is_derived_map(self) -> bool:
        """Whether every frame is a computed map: ADC, FA and their like."""
        return bool(self.frames) and all(frame.kind is FrameKind.DERIVED_MAP for frame in self.frames)


def to_json(header: InstanceHeader) -> str:
    """The header as compact JSON; `header_from_json` gives back an equal one.

    Matrix, orientation and pixel spacing stand once for all frames that share them.
    """
    planes: dict[object, int] = {}
    rows = []
    for frame in header.frames:
        plane = (frame.rows, frame.columns, frame.orientation, frame.pixel_spacing_mm)
        number = planes.setdefault(plane, len(planes))
        rows.append(
            [
                number,
                frame.index,
                frame.tile_origin,
                frame.position_lps_mm,
                frame.b_value,
                frame.b_source,
                frame.kind,
                frame.direction,
                frame.direction_index,
                frame.stack_id,
                *(frame.contradiction or ()),
            ]
        )
    plain = {field.name: getattr(header, field.name) for field in fields(header)}
    plain |= {"planes": list(planes), "frames": rows}
    return json.dumps(plain, separators=(",", ":"), allow_nan=False)


def header_from_json(text: str) -> InstanceHeader:
    """The header that `to_json` wrote."""
    plain = json.loads(text)
    planes = [tuple(_tuple(part) for part in plane) for plane in plain.pop("planes")]
    frames = []
    for row in plain.pop("frames"):
        number, index, tile, position, b_value, source, kind, direction, direction_index = row[:9]
        stack_id, *other = row[9:] or [None]
        rows, columns, orientation, spacing = planes[number]
        frames.append(
            DwiFrame(
                index=index,
                tile_origin=_tuple(tile),
                rows=rows,
                columns=columns,
                position_lps_mm=_tuple(position),
                orientation=orientation,
                pixel_spacing_mm=spacing,
                b_value=b_value,
                b_source=BSource(source),
                kind=FrameKind(kind),
                direction=_tuple(direction),
                direction_index=direction_index,
                contradiction=(BSource(other[0]), other[1]) if other else None,
                stack_id=stack_id,
            )
        )
    return InstanceHeader(frames=tuple(frames), **plain)


def _tuple(part: Any) -> Any:
    return tuple(part) if isinstance(part, list) else part


UID: Final = re.compile(r"[0-9]+(\.[0-9]+)*")


def _check_uid(name: str, uid: str) -> None:
    if not uid:
        raise HeaderError(f"{name} is missing: the instance cannot be filed")
    if len(uid) > 64 or not UID.fullmatch(uid):
        raise HeaderError(
            f"{name} is not a UID: expected at most 64 digits and dots, got {len(uid)} characters"
        )
