import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from triage.core.bundle import ModelSpec, parse_spec
from triage.errors import BundleError

FOLDER = Path("models") / "rrcnn-0.1.0"


def spec_with(**changes):
    fields = {
        "name": "rrcnn",
        "version": "0.1.0",
        "sha256": "0" * 64,
        "input_name": "volume",
        "probability_name": "probability",
        "thresholds": {"balanced": 0.5, "sensitive": 0.2},
        "default_threshold": "balanced",
        "preprocessing": {},
        "training_data": "trained on synthetic heads.",
        "development": True,
    }
    return json.dumps(fields | changes)


def test_whole_spec_is_read_and_frozen():
    spec = parse_spec(spec_with(), FOLDER)
    assert (spec.threshold, spec.preprocessing.slices, spec.golden_tolerance) == (0.5, 20, 1e-3)
    with pytest.raises(ValidationError, match="frozen"):
        spec.name = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("development", "status"),
    [
        (True, "Development weights: trained on synthetic heads."),
        (False, "Released weights: trained on synthetic heads."),
    ],
)
def test_status_says_what_the_weights_are(development, status):
    assert parse_spec(spec_with(development=development), FOLDER).status == status


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"name": "RR CNN"}, "name: "),
        ({"version": "1"}, "version: "),
        ({"sha256": "abc"}, "sha256: "),
        ({"thresholds": {}}, "thresholds: "),
        ({"thresholds": {"balanced": 1.5}}, "thresholds.balanced: "),
        ({"default_threshold": "best"}, "default_threshold: 'best' is not one of .'balanced', 'sensitive'"),
        ({"preprocessing": {"slice": 20}}, "preprocessing.slice: "),
        ({"preprocessing": {"low_percentile": 99, "high_percentile": 80}}, "preprocessing: low_percentile"),
        ({"training_data": ""}, "training_data: "),
        ({"golden_tolerance": 0}, "golden_tolerance: "),
        ({"colour": "blue"}, "colour: "),
    ],
)
def test_wrong_key_is_named_with_its_bundle(changes, complaint):
    with pytest.raises(BundleError, match=rf"rrcnn-0\.1\.0/spec\.json: {complaint}"):
        parse_spec(spec_with(**changes), FOLDER)


def test_text_that_is_not_json_is_a_bundle_error():
    with pytest.raises(BundleError, match=r"rrcnn-0\.1\.0/spec\.json: spec\.json: Invalid JSON"):
        parse_spec("{", FOLDER)


def test_spec_built_in_memory_cannot_name_a_missing_threshold():
    with pytest.raises(ValidationError, match="'best' is not one of"):
        ModelSpec.model_validate_json(spec_with(default_threshold="best"))
