from pathlib import Path

import numpy as np
import pytest
import torch

from triage.lab.augment import augment, shrink
from triage.lab.evaluate import calibrated, evaluate_on, fit_temperature
from triage.lab.models.rrcnn import RRCNN
from triage.lab.settle import settle
from triage.lab.train import Stage, TrainingRun, load_network, loss_terms, predict, train_on

STAGES = (Stage(1, 64, 2), Stage(1, 64, 2))


def run_in(folder: Path, stages=STAGES) -> TrainingRun:
    return TrainingRun(cohort=folder, out_dir=folder, stages=stages, batch=2, seed=3)


def quiet(_: str) -> None: ...


def test_two_epochs_lower_the_auxiliary_loss(tmp_path, cases):
    checkpoint = train_on(run_in(tmp_path, (Stage(2, 64, 2),)), cases, cases, quiet)
    _, saved = load_network(checkpoint)
    first, last = saved["history"][0], saved["history"][-1]
    assert last["share"] < first["share"]
    assert saved["data_hash"] == cases.data_hash


def test_training_that_was_stopped_ends_with_the_same_weights(tmp_path, cases, monkeypatch):
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    train_on(run_in(straight), cases, cases, quiet)

    def stop(_: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_on(run_in(stopped), cases, cases, stop)
    train_on(run_in(stopped), cases, cases, quiet)
    one, other = load_network(straight / "checkpoint.pt")[0], load_network(stopped / "checkpoint.pt")[0]
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


def test_the_network_takes_any_number_of_slices_at_either_size():
    network = RRCNN().eval()
    with torch.no_grad():
        for slices, size in ((1, 64), (3, 80)):
            prediction = network(torch.zeros(2, slices, size, size))
            assert prediction.logits_N2.shape == (2, 2)
            assert prediction.share_NZ.shape == (2, slices)
            assert prediction.region_logits_N10.shape == (2, 10)


def test_the_network_is_as_large_as_the_design_says():
    assert sum(weight.numel() for weight in RRCNN().parameters()) == 5_150_125


def test_every_loss_reaches_every_weight_it_should(cases):
    network = RRCNN()
    chosen = np.arange(2)
    losses = loss_terms(network(torch.rand(2, 2, 64, 64) * 255), cases, chosen, slice(None), 0.05)
    torch.stack(losses).sum().backward()
    assert all(weight.grad is not None for weight in network.parameters())


def test_augmentation_keeps_air_black_and_range():
    x = torch.zeros(4, 2, 80, 80)
    x[:, :, 20:60, 20:60] = 200.0
    changed = augment(x, 64, torch.Generator().manual_seed(0))
    assert changed.shape == (4, 2, 64, 64)
    assert float(changed[:, :, 0, 0].max()) == 0.0
    assert float(changed.max()) <= 255.0


def test_augmentation_treats_all_slices_of_a_study_alike():
    x = torch.zeros(1, 2, 80, 80)
    x[:, :, 10:30, 10:30] = 200.0
    moved = augment(x, 80, torch.Generator().manual_seed(1)) > 50.0
    assert float((moved[0, 0] == moved[0, 1]).float().mean()) > 0.98


def test_shrinking_to_the_same_size_changes_nothing():
    x = torch.rand(1, 1, 64, 64)
    assert shrink(x, 64) is x


def test_settling_changes_statistics_and_no_weight(cases):
    network = RRCNN()
    before = {name: value.clone() for name, value in network.named_parameters()}
    settle(network, cases, Stage(1, 64, 1), studies=4, batch=2)
    assert all(torch.equal(before[name], value) for name, value in network.named_parameters())
    assert float(network.state_dict()["blocks.0.norms.0.running_mean"].abs().max()) > 0.0
    assert not network.training


def test_temperature_undoes_overconfidence():
    rng = np.random.default_rng(0)
    margin = rng.normal(0.0, 1.5, 4000)
    positive = (rng.random(4000) < 1.0 / (1.0 + np.exp(-margin))).astype(int)
    overconfident = np.stack([np.zeros(4000), margin * 3.0], axis=1)
    assert fit_temperature(overconfident, positive) == pytest.approx(3.0, rel=0.15)
    assert calibrated(overconfident, 3.0)[0] == pytest.approx(1.0 / (1.0 + np.exp(-margin[0])))


def test_evaluation_reports_intervals_scores_and_the_volume_reader(cases):
    report = evaluate_on(RRCNN().eval(), cases, cases).report
    assert report["volume_only"]["auc"] == 1.0
    assert sum(row["studies"] for row in report["test"]["by_score"].values()) == len(cases)
    point = report["test"]["operating_points"]["half"]
    assert point["sensitivity"]["low"] <= point["sensitivity"]["value"] <= point["sensitivity"]["high"]


def test_predictions_do_not_depend_on_the_batch(cases):
    network = RRCNN().eval()
    assert np.allclose(
        predict(network, cases, Stage(1, 64, 1), batch=3),
        predict(network, cases, Stage(1, 64, 1), batch=8),
        atol=1e-5,
    )
