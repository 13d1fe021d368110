"""The judged volumes on disk, one file a result: what the page shows.

A cache: everything in it can be made again from the received instances.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from triage.core.volume import DwiVolume, Voxels
from triage.edges.disk import write_durably


@dataclass(frozen=True, slots=True)
class Shelf:
    """A folder of volumes."""

    folder: Path

    def put(self, result_id: int, volume: DwiVolume, slice_positions: NDArray[np.float64]) -> None:
        """Keep a volume and the fractional slice indices that the network saw."""
        write_durably(
            self._path(result_id),
            lambda file: np.savez(file, voxels_ZYX=volume.voxels_ZYX, slice_positions=slice_positions),
        )

    def remove(self, result_id: int) -> None:
        """Delete the volume of a result, where there is one."""
        self._path(result_id).unlink(missing_ok=True)

    def voxels(self, result_id: int) -> Voxels:
        """The volume's voxels, (slice, row, column). Raises FileNotFoundError."""
        with np.load(self._path(result_id)) as arrays:
            return np.asarray(arrays["voxels_ZYX"], np.float32)

    def slice_positions(self, result_id: int) -> NDArray[np.float64]:
        """Fractional slice indices of the network's slices. Raises FileNotFoundError."""
        with np.load(self._path(result_id)) as arrays:
            return np.asarray(arrays["slice_positions"], np.float64)

    def _path(self, result_id: int) -> Path:
        return self.folder / f"{result_id}.npz"
