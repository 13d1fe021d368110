import numpy as np
import pytest
import torch

from triage.lab.data import Cases


@pytest.fixture(autouse=True)
def two_threads():
    torch.set_num_threads(2)


@pytest.fixture
def cases() -> Cases:
    """Four studies of two slices: noise, with a bright square where the answer is yes."""
    rng = np.random.default_rng(0)
    aspects = np.array([3, 9, 6, 7], np.int8)
    input_NZYX = rng.integers(60, 90, (4, 2, 64, 64)).astype(np.uint8)
    input_NZYX[aspects <= 6, :, 16:48, 16:48] = 250
    return Cases(
        input_NZYX=input_NZYX,
        aspects_N=aspects,
        lesion_share_NZ=np.repeat((aspects <= 6)[:, None] * np.float32(0.25), 2, axis=1),
        coverage_NR=np.repeat((aspects <= 6)[:, None] * np.float32(0.6), 10, axis=1),
        volume_ml_N=(10.0 - aspects.astype(np.float32)) * 12.0,
        head_N=np.array(["seg_01", "seg_02"] * 2),
        distractors_N=np.array([""] * 4),
    )
