"""What a model bundle promises: models/<name>-<version>/ with model.onnx, spec.json, golden.npz.

metrics.json and CARD.md travel in the same folder; nothing reads them while serving.
"""

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from triage.core.preprocess import PreprocessSettings
from triage.errors import BundleError


class ModelSpec(BaseModel):
    """spec.json: everything needed to use the network as it was trained.

    input_name: float32 (N, slices, size, size), 0..255, as `preprocess` returns it.
    probability_name: output, float32 (N,), calibrated P(DWI-ASPECTS 1-6).
    thresholds: named operating points on that probability, chosen on validation data only.
    training_data: one sentence that every surface can show.
    development: true until a site has validated the model on patients.
    sha256: of model.onnx.
    golden_tolerance: largest accepted difference from golden.npz's probability.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z0-9_]+$")
    version: str = Field(pattern=r"^\d+\.\d+\.\d+$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    input_name: str
    probability_name: str
    thresholds: dict[str, Annotated[float, Field(ge=0, le=1)]] = Field(min_length=1)
    default_threshold: str
    preprocessing: PreprocessSettings
    training_data: str = Field(min_length=1)
    development: bool
    golden_tolerance: float = Field(1e-3, gt=0)

    @field_validator("default_threshold")
    @classmethod
    def _is_a_threshold(cls, value: str, info: ValidationInfo) -> str:
        known = sorted(info.data.get("thresholds", {value: 0.0}))
        if value not in known:
            raise ValueError(f"{value!r} is not one of {known}")
        return value

    @property
    def threshold(self) -> float:
        """The default operating point."""
        return self.thresholds[self.default_threshold]

    @property
    def status(self) -> str:
        """One line about what the weights are, for every surface that shows a result."""
        standing = "Development weights" if self.development else "Released weights"
        return f"{standing}: {self.training_data}"


def parse_spec(text: str, folder: Path) -> ModelSpec:
    """The spec of a bundle, checked. Raises BundleError naming the key that is wrong."""
    try:
        return ModelSpec.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "spec.json"
        expectation = first["msg"].removeprefix("Value error, ")
        raise BundleError(f"{folder.name}/spec.json: {key}: {expectation}") from error
