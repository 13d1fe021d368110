"""What one header says about diffusion: the frames of an instance, their b-values and their places.

The b-values are those of `triage.core.vendors`. Three layouts bring several slices in one instance: the
frames of Enhanced MR, read here, and the two mosaics of `triage.core.mosaic`.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Final

from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import UID

from triage.core.elements import Scope, integer, item, items, number, numbers, text, triple, words
from triage.core.header import B0_MAX, Orientation
from triage.core.header import BSource as BSource
from triage.core.header import DwiFrame as DwiFrame
from triage.core.header import FrameKind as FrameKind
from triage.core.header import InstanceHeader as InstanceHeader
from triage.core.header import header_from_json as header_from_json
from triage.core.header import to_json as to_json
from triage.core.mosaic import IMAGE_POSITION, tiles
from triage.core.vendors import Weighting, frame_scopes, promised_directions, promised_slices, read_weighting


def read_header(dataset: Dataset) -> InstanceHeader:
    """What matters of one received instance; its pixels are neither needed nor read.

    Any SOP class is welcome, and an attribute that cannot be understood counts as absent. Raises
    HeaderError when one of the four UIDs that file an instance is missing or malformed.
    """
    scope = Scope(dataset, text(dataset, Tag("Manufacturer")).upper())
    is_image = text(dataset, SOP_CLASS_UID) in MR_IMAGE_CLASSES
    frames = tuple(_frames(scope)) if is_image else ()
    return InstanceHeader(
        sop_instance_uid=text(dataset, Tag("SOPInstanceUID")),
        sop_class_uid=text(dataset, SOP_CLASS_UID),
        series_instance_uid=text(dataset, Tag("SeriesInstanceUID")),
        study_instance_uid=text(dataset, Tag("StudyInstanceUID")),
        modality=text(dataset, Tag("Modality"))[:16],
        frames=frames,
        acquisition_number=integer(dataset, Tag("AcquisitionNumber")),
        is_self_contained=is_image and _is_self_contained(dataset, frames),
        looks_like_diffusion=is_image and _looks_like_diffusion(dataset, frames),
        promised_slices=promised_slices(scope),
        promised_directions=promised_directions(scope),
        images_in_acquisition=integer(dataset, Tag("ImagesInAcquisition")),
        temporal_positions=integer(dataset, Tag("NumberOfTemporalPositions")),
        slice_spacing_mm=_slice_spacing_mm(dataset),
        is_lossy=_is_lossy(dataset),
    )


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

LOSSLESS_COMPRESSIONS: Final = frozenset(
    {
        "1.2.840.10008.1.2.5",  # RLE
        "1.2.840.10008.1.2.4.57",  # JPEG Lossless, process 14
        "1.2.840.10008.1.2.4.70",  # JPEG Lossless, first-order prediction
        "1.2.840.10008.1.2.4.80",  # JPEG-LS Lossless
        "1.2.840.10008.1.2.4.90",  # JPEG 2000 Lossless
        "1.2.840.10008.1.2.4.201",  # HTJ2K Lossless
        "1.2.840.10008.1.2.4.202",  # HTJ2K Lossless with RPCL
        "1.2.840.10008.1.2.8.1",  # Deflated Image Frame
    }
)
EITHER_COMPRESSIONS: Final = frozenset(
    {
        "1.2.840.10008.1.2.4.91",  # JPEG 2000
        "1.2.840.10008.1.2.4.203",  # HTJ2K
    }
)


def _is_lossy(dataset: Dataset) -> bool:
    """Whether detail was thrown away: the header says so, or the transfer syntax cannot do without."""
    stated = text(dataset, Tag("LossyImageCompression"))
    syntax = getattr(getattr(dataset, "file_meta", None), "TransferSyntaxUID", None)
    if stated == "01" or not isinstance(syntax, UID) or syntax.is_private or not syntax.is_transfer_syntax:
        return stated == "01"
    if syntax in EITHER_COMPRESSIONS:
        return stated != "00"
    return syntax.is_compressed and syntax not in LOSSLESS_COMPRESSIONS


def _is_self_contained(dataset: Dataset, frames: Sequence[DwiFrame]) -> bool:
    if frames and frames[0].tile_origin is not None:
        return True
    is_enhanced = text(dataset, SOP_CLASS_UID) in ENHANCED_CLASSES
    return is_enhanced and not text(dataset, Tag("ConcatenationUID"))


def _looks_like_diffusion(dataset: Dataset, frames: Sequence[DwiFrame]) -> bool:
    if any(frame.b_value is not None and frame.b_value > B0_MAX for frame in frames):
        return True
    called = words(dataset, IMAGE_TYPE) | words(dataset, Tag("AcquisitionContrast"))
    return bool(called & (TRACE_WORDS | {"DIFFUSION"}) or DIFFUSION_TEXT.search(_description(dataset)))


def _description(dataset: Dataset) -> str:
    # Read here and never kept: a description may hold anything that somebody typed.
    return " ".join(
        text(dataset, Tag(name)) for name in ("SeriesDescription", "ProtocolName", "SequenceName")
    )


# Frames.

IMAGE_TYPE: Final = Tag("ImageType")


def _frames(scope: Scope) -> Iterator[DwiFrame]:
    dataset = scope.dataset
    rows, columns = (integer(dataset, Tag(name)) or 0 for name in ("Rows", "Columns"))
    called = words(dataset, IMAGE_TYPE)
    if text(dataset, SOP_CLASS_UID) in ENHANCED_CLASSES:
        yield from _enhanced_frames(scope, rows, columns, called)
        return
    weighting, source, contradiction = read_weighting([scope])
    whole = DwiFrame(
        index=0,
        tile_origin=None,
        rows=rows,
        columns=columns,
        position_lps_mm=triple(dataset, IMAGE_POSITION),
        orientation=_orientation(dataset),
        pixel_spacing_mm=_pixel_spacing_mm(dataset),
        b_value=weighting.b_value,
        b_source=source,
        kind=_kind(called, dataset, weighting),
        direction=weighting.direction,
        direction_index=weighting.direction_index,
        contradiction=contradiction,
    )
    yield from tiles(scope, whole, called)


def _enhanced_frames(scope: Scope, rows: int, columns: int, called: frozenset[str]) -> Iterator[DwiFrame]:
    dataset = scope.dataset
    shared = item(dataset, Tag("SharedFunctionalGroupsSequence")) or Dataset()
    for index, own in enumerate(items(dataset, Tag("PerFrameFunctionalGroupsSequence"))):
        # ImageType speaks for all frames together; where they differ only FrameType tells them apart.
        frame_type = _group(own, shared, "MRImageFrameTypeSequence")
        own_type = words(frame_type, Tag("FrameType")) | words(frame_type, Tag("ComplexImageComponent"))
        weighting, source, contradiction = read_weighting(frame_scopes(own, shared, scope.maker))
        yield DwiFrame(
            index=index,
            tile_origin=None,
            rows=rows,
            columns=columns,
            position_lps_mm=triple(_group(own, shared, "PlanePositionSequence"), IMAGE_POSITION),
            orientation=_orientation(_group(own, shared, "PlaneOrientationSequence")),
            pixel_spacing_mm=_pixel_spacing_mm(_group(own, shared, "PixelMeasuresSequence")),
            b_value=weighting.b_value,
            b_source=source,
            kind=_kind(own_type or called, dataset, weighting),
            direction=weighting.direction,
            direction_index=weighting.direction_index,
            contradiction=contradiction,
            stack_id=text(_group(own, shared, "FrameContentSequence"), Tag("StackID"))[:16] or None,
        )


def _kind(called: frozenset[str], dataset: Dataset, weighting: Weighting) -> FrameKind:
    if _is_map(called, dataset) or weighting.kind is FrameKind.DERIVED_MAP:
        return FrameKind.DERIVED_MAP
    if weighting.kind is FrameKind.B0 or (weighting.b_value is not None and weighting.b_value <= B0_MAX):
        return FrameKind.B0
    if called & TRACE_WORDS:
        return FrameKind.TRACE
    return weighting.kind or FrameKind.UNKNOWN


def _is_map(called: frozenset[str], dataset: Dataset) -> bool:
    if called & (MAP_WORDS | NOT_MAGNITUDE_WORDS) or any(word.startswith(MAP_PREFIXES) for word in called):
        return True
    if integer(dataset, Tag("SamplesPerPixel")) not in (None, 1):
        return True
    # GE calls every computed image DERIVED\SECONDARY\PROCESSED; only the description names the map.
    is_named_map = "DERIVED" in called and not called & (TRACE_WORDS | {"TENSOR_B0"})
    return is_named_map and bool(MAP_TEXT.search(text(dataset, Tag("SeriesDescription"))))


def _orientation(dataset: Dataset) -> Orientation | None:
    values = numbers(dataset, Tag("ImageOrientationPatient"))
    if len(values) != 6:
        return None
    rx, ry, rz, cx, cy, cz = values
    lengths = (rx * rx + ry * ry + rz * rz, cx * cx + cy * cy + cz * cz)
    is_rotation = (
        all(abs(length - 1) < 0.01 for length in lengths) and abs(rx * cx + ry * cy + rz * cz) < 0.01
    )
    return (rx, ry, rz, cx, cy, cz) if is_rotation else None


def _pixel_spacing_mm(dataset: Dataset) -> tuple[float, float] | None:
    values = numbers(dataset, Tag("PixelSpacing"))
    return (values[0], values[1]) if len(values) == 2 and min(values) > 0 else None


def _slice_spacing_mm(dataset: Dataset) -> float | None:
    # Some scanners write the gap between slices here; a gap is smaller than a thick slice.
    spacing, thickness = (number(dataset, Tag(name)) for name in ("SpacingBetweenSlices", "SliceThickness"))
    return spacing if spacing and thickness and spacing >= thickness > 0 else None


def _group(own: Dataset, shared: Dataset, name: str) -> Dataset:
    """The functional group of a frame: its own, else the one all frames share (PS3.3 C.7.6.16.1.1)."""
    tag = Tag(name)
    return item(own, tag) or item(shared, tag) or Dataset()
