"""ONNX Runtime: a bundle's network, checked, warm, array in and probability out."""

import ctypes
import hashlib
import logging
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import onnxruntime

from triage.core.bundle import ModelSpec, parse_spec
from triage.core.preprocess import preprocess
from triage.core.volume import DwiVolume, VolumeKind, Voxels
from triage.errors import BundleError, origin

_log = logging.getLogger(__name__)

Device = Literal["auto", "cpu", "cuda"]

# What the CUDA provider is linked against. Asked for without them, ONNX Runtime prints errors.
_CUDA_LIBRARIES = ("libcuda.so.1", "libcudart.so.12", "libcublas.so.12", "libcudnn.so.9")


@dataclass(slots=True)
class Model:
    """A network that has answered its golden case and is warm. Open it with `open_model`.

    failure: why it is not to be believed any more; empty while it answers its golden case.
    """

    spec: ModelSpec
    session: onnxruntime.InferenceSession
    folder: Path
    failure: str = ""

    @property
    def provider(self) -> str:
        """The execution provider in use, such as CUDAExecutionProvider."""
        return str(self.session.get_providers()[0])

    def probability(self, input_ZYX: Voxels) -> float:
        """Calibrated P(DWI-ASPECTS 1-6) for one preprocessed volume, 0..1.

        Raises ValueError where the network gives no finite number, or has failed its golden case.
        """
        if self.failure:
            raise ValueError(self.failure)
        return self._answer(input_ZYX)

    def check(self) -> None:
        """Ask the golden case again; after a failure nothing is answered until it succeeds."""
        try:
            check_golden(self)
        except Exception as error:  # noqa: BLE001 - whatever it is, the network is not to be believed
            self.failure = f"golden case failed: {origin(error)}"
            _log.error("model_failed reason=%s", origin(error))
        else:
            self.failure = ""

    def _answer(self, input_ZYX: Voxels) -> float:
        given = {self.spec.input_name: input_ZYX[None]}
        try:
            (answer_N,) = self.session.run([self.spec.probability_name], given)
        except Exception as error:
            # ONNX Runtime's own exceptions share no base but this.
            raise RuntimeError(f"the network failed: {type(error).__name__}") from error
        probability = float(np.ravel(answer_N)[0])
        if not np.isfinite(probability):
            raise ValueError(f"the network answered {probability}")
        return min(max(probability, 0.0), 1.0)


def open_model(folder: Path, device: Device, threads: int) -> Model:
    """The bundle in a folder, after hash, spec and golden case have been checked.

    threads: of one inference on the CPU.
    Raises BundleError naming what does not hold.
    """
    spec = read_spec(folder)
    content = _read(folder / "model.onnx")
    sha256 = hashlib.sha256(content).hexdigest()
    if sha256 != spec.sha256:
        raise BundleError(f"{folder.name}/model.onnx has SHA-256 {sha256}, spec.json says {spec.sha256}")
    model = Model(spec, _session(content, device, threads, folder.name), folder)
    difference = check_golden(model)
    _log.info(
        "model_ready name=%s version=%s provider=%s golden_difference=%.1e",
        spec.name, spec.version, model.provider, difference,
    )  # fmt: skip
    return model


def read_spec(folder: Path) -> ModelSpec:
    """The spec of the bundle in a folder. Raises BundleError."""
    return parse_spec(_read(folder / "spec.json").decode("utf-8"), folder)


def newest_bundle(models: Path) -> Path:
    """The bundle with the highest version in a folder of bundles. Raises BundleError if there is none."""
    found = {folder.parent: read_spec(folder.parent) for folder in models.glob("*/spec.json")}
    if not found:
        raise BundleError(f"no model bundle in {models}; set model.path")
    return max(found, key=lambda folder: [int(part) for part in found[folder].version.split(".")])


def check_golden(model: Model) -> float:
    """How far the whole path, volume to probability, is from what training recorded.

    golden.npz: voxels_ZYX, affine_lps, b_value, probability. Raises BundleError beyond the tolerance.
    """
    folder = model.folder
    path = folder / "golden.npz"
    try:
        with np.load(path) as golden:
            volume = DwiVolume(
                voxels_ZYX=np.asarray(golden["voxels_ZYX"], np.float32),
                affine_lps=np.asarray(golden["affine_lps"], np.float64),
                b_value=float(golden["b_value"]),
                kind=VolumeKind.TRACE,
                source_sop_instance_uids=(),
            )
            expected = float(golden["probability"])
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise BundleError(f"{folder.name}/golden.npz cannot be used: {error}") from error
    given = model._answer(preprocess(volume, model.spec.preprocessing).input_ZYX)
    difference = abs(given - expected)
    if not difference <= model.spec.golden_tolerance:
        raise BundleError(
            f"{folder.name}: golden case gives {given:.6f}, expected {expected:.6f}"
            f" within {model.spec.golden_tolerance:g}"
        )
    return difference


def _session(content: bytes, device: Device, threads: int, name: str) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Spinning threads would take the receiver's processor while nothing is to be computed.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(content, options, providers=_providers(device))
    except Exception as error:
        raise BundleError(f"{name}/model.onnx cannot be loaded: {error}") from error


def _providers(device: Device) -> list[str]:
    cuda = "CUDAExecutionProvider"
    usable = cuda in onnxruntime.get_available_providers() and all(map(_can_load, _CUDA_LIBRARIES))
    if device == "cuda" and not usable:
        raise BundleError(
            f"model.device is cuda, but one of {', '.join(_CUDA_LIBRARIES)} cannot be loaded;"
            " install them, or set model.device to auto"
        )
    return [cuda, "CPUExecutionProvider"] if usable and device != "cpu" else ["CPUExecutionProvider"]


def _can_load(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BundleError(f"{path.parent.name}/{path.name} cannot be read: {error.strerror}") from error
