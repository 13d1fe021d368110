"""A cohort of preprocessed synthetic studies, split by head, in one shard a head.

Each study has its own seed, so the cohort is the same however many processes build it, and a build that
was stopped goes on with the shards that are missing.
"""

import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from triage.core.preprocess import Preprocessed, PreprocessSettings, preprocess, resample_slices
from triage.phantom import aspects
from triage.phantom.heads import Head, load_head
from triage.phantom.study import Scan, draw_scan, expose, lesion_on_image

Split = Literal["train", "validation", "test"]
Floats = npt.NDArray[np.float32]

HEADS: Final[dict[Split, tuple[int, ...]]] = {
    "train": (1, 2, 3, 6, 7, 9, 10, 11, 13, 14, 16),
    "validation": (5, 12, 15),
    "test": (4, 8, 17),
}
_SPLIT_SEED: Final[dict[Split, int]] = {"train": 0, "validation": 1, "test": 2}
# Scores 1..10 of all 390 patients in Do et al. 2020, Table 1.
PAPER_COUNTS: Final = (1, 7, 11, 23, 52, 53, 71, 104, 62, 6)
UNIFORM_SHARE: Final = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class CohortPlan:
    """How many studies a head, from which seed, through which preprocessing."""

    seed: int
    per_train_head: int
    per_validation_head: int
    per_test_head: int
    settings: PreprocessSettings

    def studies_per_head(self, split: Split) -> int:
        """Shard size."""
        return {
            "train": self.per_train_head,
            "validation": self.per_validation_head,
            "test": self.per_test_head,
        }[split]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One study as the network meets it, and what is true of it.

    input_ZYX: uint8, as `preprocess` returns it, rounded.
    lesion_share_Z: infarcted share of each network slice's crop.
    coverage: of the ten regions of the affected side.
    """

    input_ZYX: npt.NDArray[np.uint8]
    aspects: int
    lesion_share_Z: Floats
    coverage: tuple[float, ...]
    volume_ml: float
    distractors: tuple[str, ...]


def main_build(
    out_dir: Path,
    *,
    heads: Path,
    seed: int = 1,
    per_train_head: int = 88,
    per_validation_head: int = 40,
    per_test_head: int = 40,
    processes: int = 2,
    settings: PreprocessSettings | None = None,
    say: Callable[[str], None] = print,
) -> list[Path]:
    """Build the whole cohort under out_dir and return its shards; what is there already is kept.

    heads: folder of label maps.
    say: told one line for every shard done.
    Raises FileNotFoundError when a head is missing, ValueError when out_dir holds another plan's cohort.
    """
    plan = CohortPlan(
        seed=seed,
        per_train_head=per_train_head,
        per_validation_head=per_validation_head,
        per_test_head=per_test_head,
        settings=settings or PreprocessSettings(),
    )
    out_dir.mkdir(parents=True, exist_ok=True)
    claim(out_dir, plan)
    jobs = _interleaved()
    started = time.monotonic()
    with ProcessPoolExecutor(processes) as pool:
        pending = [pool.submit(build_shard, out_dir, heads, split, head, plan) for split, head in jobs]
        for done, future in enumerate(as_completed(pending), start=1):
            minutes = (time.monotonic() - started) / 60.0
            say(f"{future.result().name} ({done} of {len(pending)} shards, {minutes:.1f} min)")
    return [shard_path(out_dir, split, head) for split, head in jobs]


def build_shard(out_dir: Path, heads: Path, split: Split, head_number: int, plan: CohortPlan) -> Path:
    """All studies of one head, in one compressed file."""
    path = shard_path(out_dir, split, head_number)
    if path.exists():
        return path
    head = load_head(head_number, heads, cache=out_dir / "heads")
    cases = [draw_case(head, plan, split, index) for index in range(plan.studies_per_head(split))]
    partial = path.with_suffix(".partial.npz")
    np.savez_compressed(
        partial,
        input_NZYX=np.stack([case.input_ZYX for case in cases]),
        aspects=np.array([case.aspects for case in cases], np.int8),
        lesion_share_NZ=np.stack([case.lesion_share_Z for case in cases]),
        coverage=np.array([case.coverage for case in cases], np.float32),
        volume_ml=np.array([case.volume_ml for case in cases], np.float32),
        distractors=np.array(["; ".join(case.distractors) for case in cases]),
        head=np.array([head.name] * len(cases)),
    )
    partial.rename(path)
    return path


def draw_case(head: Head, plan: CohortPlan, split: Split, index: int) -> Case:
    """Study number `index` of a head; its seed is (plan, split, head, index) and nothing else."""
    rng = np.random.default_rng([plan.seed, _SPLIT_SEED[split], _number(head.name), index])
    scan = draw_scan(head, draw_score(rng), rng)
    volume = expose(scan, rng, scan.protocol.b_value)
    seen = preprocess(volume, plan.settings)
    lesion = scan.patient.lesion
    return Case(
        input_ZYX=np.asarray(np.rint(seen.input_ZYX), np.uint8),
        aspects=aspects.score(lesion.coverage),
        lesion_share_Z=lesion_share(scan, seen),
        coverage=lesion.coverage,
        volume_ml=lesion.volume_ml,
        distractors=scan.patient.distractors,
    )


def draw_score(rng: np.random.Generator) -> int:
    """1 to 10: the paper's distribution, flattened a little so that rare scores are met."""
    weights = np.array(PAPER_COUNTS) / sum(PAPER_COUNTS) * (1.0 - UNIFORM_SHARE) + UNIFORM_SHARE / 10.0
    return int(rng.choice(np.arange(1, 11), p=weights / weights.sum()))


def lesion_share(scan: Scan, seen: Preprocessed) -> Floats:
    """Infarcted share of what each network slice shows."""
    planes = resample_slices(lesion_on_image(scan), seen.slice_positions)
    box = seen.box
    return np.asarray(planes[:, box.top : box.bottom, box.left : box.right].mean(axis=(1, 2)), np.float32)


def shard_path(out_dir: Path, split: Split, head_number: int) -> Path:
    """Where a head's studies lie."""
    return out_dir / f"{split}_{head_number:02d}.npz"


def claim(out_dir: Path, plan: CohortPlan) -> None:
    """Mark a folder as this plan's. Raises ValueError when it is another's."""
    described = {**asdict(plan), "settings": plan.settings.model_dump(), "heads": HEADS}
    text = json.dumps(described, indent=1, sort_keys=True)
    path = out_dir / "plan.json"
    if path.exists() and path.read_text() != text:
        raise ValueError(f"{path} describes another cohort; choose another folder or delete this one")
    path.write_text(text)


def _interleaved() -> Sequence[tuple[Split, int]]:
    """Validation and test heads early, so that training can start before the last shard."""
    return [(split, number) for split in ("validation", "train", "test") for number in HEADS[split]]


def _number(name: str) -> int:
    digits = "".join(ch for ch in name if ch.isdigit())
    return int(digits or 0)
