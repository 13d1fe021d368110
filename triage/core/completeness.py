"""Is the series whole? By what its headers promise, not by waiting.

Slices arrive in order, so an even stack without a gap proves nothing: every prefix of a stack looks like
that. Only a promise does. Any of these closes the volume that `triage.core.volume.choose` would judge, and
when none of them holds the caller waits for silence:

- the trace image stands at every position that the scanner announced: Philips (2001,1018), GE (0021,104F),
  the Siemens protocol's slice count, a mosaic, or a whole trace volume inside one Enhanced MR instance;
- so does every announced direction: Philips (2005,1415), GE (0019,10E0), the Siemens protocol;
- one Enhanced MR instance brings b=0 and at least three directions: such scanners write one a series;
- there are as many Enhanced MR instances of one volume each as (0020,0105) announces: Siemens XA counts its
  b=0 and its directions so;
- all images that (0020,1002) announces for the acquisition are there (PS3.3 C.7.6.1). Some scanners start
  a new acquisition with every volume and count that alone, so the acquisition must hold more than one
  volume unless it holds the trace.

A promise of positions or directions settles a shell near b=1000 only: 900 may come before 1000.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from triage.core.header import FrameKind, InstanceHeader
from triage.core.volume import (
    B_WINDOW,
    SHELL_WIDTH,
    TARGET_B,
    VolumeKind,
    VolumePlan,
    Window,
    choose,
)

ONE_INSTANCE_DIRECTIONS: Final = 3


@dataclass(frozen=True, slots=True)
class Completeness:
    """Whether analysis may start at once.

    detail: what is there and what is missing, for the log and the page; never a patient identifier.
    """

    is_whole: bool
    detail: str


def judge_completeness(headers: Iterable[InstanceHeader], *, b_window: Window = B_WINDOW) -> Completeness:
    """Whether the b=1000 volume of a series is closed for certain by the instances received so far."""
    received = tuple({header.sop_instance_uid: header for header in headers}.values())
    plan = choose(received, b_window=b_window)
    if not isinstance(plan, VolumePlan):
        return Completeness(is_whole=False, detail=plan.detail)
    is_whole = (
        _keeps_a_promise(plan, received)
        or _has_every_temporal_position(plan, received)
        or _is_whole_acquisition(plan, received)
    )
    return Completeness(is_whole=is_whole, detail=_describe(plan, _promised_directions(plan)))


def _describe(plan: VolumePlan, promised_directions: int | None) -> str:
    of_slices = f" of {plan.promised_slices}" if plan.promised_slices else ""
    text = f"b={plan.b_value:.0f}: {plan.slice_count}{of_slices} positions"
    if plan.kind is VolumeKind.TRACE:
        return text
    of_directions = f" of {promised_directions}" if promised_directions else ""
    return f"{text}, {plan.direction_count}{of_directions} directions"


def _keeps_a_promise(plan: VolumePlan, received: Sequence[InstanceHeader]) -> bool:
    if abs(plan.b_value - TARGET_B) > SHELL_WIDTH:
        return False
    sources = {source.header.sop_instance_uid: source.header for slice_ in plan.slices for source in slice_}
    one_instance = len(sources) == 1 and next(iter(sources.values())).is_self_contained
    kinds = {source.frame.kind for slice_ in plan.slices for source in slice_}
    if plan.kind is VolumeKind.TRACE:
        return kinds == {FrameKind.TRACE} and (one_instance or _has_promised_slices(plan))
    if kinds != {FrameKind.DIRECTIONAL} or _has_trace(received):
        return False
    if one_instance and plan.direction_count >= ONE_INSTANCE_DIRECTIONS:
        return any(frame.kind is FrameKind.B0 for frame in next(iter(sources.values())).frames)
    promised = _promised_directions(plan)
    has_slices = all(header.is_self_contained for header in sources.values()) or _has_promised_slices(plan)
    return has_slices and promised is not None and plan.direction_count >= promised


def _has_promised_slices(plan: VolumePlan) -> bool:
    # Never fewer: `choose` calls such a stack incomplete.
    return plan.promised_slices is not None


def _promised_directions(plan: VolumePlan) -> int | None:
    promised = max(source.header.promised_directions or 0 for slice_ in plan.slices for source in slice_)
    return promised or None


def _has_trace(received: Sequence[InstanceHeader]) -> bool:
    return any(frame.kind is FrameKind.TRACE for header in received for frame in header.frames)


def _has_every_temporal_position(plan: VolumePlan, received: Sequence[InstanceHeader]) -> bool:
    volumes = [header for header in received if header.frames and not header.is_derived_map]
    announced = {header.temporal_positions for header in volumes}
    are_volumes = all(
        header.is_self_contained and len(header.frames) == plan.slice_count for header in volumes
    )
    # One position is what a scanner writes that does not count: Philips and Canon do.
    return are_volumes and announced == {len(volumes)} and len(volumes) > 1


def _is_whole_acquisition(plan: VolumePlan, received: Sequence[InstanceHeader]) -> bool:
    sources = [source.header for slice_ in plan.slices for source in slice_]
    number = sources[0].acquisition_number
    acquired = [header for header in received if header.frames and header.acquisition_number == number]
    if any(header.acquisition_number != number for header in sources):
        return False
    if any(header.is_self_contained for header in acquired):
        return False
    kinds = {frame.kind for header in acquired for frame in header.frames}
    holds_volumes = plan.direction_count > 1 or FrameKind.B0 in kinds or FrameKind.TRACE in kinds
    # Exactly as many: a count that was passed before did not mean what we take it for.
    return holds_volumes and len(acquired) == max(header.images_in_acquisition or 0 for header in acquired)
