import numpy as np

from triage.phantom.heads import POSTERIOR_FOSSA
from triage.phantom.tissue import LAST_PARENCHYMA, Tissue


def test_packaged_head_has_all_twenty_regions_left_towards_positive_x(head):
    assert set(np.unique(head.region_ZYX)) == set(range(21))
    columns = [np.argwhere(head.region_ZYX == number)[:, 2].mean() for number in range(1, 21)]
    assert min(columns[:10]) > max(columns[10:])


def test_packaged_head_frontal_regions_lie_in_front_and_upper_ones_above(head):
    centre = {number: np.argwhere(head.region_ZYX == number).mean(axis=0) for number in range(1, 11)}
    m1, m3, m4 = centre[5], centre[7], centre[8]
    assert m1[1] < m3[1], "rows rise from anterior to posterior"
    assert m4[0] > m1[0], "slices rise from caudal to cranial"


def test_fractions_leave_room_for_air_only(head):
    assert head.fraction_KZYX.sum(axis=0, dtype=np.int32).max() <= 255 + len(Tissue)


def test_catchments_only_grow_regions(head):
    inside = head.region_ZYX > 0
    assert np.array_equal(head.catchment_ZYX[inside], head.region_ZYX[inside])
    assert (head.catchment_ZYX > 0).sum() > inside.sum()


def test_shimmed_field_is_flat_in_the_brain_and_steep_by_the_sinuses(head):
    brain = head.fraction_KZYX[: LAST_PARENCHYMA + 1].max(axis=0) > 127
    field_hz = 1.5 * head.field_hz_per_t_ZYX[brain]
    assert abs(np.median(field_hz)) < 10.0
    assert np.abs(field_hz).max() > 50.0


def test_no_region_lies_in_the_posterior_fossa(head):
    assert not (head.region_ZYX[head.territory_ZYX == POSTERIOR_FOSSA] > 0).any()
