import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from triage.core.bundle import parse_spec
from triage.core.preprocess import PreprocessSettings, preprocess
from triage.core.volume import DwiVolume, VolumeKind
from triage.lab.export import PARITY, Served, check_parity, open_session, to_onnx
from triage.lab.models.rrcnn import RRCNN

SMALL = PreprocessSettings(caudal_fraction=0.35, cranial_fraction=0.15, slices=3, size=64)
BUNDLES = sorted((Path(__file__).parents[2] / "models").glob("rrcnn-*"))


@pytest.fixture
def network() -> RRCNN:
    torch.manual_seed(0)
    return RRCNN().eval()


def test_the_served_graph_gives_the_networks_logits_and_calibrated_probability(network):
    x = torch.rand(2, 3, 64, 64) * 255
    with torch.no_grad():
        probability, logits, _ = Served(network, 2.0, 3)(x)
        wanted = network(x).logits_N2
    assert torch.allclose(logits, wanted, atol=1e-5)
    assert torch.allclose(probability, torch.sigmoid((wanted[:, 1] - wanted[:, 0]) / 2.0), atol=1e-6)


def test_attention_is_the_grad_cam_that_autograd_gives(network):
    served = Served(network, 1.0, 3)
    x = torch.rand(1, 3, 80, 80) * 255
    with torch.no_grad():
        _, _, attention = served(x)
        maps, _ = served.maps_of(x)
    maps = maps.detach().requires_grad_()
    features = functional.max_pool2d(maps, 2).flatten(1).view(1, 3, -1)
    states, _ = network.lstm(features)
    logits = network.answer(functional.relu(network.dense(states[:, -1])))
    (logits[0, 1] - logits[0, 0]).backward()
    assert maps.grad is not None
    wanted = functional.relu((maps.grad.mean((2, 3), keepdim=True) * maps).sum(1))
    assert torch.allclose(attention[0], wanted, atol=1e-6)


def test_onnx_runtime_agrees_with_torch_for_any_number_of_studies(network, tmp_path):
    served = Served(network, 1.3, SMALL.slices)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer announces its own retirement
        to_onnx(served, SMALL, tmp_path / "model.onnx")
    assert check_parity(served, SMALL, tmp_path / "model.onnx") <= PARITY
    session = open_session(tmp_path / "model.onnx")
    probability, logits, attention = session.run(None, {"x": np.zeros((4, 3, 64, 64), np.float32)})
    assert (probability.shape, logits.shape, attention.shape) == ((4,), (4, 2), (4, 3, 4, 4))


@pytest.mark.parametrize("folder", BUNDLES, ids=lambda folder: folder.name)
def test_the_released_bundle_reproduces_its_golden_case(folder):
    spec = parse_spec((folder / "spec.json").read_text(), folder)
    with np.load(folder / "golden.npz") as golden:
        volume = DwiVolume(
            voxels_ZYX=golden["voxels_ZYX"].astype(np.float32),
            affine_lps=golden["affine_lps"],
            b_value=float(golden["b_value"]),
            kind=VolumeKind.TRACE,
            source_sop_instance_uids=(),
        )
        input_ZYX = preprocess(volume, spec.preprocessing).input_ZYX
        assert np.allclose(input_ZYX, golden["input_ZYX"], atol=0.01)
        (given,) = open_session(folder / "model.onnx").run(
            [spec.probability_name], {spec.input_name: input_ZYX[None]}
        )
        assert abs(float(given[0]) - float(golden["probability"])) <= spec.golden_tolerance


@pytest.mark.parametrize("folder", BUNDLES, ids=lambda folder: folder.name)
def test_the_released_bundle_says_what_it_is_and_is_small_enough(folder):
    spec = parse_spec((folder / "spec.json").read_text(), folder)
    card = (folder / "CARD.md").read_text()
    assert spec.development
    for text in (spec.training_data, card.lower()):
        assert "synthetic" in text
        assert "not validated on patients" in text
        assert "not a medical device" in text
    assert "CC BY-SA 4.0" in card
    assert "Apache-2.0" in card
    assert (folder / "model.onnx").stat().st_size <= 25e6
    assert (folder / "golden.npz").stat().st_size <= 1.5e6
    assert json.loads((folder / "metrics.json").read_text())["test"]["studies"] > 0
