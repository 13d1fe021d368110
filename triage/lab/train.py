"""Train the RRCNN on a cohort, from first weights to last checkpoint.

Cheap first, exact last: the early stages see every fourth, then every other slice at 64 x 64, the last
one what the service sees, 20 slices at 80 x 80. The convolutions and the LSTM take any length and either
size. Every epoch ends with a checkpoint from which training goes on exactly as if it had not stopped.
"""

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from triage.lab.augment import augment, shrink
from triage.lab.data import Cases, load_split, region_targets
from triage.lab.measures import auc
from triage.lab.models.rrcnn import RRCNN, Prediction

SHARE_SCALE: Final = 10.0


@dataclass(frozen=True, slots=True)
class Stage:
    """Some epochs on slices of one size; of each study every `stride`-th slice, the first drawn a batch."""

    epochs: int
    size: int
    stride: int


CHEAP_TO_EXACT: Final = (Stage(4, 64, 4), Stage(5, 64, 2), Stage(1, 80, 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRun:
    """One run, saved with its weights.

    cohort, out_dir: folders.
    learning_rate: at the top of the cosine; `paper` in the schedule keeps it constant.
    share_weight, region_weight: of the two auxiliary losses beside the answer's.
    """

    cohort: Path
    out_dir: Path
    seed: int = 1
    stages: tuple[Stage, ...] = CHEAP_TO_EXACT
    batch: int = 8
    learning_rate: float = 1e-3
    last_learning_rate: float = 1e-5
    schedule: Literal["cosine", "paper"] = "cosine"
    weight_decay: float = 1e-4
    label_smoothing: float = 0.05
    share_weight: float = 1.0
    region_weight: float = 1.0
    threads: int = 2

    @property
    def epochs(self) -> int:
        """Over all stages."""
        return sum(stage.epochs for stage in self.stages)

    def stage_of(self, epoch: int) -> Stage:
        """The stage that epoch (from 0) belongs to."""
        for stage in self.stages:
            if epoch < stage.epochs:
                return stage
            epoch -= stage.epochs
        raise ValueError(f"epoch {epoch} lies beyond the last stage")


@dataclass(slots=True)
class Learner:
    """What changes while training goes on."""

    network: RRCNN
    optimiser: torch.optim.Optimizer
    history: list[dict[str, Any]] = field(default_factory=list)

    @property
    def epoch(self) -> int:
        """The next one to run."""
        return len(self.history)


def train(run: TrainingRun, say: Callable[[str], None] = print) -> Path:
    """Train, or go on training, and return the last checkpoint.

    say: told one line an epoch: losses, validation AUC, minutes.
    """
    torch.set_num_threads(run.threads)
    training, validation = load_split(run.cohort, "train"), load_split(run.cohort, "validation")
    return train_on(run, training, validation, say)


def train_on(
    run: TrainingRun, training: Cases, validation: Cases, say: Callable[[str], None] = print
) -> Path:
    """`train` on cases at hand."""
    run.out_dir.mkdir(parents=True, exist_ok=True)
    learner = start(run)
    data_hash = training.data_hash
    while learner.epoch < run.epochs:
        started = time.monotonic()
        losses = train_epoch(learner, run, training)
        probabilities = predict(learner.network, validation, run.stage_of(learner.epoch))
        learner.history.append(
            {
                "epoch": learner.epoch,
                **losses,
                "validation_auc": auc(validation.positive_N, probabilities),
                "minutes": round((time.monotonic() - started) / 60.0, 2),
            }
        )
        save(learner, run, data_hash)
        say(json.dumps(learner.history[-1]))
    return checkpoint_path(run)


def start(run: TrainingRun) -> Learner:
    """A learner with fresh weights, or the one that the run's checkpoint holds."""
    seed_everything(run.seed, 0)
    network = RRCNN().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(network.parameters(), lr=run.learning_rate, weight_decay=run.weight_decay)
    learner = Learner(network, optimiser)
    if checkpoint_path(run).exists():
        saved = torch.load(checkpoint_path(run), weights_only=True)
        network.load_state_dict(saved["network"])
        optimiser.load_state_dict(saved["optimiser"])
        learner.history = saved["history"]
    return learner


def train_epoch(learner: Learner, run: TrainingRun, cases: Cases) -> dict[str, float]:
    """One pass over the cases; mean of each loss."""
    epoch, stage = learner.epoch, run.stage_of(learner.epoch)
    seed_everything(run.seed, epoch + 1)
    generator = torch.Generator().manual_seed(run.seed * 1000 + epoch)
    order = torch.randperm(len(cases), generator=generator).numpy()
    batches = [order[i : i + run.batch] for i in range(0, len(order), run.batch)]
    learner.network.train()
    totals = np.zeros(3)
    for step, chosen in enumerate(batches):
        set_learning_rate(learner.optimiser, run, (epoch + step / len(batches)) / run.epochs)
        slices = pick_slices(stage, generator)
        x_NZYX = augment(as_tensor(cases, chosen, slices), stage.size, generator)
        losses = loss_terms(learner.network(x_NZYX), cases, chosen, slices, run.label_smoothing)
        learner.optimiser.zero_grad(set_to_none=True)
        (losses[0] + run.share_weight * losses[1] + run.region_weight * losses[2]).backward()
        torch.nn.utils.clip_grad_norm_(learner.network.parameters(), 5.0)
        learner.optimiser.step()
        totals += np.array([float(loss.detach()) for loss in losses]) * len(chosen) / len(order)
    return dict(zip(("answer", "share", "regions"), totals.round(4).tolist(), strict=True))


def loss_terms(
    prediction: Prediction, cases: Cases, chosen: np.ndarray, slices: slice, smoothing: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Losses of the answer, of the infarcted share a slice, and of the ten regions."""
    positive = torch.from_numpy(cases.positive_N[chosen])
    share = torch.from_numpy(cases.lesion_share_NZ[chosen, slices]) * SHARE_SCALE
    regions = torch.from_numpy(region_targets(cases.coverage_NR[chosen]))
    return (
        functional.cross_entropy(prediction.logits_N2, positive, label_smoothing=smoothing),
        functional.smooth_l1_loss(prediction.share_NZ, share, beta=0.3) * 3.0,
        functional.binary_cross_entropy_with_logits(prediction.region_logits_N10, regions),
    )


@torch.no_grad()
def predict(network: RRCNN, cases: Cases, stage: Stage, batch: int = 20) -> np.ndarray:
    """P(ASPECTS 1-6) of each case, before calibration, on slices as the stage shows them."""
    margins = logits(network, cases, stage, batch)
    return 1.0 / (1.0 + np.exp(margins[:, 0] - margins[:, 1]))


@torch.no_grad()
def logits(network: RRCNN, cases: Cases, stage: Stage, batch: int = 20) -> np.ndarray:
    """(N, 2) in class order."""
    network.eval()
    slices = slice(stage.stride // 2, None, stage.stride)
    rows = []
    for first in range(0, len(cases), batch):
        chosen = np.arange(first, min(first + batch, len(cases)))
        x_NZYX = shrink(as_tensor(cases, chosen, slices), stage.size)
        rows.append(network(x_NZYX).logits_N2.numpy())
    return np.concatenate(rows)


def pick_slices(stage: Stage, generator: torch.Generator) -> slice:
    """Every stride-th slice from a random first one."""
    return slice(int(torch.randint(stage.stride, (1,), generator=generator)), None, stage.stride)


def as_tensor(cases: Cases, chosen: np.ndarray, slices: slice) -> Tensor:
    """(N, Z, Y, X) float, 0..255."""
    return torch.from_numpy(cases.input_NZYX[chosen][:, slices].astype(np.float32))


def set_learning_rate(optimiser: torch.optim.Optimizer, run: TrainingRun, progress: float) -> None:
    """Cosine from the first to the last rate, after a short rise over the first 2 per cent."""
    rate = run.learning_rate
    if run.schedule == "cosine":
        span = run.learning_rate - run.last_learning_rate
        rate = run.last_learning_rate + span * 0.5 * (1.0 + math.cos(math.pi * progress))
        rate *= min(1.0, 0.05 + progress / 0.02)
    for group in optimiser.param_groups:
        group["lr"] = rate


def seed_everything(seed: int, epoch: int) -> None:
    """Dropout draws from torch's own generator; it must not depend on where training was stopped."""
    torch.manual_seed(seed * 100_003 + epoch)


def checkpoint_path(run: TrainingRun) -> Path:
    """The one file a run keeps."""
    return run.out_dir / "checkpoint.pt"


def save(learner: Learner, run: TrainingRun, data_hash: str) -> None:
    """Weights, optimiser, history, the run and its data, in one atomic step."""
    described = {key: str(value) if isinstance(value, Path) else value for key, value in asdict(run).items()}
    partial = checkpoint_path(run).with_suffix(".partial")
    torch.save(
        {
            "network": learner.network.state_dict(),
            "optimiser": learner.optimiser.state_dict(),
            "history": learner.history,
            "run": json.dumps(described),
            "data_hash": data_hash,
        },
        partial,
    )
    partial.rename(checkpoint_path(run))


def load_network(checkpoint: Path) -> tuple[RRCNN, dict[str, Any]]:
    """The trained network, ready to predict, and what was saved beside it."""
    saved = torch.load(checkpoint, weights_only=True)
    network = RRCNN()
    network.load_state_dict(saved["network"])
    network.eval()
    return network, {key: saved[key] for key in ("history", "run", "data_hash")}
