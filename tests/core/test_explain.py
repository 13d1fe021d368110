"""What `triage explain` says of a folder: true, clear, without a patient, and whatever the files hold."""

import os
import shutil

import pytest
from pydicom import dcmread

from triage.cli import main
from triage.config import BValueRule, DicomSettings
from triage.explain import explain_folder

SETTINGS = DicomSettings()


def explained(folder, settings=SETTINGS, **how) -> str:
    return "\n".join(explain_folder(folder, settings, **how))


def test_a_directional_series_is_told_from_source_to_verdict(case):
    text = explained(case("ge-mr29-pioneer"))
    assert text.splitlines() == [
        "36 files: 36 DICOM instances in 1 series",
        "",
        "Series 1 (SeriesNumber 4)",
        "  objects  36 x MR Image Storage",
        "  encoding Explicit VR Little Endian",
        "  images   9 b=0",
        "           27 single direction",
        "  geometry 36 images of 256 x 256, axial",
        "  b-values 0 in 9 images, from GE (0043,1039)",
        "           1000 in 27 images, from (0018,9087) DiffusionBValue",
        "  when     after 5 s without another image (b=1000: 9 of 9 positions, 3 of 6 directions)",
        "  judged   YES: b=1000, the geometric mean of 3 directions, 9 slices 3.00 mm apart, pixels 1.02 x"
        " 1.02 mm",
    ]


@pytest.mark.parametrize(
    ("case_name", "said"),
    [
        ("philips-achieva-2008-classic", "YES: b=1000, the scanner's trace images, 60 slices"),
        ("philips-achieva-2008-classic", "when     at once (b=1000: 60 of 60 positions)"),
        ("philips-achieva-2008-classic", "1000 in 240 images, from Philips (2001,1003)"),
        ("uih-umr770", "929.75 in 320 images, from UIH (0065,1009)"),
        ("siemens-xa60-enhanced-b1000", "NO, NOT_AXIAL: b=1000: slices are 90"),
        ("siemens-xa60-enhanced-b1000", "70 images of 64 x 64, coronal"),
        ("siemens-xa30-enhanced-derived", "no, and nobody is told: derived maps only"),
        ("siemens-xa30-enhanced-derived", "39 computed map"),
        ("mixed-philips-nonimage", "no, and nobody is told: no MR images"),
        ("siemens-classic2d-skyra", "NO, INCOMPLETE: b=1000: 4 of 40 positions"),
        ("canon-v60-classic", "NO, NO_B1000: found b=0, 1500; none within 800 to 1200"),
    ],
)
def test_what_is_found_is_said(case_name, said, case):
    assert said in explained(case(case_name))


def test_junk_beside_the_series_is_counted_and_does_no_harm(case, tmp_path):
    files = sorted(case("ge-mr29-pioneer").iterdir())
    for number, path in enumerate(files[:4]):
        shutil.copy(path, tmp_path / f"{number}.dcm")
    whole = files[4].read_bytes()
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "note.txt").write_text("not DICOM, but long enough to look at: " * 20)
    (tmp_path / "cut-in-header").write_bytes(whole[:900])
    (tmp_path / "cut-in-pixels").write_bytes(whole[:-70000])
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "large").write_bytes(whole)
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    limited = DicomSettings(series_limit_bytes=len(whole) - 1)
    text = explained(tmp_path, limited)
    assert "1 left out: no DICOM file: too short" in text
    assert "1 left out: no DICOM file: the DICM prefix is missing" in text
    assert "left out: file is larger than 0 MiB" in text
    assert "DICOM instances in 1 series" in explained(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_counted(tmp_path):
    (tmp_path / "secret").write_bytes(b"x")
    (tmp_path / "secret").chmod(0)
    assert "1 left out: Permission denied" in explained(tmp_path)


def test_no_text_that_somebody_typed_is_shown(case, tmp_path):
    for number, path in enumerate(sorted(case("ge-mr29-pioneer").iterdir())):
        dataset = dcmread(path)
        dataset.PatientName, dataset.PatientID = "Secret^Name", "SECRET-1"
        dataset.SeriesDescription = dataset.ProtocolName = dataset.StudyDescription = "dwi SECRET"
        dataset.ImageComments = "SECRET"
        dataset.save_as(tmp_path / f"{number}.dcm")
    text = explained(tmp_path)
    assert "judged   YES" in text
    assert "secret" not in text.lower()


def test_pixels_that_cannot_be_read_make_the_verdict(case, tmp_path):
    for number, path in enumerate(sorted(case("ge-mr29-pioneer").iterdir())):
        dataset = dcmread(path)
        if number == 20:
            dataset.PixelData = dataset.PixelData[:-2000]
        dataset.save_as(tmp_path / f"{number}.dcm")
    assert "NO, UNREADABLE: PixelData holds" in explained(tmp_path)


def test_a_disagreement_is_told(case, tmp_path):
    for number, path in enumerate(sorted(case("ge-mr29-pioneer").iterdir())):
        dataset = dcmread(path)
        if "DiffusionBValue" in dataset:
            dataset.DiffusionBValue = 900
        dataset.save_as(tmp_path / f"{number}.dcm")
    assert "note     b-values disagree in 27 images" in explained(tmp_path)


def test_the_operators_rule_is_applied_for_the_station_asked_about(case, tmp_path):
    for number, path in enumerate(sorted(case("ge-mr29-pioneer").iterdir())):
        dataset = dcmread(path)
        weighted = "DiffusionBValue" in dataset
        dataset.remove_private_tags()
        if weighted:
            del dataset.DiffusionBValue
            dataset.save_as(tmp_path / f"{number}.dcm")
    rule = BValueRule(calling_ae="MR1", series_description="*", b_value=1000)
    settings = DicomSettings(b_value_rules=(rule,))
    assert "none that we can read in 27 images" in explained(tmp_path, settings)
    text = explained(tmp_path, settings, calling_ae="MR1")
    assert "1000 in 27 images, from dicom.b_value_rules in the configuration" in text


def test_the_command_prints_it_and_refuses_what_is_no_folder(case, tmp_path, capsys):
    assert main(["explain", str(case("mixed-philips-nonimage"))]) == 0
    assert "2 files: 2 DICOM instances in 2 series" in capsys.readouterr().out
    assert main(["explain", str(tmp_path / "nowhere")]) == 1
    assert "is no folder" in capsys.readouterr().err
