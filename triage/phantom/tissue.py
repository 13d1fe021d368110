"""What each tissue is made of, and the magnitude a spin-echo diffusion sequence makes of it.

S = PD (1 - exp(-TR/T1)) exp(-TE/T2) exp(-b ADC). The table holds 1.5 T values; at 3 T every T2 is
shorter by 14 per cent.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


class Tissue(IntEnum):
    """Order of the tissue axis K of every fraction map; air is what is left over."""

    WHITE_MATTER = 0
    CORTEX = 1
    CAUDATE = 2
    PUTAMEN = 3
    PALLIDUM = 4
    THALAMUS = 5
    CEREBELLAR_CORTEX = 6
    CEREBELLAR_WHITE = 7
    BRAINSTEM = 8
    CSF = 9
    MUSCLE = 10
    FAT = 11
    EYE = 12
    BONE = 13
    MUCOSA = 14


LAST_PARENCHYMA: Final = Tissue.BRAINSTEM
AIR: Final = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class Relaxation:
    """Proton density (water = 1), T1 and T2 in ms at 1.5 T, ADC in 1e-6 mm2/s."""

    proton_density: float
    t1_ms: float
    t2_ms: float
    adc: float


def _relaxation(proton_density: float, t1_ms: float, t2_ms: float, adc: float) -> Relaxation:
    return Relaxation(proton_density=proton_density, t1_ms=t1_ms, t2_ms=t2_ms, adc=adc)


RELAXATION: Final[dict[Tissue, Relaxation]] = {
    Tissue.WHITE_MATTER: _relaxation(0.70, 700.0, 76.0, 740.0),
    Tissue.CORTEX: _relaxation(0.81, 1000.0, 94.0, 860.0),
    Tissue.CAUDATE: _relaxation(0.80, 1000.0, 88.0, 780.0),
    Tissue.PUTAMEN: _relaxation(0.79, 950.0, 82.0, 740.0),
    Tissue.PALLIDUM: _relaxation(0.74, 800.0, 64.0, 780.0),
    Tissue.THALAMUS: _relaxation(0.77, 900.0, 84.0, 770.0),
    Tissue.CEREBELLAR_CORTEX: _relaxation(0.81, 1000.0, 91.0, 760.0),
    Tissue.CEREBELLAR_WHITE: _relaxation(0.71, 750.0, 80.0, 670.0),
    Tissue.BRAINSTEM: _relaxation(0.73, 800.0, 82.0, 720.0),
    Tissue.CSF: _relaxation(1.00, 4200.0, 1400.0, 3000.0),
    Tissue.MUSCLE: _relaxation(0.75, 900.0, 40.0, 1500.0),
    # Fat-suppressed: what is left is small and hardly diffuses.
    Tissue.FAT: _relaxation(0.04, 260.0, 70.0, 200.0),
    Tissue.EYE: _relaxation(1.00, 4200.0, 900.0, 2800.0),
    Tissue.BONE: _relaxation(0.02, 900.0, 10.0, 500.0),
    Tissue.MUCOSA: _relaxation(0.90, 900.0, 75.0, 1600.0),
}
T2_FACTOR_AT_3T: Final = 0.86
JITTER: Final = 0.03


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Repetition and echo time in ms, field strength in tesla."""

    tr_ms: float
    te_ms: float
    field_strength_t: float


def draw_relaxation(rng: np.random.Generator) -> dict[Tissue, Relaxation]:
    """One person's tissue constants: the table, each number jittered by 3 per cent."""

    def jitter(value: float) -> float:
        return value * float(1.0 + JITTER * rng.standard_normal())

    return {
        tissue: Relaxation(
            proton_density=jitter(base.proton_density),
            t1_ms=jitter(base.t1_ms),
            t2_ms=jitter(base.t2_ms),
            adc=jitter(base.adc),
        )
        for tissue, base in RELAXATION.items()
    }


def signal(relaxation: Relaxation, timing: Timing, b_value: float) -> float:
    """Magnitude of pure tissue, relative to fully relaxed water.

    b_value: s/mm2.
    """
    t2_ms = relaxation.t2_ms * (T2_FACTOR_AT_3T if timing.field_strength_t > 2.0 else 1.0)
    recovery = 1.0 - np.exp(-timing.tr_ms / relaxation.t1_ms)
    decay = np.exp(-timing.te_ms / t2_ms) * np.exp(-b_value * relaxation.adc * 1e-6)
    return float(relaxation.proton_density * recovery * decay)


def lesion_gain(timing: Timing, b_value: float, *, adc_ratio: Floats, t2_ratio: Floats) -> Floats:
    """Factor by which a change of ADC and T2 multiplies the signal of brain tissue.

    adc_ratio, t2_ratio: changed over healthy value, any one shape.
    The healthy reference is ADC 780e-6 mm2/s and T2 84 ms, between grey and white matter.

    >>> halved, same = np.array([0.5], np.float32), np.array([1.0], np.float32)
    >>> timing = Timing(tr_ms=9000, te_ms=80, field_strength_t=1.5)
    >>> round(float(lesion_gain(timing, 1000, adc_ratio=halved, t2_ratio=same)[0]), 2)
    1.48
    """
    t2_ms = 84.0 * (T2_FACTOR_AT_3T if timing.field_strength_t > 2.0 else 1.0)
    exponent = b_value * 780e-6 * (1.0 - adc_ratio) + timing.te_ms / t2_ms * (1.0 - 1.0 / t2_ratio)
    return np.exp(exponent).astype(np.float32)
