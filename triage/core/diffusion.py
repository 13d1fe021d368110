"""What one header says about diffusion: the frames of an instance, their b-values and their places.

The standard's own attributes come first: MR Diffusion Macro, PS3.3 C.8.13.5.9, at the top level of a
classic image or in the functional groups of an Enhanced one. Whatever they leave open is asked of one
reader a vendor, in the order of `READERS`; the first reader that knows a thing decides it. A b-value of 0
proves nothing: GE writes (0043,1039) = 0\\0\\0\\0 into functional MRI, Philips (2001,1003) = 0 into T1.

Three layouts bring several slices in one instance: Enhanced MR frames, the mosaic of Siemens and the
VFRAME of UIH. A mosaic's ImagePositionPatient belongs to the big picture, whose centre is the centre of
the first slice; so the corner of tile 0 lies half the difference of the two extents further in, and tile k
lies k slice distances along the slice normal. The normal's sign is that of the CSA header's
SliceNormalVector; without one, row x column. UIH writes every tile's position into (0065,1051).

The module is long because every reader is here: a vendor's oddity has one place to look.
"""

import json
import math
import re
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from typing import Any, Final, NamedTuple, TypeAlias

from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException
from pydicom.tag import BaseTag, Tag

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
    """Which reader the b-value came from."""

    STANDARD = "STANDARD"
    GE = "GE"
    SIEMENS = "SIEMENS"
    PHILIPS = "PHILIPS"
    UIH = "UIH"
    CANON = "CANON"
    NONE = "NONE"


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
    slice_spacing_mm: centre to centre, where the header can mean nothing else.

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
    slice_spacing_mm: float | None = None

    def __post_init__(self) -> None:
        for name in ("sop_instance_uid", "sop_class_uid", "series_instance_uid", "study_instance_uid"):
            _check_uid(name, getattr(self, name))

    @property
    def is_derived_map(self) -> bool:
        """Whether every frame is a computed map: ADC, FA and their like."""
        return bool(self.frames) and all(frame.kind is FrameKind.DERIVED_MAP for frame in self.frames)


def read_header(dataset: Dataset) -> InstanceHeader:
    """What matters of one received instance; its pixels are neither needed nor read.

    Any SOP class is welcome, and an attribute that cannot be understood counts as absent. Raises
    HeaderError when one of the four UIDs that file an instance is missing or malformed.
    """
    is_image = _text(dataset, SOP_CLASS_UID) in MR_IMAGE_CLASSES
    frames = tuple(_frames(dataset)) if is_image else ()
    return InstanceHeader(
        sop_instance_uid=_text(dataset, Tag("SOPInstanceUID")),
        sop_class_uid=_text(dataset, SOP_CLASS_UID),
        series_instance_uid=_text(dataset, Tag("SeriesInstanceUID")),
        study_instance_uid=_text(dataset, Tag("StudyInstanceUID")),
        modality=_text(dataset, Tag("Modality"))[:16],
        frames=frames,
        acquisition_number=_integer(dataset, Tag("AcquisitionNumber")),
        is_self_contained=is_image and _is_self_contained(dataset, frames),
        looks_like_diffusion=is_image and _looks_like_diffusion(dataset, frames),
        promised_slices=_promise(dataset, SLICE_PROMISES),
        promised_directions=_promise(dataset, DIRECTION_PROMISES),
        images_in_acquisition=_integer(dataset, Tag("ImagesInAcquisition")),
        slice_spacing_mm=_slice_spacing_mm(dataset),
    )


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
    for number, index, tile, position, b_value, source, kind, direction, direction_index in plain.pop(
        "frames"
    ):
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
            )
        )
    return InstanceHeader(frames=tuple(frames), **plain)


def _tuple(part: Any) -> Any:
    return tuple(part) if isinstance(part, list) else part


# What kind of object it is.

SOP_CLASS_UID: Final = Tag("SOPClassUID")

ENHANCED_CLASSES: Final = frozenset(
    {
        "1.2.840.10008.5.1.4.1.1.4.1",  # Enhanced MR
        "1.2.840.10008.5.1.4.1.1.4.3",  # Enhanced MR Color
        "1.2.840.10008.5.1.4.1.1.4.4",  # Legacy Converted Enhanced MR
    }
)
MR_IMAGE_CLASSES: Final = ENHANCED_CLASSES | {"1.2.840.10008.5.1.4.1.1.4"}

TRACE_WORDS: Final = frozenset({"TRACEW", "TRACE", "ISOTROPIC"})
MAP_WORDS: Final = frozenset(
    {"ADC", "EADC", "FA", "FAC", "COLFA", "RA", "VR", "MD", "AD", "RD", "EXP", "EXPONENTIAL"}
    | {"TENSOR", "DIFFUSION_ANISO", "CALC_BVALUE"}
)
NOT_MAGNITUDE_WORDS: Final = frozenset({"P", "R", "I", "PHASE", "PHASE MAP", "REAL", "IMAGINARY"})
MAP_PREFIXES: Final = ("ADC_", "EADC_", "FA_")
MAP_TEXT: Final = re.compile(
    r"(?<![a-z])(e?adc|[rf]a|colfa|fractional|anisotropy|apparent|exponential|tensor)(?![a-z])", re.IGNORECASE
)
DIFFUSION_TEXT: Final = re.compile(r"(?<![a-z])(dwi|dti|diff|diffusion|tracew?)(?![a-z])", re.IGNORECASE)

UID: Final = re.compile(r"[0-9]+(\.[0-9]+)*")


def _check_uid(name: str, uid: str) -> None:
    if not uid:
        raise HeaderError(f"{name} is missing: the instance cannot be filed")
    if len(uid) > 64 or not UID.fullmatch(uid):
        raise HeaderError(
            f"{name} is not a UID: expected at most 64 digits and dots, got {len(uid)} characters"
        )


def _is_self_contained(dataset: Dataset, frames: Sequence[DwiFrame]) -> bool:
    if frames and frames[0].tile_origin is not None:
        return True
    is_enhanced = _text(dataset, SOP_CLASS_UID) in ENHANCED_CLASSES
    return is_enhanced and not _text(dataset, Tag("ConcatenationUID"))


def _looks_like_diffusion(dataset: Dataset, frames: Sequence[DwiFrame]) -> bool:
    if any(frame.b_value is not None and frame.b_value > B0_MAX for frame in frames):
        return True
    words = _words(dataset, IMAGE_TYPE) | _words(dataset, Tag("AcquisitionContrast"))
    return bool(words & (TRACE_WORDS | {"DIFFUSION"}) or DIFFUSION_TEXT.search(_description(dataset)))


def _description(dataset: Dataset) -> str:
    # Read here and never kept: a description may hold anything that somebody typed.
    return " ".join(
        _text(dataset, Tag(name)) for name in ("SeriesDescription", "ProtocolName", "SequenceName")
    )


# Frames.

IMAGE_TYPE: Final = Tag("ImageType")
IMAGE_POSITION: Final = Tag("ImagePositionPatient")
TILE_MIN: Final = 8
TILES_MAX: Final = 4096
AXIAL: Final[Orientation] = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def _frames(dataset: Dataset) -> Iterator[DwiFrame]:
    rows, columns = (_integer(dataset, Tag(name)) or 0 for name in ("Rows", "Columns"))
    words = _words(dataset, IMAGE_TYPE)
    if _text(dataset, SOP_CLASS_UID) in ENHANCED_CLASSES:
        yield from _enhanced_frames(dataset, rows, columns, words)
        return
    weighting, source = _weighting(dataset, READERS)
    whole = DwiFrame(
        index=0,
        tile_origin=None,
        rows=rows,
        columns=columns,
        position_lps_mm=_triple(dataset, IMAGE_POSITION),
        orientation=_orientation(dataset),
        pixel_spacing_mm=_pixel_spacing_mm(dataset),
        b_value=weighting.b_value,
        b_source=source,
        kind=_kind(words, dataset, weighting),
        direction=weighting.direction,
        direction_index=weighting.direction_index,
    )
    yield from _tiles(dataset, whole, words)


def _enhanced_frames(
    dataset: Dataset, rows: int, columns: int, image_words: frozenset[str]
) -> Iterator[DwiFrame]:
    shared = _item(dataset, Tag("SharedFunctionalGroupsSequence")) or Dataset()
    for index, own in enumerate(_items(dataset, Tag("PerFrameFunctionalGroupsSequence"))):
        # ImageType speaks for all frames together; where they differ only FrameType tells them apart.
        frame_type = _group(own, shared, "MRImageFrameTypeSequence")
        words = _words(frame_type, Tag("FrameType")) | _words(frame_type, Tag("ComplexImageComponent"))
        weighting, source = _weighting(_group(own, shared, "MRDiffusionSequence"), READERS[:1])
        yield DwiFrame(
            index=index,
            tile_origin=None,
            rows=rows,
            columns=columns,
            position_lps_mm=_triple(_group(own, shared, "PlanePositionSequence"), IMAGE_POSITION),
            orientation=_orientation(_group(own, shared, "PlaneOrientationSequence")),
            pixel_spacing_mm=_pixel_spacing_mm(_group(own, shared, "PixelMeasuresSequence")),
            b_value=weighting.b_value,
            b_source=source,
            kind=_kind(words or image_words, dataset, weighting),
            direction=weighting.direction,
            direction_index=weighting.direction_index,
        )


def _kind(words: frozenset[str], dataset: Dataset, weighting: "Weighting") -> FrameKind:
    if _is_map(words, dataset) or weighting.kind is FrameKind.DERIVED_MAP:
        return FrameKind.DERIVED_MAP
    if weighting.kind is FrameKind.B0 or (weighting.b_value is not None and weighting.b_value <= B0_MAX):
        return FrameKind.B0
    if words & TRACE_WORDS:
        return FrameKind.TRACE
    return weighting.kind or FrameKind.UNKNOWN


def _is_map(words: frozenset[str], dataset: Dataset) -> bool:
    if words & (MAP_WORDS | NOT_MAGNITUDE_WORDS) or any(word.startswith(MAP_PREFIXES) for word in words):
        return True
    if _integer(dataset, Tag("SamplesPerPixel")) not in (None, 1):
        return True
    # GE calls every computed image DERIVED\SECONDARY\PROCESSED; only the description names the map.
    is_named_map = "DERIVED" in words and not words & (TRACE_WORDS | {"TENSOR_B0"})
    return is_named_map and bool(MAP_TEXT.search(_text(dataset, Tag("SeriesDescription"))))


class Grid(NamedTuple):
    """How a mosaic is laid out, row by row; it may have more places than tiles."""

    down: int
    across: int
    positions_lps_mm: Sequence[Triple | None]


def _tiles(dataset: Dataset, whole: DwiFrame, words: frozenset[str]) -> Iterator[DwiFrame]:
    """The slices of a mosaic; any other image as it is. A mosaic that cannot be cut has no position."""
    if "MOSAIC" in words:
        grid = _siemens_grid(dataset, whole)
    elif "VFRAME" in words:
        grid = _uih_grid(dataset)
    else:
        yield whole
        return
    if not _fits(grid, whole):
        yield replace(whole, position_lps_mm=None)
        return
    rows, columns = whole.rows // grid.down, whole.columns // grid.across
    for index, position_lps_mm in enumerate(grid.positions_lps_mm):
        down, across = divmod(index, grid.across)
        yield replace(
            whole,
            index=index,
            tile_origin=(down * rows, across * columns),
            rows=rows,
            columns=columns,
            position_lps_mm=position_lps_mm,
        )


def _fits(grid: Grid, whole: DwiFrame) -> bool:
    if not grid.positions_lps_mm or whole.rows % grid.down or whole.columns % grid.across:
        return False
    return min(whole.rows // grid.down, whole.columns // grid.across) >= TILE_MIN


def _siemens_grid(dataset: Dataset, whole: DwiFrame) -> Grid:
    stated = _integer(dataset, _private(dataset, *SIEMENS_MR, 0x0A))
    in_csa = next(iter(_csa_numbers(dataset, "NumberOfImagesInMosaic")), 0)
    count = min(stated or int(in_csa), TILES_MAX)
    side = math.ceil(math.sqrt(max(count, 0)))
    step_mm = _number(dataset, Tag("SpacingBetweenSlices"))
    if side and step_mm and whole.position_lps_mm and whole.orientation and whole.pixel_spacing_mm:
        corner = _corner(whole.position_lps_mm, whole, side)
        normal = _normal(whole.orientation)
        csa_normal = _csa_numbers(dataset, "SliceNormalVector") or normal
        if sum(a * b for a, b in zip(csa_normal, normal, strict=False)) < 0:
            step_mm = -step_mm
        return Grid(side, side, [_shifted(corner, normal, k * step_mm) for k in range(count)])
    return Grid(side, side, [None] * count)


def _corner(position_lps_mm: Triple, whole: DwiFrame, side: int) -> Triple:
    """Where the first pixel of the first tile lies."""
    orientation, (row_mm, column_mm) = whole.orientation or AXIAL, whole.pixel_spacing_mm or (0.0, 0.0)
    rx, ry, rz, cx, cy, cz = orientation
    to_the_right = column_mm * (whole.columns - whole.columns // side) / 2
    down = row_mm * (whole.rows - whole.rows // side) / 2
    return _shifted(_shifted(position_lps_mm, (rx, ry, rz), to_the_right), (cx, cy, cz), down)


def _shifted(place: Triple, direction: Triple, distance_mm: float) -> Triple:
    (x, y, z), (dx, dy, dz) = place, direction
    return x + distance_mm * dx, y + distance_mm * dy, z + distance_mm * dz


def _uih_grid(dataset: Dataset) -> Grid:
    items = _items(dataset, _private(dataset, *UIH_IMAGE, 0x51))
    across = math.ceil(math.sqrt(len(items)))
    down = math.ceil(len(items) / max(across, 1))
    return Grid(down, across, [_triple(item, IMAGE_POSITION) for item in items])


def _normal(orientation: Orientation) -> Triple:
    rx, ry, rz, cx, cy, cz = orientation
    return ry * cz - rz * cy, rz * cx - rx * cz, rx * cy - ry * cx


def _orientation(dataset: Dataset) -> Orientation | None:
    values = _numbers(dataset, Tag("ImageOrientationPatient"))
    if len(values) != 6:
        return None
    rx, ry, rz, cx, cy, cz = values
    lengths = (rx * rx + ry * ry + rz * rz, cx * cx + cy * cy + cz * cz)
    is_rotation = (
        all(abs(length - 1) < 0.01 for length in lengths) and abs(rx * cx + ry * cy + rz * cz) < 0.01
    )
    return (rx, ry, rz, cx, cy, cz) if is_rotation else None


def _pixel_spacing_mm(dataset: Dataset) -> tuple[float, float] | None:
    values = _numbers(dataset, Tag("PixelSpacing"))
    return (values[0], values[1]) if len(values) == 2 and min(values) > 0 else None


def _slice_spacing_mm(dataset: Dataset) -> float | None:
    # Some scanners write the gap between slices here; a gap is smaller than a thick slice.
    spacing, thickness = (_number(dataset, Tag(name)) for name in ("SpacingBetweenSlices", "SliceThickness"))
    return spacing if spacing and thickness and spacing >= thickness > 0 else None


# Weighting: one reader a vendor.


class Weighting(NamedTuple):
    """What one reader found; None where it does not say."""

    b_value: float | None = None
    kind: FrameKind | None = None
    direction: Triple | None = None
    direction_index: int | None = None


GE_ACQUISITION: Final = (0x0019, "GEMS_ACQU_01")
GE_RELATIONSHIP: Final = (0x0021, "GEMS_RELA_01")
GE_PARAMETERS: Final = (0x0043, "GEMS_PARM_01")
SIEMENS_MR: Final = (0x0019, "SIEMENS MR HEADER")
SIEMENS_CSA: Final = (0x0029, "SIEMENS CSA HEADER")
PHILIPS_IMAGING: Final = (0x2001, "Philips Imaging DD 001")
PHILIPS_MR_1: Final = (0x2005, "Philips MR Imaging DD 001")
PHILIPS_MR_5: Final = (0x2005, "Philips MR Imaging DD 005")
UIH_IMAGE: Final = (0x0065, "Image Private Header")

DIRECTIONALITY: Final = {
    "DIRECTIONAL": FrameKind.DIRECTIONAL,
    "BMATRIX": FrameKind.DIRECTIONAL,
    "ISOTROPIC": FrameKind.TRACE,
}
SIEMENS_SEQUENCE: Final = re.compile(r"\*?ep_b(\d+)(?:#(\d+)|(t))?")
CANON_COMMENT: Final = re.compile(r"\s*b=(\d+(?:\.\d+)?)\s*(?:\(([-+.,\d\s]*)\))?\s*")


def _standard(dataset: Dataset) -> Weighting:
    """MR Diffusion Macro, PS3.3 C.8.13.5.9, or the same attributes in a classic image."""
    kind = DIRECTIONALITY.get(_text(dataset, Tag("DiffusionDirectionality")).upper())
    if _text(dataset, Tag("DiffusionAnisotropyType")):
        kind = FrameKind.DERIVED_MAP
    gradient = _item(dataset, Tag("DiffusionGradientDirectionSequence")) or dataset
    direction = _direction(_numbers(gradient, Tag("DiffusionGradientOrientation")))
    return Weighting(_b_value(_number(dataset, Tag("DiffusionBValue"))), kind, direction)


def _ge(dataset: Dataset) -> Weighting:
    """(0043,1039): b, plus 1e9 on some releases (dcm2niix issue 149); (0043,1030) says what the image is."""
    raw = _number(dataset, _private(dataset, *GE_PARAMETERS, 0x39))
    if raw is None or raw < 0:
        return Weighting()
    b_value = _b_value(raw % 1e9)
    if b_value is None or b_value <= B0_MAX:
        return Weighting(b_value)
    flag = _integer(dataset, _private(dataset, *GE_PARAMETERS, 0x30)) or 0
    axes = [_numbers(dataset, _private(dataset, *GE_ACQUISITION, offset)) for offset in (0xBB, 0xBC, 0xBD)]
    direction = _direction([number for axis in axes for number in axis[:1]])
    return Weighting(b_value, _ge_kind(flag), direction, flag if flag in GE_AXES else None)


GE_AXES: Final = (3, 4, 5)


def _ge_kind(flag: int) -> FrameKind | None:
    # dcm2niix issues 690 and 574. Only an image with a b-value means diffusion by this flag.
    if flag >= 18:
        return FrameKind.DERIVED_MAP
    kinds = {14: FrameKind.B0, 15: FrameKind.TRACE, 16: FrameKind.DIRECTIONAL}
    return FrameKind.DIRECTIONAL if flag in GE_AXES else kinds.get(flag)


def _siemens(dataset: Dataset) -> Weighting:
    """(0019,100C), else the CSA header, else SequenceName: *ep_b1000#7 is direction 7, *ep_b1000t a trace."""
    name = SIEMENS_SEQUENCE.match(_text(dataset, Tag("SequenceName")))
    b_value = _number(dataset, _private(dataset, *SIEMENS_MR, 0x0C))
    if b_value is None:
        b_value = next(iter(_csa_numbers(dataset, "B_value")), float(name[1]) if name else None)
    kind = DIRECTIONALITY.get(_text(dataset, _private(dataset, *SIEMENS_MR, 0x0D)).upper())
    if name and name[3]:
        kind = FrameKind.TRACE
    direction = _direction(_numbers(dataset, _private(dataset, *SIEMENS_MR, 0x0E)))
    return Weighting(_b_value(b_value), kind, direction, int(name[2]) if name and name[2] else None)


def _philips(dataset: Dataset) -> Weighting:
    """(2001,1003) and (2001,1004); "I" on a weighted image is the isotropic one, and b=0 carries it too."""
    b_value = _b_value(_number(dataset, _private(dataset, *PHILIPS_IMAGING, 0x03)))
    if b_value is None or b_value <= B0_MAX:
        return Weighting(b_value)
    if _text(dataset, _private(dataset, *PHILIPS_IMAGING, 0x04)).upper() == "I":
        return Weighting(b_value, FrameKind.TRACE)
    axes = [_numbers(dataset, _private(dataset, *PHILIPS_MR_1, offset)) for offset in (0xB0, 0xB1, 0xB2)]
    direction = _direction([number for axis in axes for number in axis[:1]])
    index = _integer(dataset, _private(dataset, *PHILIPS_MR_5, 0x13))
    kind = None if direction is None and index is None else FrameKind.DIRECTIONAL
    return Weighting(b_value, kind, direction, index)


def _uih(dataset: Dataset) -> Weighting:
    """(0065,1009): the b-value with the imaging gradients' share, 929.75 where 1000 was asked for."""
    b_value = _b_value(_number(dataset, _private(dataset, *UIH_IMAGE, 0x09)))
    return Weighting(b_value, direction=_direction(_numbers(dataset, _private(dataset, *UIH_IMAGE, 0x37))))


def _canon(dataset: Dataset) -> Weighting:
    """ImageComments "b=1500(0.445,0.000,0.895)"."""
    comment = CANON_COMMENT.fullmatch(_text(dataset, Tag("ImageComments")))
    if comment is None:
        return Weighting()
    direction = _direction(_floats((comment[2] or "").split(",")))
    return Weighting(_b_value(float(comment[1])), direction=direction)


Reader: TypeAlias = tuple[BSource, Callable[[Dataset], Weighting]]

READERS: Final[tuple[Reader, ...]] = (
    (BSource.STANDARD, _standard),
    (BSource.GE, _ge),
    (BSource.SIEMENS, _siemens),
    (BSource.PHILIPS, _philips),
    (BSource.UIH, _uih),
    (BSource.CANON, _canon),
)


def _weighting(dataset: Dataset, readers: Sequence[Reader]) -> tuple[Weighting, BSource]:
    found, source = Weighting(), BSource.NONE
    for name, read in readers:
        said = read(dataset)
        if found.b_value is None and said.b_value is not None:
            source = name
        missing = {field: value for field, value in said._asdict().items() if getattr(found, field) is None}
        found = found._replace(**missing)
    if found.kind is None and (found.direction, found.direction_index) != (None, None):
        found = found._replace(kind=FrameKind.DIRECTIONAL)
    return found, source


def _b_value(number: float | None) -> float | None:
    return number if number is not None and 0 <= number < 1e5 else None


def _direction(numbers: Sequence[float]) -> Triple | None:
    if len(numbers) != 3 or not any(numbers):
        return None
    return numbers[0], numbers[1], numbers[2]


# Promises.

SIEMENS_SLICES: Final = re.compile(rb"sSliceArray\.lSize\s*=\s*(\d+)")
SIEMENS_DIRECTIONS: Final = re.compile(rb"sDiffusion\.lDiffDirections\s*=\s*(\d+)")
SIEMENS_TENSOR_DIRECTIONS: Final = 6


def _siemens_slices(dataset: Dataset) -> int | None:
    """The protocol's slice count, in the CSA series header."""
    return _protocol_integer(dataset, SIEMENS_SLICES)


def _siemens_directions(dataset: Dataset) -> int | None:
    """The protocol's directions; below a tensor's six the number does not count a trace scan's axes."""
    count = _protocol_integer(dataset, SIEMENS_DIRECTIONS)
    return count if count is not None and count >= SIEMENS_TENSOR_DIRECTIONS else None


def _protocol_integer(dataset: Dataset, pattern: re.Pattern[bytes]) -> int | None:
    protocol = _value(dataset, _private(dataset, *SIEMENS_CSA, 0x20))
    found = pattern.search(protocol) if isinstance(protocol, bytes) else None
    return int(found[1]) if found and len(found[1]) < 6 else None


Promise: TypeAlias = Callable[[Dataset], int | None]

SLICE_PROMISES: Final[tuple[Promise, ...]] = (
    lambda dataset: _integer(dataset, _private(dataset, *GE_RELATIONSHIP, 0x4F)),
    lambda dataset: _integer(dataset, _private(dataset, *PHILIPS_IMAGING, 0x18)),
    _siemens_slices,
)
DIRECTION_PROMISES: Final[tuple[Promise, ...]] = (
    lambda dataset: _integer(dataset, _private(dataset, *GE_ACQUISITION, 0xE0)),
    lambda dataset: _integer(dataset, _private(dataset, *PHILIPS_MR_5, 0x15)),
    _siemens_directions,
)


def _promise(dataset: Dataset, promises: Sequence[Promise]) -> int | None:
    counts = (promise(dataset) for promise in promises)
    return next((count for count in counts if count is not None and count > 0), None)


# Values. A received header may hold anything; what cannot be read counts as absent.

UNDECODABLE: Final = (
    ArithmeticError,
    AttributeError,
    BytesLengthException,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
)
"""What pydicom, and a decoder that it calls, raise at damaged content."""


def _value(dataset: Dataset, tag: BaseTag | None) -> object:
    try:
        element = dataset.get(tag) if tag is not None else None
        return None if element is None else element.value
    except UNDECODABLE:
        return None


def _text(dataset: Dataset, tag: BaseTag | None) -> str:
    match _value(dataset, tag):
        case str() as text:
            return text.strip(" \0\t\r\n")
        case bytes() as raw:
            return raw.decode("ascii", "ignore").strip(" \0\t\r\n")
        case _:
            return ""


def _words(dataset: Dataset, tag: BaseTag) -> frozenset[str]:
    value = _value(dataset, tag)
    parts = value if isinstance(value, Sequence) and not isinstance(value, str | bytes) else [value]
    return frozenset(part.strip().upper() for part in parts if isinstance(part, str))


def _numbers(dataset: Dataset, tag: BaseTag | None) -> tuple[float, ...]:
    match _value(dataset, tag):
        case None:
            return ()
        case bytes() as raw:
            return _numbers_in_bytes(raw)
        case Sequence() as many if not isinstance(many, str):
            return _floats(many)
        case one:
            return _floats([one])


def _numbers_in_bytes(raw: bytes) -> tuple[float, ...]:
    # A private element under implicit VR arrives as UN: text, doubles or floats, and nobody says which.
    if re.fullmatch(rb"[-+.\deE\\ ]+", raw):
        return _floats(raw.decode("ascii").split("\\"))
    for width, code in ((8, "d"), (4, "f")):
        if raw and len(raw) % width == 0:
            return _floats(struct.unpack(f"<{len(raw) // width}{code}", raw))
    return ()


def _floats(values: Sequence[object]) -> tuple[float, ...]:
    try:
        numbers = tuple(float(value) for value in values)  # type: ignore[arg-type]
    except UNDECODABLE:
        return ()
    return numbers if all(map(math.isfinite, numbers)) else ()


def _number(dataset: Dataset, tag: BaseTag | None) -> float | None:
    return next(iter(_numbers(dataset, tag)), None)


def _integer(dataset: Dataset, tag: BaseTag | None) -> int | None:
    number = _number(dataset, tag)
    return None if number is None else int(number)


def _triple(dataset: Dataset, tag: BaseTag) -> Triple | None:
    values = _numbers(dataset, tag)
    return (values[0], values[1], values[2]) if len(values) == 3 else None


def _items(dataset: Dataset, tag: BaseTag | None) -> Sequence[Dataset]:
    value = _value(dataset, tag)
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        return ()
    return [item for item in value if isinstance(item, Dataset)]


def _item(dataset: Dataset, tag: BaseTag) -> Dataset | None:
    return next(iter(_items(dataset, tag)), None)


def _group(own: Dataset, shared: Dataset, name: str) -> Dataset:
    """The functional group of a frame: its own, else the one all frames share (PS3.3 C.7.6.16.1.1)."""
    tag = Tag(name)
    return _item(own, tag) or _item(shared, tag) or Dataset()


def _private(dataset: Dataset, group: int, creator: str, offset: int) -> BaseTag | None:
    """The tag of a private element in the block that its creator reserved (PS3.5 section 7.8.1)."""
    # pydicom's private_block sorts the whole dataset at every miss, and most lookups miss.
    for tag in dataset.keys():  # noqa: SIM118 -- iterating a Dataset gives elements, decoded and sorted
        if tag >> 8 == group << 8 and _text(dataset, tag) == creator:
            return Tag(group, (tag & 0xFF) << 8 | offset)
    return None


def _csa_numbers(dataset: Dataset, name: str) -> tuple[float, ...]:
    """The values of one entry of the CSA image header (0029,1010), which Siemens writes as "SV10"."""
    csa = _value(dataset, _private(dataset, *SIEMENS_CSA, 0x10))
    if not isinstance(csa, bytes) or not csa.startswith(b"SV10"):
        return ()
    try:
        return _floats(_csa_entry(csa, name.encode("ascii")))
    except UNDECODABLE:
        return ()


def _csa_entry(csa: bytes, name: bytes) -> list[str]:
    entries, at = struct.unpack_from("<I", csa, 8)[0], 16
    for _ in range(entries):
        label, count = csa[at : at + 64].split(b"\0")[0], struct.unpack_from("<I", csa, at + 76)[0]
        at += 84
        values = []
        for _ in range(count):
            length = struct.unpack_from("<I", csa, at)[0]
            values.append(csa[at + 16 : at + 16 + length].split(b"\0")[0].decode("ascii"))
            at += 16 + (length + 3) // 4 * 4
        if label == name:
            return [value for value in values if value.strip()]
    return []
