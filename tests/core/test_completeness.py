"""A series is whole when its headers promise it, never because it looks whole."""

import itertools
import os
import random
from collections import defaultdict
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread

from triage.core.completeness import Completeness, judge_completeness
from triage.core.diffusion import BSource, DwiFrame, FrameKind, InstanceHeader, read_header
from triage.core.volume import VolumePlan, choose

CASES = Path(__file__).parents[2].parent / "shared" / "cases"

X, Y, Z = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)
serial = itertools.count(1)


def frame(
    z: float,
    kind: FrameKind = FrameKind.TRACE,
    b_value: float = 1000.0,
    direction: tuple[float, float, float] | None = None,
    index: int = 0,
) -> DwiFrame:
    return DwiFrame(
        index=index,
        tile_origin=None,
        rows=128,
        columns=128,
        position_lps_mm=(0.0, 0.0, z),
        orientation=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
        pixel_spacing_mm=(2.0, 2.0),
        b_value=0.0 if kind is FrameKind.B0 else b_value,
        b_source=BSource.STANDARD,
        kind=kind,
        direction=direction,
        direction_index=None,
    )


def header(*frames: DwiFrame, **promises: Any) -> InstanceHeader:
    plain = InstanceHeader(
        sop_instance_uid=f"1.2.3.{next(serial)}",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.4",
        series_instance_uid="1.2.3",
        study_instance_uid="1.2",
        modality="MR",
        frames=frames,
        looks_like_diffusion=True,
        acquisition_number=1,
    )
    return replace(plain, **promises)


def stack(kind: FrameKind = FrameKind.TRACE, count: int = 6, **how: Any) -> list[InstanceHeader]:
    shape = {name: how.pop(name) for name in ("b_value", "direction") if name in how}
    return [header(frame(5.0 * k, kind, **shape), **how) for k in range(count)]


def whole_after(headers: list[InstanceHeader]) -> int | None:
    """How many instances had come when the series was first called whole."""
    for count in range(1, len(headers) + 1):
        if judge_completeness(headers[:count]).is_whole:
            return count
    return None


def test_slices_that_arrive_in_order_prove_nothing():
    assert whole_after(stack(count=30)) is None


def test_a_promised_trace_is_whole_with_its_last_slice():
    trace = stack(promised_slices=6)
    assert whole_after(trace) == 6
    assert judge_completeness(trace) == Completeness(is_whole=True, detail="b=1000: 6 of 6 positions")


def test_a_trace_does_not_wait_for_what_else_comes():
    trace = stack(promised_slices=6)
    later = stack(FrameKind.DIRECTIONAL, direction=X, promised_slices=6)
    assert whole_after([*stack(FrameKind.B0, promised_slices=6), *trace, *later]) == 12


def test_what_is_missing_is_named():
    headers = stack(promised_slices=18, count=18)
    del headers[7]
    assert judge_completeness(headers) == Completeness(
        is_whole=False, detail="b=1000: 17 of 18 positions, gap at z = 35.0 mm"
    )


def test_a_doubled_slice_is_not_whole():
    headers = [*stack(promised_slices=6), *stack(promised_slices=6, count=1)]
    assert not judge_completeness(headers).is_whole


def test_an_instance_that_came_twice_counts_once():
    headers = stack(images_in_acquisition=6, count=5)
    assert not judge_completeness([*headers, headers[0]]).is_whole


def test_other_series_are_never_whole():
    assert judge_completeness([]) == Completeness(is_whole=False, detail="no MR images")


def test_a_b_value_far_from_1000_may_be_followed_by_a_nearer_one():
    assert whole_after(stack(b_value=900.0, promised_slices=6)) is None
    assert whole_after(stack(b_value=1040.0, promised_slices=6)) == 6


def test_a_promise_of_slices_does_not_close_directions():
    assert whole_after(stack(FrameKind.DIRECTIONAL, direction=X, promised_slices=6)) is None


def directions(**promises: Any) -> list[InstanceHeader]:
    return [h for d in (X, Y, Z) for h in stack(FrameKind.DIRECTIONAL, direction=d, **promises)]


def test_promised_directions_close_with_the_last_slice_of_the_last():
    promised = directions(promised_slices=6, promised_directions=3)
    assert whole_after(promised) == 18
    assert judge_completeness(promised).detail == "b=1000: 6 of 6 positions, 3 of 3 directions"
    assert whole_after(directions(promised_slices=6, promised_directions=4)) is None
    assert whole_after(directions(promised_directions=3)) is None
    assert judge_completeness(directions()).detail == "b=1000: 6 positions, 3 directions"


def test_directions_are_not_whole_while_a_trace_is_coming():
    begun = stack(promised_slices=6, count=3)
    assert not judge_completeness([*directions(promised_slices=6, promised_directions=3), *begun]).is_whole


def test_an_unlabelled_stack_is_not_whole_by_its_slices():
    assert whole_after(stack(FrameKind.UNKNOWN, promised_slices=6)) is None


@pytest.mark.parametrize("kind", [FrameKind.TRACE, FrameKind.UNKNOWN])
def test_the_acquisitions_count_of_images_closes_it(kind):
    b0, weighted = stack(FrameKind.B0, images_in_acquisition=12), stack(kind, images_in_acquisition=12)
    assert whole_after([*b0, *weighted]) == 12
    assert whole_after([*weighted, *b0]) == 12
    assert whole_after([*b0, *weighted][:11]) is None


def test_the_count_closes_directions_too():
    b0, weighted = stack(FrameKind.B0, images_in_acquisition=24), directions(images_in_acquisition=24)
    assert whole_after([*b0, *weighted]) == 24
    assert whole_after(directions(images_in_acquisition=18)) == 18


def test_a_count_for_each_volume_does_not_close_the_series():
    volumes = [
        stack(kind, direction=direction, images_in_acquisition=6, acquisition_number=number)
        for number, (kind, direction) in enumerate(
            [(FrameKind.B0, None), (FrameKind.DIRECTIONAL, X), (FrameKind.DIRECTIONAL, Y)]
        )
    ]
    assert whole_after([h for volume in volumes for h in volume]) is None


def test_a_count_that_was_passed_meant_something_else():
    b0, weighted = stack(FrameKind.B0, images_in_acquisition=6), stack(images_in_acquisition=6)
    assert whole_after([*b0, *weighted]) is None


def enhanced(*frames: DwiFrame, **promises: Any) -> InstanceHeader:
    return header(*frames, is_self_contained=True, **promises)


TRACE_FRAMES = [frame(5.0 * k, index=k) for k in range(6)]
B0_FRAMES = [frame(5.0 * k, FrameKind.B0, index=k) for k in range(6)]


def direction_frames(*which: tuple[float, float, float]) -> list[DwiFrame]:
    return [frame(5.0 * k, FrameKind.DIRECTIONAL, direction=d) for d in which for k in range(6)]


def test_a_trace_inside_one_instance_is_whole():
    assert judge_completeness([enhanced(*TRACE_FRAMES)]).is_whole
    assert judge_completeness([enhanced(*B0_FRAMES, *TRACE_FRAMES)]).is_whole


def test_a_trace_split_over_instances_is_not():
    assert not judge_completeness([enhanced(*TRACE_FRAMES[:3]), enhanced(*TRACE_FRAMES[3:])]).is_whole


def test_one_instance_with_b0_and_directions_is_a_whole_series():
    assert judge_completeness([enhanced(*B0_FRAMES, *direction_frames(X, Y, Z))]).is_whole
    assert not judge_completeness([enhanced(*direction_frames(X, Y, Z))]).is_whole
    assert not judge_completeness([enhanced(*B0_FRAMES, *direction_frames(X, Y))]).is_whole


def test_one_instance_a_direction_needs_the_promise_and_no_count_of_images():
    three = [enhanced(*direction_frames(d), images_in_acquisition=3) for d in (X, Y, Z)]
    assert whole_after(three) is None
    promised = [enhanced(*direction_frames(d), promised_directions=3) for d in (X, Y, Z)]
    assert whole_after(promised) == 3


def one_volume_each(count: int) -> list[InstanceHeader]:
    frames = [B0_FRAMES, direction_frames(X), direction_frames(Y)]
    return [enhanced(*volume, temporal_positions=count) for volume in frames]


def test_as_many_volumes_as_announced_are_the_whole_series():
    assert whole_after(one_volume_each(3)) == 3
    assert whole_after(one_volume_each(4)) is None


def test_one_temporal_position_is_no_announcement():
    assert whole_after(one_volume_each(1)) is None
    assert whole_after([enhanced(*direction_frames(X), temporal_positions=1)]) is None


def test_temporal_positions_count_volumes_and_not_slices():
    slices = [h for d in (X, Y) for h in stack(FrameKind.DIRECTIONAL, direction=d, temporal_positions=12)]
    assert whole_after(slices) is None


# Real headers, in any order.


@cache
def real(case: str) -> dict[str, list[InstanceHeader]]:
    found = defaultdict(list)
    for file in sorted((CASES / case / "data").iterdir()):
        read = read_header(dcmread(file, stop_before_pixels=True))
        found[read.series_instance_uid].append(read)
    return dict(found)


@pytest.mark.skipif(
    not CASES.is_dir() and os.environ.get("CI") != "true", reason="the shared cases are not here"
)
@pytest.mark.parametrize(
    "case",
    [
        "canon-v60-classic",
        "canon-v61-enhanced",
        "ge-mr29-pioneer",
        "mixed-philips-nonimage",
        "negative-ge-fmri",
        "philips-achieva-2008-classic",
        "philips-enhanced-achieva",
        "siemens-classic2d-skyra",
        "siemens-e11-mosaic",
        "siemens-xa30-enhanced-derived",
        "siemens-xa60-enhanced-b1000",
        "uih-umr770",
    ],
)
def test_no_real_series_is_whole_before_the_last_instance_it_needs(case):
    shuffler = random.Random(case)
    for headers in real(case).values():
        plan = choose(headers)
        needed = set(plan.source_sop_instance_uids) if isinstance(plan, VolumePlan) else set()
        for _ in range(100):
            order = shuffler.sample(headers, len(headers))
            missing, arrived = set(needed), []
            for newest in order:
                arrived.append(newest)
                missing.discard(newest.sop_instance_uid)
                # Of a long series only the moments are asked about at which an early answer could tempt.
                is_short = len(order) < 40
                if is_short or len(arrived) % 30 == 0 or (needed and len(missing) <= 1):
                    is_whole = judge_completeness(arrived).is_whole
                    assert not (is_whole and (missing or not needed)), (case, len(arrived))
                    assert is_whole or missing or case != "philips-achieva-2008-classic"
                if needed and not missing and not is_short:
                    break


@pytest.mark.skipif(
    not CASES.is_dir() and os.environ.get("CI") != "true", reason="the shared cases are not here"
)
def test_the_philips_trace_closes_before_all_directions_are_there():
    (headers,) = real("philips-achieva-2008-classic").values()
    order = sorted(headers, key=lambda h: h.frames[0].kind is FrameKind.DIRECTIONAL)
    assert whole_after(order[100:]) is None
    assert judge_completeness(order[:120]) == Completeness(is_whole=True, detail="b=1000: 60 of 60 positions")


@pytest.mark.skipif(
    not CASES.is_dir() and os.environ.get("CI") != "true", reason="the shared cases are not here"
)
def test_siemens_xa_announces_its_volumes():
    (headers,) = real("siemens-xa60-enhanced-b1000").values()
    # The phantom lies across: turned axial, the series is what a scanner sends of a head.
    axial = [
        replace(
            header,
            frames=tuple(
                replace(
                    frame,
                    orientation=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
                    position_lps_mm=(0.0, 0.0, 4.0 * number),
                )
                for number, frame in enumerate(header.frames)
            ),
        )
        for header in headers
    ]
    assert whole_after(axial) == 7
