"""A built cohort in memory, one split at a time."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from triage.phantom.aspects import DEFAULT_RULE, RULES
from triage.phantom.cohort import HEADS, Split, shard_path

POSITIVE_UP_TO = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Cases:
    """Studies of one split, index N throughout.

    input_NZYX: uint8, preprocessed.
    aspects_N: under the default rule; positive_N is 1 where it is 1 to 6.
    lesion_share_NZ: infarcted share of each network slice.
    coverage_NR: of the ten regions, 0..1.
    data_hash: fingerprint of every byte above, in order.
    """

    input_NZYX: npt.NDArray[np.uint8]
    aspects_N: npt.NDArray[np.int8]
    lesion_share_NZ: npt.NDArray[np.float32]
    coverage_NR: npt.NDArray[np.float32]
    volume_ml_N: npt.NDArray[np.float32]
    head_N: npt.NDArray[np.str_]
    distractors_N: npt.NDArray[np.str_]

    def __len__(self) -> int:
        return int(self.aspects_N.shape[0])

    @property
    def positive_N(self) -> npt.NDArray[np.int64]:  # noqa: N802  N is the axis
        """1 for ASPECTS 1-6, 0 for 7-10."""
        return (self.aspects_N <= POSITIVE_UP_TO).astype(np.int64)

    @property
    def data_hash(self) -> str:
        """Sixteen hex digits that change when any study or label does."""
        digest = hashlib.sha256()
        for values in (self.input_NZYX, self.aspects_N, self.lesion_share_NZ, self.coverage_NR):
            digest.update(np.ascontiguousarray(values).tobytes())
        return digest.hexdigest()[:16]


def load_split(cohort: Path, split: Split) -> Cases:
    """Every study of one split, in order of head and index.

    Raises FileNotFoundError, naming the shard, when the cohort is not complete.
    """
    return load_shards([shard_path(cohort, split, number) for number in HEADS[split]])


def load_shards(paths: list[Path]) -> Cases:
    """The studies of several shards, one after another."""
    shards = [dict(np.load(path)) for path in paths]

    def joined(key: str) -> Any:
        return np.concatenate([shard[key] for shard in shards])

    return Cases(
        input_NZYX=joined("input_NZYX"),
        aspects_N=joined("aspects"),
        lesion_share_NZ=joined("lesion_share_NZ"),
        coverage_NR=joined("coverage"),
        volume_ml_N=joined("volume_ml"),
        head_N=joined("head"),
        distractors_N=joined("distractors"),
    )


def region_targets(coverage_NR: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """How far each region counts, 0..1: a ramp of +-10 per cent around the rule's limit.

    A reader would not swear to a region covered by 18 per cent; neither should the network.

    >>> region_targets(np.array([[0.05, 0.2, 0.5] + [0.0] * 7], np.float32))[0, :3].tolist()
    [0.0, 0.5, 1.0]
    """
    limit = np.array(RULES[DEFAULT_RULE], np.float32)
    return np.clip((coverage_NR - limit) / np.float32(0.2) + np.float32(0.5), 0.0, 1.0)
