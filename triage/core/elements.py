"""The value of one element of a received data set. A header may hold anything; what cannot be read is absent.

Private elements are found by the creator that reserved their block (PS3.5 section 7.8.1). Anonymisers
remove the creators and leave the elements: then, and only where Manufacturer names the vendor, the block
counts that its scanners always reserve. What a PACS stored under implicit VR comes back as the bytes of a
UN element; they are decoded as the representation that the vendor writes.
"""

import math
import re
import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException
from pydicom.tag import BaseTag, Tag
from pydicom.values import convert_SQ

from triage.core.header import Triple

UNDECODABLE: Final = (
    ArithmeticError,
    AttributeError,
    BytesLengthException,
    EOFError,
    LookupError,
    MemoryError,
    NotImplementedError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
)
"""What pydicom, and a decoder that it calls, raise at damaged content."""

VALUE_BYTES_MAX: Final = 2**16
"""No number or text that we ask for is longer; decoding a longer one would cost time and memory."""

BULKY: Final = ("OB", "OW", "SQ")
"""Representations that pydicom hands over without converting each value."""


class Block(NamedTuple):
    """A vendor's private elements: the group, who reserved the block, and where scanners put it.

    maker: what Manufacturer says, in capitals.
    """

    group: int
    creator: str
    usual: int
    maker: str


class Private(NamedTuple):
    """One private element and the value representation that its vendor writes."""

    block: Block
    offset: int
    vr: str


class Scope(NamedTuple):
    """A data set or an item of one, and whose scanner wrote it: Manufacturer, in capitals."""

    dataset: Dataset
    maker: str


def value(dataset: Dataset, tag: BaseTag | None) -> object:
    """The element's value as pydicom gives it, or None."""
    try:
        if tag is None or tag not in dataset:
            return None
        raw: object = dataset.get_item(tag)
        if isinstance(raw, RawDataElement) and len(raw.value or b"") > VALUE_BYTES_MAX:
            if tag.is_private and raw.VR in ("UN", None):
                return raw.value
            vr = dictionary_VR(tag) if raw.VR in ("UN", None) else raw.VR
            if vr not in BULKY:
                return None
        return dataset[tag].value
    except UNDECODABLE:
        return None


def text(dataset: Dataset, tag: BaseTag | None) -> str:
    """The element's text, without padding; empty when it is absent or no single text."""
    return _text(value(dataset, tag))


def words(dataset: Dataset, tag: BaseTag) -> frozenset[str]:
    """The element's values in capitals, for a code string."""
    found = value(dataset, tag)
    parts = found if isinstance(found, Sequence) and not isinstance(found, str | bytes) else [found]
    return frozenset(part.strip().upper() for part in parts if isinstance(part, str))


def numbers(dataset: Dataset, tag: BaseTag | None) -> tuple[float, ...]:
    """The element's values, all finite; empty when any of them is no number."""
    return _numbers(value(dataset, tag), "")


def number(dataset: Dataset, tag: BaseTag | None) -> float | None:
    """The element's first value."""
    return next(iter(numbers(dataset, tag)), None)


def integer(dataset: Dataset, tag: BaseTag | None) -> int | None:
    """The element's first value, towards zero."""
    found = number(dataset, tag)
    return None if found is None else int(found)


def triple(dataset: Dataset, tag: BaseTag) -> Triple | None:
    """The element's three values."""
    found = numbers(dataset, tag)
    return (found[0], found[1], found[2]) if len(found) == 3 else None


def items(dataset: Dataset, tag: BaseTag | None) -> Sequence[Dataset]:
    """The items of a sequence."""
    return _items(value(dataset, tag))


def item(dataset: Dataset, tag: BaseTag) -> Dataset | None:
    """The first item of a sequence."""
    return next(iter(items(dataset, tag)), None)


def floats(values: Sequence[object]) -> tuple[float, ...]:
    """The values as finite numbers; empty when any of them is none."""
    try:
        found = tuple(float(each) for each in values)  # type: ignore[arg-type]
    except UNDECODABLE:
        return ()
    return found if all(map(math.isfinite, found)) else ()


def private_value(scope: Scope, element: Private) -> object:
    """The private element's value as pydicom gives it, or None."""
    return value(scope.dataset, _private_tag(scope, element))


def private_text(scope: Scope, element: Private) -> str:
    """The private element's text, without padding."""
    return _text(private_value(scope, element))


def private_numbers(scope: Scope, element: Private) -> tuple[float, ...]:
    """The private element's values, all finite."""
    return _numbers(private_value(scope, element), element.vr)


def private_number(scope: Scope, element: Private) -> float | None:
    """The private element's first value."""
    return next(iter(private_numbers(scope, element)), None)


def private_integer(scope: Scope, element: Private) -> int | None:
    """The private element's first value, towards zero."""
    found = private_number(scope, element)
    return None if found is None else int(found)


def private_items(scope: Scope, element: Private) -> Sequence[Dataset]:
    """The items of a private sequence."""
    return _items(private_value(scope, element))


def _private_tag(scope: Scope, element: Private) -> BaseTag | None:
    group, creator, usual, maker = element.block
    # pydicom's private_block sorts the whole dataset at every miss, and most lookups miss.
    for tag in scope.dataset.keys():  # noqa: SIM118 -- iterating a Dataset gives elements, decoded and sorted
        if tag >> 8 == group << 8 and text(scope.dataset, tag) == creator:
            return Tag(group, (tag & 0xFF) << 8 | element.offset)
    is_stripped = maker in scope.maker and Tag(group, usual) not in scope.dataset
    return Tag(group, usual << 8 | element.offset) if is_stripped else None


def _text(found: object) -> str:
    match found:
        case str():
            return found.strip(" \0\t\r\n")
        case bytes() if len(found) <= VALUE_BYTES_MAX:
            return found.decode("ascii", "ignore").strip(" \0\t\r\n")
        case _:
            return ""


def _items(found: object) -> Sequence[Dataset]:
    if isinstance(found, bytes):
        # A sequence that was taken for UN keeps the encoding of implicit VR (PS3.5 section 6.2.2).
        try:
            found = convert_SQ(found, is_implicit_VR=True, is_little_endian=True)
        except UNDECODABLE:
            return ()
    if not isinstance(found, Sequence) or isinstance(found, str):
        return ()
    return [each for each in found if isinstance(each, Dataset)]


def _numbers(found: object, vr: str) -> tuple[float, ...]:
    match found:
        case None:
            return ()
        case bytes() if len(found) > VALUE_BYTES_MAX:
            return ()
        case bytes():
            return _numbers_in_bytes(found, vr)
        case Sequence() if not isinstance(found, str):
            return floats(found)
        case _:
            return floats([found])


BINARY: Final = {"FD": "d", "FL": "f", "SL": "i", "SS": "h", "UL": "I", "US": "H"}


def _numbers_in_bytes(raw: bytes, vr: str) -> tuple[float, ...]:
    # Nobody says what the bytes are; the vendor's representation comes first, then what they could be.
    if vr in BINARY and raw and len(raw) % struct.calcsize(BINARY[vr]) == 0:
        return _unpacked(raw, BINARY[vr])
    plain = raw.strip(b" \0")
    if re.fullmatch(rb"[-+.\deE\\ ]+", plain):
        return floats(plain.decode("ascii").split("\\"))
    codes = [code for code in ("d", "f") if raw and len(raw) % struct.calcsize(code) == 0]
    return _unpacked(raw, codes[0]) if codes else ()


def _unpacked(raw: bytes, code: str) -> tuple[float, ...]:
    return floats(struct.unpack(f"<{len(raw) // struct.calcsize(code)}{code}", raw))
