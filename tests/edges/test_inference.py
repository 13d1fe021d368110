"""A bundle is used only if it keeps what it promises."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import make_tiny_bundle
from triage.edges.inference import newest_bundle, open_model, read_spec
from triage.errors import BundleError

INPUT = np.zeros((20, 80, 80), np.float32)


def test_a_good_bundle_answers(tiny_bundle: Path) -> None:
    model = open_model(tiny_bundle, "cpu", 1)
    assert model.probability(INPUT) == pytest.approx(0.9)
    assert model.provider == "CPUExecutionProvider"


def test_no_error_noise_without_a_gpu(tiny_bundle: Path, capfd: pytest.CaptureFixture[str]) -> None:
    open_model(tiny_bundle, "auto", 1)
    assert capfd.readouterr().err == ""


def test_cuda_on_demand_says_what_is_missing(tiny_bundle: Path) -> None:
    import onnxruntime

    from triage.edges.inference import _CUDA_LIBRARIES, _can_load

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers() and all(
        map(_can_load, _CUDA_LIBRARIES)
    ):
        assert open_model(tiny_bundle, "cuda", 1).provider == "CUDAExecutionProvider"
    else:
        with pytest.raises(BundleError, match=r"set model\.device to auto"):
            open_model(tiny_bundle, "cuda", 1)


def test_a_changed_network_is_refused(tmp_path: Path) -> None:
    bundle = make_tiny_bundle(tmp_path / "tiny")
    content = bytearray((bundle / "model.onnx").read_bytes())
    content[-1] ^= 1
    (bundle / "model.onnx").write_bytes(bytes(content))
    with pytest.raises(BundleError, match="SHA-256"):
        open_model(bundle, "cpu", 1)


def test_a_network_that_misses_its_golden_case_is_refused(tmp_path: Path) -> None:
    bundle = make_tiny_bundle(tmp_path / "tiny", golden=0.2)
    with pytest.raises(BundleError, match=r"golden case gives 0\.9.*expected 0\.2"):
        open_model(bundle, "cpu", 1)


def test_an_answer_that_is_no_number_is_an_error(tmp_path: Path) -> None:
    bundle = make_tiny_bundle(tmp_path / "tiny", probability=float("nan"), golden=0.5)
    with pytest.raises(ValueError, match="nan"):
        open_model(bundle, "cpu", 1)


@pytest.mark.parametrize("name", ["model.onnx", "spec.json", "golden.npz"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    bundle = make_tiny_bundle(tmp_path / "tiny")
    (bundle / name).unlink()
    with pytest.raises(BundleError, match=name):
        open_model(bundle, "cpu", 1)


def test_something_else_than_a_network_is_refused(tmp_path: Path) -> None:
    import hashlib

    bundle = make_tiny_bundle(tmp_path / "tiny")
    (bundle / "model.onnx").write_bytes(b"not a network")
    spec = json.loads((bundle / "spec.json").read_text())
    spec["sha256"] = hashlib.sha256(b"not a network").hexdigest()
    (bundle / "spec.json").write_text(json.dumps(spec))
    with pytest.raises(BundleError, match="cannot be loaded"):
        open_model(bundle, "cpu", 1)


def test_the_newest_bundle_is_the_one_with_the_highest_version(tmp_path: Path) -> None:
    for version in ("0.9.0", "0.10.0", "0.2.0"):
        bundle = make_tiny_bundle(tmp_path / f"tiny-{version}")
        spec = json.loads((bundle / "spec.json").read_text()) | {"version": version}
        (bundle / "spec.json").write_text(json.dumps(spec))
    assert read_spec(newest_bundle(tmp_path)).version == "0.10.0"


def test_no_bundle_at_all_says_what_to_set(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"set model\.path"):
        newest_bundle(tmp_path)
