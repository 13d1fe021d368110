import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from triage.phantom.dicom import EPOCH, Identity, to_datasets, write_study

SAME = Identity(
    patient_name="SYNTHETIC^ASPECTS3",
    patient_id="SYN-3-5",
    accession_number="SYN3",
    acquired_at=EPOCH,
    salt="test",
)


@pytest.fixture(scope="session")
def files(study, tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("synthetic")
    paths = []
    for image in to_datasets(study, SAME):
        paths.append(folder / f"{image.InstanceNumber:03d}.dcm")
        image.save_as(paths[-1], enforce_file_format=True)
    return paths


def test_positions_orientation_and_pixels_come_back(study, files):
    slices = study.high_b.voxels_ZYX.shape[0]
    for index, path in enumerate(files[slices:]):
        image = dcmread(path)
        corner = study.high_b.affine_lps @ [0, 0, index, 1]
        assert np.allclose(np.array(image.ImagePositionPatient, float), corner[:3], atol=1e-4)
        row = np.array(image.ImageOrientationPatient[:3], float)
        assert np.allclose(row * float(image.PixelSpacing[1]), study.high_b.affine_lps[:3, 0], atol=1e-6)
        assert np.allclose(image.pixel_array, study.high_b.voxels_ZYX[index], atol=0.51)


def test_half_the_series_is_b0_and_half_the_isotropic_trace(study, files):
    images = [dcmread(path, stop_before_pixels=True) for path in files]
    slices = study.high_b.voxels_ZYX.shape[0]
    assert [image.DiffusionBValue for image in images] == [0.0] * slices + [1000.0] * slices
    directions = [image.DiffusionDirectionality for image in images]
    assert directions == ["NONE"] * slices + ["ISOTROPIC"] * slices
    assert {image.ImagesInAcquisition for image in images} == {2 * slices}
    assert len({image.SeriesInstanceUID for image in images}) == 1
    assert len({image.SOPInstanceUID for image in images}) == 2 * slices


def test_nobody_can_take_it_for_a_patient(files):
    image = dcmread(files[0], stop_before_pixels=True)
    assert "SYNTHETIC" in str(image.PatientName)
    assert "synthetic" in image.SeriesDescription
    assert image.Manufacturer == "SYNTHETIC PHANTOM"


def test_uids_repeat_with_a_salt_and_are_new_without(study):
    assert to_datasets(study, SAME)[0].SOPInstanceUID == to_datasets(study, SAME)[0].SOPInstanceUID
    fresh = Identity(patient_name="A", patient_id="B", accession_number="C", acquired_at=EPOCH, salt="")
    assert to_datasets(study, fresh)[0].SOPInstanceUID != to_datasets(study, fresh)[0].SOPInstanceUID


def test_write_study_writes_the_same_bytes_for_the_same_seed(tmp_path):
    def write(name: str) -> list[bytes]:
        paths = write_study(tmp_path / name, aspects=9, seed=4, heads=None, fresh_uids=False)
        return [path.read_bytes() for path in paths]

    assert write("once") == write("again")


def test_a_folder_without_heads_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="seg_NN"):
        write_study(tmp_path / "out", aspects=9, seed=4, heads=tmp_path)


def test_dciodvfy_finds_no_error(files):
    dciodvfy = shutil.which("dciodvfy")
    if dciodvfy is None:
        message = "dciodvfy (dicom3tools) is not installed"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    for path in (files[0], files[-1]):
        checked = subprocess.run([dciodvfy, str(path)], capture_output=True, text=True, check=False)
        assert "Error" not in checked.stdout + checked.stderr
