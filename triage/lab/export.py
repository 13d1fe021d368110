"""A trained network as a model bundle: model.onnx, spec.json, metrics.json, golden.npz, CARD.md.

The graph takes what `preprocess` returns and gives a calibrated probability; scaling, temperature and
Grad-CAM are inside, so the service needs no torch. Grad-CAM's gradient is written out by hand (dense
layers, LSTM and max-pool), because an exported graph cannot differentiate itself.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple, cast

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn
from torch.nn import functional

from triage.core.bundle import ModelSpec
from triage.core.preprocess import PreprocessSettings, preprocess
from triage.core.volume import DwiVolume, VolumeKind
from triage.lab.card import card
from triage.lab.data import load_split
from triage.lab.evaluate import HALF, Evaluation, evaluate_on
from triage.lab.models.rrcnn import ASPECTS_1_TO_6, ASPECTS_7_TO_10, HIDDEN, RRCNN, Block
from triage.lab.settle import settle
from triage.lab.train import Stage, load_network
from triage.phantom.acquisition import Protocol
from triage.phantom.heads import packaged_head
from triage.phantom.study import draw_study
from triage.phantom.tissue import Timing

PARITY: Final = 1e-5
OPSET: Final = 17
OUTPUTS: Final = ("probability", "logits", "attention")
GOLDEN_ASPECTS: Final = 4
GOLDEN_PROTOCOL: Final = Protocol(
    timing=Timing(tr_ms=6000.0, te_ms=80.0, field_strength_t=1.5),
    b_value=1000.0,
    fov_mm=240.0,
    matrix=96,
    recon_matrix=96,
    slice_thickness_mm=5.0,
    gap_mm=0.5,
    bandwidth_hz_px=25.0,
    phase_polarity=1,
    snr=25.0,
    ghost=0.01,
    tilt_deg=(4.0, 1.0, -2.0),
    stack_above_mm=6.0,
    stack_below_mm=6.0,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportRequest:
    """Which checkpoint becomes which bundle.

    settle_studies: training studies for fresh batch-norm statistics; 0 leaves them as trained.
    """

    checkpoint: Path
    cohort: Path
    models: Path
    version: str
    settle_studies: int = 96


class Step(NamedTuple):
    """One LSTM step as the backward pass needs it; every entry (N, HIDDEN)."""

    enter: Tensor
    forget: Tensor
    candidate: Tensor
    leave: Tensor
    cell_before: Tensor
    cell_tanh: Tensor


class Served(nn.Module):
    """(N, 20, 80, 80) in 0..255 -> probability (N), logits (N, 2), attention (N, 20, 5, 5).

    probability: calibrated P(DWI-ASPECTS 1-6).
    attention: Grad-CAM of the last block's maps for that answer, >= 0, caudal to cranial.
    """

    def __init__(self, network: RRCNN, temperature: float, slices: int) -> None:
        super().__init__()
        self.network = network
        self.slices = slices
        self.weight_in, self.weight_hidden, bias_in, bias_hidden = network.lstm.parameters()
        self.bias = nn.Buffer((bias_in + bias_hidden).detach().clone())
        self.temperature = temperature
        self.eval()

    def forward(self, x_NZYX: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        maps, pooled = self.maps_of(x_NZYX)
        n = x_NZYX.shape[0]
        features_NZF = pooled.flatten(1).view(n, self.slices, -1)
        last_NH, steps = self._read(features_NZF)
        before_NH = self.network.dense(last_NH)
        logits_N2 = self.network.answer(functional.relu(before_NH))
        margin_N = logits_N2[:, ASPECTS_1_TO_6] - logits_N2[:, ASPECTS_7_TO_10]
        gradient_NZF = self._gradient(before_NH, steps)
        return (
            torch.sigmoid(margin_N / self.temperature),
            logits_N2,
            self._attention(maps, pooled, gradient_NZF),
        )

    def maps_of(self, x_NZYX: Tensor) -> tuple[Tensor, Tensor]:
        h = self.network.slices(x_NZYX)
        for block in self.network.blocks[:-1]:
            h = block(h)
        last = cast(Block, self.network.blocks[-1])
        maps = last.maps(h)
        return maps, functional.max_pool2d(maps, 2)

    def _read(self, features_NZF: Tensor) -> tuple[Tensor, list[Step]]:
        hidden = cell = torch.zeros(features_NZF.shape[0], HIDDEN)
        entering_NZG = features_NZF @ self.weight_in.T + self.bias
        weight_hidden_T = self.weight_hidden.T
        steps = []
        for z in range(self.slices):
            gates = entering_NZG[:, z] + hidden @ weight_hidden_T
            enter, forget, candidate, leave = gates.split(HIDDEN, dim=1)
            enter, forget, leave = torch.sigmoid(enter), torch.sigmoid(forget), torch.sigmoid(leave)
            candidate = torch.tanh(candidate)
            before, cell = cell, forget * cell + enter * candidate
            cell_tanh = torch.tanh(cell)
            hidden = leave * cell_tanh
            steps.append(Step(enter, forget, candidate, leave, before, cell_tanh))
        return hidden, steps

    def _gradient(self, before_NH: Tensor, steps: list[Step]) -> Tensor:
        """d(margin) / d(features), (N, Z, F): back through the dense layers and through time."""
        answer = self.network.answer.weight
        toward = (answer[ASPECTS_1_TO_6] - answer[ASPECTS_7_TO_10])[None] * (before_NH > 0).float()
        d_hidden = toward @ self.network.dense.weight
        d_cell = torch.zeros_like(d_hidden)
        by_slice = []
        for step in reversed(steps):
            d_cell = d_cell + d_hidden * step.leave * (1 - step.cell_tanh * step.cell_tanh)
            d_gates = torch.cat(
                [
                    d_cell * step.candidate * step.enter * (1 - step.enter),
                    d_cell * step.cell_before * step.forget * (1 - step.forget),
                    d_cell * step.enter * (1 - step.candidate * step.candidate),
                    d_hidden * step.cell_tanh * step.leave * (1 - step.leave),
                ],
                dim=1,
            )
            by_slice.append(d_gates @ self.weight_in)
            d_hidden = d_gates @ self.weight_hidden
            d_cell = d_cell * step.forget
        return torch.stack(by_slice[::-1], dim=1)

    def _attention(self, maps: Tensor, pooled: Tensor, gradient_NZF: Tensor) -> Tensor:
        """Max-pool hands a pooled gradient to one pixel: a map's mean gradient is their sum over its area."""
        size = maps.shape[-1]
        weight = gradient_NZF.reshape(-1, *pooled.shape[1:]).sum(dim=(2, 3)) / float(size * size)
        heat = functional.relu((weight[:, :, None, None] * maps).sum(dim=1))
        return heat.view(-1, self.slices, size, size)


def export_bundle(request: ExportRequest) -> Path:
    """Measure, export and check; returns the bundle's folder, written over if it is there.

    Raises ValueError when ONNX Runtime and torch disagree by more than 1e-5.
    """
    network, trained = load_network(request.checkpoint)
    settings = cohort_settings(request.cohort)
    exact = Stage(1, settings.size, 1)
    if request.settle_studies:
        settle(network, load_split(request.cohort, "train"), exact, request.settle_studies)
    evaluation = evaluate_on(
        network, load_split(request.cohort, "validation"), load_split(request.cohort, "test")
    )
    return write_bundle(network, evaluation, trained, settings, request.models / f"rrcnn-{request.version}")


def write_bundle(
    network: RRCNN,
    evaluation: Evaluation,
    trained: dict[str, Any],
    settings: PreprocessSettings,
    folder: Path,
) -> Path:
    """Every file of the bundle."""
    folder.mkdir(parents=True, exist_ok=True)
    served = Served(network.eval(), evaluation.temperature, settings.slices).eval()
    to_onnx(served, settings, folder / "model.onnx")
    difference = check_parity(served, settings, folder / "model.onnx")
    write_golden(folder, settings)
    spec = ModelSpec(
        name="rrcnn",
        version=folder.name.rpartition("-")[2],
        sha256=hashlib.sha256((folder / "model.onnx").read_bytes()).hexdigest(),
        input_name="x",
        probability_name="probability",
        thresholds={name: round(value, 6) for name, value in evaluation.thresholds.items()},
        default_threshold=HALF,
        preprocessing=settings,
        training_data=(
            "trained only on synthetic volumes, not validated on patients;"
            " research software, not a medical device."
        ),
        development=True,
    )
    (folder / "spec.json").write_text(spec.model_dump_json(indent=2) + "\n")
    trained = trained | {"run": without_folders(trained["run"])}
    metrics = {**evaluation.report, "training": trained, "onnx_torch_difference": difference}
    (folder / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n")
    (folder / "CARD.md").write_text(card(spec, evaluation.report, trained))
    return folder


def without_folders(run: str) -> dict[str, Any]:
    """The run as saved, less where it lay on the machine that trained it."""
    described = json.loads(run)
    return {key: value for key, value in described.items() if key not in ("cohort", "out_dir")}


def to_onnx(served: Served, settings: PreprocessSettings, path: Path) -> None:
    """Any number of studies at a time."""
    example = torch.zeros(2, settings.slices, settings.size, settings.size)
    torch.onnx.export(
        served,
        (example,),
        str(path),
        input_names=["x"],
        output_names=list(OUTPUTS),
        dynamic_axes={name: {0: "N"} for name in ("x", *OUTPUTS)},
        opset_version=OPSET,
        # Folding would store the LSTM's weights twice, as they are and transposed.
        do_constant_folding=False,
        dynamo=False,
    )


def check_parity(served: Served, settings: PreprocessSettings, path: Path) -> float:
    """Largest difference of the probability between torch and ONNX Runtime on random studies."""
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 255, (3, settings.slices, settings.size, settings.size)).astype(np.float32)
    with torch.no_grad():
        wanted = served(torch.from_numpy(x))[0].numpy()
    (given,) = open_session(path).run(["probability"], {"x": x})
    difference = float(np.abs(wanted - given).max())
    if not difference <= PARITY:
        raise ValueError(f"{path.name}: probability differs from torch by {difference:.1e}, limit {PARITY:g}")
    return difference


def write_golden(folder: Path, settings: PreprocessSettings) -> None:
    """A study of the packaged head, its network input and the answer: the service's start-up check."""
    rng = np.random.default_rng([2020, 803])
    drawn = draw_study(packaged_head(), GOLDEN_ASPECTS, rng, protocol=GOLDEN_PROTOCOL).high_b
    voxels = np.rint(drawn.voxels_ZYX).astype(np.uint16)
    volume = DwiVolume(
        voxels_ZYX=voxels.astype(np.float32),
        affine_lps=drawn.affine_lps,
        b_value=drawn.b_value,
        kind=VolumeKind.TRACE,
        source_sop_instance_uids=(),
    )
    input_ZYX = preprocess(volume, settings).input_ZYX
    (probability,) = open_session(folder / "model.onnx").run(["probability"], {"x": input_ZYX[None]})
    np.savez_compressed(
        folder / "golden.npz",
        voxels_ZYX=voxels,
        affine_lps=drawn.affine_lps,
        b_value=drawn.b_value,
        input_ZYX=input_ZYX,
        probability=float(probability[0]),
        aspects=GOLDEN_ASPECTS,
    )


def open_session(path: Path) -> onnxruntime.InferenceSession:
    """On the processor, whatever else the machine has."""
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def cohort_settings(cohort: Path) -> PreprocessSettings:
    """The preprocessing that the cohort was built with."""
    return PreprocessSettings.model_validate(json.loads((cohort / "plan.json").read_text())["settings"])
