"""A whole synthetic study: one head, one stroke, one protocol, and the truth about them."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from triage.core.volume import DwiVolume, VolumeKind
from triage.phantom import acquisition, aspects
from triage.phantom.acquisition import Frame, Protocol
from triage.phantom.distractor import draw_distractors
from triage.phantom.heads import Head
from triage.phantom.lesion import Lesion, Severity, draw_lesion, draw_severity
from triage.phantom.texture import random_field
from triage.phantom.tissue import (
    LAST_PARENCHYMA,
    Relaxation,
    Tissue,
    draw_relaxation,
    lesion_gain,
    signal,
)

Floats = npt.NDArray[np.float32]

TEXTURE: Final = 0.025
WHITE_MATTER_UNITS: Final = 250.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SyntheticStudy:
    """A drawn study and what is true of it.

    b0, high_b: volumes in patient space on the same grid.
    lesion_ZYX: share of each voxel inside the acute infarct, 0..1, on that grid, displaced as the image is.
    region_ZYX: 1..10 left, 11..20 right, on that grid, undisplaced.
    coverage: infarcted share of the ten regions of the affected side.
    aspects: score under the rule asked for.
    distractors: names of what must not count.
    """

    head: str
    protocol: Protocol
    b0: DwiVolume
    high_b: DwiVolume
    lesion_ZYX: Floats
    region_ZYX: npt.NDArray[np.uint8]
    side: str
    coverage: tuple[float, ...]
    aspects: int
    lesion_ml: float
    distractors: tuple[str, ...]

    def aspects_under(self, rule: str) -> int:
        """The score this same stroke has under another named rule."""
        return aspects.score(self.coverage, rule)


@dataclass(frozen=True, slots=True, kw_only=True)
class Patient:
    """A head with its stroke, before any scanner."""

    head: Head
    lesion: Lesion
    changes: tuple[Severity, ...]
    relaxation: dict[Tissue, Relaxation]
    texture_ZYX: Floats
    distractors: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """A patient laid in a scanner, ready for exposures that share their geometry and coil."""

    patient: Patient
    protocol: Protocol
    frame: Frame
    row_shift_ZYX: Floats
    coil_bias_ZYX: Floats


def draw_study(
    head: Head,
    requested_aspects: int,
    rng: np.random.Generator,
    *,
    rule: str = aspects.DEFAULT_RULE,
    protocol: Protocol | None = None,
    with_distractors: bool = True,
) -> SyntheticStudy:
    """A study of this head whose ASPECTS under the rule is the one requested.

    protocol: drawn when absent.
    Raises ValueError for a score outside 0..10, RuntimeError when no infarct reaches it.
    """
    scan = draw_scan(
        head, requested_aspects, rng, rule=rule, protocol=protocol, with_distractors=with_distractors
    )
    lesion = scan.patient.lesion
    return SyntheticStudy(
        head=head.name,
        protocol=scan.protocol,
        high_b=expose(scan, rng, scan.protocol.b_value),
        b0=expose(scan, rng, 0.0),
        lesion_ZYX=lesion_on_image(scan),
        region_ZYX=acquisition.labels_on_image(head.region_ZYX, scan.protocol, scan.frame),
        side=lesion.side,
        coverage=lesion.coverage,
        aspects=aspects.score(lesion.coverage, rule),
        lesion_ml=lesion.volume_ml,
        distractors=scan.patient.distractors,
    )


def draw_scan(
    head: Head,
    requested_aspects: int,
    rng: np.random.Generator,
    *,
    rule: str = aspects.DEFAULT_RULE,
    protocol: Protocol | None = None,
    with_distractors: bool = True,
) -> Scan:
    """Everything about a study that does not depend on the b-value."""
    patient = draw_patient(head, requested_aspects, rng, rule=rule, with_distractors=with_distractors)
    protocol = protocol or acquisition.draw_protocol(rng)
    frame = acquisition.place(rng, head, protocol)
    field_hz = acquisition.sample(frame, head.field_hz_per_t_ZYX) * protocol.timing.field_strength_t
    shift = acquisition.row_shift(protocol, np.asarray(field_hz, np.float32))
    return Scan(
        patient=patient,
        protocol=protocol,
        frame=frame,
        row_shift_ZYX=shift,
        coil_bias_ZYX=acquisition.coil_bias(rng, shift.shape),
    )


def expose(scan: Scan, rng: np.random.Generator, b_value: float) -> DwiVolume:
    """The magnitude volume at one b-value (s/mm2); healthy white matter at the high one is about 250."""
    planes = acquisition.sample(scan.frame, magnitude(scan.patient, scan.protocol, b_value))
    planes = acquisition.displace(planes, scan.row_shift_ZYX) * scan.coil_bias_ZYX
    image = acquisition.record(rng, planes, scan.protocol, noise=1.0 / scan.protocol.snr)
    return DwiVolume(
        voxels_ZYX=np.asarray(image * np.float32(WHITE_MATTER_UNITS), np.float32),
        affine_lps=scan.frame.affine_lps,
        b_value=b_value,
        kind=VolumeKind.TRACE,
        source_sop_instance_uids=(),
    )


def lesion_on_image(scan: Scan) -> Floats:
    """Share of each image voxel inside the acute infarct, displaced as the image is."""
    planes = acquisition.sample(scan.frame, scan.patient.lesion.mask_ZYX.astype(np.float32))
    moved = acquisition.displace(planes, scan.row_shift_ZYX)
    return acquisition.on_image(np.clip(moved, 0.0, 1.0), scan.protocol)


def draw_patient(
    head: Head, requested_aspects: int, rng: np.random.Generator, *, rule: str, with_distractors: bool
) -> Patient:
    """The stroke, what else the brain has, and its tissue constants."""
    lesion = draw_lesion(rng, head, requested_aspects, rule)
    distractors = draw_distractors(rng, head, lesion.mask_ZYX) if with_distractors else ()
    return Patient(
        head=head,
        lesion=lesion,
        changes=(draw_severity(rng, lesion), *(found.severity for found in distractors)),
        relaxation=draw_relaxation(rng),
        texture_ZYX=np.asarray(1.0 + TEXTURE * random_field(rng, head.shape, 2.0), np.float32),
        distractors=tuple(found.name for found in distractors),
    )


def magnitude(patient: Patient, protocol: Protocol, b_value: float) -> Floats:
    """Noise-free signal on the head's grid; healthy white matter at the high b-value is 1."""
    strengths = np.array(
        [signal(patient.relaxation[tissue], protocol.timing, b_value) for tissue in Tissue], np.float32
    )
    fraction = patient.head.fraction_KZYX
    brain = _mixed(strengths, fraction, range(LAST_PARENCHYMA + 1)) * patient.texture_ZYX
    for change in patient.changes:
        brain *= lesion_gain(
            protocol.timing, b_value, adc_ratio=change.adc_ratio_ZYX, t2_ratio=change.t2_ratio_ZYX
        )
    around = _mixed(strengths, fraction, range(LAST_PARENCHYMA + 1, len(Tissue)))
    white = signal(patient.relaxation[Tissue.WHITE_MATTER], protocol.timing, protocol.b_value)
    return np.asarray((brain + around) / white, np.float32)


def _mixed(strengths: Floats, fraction: npt.NDArray[np.uint8], tissues: range) -> Floats:
    mixed = np.zeros(fraction.shape[1:], np.float32)
    for tissue in tissues:
        mixed += fraction[tissue] * np.float32(strengths[tissue] / 255.0)
    return mixed
