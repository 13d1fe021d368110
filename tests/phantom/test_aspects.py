import pytest

from triage.phantom import aspects


@pytest.mark.parametrize(("rule", "expected"), [("any>=3%", 6), ("20%", 7), ("detailed", 8)])
def test_the_same_stroke_scores_by_the_rule_that_is_named(rule, expected):
    coverage = [0.25, 0.05, 0.0, 0.3, 0.3] + [0.0] * 5
    assert aspects.score(coverage, rule) == expected


def test_five_to_twenty_per_cent_is_ambiguous():
    assert aspects.ambiguous([0.04, 0.06, 0.19, 0.21] + [0.0] * 6) == ("L", "IC")


def test_neighbourhood_is_mutual_where_cortex_meets_cortex():
    cortical = [name for name in aspects.REGIONS if name.startswith("M")]
    for name in cortical:
        for other in aspects.NEIGHBOURS[name]:
            if other in cortical:
                assert name in aspects.NEIGHBOURS[other]
