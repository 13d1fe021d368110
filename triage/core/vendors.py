"""Weighting and promises: what a header says about diffusion, one reader a source, in a fixed order.

The standard's own attributes come first: MR Diffusion Macro, PS3.3 C.8.13.5.9. Whatever they leave open is
asked of each vendor's reader in the order of `READERS`; the first that knows a thing decides it, and a
later one that states another b-value is kept as a contradiction. A b-value of 0 proves nothing: GE writes
(0043,1039) = 0\\0\\0\\0 into functional MRI, Philips (2001,1003) = 0 into T1.

Enhanced MR repeats the vendor's elements inside the functional groups: Philips in (2005,140F), Siemens the
sequence name in (0021,1177), a Legacy Converted image in its unassigned attributes (PS3.3 C.7.6.16.2.25).
"""

import re
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple, TypeAlias

from pydicom.dataset import Dataset
from pydicom.tag import Tag

from triage.core.elements import (
    UNDECODABLE,
    Block,
    Private,
    Scope,
    floats,
    item,
    number,
    numbers,
    private_integer,
    private_items,
    private_number,
    private_numbers,
    private_text,
    private_value,
    text,
)
from triage.core.header import B0_MAX, BSource, FrameKind, Triple

SAME_B: Final = 50.0
"""s/mm2; two sources further apart contradict each other. A b-matrix makes 995 of 1000."""


class Weighting(NamedTuple):
    """What one reader found; None where it does not say."""

    b_value: float | None = None
    kind: FrameKind | None = None
    direction: Triple | None = None
    direction_index: int | None = None


class Reading(NamedTuple):
    """What all readers found together, and where the b-value came from."""

    weighting: Weighting
    source: BSource
    contradiction: tuple[BSource, float] | None


GE_ACQUISITION: Final = Block(0x0019, "GEMS_ACQU_01", 0x10, "GE MEDICAL")
GE_RELATIONSHIP: Final = Block(0x0021, "GEMS_RELA_01", 0x10, "GE MEDICAL")
GE_PARAMETERS: Final = Block(0x0043, "GEMS_PARM_01", 0x10, "GE MEDICAL")
SIEMENS_MR: Final = Block(0x0019, "SIEMENS MR HEADER", 0x10, "SIEMENS")
SIEMENS_XA: Final = Block(0x0021, "SIEMENS MR SDI 02", 0x11, "SIEMENS")
SIEMENS_CSA: Final = Block(0x0029, "SIEMENS CSA HEADER", 0x10, "SIEMENS")
PHILIPS_IMAGING: Final = Block(0x2001, "Philips Imaging DD 001", 0x10, "PHILIPS")
PHILIPS_MR_1: Final = Block(0x2005, "Philips MR Imaging DD 001", 0x10, "PHILIPS")
PHILIPS_MR_5: Final = Block(0x2005, "Philips MR Imaging DD 005", 0x14, "PHILIPS")
UIH_IMAGE: Final = Block(0x0065, "Image Private Header", 0x10, "UIH")

GE_B: Final = Private(GE_PARAMETERS, 0x39, "IS")
GE_IMAGE_KIND: Final = Private(GE_PARAMETERS, 0x30, "SS")
GE_DIRECTION: Final = tuple(Private(GE_ACQUISITION, offset, "DS") for offset in (0xBB, 0xBC, 0xBD))
GE_DIRECTIONS: Final = Private(GE_ACQUISITION, 0xE0, "DS")
GE_LOCATIONS: Final = Private(GE_RELATIONSHIP, 0x4F, "SS")
SIEMENS_TILES: Final = Private(SIEMENS_MR, 0x0A, "US")
SIEMENS_B: Final = Private(SIEMENS_MR, 0x0C, "IS")
SIEMENS_DIRECTIONALITY: Final = Private(SIEMENS_MR, 0x0D, "CS")
SIEMENS_DIRECTION: Final = Private(SIEMENS_MR, 0x0E, "FD")
SIEMENS_XA_NAME: Final = Private(SIEMENS_XA, 0x77, "LO")
SIEMENS_CSA_IMAGE: Final = Private(SIEMENS_CSA, 0x10, "OB")
SIEMENS_CSA_SERIES: Final = Private(SIEMENS_CSA, 0x20, "OB")
PHILIPS_B: Final = Private(PHILIPS_IMAGING, 0x03, "FL")
PHILIPS_DIRECTION_LETTER: Final = Private(PHILIPS_IMAGING, 0x04, "CS")
PHILIPS_SLICES: Final = Private(PHILIPS_IMAGING, 0x18, "SL")
PHILIPS_DIRECTION: Final = tuple(Private(PHILIPS_MR_1, offset, "FL") for offset in (0xB0, 0xB1, 0xB2))
PHILIPS_FRAME: Final = Private(PHILIPS_MR_5, 0x0F, "SQ")
PHILIPS_DIRECTION_NUMBER: Final = Private(PHILIPS_MR_5, 0x13, "IS")
PHILIPS_DIRECTIONS: Final = Private(PHILIPS_MR_5, 0x15, "SL")
UIH_B: Final = Private(UIH_IMAGE, 0x09, "FD")
UIH_DIRECTION: Final = Private(UIH_IMAGE, 0x37, "FD")
UIH_TILES: Final = Private(UIH_IMAGE, 0x51, "SQ")

DIRECTIONALITY: Final = {
    "DIRECTIONAL": FrameKind.DIRECTIONAL,
    "BMATRIX": FrameKind.DIRECTIONAL,
    "ISOTROPIC": FrameKind.TRACE,
}
SIEMENS_SEQUENCE: Final = re.compile(r"\*?(?:ep|ez|re)_b(\d+)(?:#(\d+)|(t))?")
CANON_COMMENT: Final = re.compile(r"\s*b=(\d+(?:\.\d+)?)\s*(?:\(([-+.,\d\s]*)\))?\s*")


def read_weighting(scopes: Sequence[Scope]) -> Reading:
    """What the scopes say: each reader asks every scope before the next reader does."""
    found, source, contradiction = Weighting(), BSource.NONE, None
    for name, read in READERS:
        for scope in scopes:
            said = read(scope)
            if found.b_value is None and said.b_value is not None:
                source = name
            elif contradiction is None and _contradicts(found.b_value, said.b_value):
                contradiction = name, said.b_value or 0.0
            missing = {key: value for key, value in said._asdict().items() if getattr(found, key) is None}
            found = found._replace(**missing)
    if found.kind is None and (found.direction, found.direction_index) != (None, None):
        found = found._replace(kind=FrameKind.DIRECTIONAL)
    return Reading(found, source, contradiction)


def _contradicts(one: float | None, other: float | None) -> bool:
    return one is not None and other is not None and abs(one - other) > SAME_B


def frame_scopes(own: Dataset, shared: Dataset, maker: str) -> list[Scope]:
    """Where a frame of Enhanced MR may say its weighting, the standard's group first."""
    scopes = [item(own, DIFFUSION_GROUP) or item(shared, DIFFUSION_GROUP)]
    for groups, unassigned in ((own, UNASSIGNED_OF_FRAME), (shared, UNASSIGNED_SHARED)):
        scopes += [groups, item(groups, FRAME_TYPE_GROUP), item(groups, unassigned)]
        scopes += private_items(Scope(groups, maker), PHILIPS_FRAME)[:1]
    return [Scope(scope, maker) for scope in scopes if scope]


DIFFUSION_GROUP: Final = Tag("MRDiffusionSequence")
FRAME_TYPE_GROUP: Final = Tag("MRImageFrameTypeSequence")
UNASSIGNED_OF_FRAME: Final = Tag("UnassignedPerFrameConvertedAttributesSequence")
UNASSIGNED_SHARED: Final = Tag("UnassignedSharedConvertedAttributesSequence")


def _standard(scope: Scope) -> Weighting:
    """MR Diffusion Macro, PS3.3 C.8.13.5.9, or the same attributes in a classic image."""
    dataset = scope.dataset
    kind = DIRECTIONALITY.get(text(dataset, Tag("DiffusionDirectionality")).upper())
    if text(dataset, Tag("DiffusionAnisotropyType")):
        kind = FrameKind.DERIVED_MAP
    gradient = item(dataset, Tag("DiffusionGradientDirectionSequence")) or dataset
    direction = _direction(numbers(gradient, Tag("DiffusionGradientOrientation")))
    b_value = _b_value(number(dataset, Tag("DiffusionBValue")))
    if b_value is None and text(dataset, Tag("DiffusionDirectionality")).upper() == "NONE":
        # Without a direction the b-value need not be written (PS3.3 C.8.13.5.9): this is how b=0 looks.
        kind = FrameKind.B0
    return Weighting(b_value, kind, direction)


def _ge(scope: Scope) -> Weighting:
    """(0043,1039): b, plus 1e9 on some releases (dcm2niix issue 149); (0043,1030) says what the image is."""
    raw = private_number(scope, GE_B)
    if raw is None or raw < 0:
        return Weighting()
    b_value = _b_value(raw % 1e9)
    if b_value is None or b_value <= B0_MAX:
        return Weighting(b_value)
    flag = private_integer(scope, GE_IMAGE_KIND) or 0
    direction = _direction([first for axis in GE_DIRECTION for first in private_numbers(scope, axis)[:1]])
    return Weighting(b_value, _ge_kind(flag), direction, flag if flag in GE_AXES else None)


GE_AXES: Final = (3, 4, 5)


def _ge_kind(flag: int) -> FrameKind | None:
    # dcm2niix issues 690 and 574. Only an image with a b-value means diffusion by this flag.
    if flag >= 18:
        return FrameKind.DERIVED_MAP
    kinds = {14: FrameKind.B0, 15: FrameKind.TRACE, 16: FrameKind.DIRECTIONAL}
    return FrameKind.DIRECTIONAL if flag in GE_AXES else kinds.get(flag)


def _siemens(scope: Scope) -> Weighting:
    """(0019,100C); *ep_b1000#7 is direction 7, *ep_b1000t a trace, whatever else the header calls it."""
    name = _siemens_sequence(scope)
    kind = DIRECTIONALITY.get(private_text(scope, SIEMENS_DIRECTIONALITY).upper())
    if name and name[3]:
        kind = FrameKind.TRACE
    direction = _direction(private_numbers(scope, SIEMENS_DIRECTION))
    index = int(name[2]) if name and name[2] else None
    return Weighting(_b_value(private_number(scope, SIEMENS_B)), kind, direction, index)


def _siemens_csa(scope: Scope) -> Weighting:
    return Weighting(_b_value(next(iter(csa_numbers(scope, "B_value")), None)))


def _siemens_name(scope: Scope) -> Weighting:
    name = _siemens_sequence(scope)
    return Weighting(_b_value(float(name[1])) if name else None)


def _siemens_sequence(scope: Scope) -> re.Match[str] | None:
    name = text(scope.dataset, Tag("SequenceName")) or private_text(scope, SIEMENS_XA_NAME)
    return SIEMENS_SEQUENCE.fullmatch(name[:64])


def _philips(scope: Scope) -> Weighting:
    """(2001,1003) and (2001,1004); "I" on a weighted image is the isotropic one, and b=0 carries it too.

    (2005,1412) and (2005,1413) number the b-value and the direction. A number is no b-value.
    """
    b_value = _b_value(private_number(scope, PHILIPS_B))
    if b_value is None or b_value <= B0_MAX:
        return Weighting(b_value)
    if private_text(scope, PHILIPS_DIRECTION_LETTER).upper() == "I":
        return Weighting(b_value, FrameKind.TRACE)
    direction = _direction(
        [first for axis in PHILIPS_DIRECTION for first in private_numbers(scope, axis)[:1]]
    )
    index = private_integer(scope, PHILIPS_DIRECTION_NUMBER)
    kind = None if direction is None and index is None else FrameKind.DIRECTIONAL
    return Weighting(b_value, kind, direction, index)


def _uih(scope: Scope) -> Weighting:
    """(0065,1009): the b-value with the imaging gradients' share, 929.75 where 1000 was asked for."""
    b_value = _b_value(private_number(scope, UIH_B))
    return Weighting(b_value, direction=_direction(private_numbers(scope, UIH_DIRECTION)))


def _canon(scope: Scope) -> Weighting:
    """ImageComments "b=1500(0.445,0.000,0.895)"."""
    comment = CANON_COMMENT.fullmatch(text(scope.dataset, Tag("ImageComments"))[:128])
    if comment is None:
        return Weighting()
    direction = _direction(floats((comment[2] or "").split(",")))
    return Weighting(_b_value(float(comment[1])), direction=direction)


Reader: TypeAlias = tuple[BSource, Callable[[Scope], Weighting]]

READERS: Final[tuple[Reader, ...]] = (
    (BSource.STANDARD, _standard),
    (BSource.GE, _ge),
    (BSource.SIEMENS, _siemens),
    (BSource.SIEMENS_CSA, _siemens_csa),
    (BSource.SIEMENS_NAME, _siemens_name),
    (BSource.PHILIPS, _philips),
    (BSource.UIH, _uih),
    (BSource.CANON, _canon),
)


def _b_value(found: float | None) -> float | None:
    return found if found is not None and 0 <= found < 1e5 else None


def _direction(found: Sequence[float]) -> Triple | None:
    if len(found) != 3 or not any(found):
        return None
    return found[0], found[1], found[2]


# Promises.

SIEMENS_SLICES: Final = re.compile(rb"sSliceArray\.lSize\s*=\s*(\d+)")
SIEMENS_DIRECTIONS: Final = re.compile(rb"sDiffusion\.lDiffDirections\s*=\s*(\d+)")
SIEMENS_TENSOR_DIRECTIONS: Final = 6


def promised_slices(scope: Scope) -> int | None:
    """Slice positions that the scanner planned."""
    counts = (
        private_integer(scope, GE_LOCATIONS),
        private_integer(scope, PHILIPS_SLICES),
        _protocol_integer(scope, SIEMENS_SLICES),
    )
    return next((count for count in counts if count is not None and count > 0), None)


def promised_directions(scope: Scope) -> int | None:
    """Gradient directions that the scanner planned."""
    in_protocol = _protocol_integer(scope, SIEMENS_DIRECTIONS) or 0
    counts = (
        private_integer(scope, GE_DIRECTIONS),
        private_integer(scope, PHILIPS_DIRECTIONS),
        # Below a tensor's six the number does not count a trace scan's axes.
        in_protocol if in_protocol >= SIEMENS_TENSOR_DIRECTIONS else None,
    )
    return next((count for count in counts if count is not None and count > 0), None)


def _protocol_integer(scope: Scope, pattern: re.Pattern[bytes]) -> int | None:
    protocol = private_value(scope, SIEMENS_CSA_SERIES)
    found = pattern.search(protocol[:CSA_BYTES_MAX]) if isinstance(protocol, bytes) else None
    return int(found[1]) if found and len(found[1]) < 6 else None


# The CSA header, as nibabel's nicom/csareader.py describes it.

CSA_BYTES_MAX: Final = 2**22
CSA_COUNT_MAX: Final = 2**9
CSA_CHECK: Final = 77


def csa_numbers(scope: Scope, name: str) -> tuple[float, ...]:
    """The values of one entry of the CSA image header (0029,1010), of either version."""
    csa = private_value(scope, SIEMENS_CSA_IMAGE)
    if not isinstance(csa, bytes):
        return ()
    try:
        return floats(_csa_entry(csa[:CSA_BYTES_MAX], name.encode("ascii")))
    except UNDECODABLE:
        return ()


def _csa_entry(csa: bytes, name: bytes) -> list[str]:
    for label, values in _csa_entries(csa):
        if label == name:
            return [value for value in values if value.strip()]
    return []


def _csa_entries(csa: bytes) -> Iterator[tuple[bytes, list[str]]]:
    is_newer = csa.startswith(b"SV10")
    at = 8 if is_newer else 0
    (entries, check), at = struct.unpack_from("<2I", csa, at), at + 8
    if check != CSA_CHECK:
        return
    lengthened_by = 0
    for nth in range(min(entries, CSA_COUNT_MAX)):
        label, count = csa[at : at + 64].split(b"\0")[0], struct.unpack_from("<I", csa, at + 76)[0]
        if nth == 0 and not is_newer:
            # The older version adds the first entry's count to every length.
            lengthened_by = count
        at += 84
        values = []
        for _ in range(min(count, CSA_COUNT_MAX)):
            length = struct.unpack_from("<I", csa, at)[0] - lengthened_by
            values.append(csa[at + 16 : at + 16 + length].split(b"\0")[0].decode("ascii"))
            at += 16 + (length + 3) // 4 * 4
        yield label, values
