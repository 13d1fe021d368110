"""A received file as a data set, within bounded memory."""

import io
import zlib
from typing import Final

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

from triage.core.elements import UNDECODABLE
from triage.errors import HeaderError

INFLATED_BYTES_MAX: Final = 2**29
DEFLATED_SYNTAX: Final = b"1.2.840.10008.1.2.1.99"
META_HEADER_AT: Final = 144
"""Preamble, prefix and the group length element, which says where the meta header ends (PS3.10 7.1)."""


def parse(content: bytes, *, with_pixels: bool, limit_bytes: int = INFLATED_BYTES_MAX) -> Dataset:
    """The data set of a Part 10 file.

    limit_bytes: that a deflated data set may inflate to.
    Raises HeaderError when it cannot be parsed; the message is fit to be shown.
    """
    if len(content) < META_HEADER_AT:
        raise HeaderError("no DICOM file: too short")
    try:
        _check_inflation(content, limit_bytes)
        return dcmread(io.BytesIO(content), stop_before_pixels=not with_pixels)
    except InvalidDicomError as error:
        raise HeaderError("no DICOM file: the DICM prefix is missing") from error
    except (*UNDECODABLE, zlib.error) as error:
        raise HeaderError(f"data set cannot be parsed ({type(error).__name__})") from error


def _check_inflation(content: bytes, limit_bytes: int) -> None:
    # A few kilobytes may inflate to gigabytes, and pydicom inflates all of them.
    meta_bytes = int.from_bytes(content[META_HEADER_AT - 4 : META_HEADER_AT], "little")
    start = META_HEADER_AT + meta_bytes
    if DEFLATED_SYNTAX not in content[META_HEADER_AT:start][:4096]:
        return
    inflated = zlib.decompressobj(-zlib.MAX_WBITS).decompress(content[start:], limit_bytes + 1)
    if len(inflated) > limit_bytes:
        raise HeaderError(f"deflated data set inflates to more than {limit_bytes >> 20} MiB")
