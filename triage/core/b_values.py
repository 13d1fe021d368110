"""What is known about the b-values of a series beyond its headers: the operator's word, and disagreements."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from triage.core.header import BSource, DwiFrame, FrameKind, InstanceHeader


def with_stated_b_value(headers: Iterable[InstanceHeader], b_value: float | None) -> list[InstanceHeader]:
    """The headers, with the operator's b-value in every image that has none of its own.

    b_value: s/mm2, as `dicom.b_value_rules` gives it; None changes nothing.
    """
    if b_value is None:
        return list(headers)
    return [_stated(header, b_value) for header in headers]


def _stated(header: InstanceHeader, b_value: float) -> InstanceHeader:
    if not any(_is_open(frame) for frame in header.frames):
        return header
    frames = [
        replace(frame, b_value=b_value, b_source=BSource.RULE) if _is_open(frame) else frame
        for frame in header.frames
    ]
    return replace(header, frames=tuple(frames), looks_like_diffusion=True)


def _is_open(frame: DwiFrame) -> bool:
    return frame.b_value is None and frame.kind not in (FrameKind.DERIVED_MAP, FrameKind.B0)


def remarks(headers: Iterable[InstanceHeader]) -> Sequence[str]:
    """What the timeline must say about the b-values: one sentence each, none when all is well."""
    frames = [
        frame for header in headers for frame in header.frames if frame.kind is not FrameKind.DERIVED_MAP
    ]
    by_rule = Counter(frame.b_value for frame in frames if frame.b_source is BSource.RULE)
    disagreements = Counter(
        (frame.b_source, frame.b_value, *frame.contradiction) for frame in frames if frame.contradiction
    )
    said = [
        f"b={b_value:.0f} of {count} images was stated by {BSource.RULE.place}"
        for b_value, count in by_rule.items()
        if b_value is not None
    ]
    for (source, b_value, other, other_b), count in sorted(disagreements.items()):
        ours, theirs = f"{source.place} says b={b_value:.0f}", f"{other.place} says b={other_b:.0f}"
        said.append(f"b-values disagree in {count} images: {ours}, {theirs}; the first counts")
    return said
