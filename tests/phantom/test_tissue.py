import numpy as np
import pytest

from triage.phantom.tissue import RELAXATION, Timing, Tissue, lesion_gain, signal

AT_1_5_T = Timing(tr_ms=9000.0, te_ms=80.0, field_strength_t=1.5)
AT_3_T = Timing(tr_ms=9000.0, te_ms=80.0, field_strength_t=3.0)


def test_csf_is_brightest_at_b0_and_darkest_of_the_brain_at_b1000():
    inside = [tissue for tissue in Tissue if tissue <= Tissue.CSF]
    at_b0 = {tissue: signal(RELAXATION[tissue], AT_1_5_T, 0.0) for tissue in inside}
    at_b1000 = {tissue: signal(RELAXATION[tissue], AT_1_5_T, 1000.0) for tissue in inside}
    assert max(at_b0, key=at_b0.__getitem__) is Tissue.CSF
    assert min(at_b1000, key=at_b1000.__getitem__) is Tissue.CSF


def test_ratio_of_b0_to_b1000_gives_the_adc_back():
    white = RELAXATION[Tissue.WHITE_MATTER]
    ratio = signal(white, AT_1_5_T, 0.0) / signal(white, AT_1_5_T, 1000.0)
    assert np.log(ratio) * 1e6 / 1000.0 == pytest.approx(white.adc)


def test_three_tesla_shortens_t2():
    assert signal(RELAXATION[Tissue.CORTEX], AT_3_T, 0.0) < signal(RELAXATION[Tissue.CORTEX], AT_1_5_T, 0.0)


def test_an_acute_core_is_1_3_to_2_times_normal_and_t2_shine_through_brightens_b0_as_well():
    core = lesion_gain(
        AT_1_5_T, 1000.0, adc_ratio=np.array([0.6], np.float32), t2_ratio=np.array([1.1], np.float32)
    )
    shine = lesion_gain(
        AT_1_5_T, 0.0, adc_ratio=np.array([1.1], np.float32), t2_ratio=np.array([1.4], np.float32)
    )
    assert 1.3 < core[0] < 2.0
    assert shine[0] > 1.2


def test_unchanged_tissue_has_a_gain_of_one():
    one = np.array([1.0], np.float32)
    assert lesion_gain(AT_1_5_T, 1000.0, adc_ratio=one, t2_ratio=one)[0] == 1.0
