"""Several slices in one picture: the mosaic of Siemens and the VFRAME of UIH.

A mosaic's ImagePositionPatient belongs to the big picture, whose centre is the centre of the first slice;
so the corner of tile 0 lies half the difference of the two extents further in, and tile k lies k slice
distances along the slice normal. The normal's sign is that of the CSA header's SliceNormalVector; without
one, row x column. UIH writes every tile's position into (0065,1051).
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

from pydicom.tag import Tag

from triage.core.elements import Scope, number, private_integer, private_items, triple
from triage.core.header import DwiFrame, Orientation, Triple
from triage.core.vendors import SIEMENS_TILES, UIH_TILES, csa_numbers

TILE_MIN: Final = 8
TILES_MAX: Final = 4096
AXIAL: Final[Orientation] = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
IMAGE_POSITION: Final = Tag("ImagePositionPatient")


class Grid(NamedTuple):
    """How a mosaic is laid out, row by row; it may have more places than tiles."""

    down: int
    across: int
    positions_lps_mm: Sequence[Triple | None]


def tiles(scope: Scope, whole: DwiFrame, words: frozenset[str]) -> Iterator[DwiFrame]:
    """The slices of a mosaic; any other image as it is. A mosaic that cannot be cut has no position."""
    if "MOSAIC" in words:
        grid = _siemens_grid(scope, whole)
    elif "VFRAME" in words:
        grid = _uih_grid(scope)
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


def _siemens_grid(scope: Scope, whole: DwiFrame) -> Grid:
    stated = private_integer(scope, SIEMENS_TILES)
    in_csa = next(iter(csa_numbers(scope, "NumberOfImagesInMosaic")), 0)
    count = min(stated or int(in_csa), TILES_MAX)
    side = math.ceil(math.sqrt(max(count, 0)))
    step_mm = number(scope.dataset, Tag("SpacingBetweenSlices"))
    if side and step_mm and whole.position_lps_mm and whole.orientation and whole.pixel_spacing_mm:
        corner = _corner(whole.position_lps_mm, whole, side)
        normal = _normal(whole.orientation)
        csa_normal = csa_numbers(scope, "SliceNormalVector") or normal
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


def _uih_grid(scope: Scope) -> Grid:
    slices = private_items(scope, UIH_TILES)[:TILES_MAX]
    across = math.ceil(math.sqrt(len(slices)))
    down = math.ceil(len(slices) / max(across, 1))
    return Grid(down, across, [triple(slice_, IMAGE_POSITION) for slice_ in slices])


def _normal(orientation: Orientation) -> Triple:
    rx, ry, rz, cx, cy, cz = orientation
    return ry * cz - rz * cy, rz * cx - rx * cz, rx * cy - ry * cx
