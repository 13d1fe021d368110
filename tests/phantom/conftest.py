import numpy as np
import pytest

from triage.phantom.acquisition import Protocol
from triage.phantom.heads import Head, packaged_head
from triage.phantom.study import SyntheticStudy, draw_study
from triage.phantom.tissue import Timing

PLAIN = Protocol(
    timing=Timing(tr_ms=8000.0, te_ms=80.0, field_strength_t=1.5),
    b_value=1000.0,
    fov_mm=240.0,
    matrix=96,
    recon_matrix=96,
    slice_thickness_mm=6.0,
    gap_mm=1.0,
    bandwidth_hz_px=30.0,
    phase_polarity=1,
    snr=30.0,
    ghost=0.0,
    tilt_deg=(6.0, 2.0, -3.0),
    stack_above_mm=4.0,
    stack_below_mm=4.0,
)


@pytest.fixture(scope="session")
def head() -> Head:
    return packaged_head()


@pytest.fixture(scope="session")
def study(head: Head) -> SyntheticStudy:
    return draw_study(head, 3, np.random.default_rng(5), protocol=PLAIN, with_distractors=False)
