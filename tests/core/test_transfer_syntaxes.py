"""The same voxels whatever a PACS made of the files on their way; lossy compression is refused."""

import io
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import (
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from tests.conftest import tool
from triage.core.assembly import read_planes
from triage.core.diffusion import read_header
from triage.core.volume import DwiVolume, Reason, Rejection, VolumePlan, assemble, choose

Transcode = Callable[[Path], Dataset]


def dcmtk(program: str, *options: str) -> Transcode:
    def transcode(path: Path) -> Dataset:
        out = path.parent / "out.dcm"
        subprocess.run([tool(program), *options, str(path), str(out)], check=True, capture_output=True)
        return dcmread(io.BytesIO(out.read_bytes()))

    return transcode


def pydicom_encoder(syntax: UID, **options: Any) -> Transcode:
    def transcode(path: Path) -> Dataset:
        dataset = dcmread(path)
        dataset.compress(syntax, generate_instance_uid=False, **options)
        kept = io.BytesIO()
        dataset.save_as(kept)
        return dcmread(io.BytesIO(kept.getvalue()))

    return transcode


LOSSLESS = {
    "implicit": (ImplicitVRLittleEndian, dcmtk("dcmconv", "+ti")),
    "implicit, lengths undefined": (ImplicitVRLittleEndian, dcmtk("dcmconv", "+ti", "-e")),
    "big endian": (ExplicitVRBigEndian, dcmtk("dcmconv", "+tb")),
    "deflated": (DeflatedExplicitVRLittleEndian, dcmtk("dcmconv", "+td")),
    "RLE": (RLELossless, dcmtk("dcmcrle")),
    "JPEG lossless": (JPEGLosslessSV1, dcmtk("dcmcjpeg", "+e1")),
    "JPEG lossless, any predictor": (JPEGLossless, dcmtk("dcmcjpeg", "+el")),
    "JPEG-LS": (JPEGLSLossless, dcmtk("dcmcjpls", "+el")),
    "JPEG 2000": (JPEG2000Lossless, pydicom_encoder(JPEG2000Lossless)),
}
LOSSY = {
    "JPEG baseline": (JPEGBaseline8Bit, dcmtk("dcmcjpeg", "+eb", "+un")),
    "JPEG extended": (JPEGExtended12Bit, dcmtk("dcmcjpeg", "+ee", "+un")),
    "JPEG-LS near lossless": (JPEGLSNearLossless, dcmtk("dcmcjpls", "+en", "+un")),
    "JPEG 2000 lossy": (JPEG2000, pydicom_encoder(JPEG2000, j2k_cr=[20])),
}


def sent_through(transcode: Transcode, path: Path, tmp_path: Path) -> Dataset:
    sent = tmp_path / "in.dcm"
    sent.write_bytes(path.read_bytes())
    return transcode(sent)


def through(transcode: Transcode, folder: Path, tmp_path: Path) -> dict[str, Dataset]:
    """The case's data sets after the journey, by SOP Instance UID."""
    arrived = {}
    for path in sorted(folder.iterdir()):
        dataset = sent_through(transcode, path, tmp_path)
        arrived[str(dataset.SOPInstanceUID)] = dataset
    return arrived


def planned(datasets: dict[str, Dataset]) -> VolumePlan:
    plan = choose([read_header(dataset) for dataset in datasets.values()])
    assert isinstance(plan, VolumePlan), plan
    return plan


def assembled(datasets: dict[str, Dataset]) -> DwiVolume:
    volume = assemble(planned(datasets), datasets)
    assert isinstance(volume, DwiVolume), volume
    return volume


@pytest.mark.parametrize("case_name", ["siemens-e11-mosaic", "uih-umr770"])
@pytest.mark.parametrize("way", LOSSLESS)
def test_the_same_voxels_come_out_of_every_lossless_transfer_syntax(way, case_name, case, tmp_path):
    syntax, transcode = LOSSLESS[way]
    original: dict[str, Dataset] = {}
    for path in sorted(case(case_name).iterdir()):
        dataset = dcmread(path)
        original[str(dataset.SOPInstanceUID)] = dataset
    arrived = through(transcode, case(case_name), tmp_path)
    assert {dataset.file_meta.TransferSyntaxUID for dataset in arrived.values()} == {syntax}
    assert {uid: read_header(d) for uid, d in arrived.items()} == {
        uid: read_header(d) for uid, d in original.items()
    }
    expected, volume = assembled(original), assembled(arrived)
    np.testing.assert_array_equal(volume.voxels_ZYX, expected.voxels_ZYX)
    np.testing.assert_array_equal(volume.affine_lps, expected.affine_lps)


@pytest.mark.parametrize("case_name", ["philips-enhanced-achieva", "siemens-xa60-enhanced-b1000"])
@pytest.mark.parametrize("way", LOSSLESS)
def test_enhanced_frames_survive_every_lossless_transfer_syntax(way, case_name, case, tmp_path):
    path = sorted(case(case_name).iterdir())[0]
    original, arrived = dcmread(path), sent_through(LOSSLESS[way][1], path, tmp_path)
    header = read_header(original)
    assert read_header(arrived) == header
    some = header.frames[:: max(1, len(header.frames) // 5)]
    for sent, got in zip(read_planes(original, some), read_planes(arrived, some), strict=True):
        np.testing.assert_array_equal(got, sent)


@pytest.mark.parametrize(
    "case_name", ["philips-achieva-2008-classic", "ge-mr29-pioneer", "canon-v60-classic"]
)
def test_classic_headers_survive_implicit_vr(case_name, case, tmp_path):
    for path in sorted(case(case_name).iterdir())[::12]:
        arrived = sent_through(LOSSLESS["implicit"][1], path, tmp_path)
        assert read_header(arrived) == read_header(dcmread(path))


@pytest.mark.parametrize("way", LOSSY)
def test_lossy_compression_is_refused_with_its_reason(way, case, tmp_path):
    syntax, transcode = LOSSY[way]
    arrived = through(transcode, case("siemens-e11-mosaic"), tmp_path)
    assert {dataset.file_meta.TransferSyntaxUID for dataset in arrived.values()} == {syntax}
    rejection = choose([read_header(dataset) for dataset in arrived.values()])
    assert isinstance(rejection, Rejection)
    assert rejection.reason is Reason.LOSSY
    assert rejection.detail == (
        "b=1000: 6 of 6 images went through a lossy compression; send them uncompressed or lossless"
    )


def test_pixels_that_were_lossy_before_are_refused_too(case):
    datasets = [dcmread(path) for path in sorted(case("ge-mr29-pioneer").iterdir())]
    for dataset in datasets:
        dataset.LossyImageCompression = "01"
    rejection = choose([read_header(dataset) for dataset in datasets])
    assert isinstance(rejection, Rejection)
    assert rejection.reason is Reason.LOSSY


@pytest.mark.parametrize(
    ("syntax", "stated", "is_lossy"),
    [
        (JPEG2000, "00", False),
        (JPEG2000, "", True),
        (JPEG2000, "01", True),
        (HTJ2KLossless, "", False),
        (ImplicitVRLittleEndian, "", False),
        (ImplicitVRLittleEndian, "01", True),
        (UID("1.2.3.4"), "", False),
        (UID("1.2.840.10008.5.1.4.1.1.4"), "", False),
        (None, "01", True),
        (None, "", False),
    ],
)
def test_lossy_is_what_the_syntax_or_the_header_says(syntax, stated, is_lossy, case):
    dataset = dcmread(next(case("ge-mr29-pioneer").iterdir()), stop_before_pixels=True)
    dataset.LossyImageCompression = stated
    if syntax is None:
        del dataset.file_meta
    else:
        dataset.file_meta.TransferSyntaxUID = syntax
    assert read_header(dataset).is_lossy is is_lossy
