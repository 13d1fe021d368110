"""The b=1000 volume in patient space, and the reasons why there may be none.

`choose` decides from headers alone which images make the volume; `assemble` reads their pixels. What counts:

- Images of one series whose b-value lies in the window form shells: values no more than 50 s/mm2 apart
  belong together (a b-matrix makes 995 and 1005 of one shell). The shell nearest 1000 is judged, of two
  that are equally near the lower one.
- The scanner's trace image is preferred. Without a usable one, the geometric mean of all directions, each
  of which must be there at every position. An unlabelled image alone at its position counts as a trace.
- Of several stacks in one series the one with the most slices is judged, of equal ones that with the first
  name. A trace that was acquired more than once is taken from the first acquisition that makes a volume.
- Pixels that went through a lossy compression are not judged.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from triage.core import assembly
from triage.core.header import DwiFrame, FrameKind, InstanceHeader
from triage.core.header import Triple as Triple
from triage.core.rejection import NotDiffusion as NotDiffusion
from triage.core.rejection import Reason as Reason
from triage.core.rejection import Rejection as Rejection
from triage.core.stack import SourceFrame, cut_short, stack
from triage.core.stack import VolumeKind as VolumeKind
from triage.core.stack import VolumePlan as VolumePlan

Voxels: TypeAlias = NDArray[np.float32]
Affine: TypeAlias = NDArray[np.float64]
Window: TypeAlias = tuple[float, float]

TARGET_B: Final = 1000.0
B_WINDOW: Final[Window] = (800.0, 1200.0)
SHELL_WIDTH: Final = 50.0
SERIES_BYTES_MAX: Final = 2**29
"""512 MiB: what one volume may take while it is read."""

VOXEL_BYTES: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class DwiVolume:
    """One diffusion-weighted volume in patient space, in the closest axial orientation.

    voxels_ZYX: slices caudal to cranial, rows anterior to posterior, columns patient right to
        left, so that every array axis ascends along its LPS axis (PS3.3 C.7.6.2.1.1).
    affine_lps: 4x4, takes (column, row, slice, 1) indices to LPS millimetres.
    b_value: s/mm2.
    source_sop_instance_uids: every instance whose pixels went in, sorted.
    """

    voxels_ZYX: Voxels
    affine_lps: Affine
    b_value: float
    kind: VolumeKind
    source_sop_instance_uids: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.voxels_ZYX.ndim != 3 or self.voxels_ZYX.dtype != np.float32:
            raise ValueError(
                f"voxels_ZYX must be 3-D float32, got {self.voxels_ZYX.ndim}-D {self.voxels_ZYX.dtype}"
            )
        if self.affine_lps.shape != (4, 4):
            raise ValueError(f"affine_lps must be 4x4, got {self.affine_lps.shape}")

    @property
    def spacing_mm(self) -> Triple:
        """Centre-to-centre distance of (slices, rows, columns), from the affine."""
        column, row, slice_ = np.linalg.norm(self.affine_lps[:3, :3], axis=0)
        return float(slice_), float(row), float(column)


def choose(
    headers: Iterable[InstanceHeader], *, b_window: Window = B_WINDOW
) -> VolumePlan | Rejection | NotDiffusion:
    """The b=1000 volume of a series, or why there is none. The order of the headers does not matter.

    headers: of one series, whatever their SOP class; an instance that came twice counts once.
    b_window: lowest and highest b-value, s/mm2, that is judged as b=1000.
    """
    by_uid = {header.sop_instance_uid: header for header in headers}
    images = [by_uid[uid] for uid in sorted(by_uid) if by_uid[uid].frames]
    weighted = [
        SourceFrame(header, frame)
        for header in images
        for frame in header.frames
        if frame.kind is not FrameKind.DERIVED_MAP
    ]
    if (other := _not_diffusion(images, weighted)) is not None:
        return other
    shell = _shell(weighted, b_window)
    if not shell:
        return _no_shell(weighted, b_window)
    plan = _judge_shell(shell)
    if isinstance(plan, Rejection):
        return plan
    b0 = [source for source in weighted if source.frame.kind is FrameKind.B0]
    return _refuse_lossy(plan) or cut_short(plan, b0) or plan


def assemble(
    plan: VolumePlan, datasets: Mapping[str, Dataset], *, limit_bytes: int = SERIES_BYTES_MAX
) -> DwiVolume | Rejection:
    """The planned volume, from the pixels of its instances.

    datasets: the instances of `plan.source_sop_instance_uids` by SOP Instance UID, with pixels and file
        meta information. Values are rescaled, padding is 0; see `triage.core.assembly`.
    limit_bytes: of memory that the volume may take while it is read.
    """
    first = plan.slices[0][0].frame
    shape = (plan.slice_count, first.rows, first.columns)
    if math.prod(shape) * VOXEL_BYTES > limit_bytes:
        found = f"{shape[0]} slices of {shape[1]} x {shape[2]} pixels need more than {limit_bytes >> 20} MiB"
        return Rejection(Reason.UNREADABLE, found)
    try:
        voxels_ZYX = _read_voxels(plan, datasets, shape)
    except assembly.PixelError as error:
        return Rejection(Reason.UNREADABLE, str(error))
    voxels_ZYX, affine_lps = assembly.along_patient_axes(voxels_ZYX, _affine_lps(plan))
    return DwiVolume(
        voxels_ZYX=voxels_ZYX,
        affine_lps=affine_lps,
        b_value=plan.b_value,
        kind=plan.kind,
        source_sop_instance_uids=plan.source_sop_instance_uids,
    )


def _read_voxels(plan: VolumePlan, datasets: Mapping[str, Dataset], shape: tuple[int, int, int]) -> Voxels:
    wanted: dict[str, list[tuple[int, DwiFrame]]] = {}
    for z, slice_ in enumerate(plan.slices):
        for source in slice_:
            wanted.setdefault(source.header.sop_instance_uid, []).append((z, source.frame))
    summed_ZYX = np.zeros(shape)
    is_mean = plan.kind is VolumeKind.DIRECTIONAL_MEAN
    # In a fixed order, so that the rounding of the sum does not depend on the order of arrival.
    for uid in sorted(wanted):
        if uid not in datasets:
            raise assembly.PixelError("an instance of the volume is no longer there")
        planes = assembly.read_planes(datasets[uid], [frame for _, frame in wanted[uid]])
        for (z, _), plane_YX in zip(wanted[uid], planes, strict=True):
            summed_ZYX[z] += assembly.log_signal(plane_YX) if is_mean else plane_YX
    if is_mean:
        return assembly.mean_over_directions(summed_ZYX, plan.direction_count)
    return summed_ZYX.astype(np.float32)


def _affine_lps(plan: VolumePlan) -> Affine:
    first, last = plan.slices[0][0].frame, plan.slices[-1][0].frame
    orientation, spacing = np.array(first.orientation), first.pixel_spacing_mm or (0.0, 0.0)
    lowest, highest = np.array(first.position_lps_mm), np.array(last.position_lps_mm)
    affine = np.eye(4)
    affine[:3, 0] = orientation[:3] * spacing[1]
    affine[:3, 1] = orientation[3:] * spacing[0]
    affine[:3, 2] = (highest - lowest) / (plan.slice_count - 1)
    affine[:3, 3] = lowest
    return affine


def _refuse_lossy(plan: VolumePlan) -> Rejection | None:
    sources = {source.header.sop_instance_uid: source.header for slice_ in plan.slices for source in slice_}
    lossy = sum(header.is_lossy for header in sources.values())
    if not lossy:
        return None
    found = f"{lossy} of {len(sources)} images went through a lossy compression"
    return Rejection(Reason.LOSSY, f"b={plan.b_value:.0f}: {found}; send them uncompressed or lossless")


def _not_diffusion(images: Sequence[InstanceHeader], weighted: Sequence[SourceFrame]) -> NotDiffusion | None:
    if not images:
        return NotDiffusion("no MR images")
    if not weighted:
        return NotDiffusion("derived maps only")
    if not any(header.looks_like_diffusion and not header.is_derived_map for header in images):
        return NotDiffusion("no image is diffusion-weighted or calls itself so")
    return None


def _shell(weighted: Sequence[SourceFrame], b_window: Window) -> list[SourceFrame]:
    """The images with the b-values nearest 1000, b=0 and maps left out."""
    low, high = b_window
    inside = [
        source
        for source in weighted
        if source.frame.b_value is not None
        and low <= source.frame.b_value <= high
        and source.frame.kind is not FrameKind.B0
    ]
    shells: list[list[float]] = []
    for b_value in sorted({source.frame.b_value for source in inside if source.frame.b_value is not None}):
        if shells and b_value - shells[-1][-1] <= SHELL_WIDTH:
            shells[-1].append(b_value)
        else:
            shells.append([b_value])
    if not shells:
        return []
    nearest = min(shells, key=lambda values: min(abs(value - TARGET_B) for value in values))
    return [source for source in inside if source.frame.b_value in nearest]


def _no_shell(weighted: Sequence[SourceFrame], b_window: Window) -> Rejection:
    unknown = sum(source.frame.b_value is None for source in weighted)
    known = sorted({round(source.frame.b_value) for source in weighted if source.frame.b_value is not None})
    listed = ", ".join(str(b_value) for b_value in known)
    if unknown and not any(b_value > b_window[1] for b_value in known):
        found = f"{unknown} of {len(weighted)} images carry no b-value that we can read"
        return Rejection(Reason.B_VALUE_UNKNOWN, f"{found}, others b={listed}" if known else found)
    low, high = b_window
    return Rejection(Reason.NO_B1000, f"found b={listed}; none within {low:g} to {high:g} s/mm²")


def _judge_shell(shell: Sequence[SourceFrame]) -> VolumePlan | Rejection:
    kinds = {kind: [s for s in shell if s.frame.kind is kind] for kind in FrameKind}
    candidates = [
        (VolumeKind.TRACE, kinds[FrameKind.TRACE]),
        (VolumeKind.DIRECTIONAL_MEAN, kinds[FrameKind.DIRECTIONAL] or kinds[FrameKind.UNKNOWN]),
    ]
    outcomes = [_judge_stacks(kind, sources) for kind, sources in candidates if sources]
    return next((outcome for outcome in outcomes if isinstance(outcome, VolumePlan)), outcomes[0])


def _judge_stacks(kind: VolumeKind, sources: Sequence[SourceFrame]) -> VolumePlan | Rejection:
    """The largest of the stacks that the scanner names, or the one that is there."""
    outcomes = [_judge_repeats(kind, part) for part in _parts(sources, lambda s: s.frame.stack_id or "")]
    plans = [outcome for outcome in outcomes if isinstance(outcome, VolumePlan)]
    # max() keeps the first of equals, and the parts come in the order of their names.
    return max(plans, key=lambda plan: plan.slice_count) if plans else outcomes[0]


def _judge_repeats(kind: VolumeKind, sources: Sequence[SourceFrame]) -> VolumePlan | Rejection:
    """The volume; where the trace was acquired more than once, the first acquisition's."""
    outcome = stack(kind, sources)
    if isinstance(outcome, VolumePlan) or kind is not VolumeKind.TRACE:
        return outcome
    by_acquisition = _parts(sources, lambda source: source.header.acquisition_number or 0)
    if outcome.reason is not Reason.MIXED_GEOMETRY or len(by_acquisition) == 1:
        return outcome
    single = (stack(kind, part) for part in by_acquisition)
    return next((plan for plan in single if isinstance(plan, VolumePlan)), outcome)


def _parts(
    sources: Sequence[SourceFrame], name_of: Callable[[SourceFrame], str] | Callable[[SourceFrame], int]
) -> list[list[SourceFrame]]:
    """The sources by a name of theirs, in the order of the names."""
    found: dict[str | int, list[SourceFrame]] = {}
    for source in sorted(sources, key=name_of):
        found.setdefault(name_of(source), []).append(source)
    return list(found.values())
