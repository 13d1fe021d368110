import functools
import io
import os
import shutil
import subprocess
from datetime import datetime, timedelta, timezone
from pathlib import Path

import highdicom
import pydicom
import pytest
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import (
    Comprehensive3DSRStorage,
    EnhancedMRImageStorage,
    EnhancedSRStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    RawDataStorage,
)

import triage
from triage.core.bundle import ModelSpec
from triage.core.finding import Finding
from triage.core.preprocess import PreprocessSettings
from triage.core.report import (
    CATEGORIES,
    CATEGORY,
    DISCLAIMER,
    NOT_ASSESSED,
    REASON,
    REASONS,
    SCHEME,
    as_enhanced_sr,
    build_report,
    from_bytes,
    to_bytes,
)
from triage.core.volume import Reason, Rejection
from triage.errors import HeaderError

CASES = Path(__file__).parents[2].parent / "shared" / "cases"
MODEL = ModelSpec(
    name="rrcnn",
    version="0.1.0",
    sha256="5eed" * 16,
    input_name="volume",
    probability_name="probability",
    thresholds={"balanced": 0.5},
    default_threshold="balanced",
    preprocessing=PreprocessSettings(),
    training_data="trained on synthetic heads, never on patients.",
    development=True,
    golden_tolerance=1e-3,
)
LOW = Finding(0.8734561251423, 0.5)
HIGH = Finding(0.0625, 0.4)
NO_B1000 = Rejection(Reason.NO_B1000, "b-values 0 and 500 found, 1000 expected.")
IDENTIFYING = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")
OUTCOMES = [LOW, HIGH, *(Rejection(reason, f"Found {reason.lower()}.") for reason in Reason)]
SEOUL = timezone(timedelta(hours=9))


def mr_headers(count=3, sop_class=MRImageStorage, **changes):
    return [mr_header(number, sop_class, changes) for number in range(1, count + 1)]


def mr_header(number, sop_class, changes):
    header = Dataset()
    header.SOPClassUID = sop_class
    header.SOPInstanceUID = f"1.2.826.0.1.3680043.8.498.1.{number}"
    header.SeriesInstanceUID = "1.2.826.0.1.3680043.8.498.2"
    header.StudyInstanceUID = "1.2.826.0.1.3680043.8.498.3"
    header.SpecificCharacterSet = "ISO_IR 100"
    header.PatientName = "Müller^Jürgen"
    header.PatientID = "4711"
    header.IssuerOfPatientID = "KLINIK"
    header.PatientBirthDate = "19500131"
    header.PatientSex = "M"
    header.PatientAge = "075Y"
    header.StudyDate = "20250102"
    header.StudyTime = "081500"
    header.AccessionNumber = "A1"
    header.StudyID = "S1"
    header.StudyDescription = "Schädel MR"
    header.ReferringPhysicianName = "Arzt^Ä"
    header.Modality = "MR"
    for keyword, value in changes.items():
        setattr(header, keyword, value)
    return header


def report_of(outcome=LOW, evidence=None, **changes):
    arguments = {
        "evidence": mr_headers() if evidence is None else evidence,
        "outcome": outcome,
        "model": MODEL,
        "sop_instance_uid": "1.2.826.0.1.3680043.8.498.10",
        "series_instance_uid": "1.2.826.0.1.3680043.8.498.11",
        "device_uid": "1.2.826.0.1.3680043.8.498.12",
        "created_at": datetime(2025, 1, 2, 8, 30, 15, 250000, tzinfo=SEOUL),
    }
    return build_report(**(arguments | changes))


@functools.cache
def case_headers(name):
    """The first headers of a real series, at most 30: more only repeat themselves."""
    folder = CASES / name / "data"
    if not folder.is_dir():
        if os.environ.get("CI") == "true":
            pytest.fail(f"shared case {name} is missing")
        pytest.skip(f"shared case {name} is not here")
    return [pydicom.dcmread(path, stop_before_pixels=True) for path in sorted(folder.iterdir())[:30]]


def program(name):
    path = shutil.which(name)
    if path is None:
        if os.environ.get("CI") == "true":
            pytest.fail(f"{name} is not installed")
        pytest.skip(f"{name} is not installed")
    return path


def dciodvfy_errors(report, tmp_path):
    path = tmp_path / "report.dcm"
    path.write_bytes(to_bytes(report))
    result = subprocess.run([program("dciodvfy"), path], capture_output=True, check=False)
    output = (result.stdout + result.stderr).decode("latin-1")
    iod = "EnhancedSR" if report.SOPClassUID == EnhancedSRStorage else "Comprehensive3DSR"
    assert iod in output.splitlines()
    return [line for line in output.splitlines() if line.startswith("Error")]


def read_group(report):
    content = highdicom.sr.srread(io.BytesIO(to_bytes(report))).content
    assert isinstance(content, highdicom.sr.MeasurementReport)
    (group,) = content.get_image_measurement_groups()
    return group


def sources_in(group):
    return [image.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for image in group.source_images]


def codes_in(group):
    return {item.name.value: item.value for item in group.get_qualitative_evaluations()}


def texts_in(report, name):
    root = highdicom.sr.srread(io.BytesIO(to_bytes(report))).content[0]
    items = highdicom.sr.utils.find_content_items(root, name=name, recursive=True)
    return [str(item.value) for item in items]


@pytest.mark.parametrize("variant", [lambda report: report, as_enhanced_sr], ids=["3d", "enhanced"])
@pytest.mark.parametrize("outcome", OUTCOMES, ids=lambda outcome: getattr(outcome, "reason", "finding"))
def test_dciodvfy_finds_no_error_in_any_outcome(outcome, variant, tmp_path):
    assert dciodvfy_errors(variant(report_of(outcome)), tmp_path) == []


@pytest.mark.parametrize(
    "name", ["siemens-e11-mosaic", "philips-achieva-2008-classic", "siemens-xa60-enhanced-b1000"]
)
@pytest.mark.parametrize("outcome", [LOW, NO_B1000], ids=["finding", "rejection"])
def test_dciodvfy_finds_no_error_in_reports_on_real_scanners(name, outcome, tmp_path):
    evidence = case_headers(name)
    report = report_of(outcome, evidence)
    assert dciodvfy_errors(report, tmp_path) == []
    assert dciodvfy_errors(as_enhanced_sr(report), tmp_path) == []
    assert sources_in(read_group(report)) == [header.SOPInstanceUID for header in evidence]


def test_dsrdump_reads_the_report(tmp_path):
    path = tmp_path / "report.dcm"
    path.write_bytes(to_bytes(report_of(LOW)))
    command = [program("dsrdump"), "--print-all-codes", path]
    result = subprocess.run(command, capture_output=True, text=True, check=True, encoding="latin-1")
    for line in (
        "Completion Flag     : COMPLETE",
        "Verification Flag   : UNVERIFIED",
        'CODE:(CATEGORY,99TRIAGE,"DWI-ASPECTS category")=(LOW,99TRIAGE,"DWI-ASPECTS 1-6")',
        'NUM:(122157,DCM,"Probability")="0.8734561251423" (1,UCUM,"no units")',
        'CODE:(121058,DCM,"Procedure reported")=(24590-2,LN,"MR Brain")',
        'CODE:(363698007,SCT,"Finding Site")=(12738006,SCT,"Brain")',
    ):
        assert line in result.stdout
    assert result.stderr == ""


@pytest.mark.parametrize(("finding", "value"), [(LOW, "LOW"), (HIGH, "HIGH")])
def test_finding_states_its_category_probability_and_sources(finding, value):
    group = read_group(report_of(finding))
    assert codes_in(group) == {CATEGORY.value: CATEGORIES[finding.category]}
    assert CATEGORIES[finding.category].value == value
    (probability,) = group.get_measurements()
    assert (probability.name, probability.unit) == (codes.DCM.Probability, codes.UCUM.NoUnits)
    assert probability[0].MeasuredValueSequence[0].FloatingPointValue == finding.probability
    assert sources_in(group) == [header.SOPInstanceUID for header in mr_headers()]


@pytest.mark.parametrize("reason", Reason)
def test_rejection_states_its_reason_and_no_probability(reason):
    group = read_group(report_of(Rejection(reason, "Why.")))
    assert codes_in(group) == {CATEGORY.value: NOT_ASSESSED, REASON.value: REASONS[reason]}
    assert group.get_measurements() == []
    assert len(group.source_images) == 3


@pytest.mark.parametrize("reason", Reason)
def test_rejection_never_reads_as_a_negative_or_a_normal_result(reason):
    report = report_of(Rejection(reason, "Slice gap 9.8 mm at position 31, expected 5.0."))
    text = str(report)
    assert "7-10" not in text
    assert "1-6" not in text
    assert "normal" not in text.lower().replace("abnormal", "")
    assert "negative" not in text.lower()
    assert texts_in(report, codes.DCM.Comment)[1] == (
        "Not assessed: Slice gap 9.8 mm at position 31, expected 5.0."
        " An infarct is neither suspected nor ruled out."
    )


def test_every_reason_has_a_code_that_fits_its_dicom_field():
    for concept in (*REASONS.values(), *CATEGORIES.values(), NOT_ASSESSED, CATEGORY, REASON):
        assert len(concept.value) <= 16
        assert len(concept.meaning) <= 64
        assert concept.scheme_designator == SCHEME
    assert set(REASONS) == set(Reason)


@pytest.mark.parametrize("outcome", [LOW, HIGH, NO_B1000])
def test_every_report_says_what_it_is_and_which_model_made_it(outcome):
    report = report_of(outcome)
    assert texts_in(report, codes.DCM.Comment)[0] == f"{DISCLAIMER} {MODEL.status}"
    assert texts_in(report, codes.DCM.AlgorithmName) == ["rrcnn"]
    assert texts_in(report, codes.DCM.AlgorithmVersion) == [f"0.1.0, SHA-256 {MODEL.sha256}"]
    assert MODEL.status in texts_in(report, codes.DCM.AlgorithmParameters)
    assert (report.CompletionFlag, report.VerificationFlag) == ("COMPLETE", "UNVERIFIED")
    (scheme,) = report.CodingSchemeIdentificationSequence
    assert scheme.CodingSchemeDesignator == SCHEME


def test_threshold_is_the_one_the_finding_was_made_with():
    parameters = texts_in(report_of(HIGH), codes.DCM.AlgorithmParameters)
    assert parameters[0] == "DWI-ASPECTS 1-6 at or above probability 0.4"


def test_report_joins_the_study_and_the_patient_of_its_evidence():
    evidence = mr_headers()
    report = from_bytes(to_bytes(report_of(evidence=evidence)))
    for keyword in (
        "StudyInstanceUID", "PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex",
        "PatientAge", "StudyDate", "StudyTime", "AccessionNumber", "StudyID", "StudyDescription",
        "ReferringPhysicianName",
    ):  # fmt: skip
        assert report[keyword].value == evidence[0][keyword].value, keyword
    assert report.SeriesInstanceUID == "1.2.826.0.1.3680043.8.498.11"
    assert report.SOPInstanceUID == "1.2.826.0.1.3680043.8.498.10"
    assert (report.Modality, report.SeriesNumber) == ("SR", 9900)
    assert report.SoftwareVersions == [triage.__version__, "0.1.0"]
    assert report.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian


def test_evidence_is_listed_once_each_with_its_series():
    evidence = mr_headers()
    report = report_of(evidence=[*evidence, evidence[0]])
    (study,) = report.CurrentRequestedProcedureEvidenceSequence
    (series,) = study.ReferencedSeriesSequence
    assert [item.ReferencedSOPInstanceUID for item in series.ReferencedSOPSequence] == [
        header.SOPInstanceUID for header in evidence
    ]
    assert len(read_group(report).source_images) == 3


def test_enhanced_evidence_is_referenced_by_its_own_class():
    group = read_group(report_of(evidence=mr_headers(1, EnhancedMRImageStorage)))
    (image,) = group.source_images
    assert image.ReferencedSOPSequence[0].ReferencedSOPClassUID == EnhancedMRImageStorage


def test_later_report_names_the_one_it_replaces_and_says_so(tmp_path):
    first = report_of(NO_B1000)
    stored = from_bytes(to_bytes(first))
    second = report_of(LOW, sop_instance_uid="1.2.826.0.1.3680043.8.498.20", predecessor=stored)
    (study,) = second.PredecessorDocumentsSequence
    (series,) = study.ReferencedSeriesSequence
    (instance,) = series.ReferencedSOPSequence
    assert (series.SeriesInstanceUID, instance.ReferencedSOPInstanceUID) == (
        first.SeriesInstanceUID,
        first.SOPInstanceUID,
    )
    assert "PredecessorDocumentsSequence" not in first
    assert texts_in(second, codes.DCM.Comment)[-1] == "Replaces an earlier report of this series."
    assert dciodvfy_errors(second, tmp_path) == []
    assert dciodvfy_errors(as_enhanced_sr(second), tmp_path) == []


def test_revision_tracks_the_same_thing_and_another_series_another():
    first, second = report_of(NO_B1000), report_of(LOW, sop_instance_uid="1.2.826.0.1.3680043.8.498.20")
    other = report_of(LOW, mr_headers(SeriesInstanceUID="1.2.826.0.1.3680043.8.498.99"))
    uids = [str(read_group(report).tracking_uid) for report in (first, second, other)]
    assert uids[0] == uids[1]
    assert uids[0] != uids[2]
    assert uids[0].startswith("2.25.")


def test_enhanced_variant_is_the_same_report_in_the_poorer_class():
    report = report_of()
    enhanced = as_enhanced_sr(report)
    assert report.SOPClassUID == Comprehensive3DSRStorage
    assert enhanced.SOPClassUID == enhanced.file_meta.MediaStorageSOPClassUID == EnhancedSRStorage
    assert enhanced.SOPInstanceUID == report.SOPInstanceUID
    enhanced.SOPClassUID = Comprehensive3DSRStorage
    assert enhanced == from_bytes(to_bytes(report))
    assert codes_in(read_group(as_enhanced_sr(report))) == codes_in(read_group(report))


@pytest.mark.parametrize("outcome", [LOW, NO_B1000])
def test_same_arguments_give_the_same_bytes(outcome):
    assert to_bytes(report_of(outcome)) == to_bytes(report_of(outcome))


def test_changing_one_report_changes_no_other():
    expected, report = to_bytes(report_of()), report_of()
    for element in report.iterall():
        if element.keyword == "CodeMeaning":
            element.value = "changed"
    assert to_bytes(report_of()) == expected


def test_bytes_survive_a_round_trip():
    file = to_bytes(report_of())
    assert to_bytes(from_bytes(file)) == file


def test_bytes_that_are_not_dicom_are_refused():
    with pytest.raises(HeaderError, match="not a DICOM file"):
        from_bytes(b"not DICOM")


def test_every_clock_field_is_the_given_moment():
    report = report_of()
    for name in ("InstanceCreation", "Content", "Series"):
        assert (report[f"{name}Date"].value, report[f"{name}Time"].value) == ("20250102", "083015.250000")
    assert {item.ContributionDateTime for item in report.ContributingEquipmentSequence} == {
        "20250102083015.250000"
    }
    assert "TimezoneOffsetFromUTC" not in report


@pytest.mark.parametrize(
    ("offset", "time"), [("+0900", "083015.250000"), ("+0000", "233015.250000"), ("-0330", "200015.250000")]
)
def test_clock_follows_the_zone_that_the_evidence_states(offset, time):
    report = report_of(evidence=mr_headers(TimezoneOffsetFromUTC=offset))
    assert (report.TimezoneOffsetFromUTC, report.ContentTime) == (offset, time)


def test_moment_without_a_zone_is_refused():
    with pytest.raises(ValueError, match="created_at needs a time zone"):
        report_of(created_at=datetime(2025, 1, 2))  # noqa: DTZ001


def test_institution_and_station_are_written_when_given():
    report = report_of(institution_name="Klinikum", station_name="TRIAGE1", series_number=77)
    assert (report.InstitutionName, report.StationName, report.SeriesNumber) == ("Klinikum", "TRIAGE1", 77)
    assert "StationName" not in report_of()


def test_missing_patient_and_study_attributes_are_left_empty(tmp_path):
    bare = []
    for header in mr_headers():
        kept = Dataset()
        for keyword in IDENTIFYING:
            setattr(kept, keyword, header[keyword].value)
        bare.append(kept)
    report = report_of(evidence=bare)
    for keyword in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime",
                    "AccessionNumber", "StudyID", "ReferringPhysicianName"):  # fmt: skip
        assert report[keyword].is_empty, keyword
    assert dciodvfy_errors(report, tmp_path) == []


MALFORMED = {
    "PatientSex": "W",
    "PatientBirthDate": "31.01.1950",
    "PatientAge": "75",
    "StudyDate": "2025-01-02",
    "StudyTime": "8:15",
    "TimezoneOffsetFromUTC": "KST",
}


def odd_headers(**changes):
    """Headers as a careless scanner writes them: through a file, since only reading is lenient."""
    (header,) = mr_headers(1)
    for keyword, value in changes.items():
        vr = pydicom.datadict.dictionary_VR(keyword)
        header[keyword] = pydicom.DataElement(keyword, vr, value, validation_mode=pydicom.config.IGNORE)
    block = header.private_block(0x0029, "ODD VENDOR", create=True)
    block.add_new(0x10, "UN", b"\x00\xff\xfe")
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, header, implicit_vr=True, little_endian=True)
    buffer.seek(0)
    return [pydicom.dcmread(buffer, force=True)]


def test_malformed_attributes_are_left_out_and_private_ones_never_copied(tmp_path):
    report = report_of(evidence=odd_headers(**MALFORMED))
    for keyword in ("PatientSex", "PatientBirthDate", "StudyDate", "StudyTime"):
        assert report[keyword].is_empty, keyword
    assert "PatientAge" not in report
    assert "TimezoneOffsetFromUTC" not in report
    assert not any(element.tag.is_private for element in report)
    assert dciodvfy_errors(report, tmp_path) == []


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("AccessionNumber", "ACC-2025-01-02-0000001"),
        ("PatientID", ["47", "11"]),
        ("StudyInstanceUID", "1.2.826.0.1.3680043.008.5"),
    ],
)
def test_identifiers_against_the_rules_are_repeated_to_the_letter(keyword, value):
    report = report_of(evidence=odd_headers(**{keyword: value}))
    assert report[keyword].value == value


@pytest.mark.parametrize(
    ("terms", "name"),
    [
        (None, "Mueller^Juergen"),
        ("ISO_IR 100", "Müller^Jürgen"),
        ("ISO_IR 192", "Müller^Jürgen=山田^太郎"),
        ("ISO_IR 144", "Люкceмбypг"),
        ("ISO_IR 166", "นามสกุล"),
        ("GB18030", "Wang^XiaoDong=王^小东"),
        ("ISO_IR 13", "ﾔﾏﾀﾞ^ﾀﾛｳ"),
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        (["ISO 2022 IR 13", "ISO 2022 IR 87"], "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう"),
        (["", "ISO 2022 IR 149"], "Hong^Gildong=洪^吉洞=홍^길동"),
    ],
)
def test_name_survives_in_the_character_set_of_the_site(terms, name, tmp_path):
    changes = {"PatientName": name, "StudyDescription": "MR", "ReferringPhysicianName": ""}
    evidence = odd_headers(SpecificCharacterSet=terms, **changes)
    report = from_bytes(to_bytes(report_of(evidence=evidence)))
    assert str(report.PatientName) == str(evidence[0].PatientName) == name
    assert report.get("SpecificCharacterSet") == terms
    if terms != "ISO_IR 13":  # dciodvfy takes half-width katakana for invalid characters.
        assert dciodvfy_errors(report, tmp_path) == []


@pytest.mark.parametrize("terms", [None, "ISO_IR 100", ["", "ISO 2022 IR 87"]])
def test_text_the_sites_character_set_cannot_hold_makes_the_report_utf_8(terms, tmp_path):
    plain = {"PatientName": "Yamada^Tarou", "StudyDescription": "MR", "ReferringPhysicianName": ""}
    evidence = odd_headers(SpecificCharacterSet=terms, **plain)
    rejection = Rejection(Reason.UNEVEN_SPACING, "Gap 9.8 mm ≠ 5.0 mm – expected even spacing ☐.")
    report = from_bytes(to_bytes(report_of(rejection, evidence)))
    assert report.SpecificCharacterSet == "ISO_IR 192"
    assert "≠ 5.0 mm – expected" in texts_in(report, codes.DCM.Comment)[1]
    assert dciodvfy_errors(report, tmp_path) == []


@pytest.mark.parametrize("terms", ["LATIN 9", ["ISO_IR 100", "ISO_IR 144"]])
def test_character_set_outside_the_standard_becomes_utf_8(terms, tmp_path):
    evidence = odd_headers(PatientName="Yamada^Tarou", StudyDescription="MR", ReferringPhysicianName="")
    evidence[0].SpecificCharacterSet = terms
    report = from_bytes(to_bytes(report_of(evidence=evidence)))
    assert (report.SpecificCharacterSet, report.PatientName) == ("ISO_IR 192", "Yamada^Tarou")
    assert dciodvfy_errors(report, tmp_path) == []


def test_undeclared_latin_letters_become_declared_utf_8():
    evidence = odd_headers()
    del evidence[0].SpecificCharacterSet
    report = from_bytes(to_bytes(report_of(evidence=evidence)))
    assert (report.SpecificCharacterSet, report.PatientName) == ("ISO_IR 192", "Müller^Jürgen")


@pytest.mark.parametrize("keyword", IDENTIFYING)
def test_instance_that_nothing_can_refer_to_is_a_header_error(keyword):
    evidence = mr_headers()
    del evidence[1][keyword]
    with pytest.raises(HeaderError, match=f"{keyword} is missing"):
        report_of(evidence=evidence)


def test_evidence_that_is_no_image_is_a_header_error():
    with pytest.raises(HeaderError, match="is not an image"):
        report_of(evidence=mr_headers(1, RawDataStorage))


def test_no_evidence_is_refused():
    with pytest.raises(ValueError, match="at least one instance"):
        report_of(evidence=[])


def test_evidence_of_two_studies_is_refused():
    evidence = mr_headers()
    evidence[2].StudyInstanceUID = "1.2.826.0.1.3680043.8.498.98"
    with pytest.raises(ValueError, match="of one study, got 2"):
        report_of(evidence=evidence)
