"""A synthetic study as classic MR images: one file a slice, b=0 and the trace in one series.

Attributes follow PS3.3 A.4 (MR Image IOD) with the standard diffusion attributes of C.8.13.5.9. Patient,
description and manufacturer all say that the study is synthetic.
"""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, MRImageStorage, generate_uid

from triage.core.volume import DwiVolume
from triage.phantom.heads import Head, load_head, packaged_head
from triage.phantom.study import SyntheticStudy, draw_study

EPOCH: Final = datetime(2026, 1, 1, 12, 0, 0)  # noqa: DTZ001  DICOM dates and times carry no zone here
MANUFACTURER: Final = "SYNTHETIC PHANTOM"


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who the synthetic patient is, and the unique identifiers of the objects.

    salt: empty for UIDs that were never used before; the same text gives the same UIDs again.
    """

    patient_name: str
    patient_id: str
    accession_number: str
    acquired_at: datetime
    salt: str

    def uid(self, name: str) -> UID:
        """The identifier of one thing in this study."""
        return generate_uid(entropy_srcs=[self.salt, name]) if self.salt else generate_uid()


def write_study(
    out_dir: Path,
    *,
    aspects: int,
    seed: int,
    heads: Path | None,
    fresh_uids: bool = True,
    acquired_at: datetime = EPOCH,
) -> list[Path]:
    """Draw a study with this ASPECTS and write it; paths in order of instance number.

    heads: folder of head label maps, one of which the seed picks; None for the packaged head.
    fresh_uids: False derives every UID from seed and score, so that the same call writes the same files.
    Raises ValueError for a score outside 0..10, FileNotFoundError when the folder has no heads.
    """
    rng = np.random.default_rng([seed, aspects])
    study = draw_study(_pick_head(rng, heads), aspects, rng)
    identity = Identity(
        patient_name=f"SYNTHETIC^ASPECTS{aspects}",
        patient_id=f"SYN-{aspects}-{seed}",
        accession_number=f"SYN{aspects}{seed:08d}"[:16],
        acquired_at=acquired_at,
        salt="" if fresh_uids else f"{study.head}/{aspects}/{seed}",
    )
    out_dir.mkdir(parents=True, exist_ok=True)
    paths = []
    for image in to_datasets(study, identity):
        path = out_dir / f"IM{image.InstanceNumber:04d}.dcm"
        image.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


def to_datasets(study: SyntheticStudy, identity: Identity) -> list[Dataset]:
    """The study's images, all b=0 slices first, each stack caudal to cranial."""
    common = {name: identity.uid(name) for name in ("study", "series", "frame of reference")}
    slices = study.b0.voxels_ZYX.shape[0]
    images = []
    for volume, first in ((study.b0, 1), (study.high_b, 1 + slices)):
        for index in range(slices):
            number = first + index
            image = _image(study, volume, index)
            _identify(image, identity, common, number)
            image.ImagesInAcquisition = 2 * slices
            images.append(image)
    return images


def _pick_head(rng: np.random.Generator, folder: Path | None) -> Head:
    if folder is None:
        return packaged_head()
    numbers = sorted(int(path.name[4:6]) for path in folder.glob("seg_[0-9][0-9].nii.gz"))
    if not numbers:
        raise FileNotFoundError(f"{folder} holds no seg_NN.nii.gz")
    return load_head(int(rng.choice(numbers)), folder)


def _identify(image: Dataset, identity: Identity, common: dict[str, UID], number: int) -> None:
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.file_meta.MediaStorageSOPClassUID = image.SOPClassUID = MRImageStorage
    image.SOPInstanceUID = identity.uid(f"image {number}")
    image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
    image.StudyInstanceUID = common["study"]
    image.SeriesInstanceUID = common["series"]
    image.FrameOfReferenceUID = common["frame of reference"]
    image.PatientName = identity.patient_name
    image.PatientID = identity.patient_id
    image.AccessionNumber = identity.accession_number
    image.InstanceNumber = number
    day, moment = identity.acquired_at.strftime("%Y%m%d"), identity.acquired_at.strftime("%H%M%S")
    image.StudyDate = image.SeriesDate = image.AcquisitionDate = image.ContentDate = day
    image.StudyTime = image.SeriesTime = image.AcquisitionTime = image.ContentTime = moment


def _image(study: SyntheticStudy, volume: DwiVolume, index: int) -> Dataset:
    image = Dataset()
    _describe(image)
    _set_protocol(image, study)
    _set_diffusion(image, volume)
    _set_plane(image, volume, index)
    _set_pixels(image, volume.voxels_ZYX[index])
    return image


def _describe(image: Dataset) -> None:
    image.SpecificCharacterSet = "ISO_IR 100"
    image.Modality = "MR"
    image.Manufacturer = MANUFACTURER
    image.ManufacturerModelName = "triage.phantom"
    image.PatientBirthDate = ""
    image.PatientSex = ""
    image.ReferringPhysicianName = ""
    image.StudyID = "1"
    image.StudyDescription = "Synthetic brain MR, not a patient"
    image.SeriesDescription = "ep2d_diff_trace (synthetic)"
    image.ProtocolName = "ep2d_diff_trace (synthetic)"
    image.SeriesNumber = 1
    image.AcquisitionNumber = 1
    image.BodyPartExamined = "HEAD"
    image.PatientPosition = "HFS"
    image.PositionReferenceIndicator = ""


def _set_protocol(image: Dataset, study: SyntheticStudy) -> None:
    protocol = study.protocol
    image.ScanningSequence = "EP"
    image.SequenceVariant = "SK"
    image.ScanOptions = ""
    image.MRAcquisitionType = "2D"
    image.RepetitionTime = round(protocol.timing.tr_ms, 1)
    image.EchoTime = round(protocol.timing.te_ms, 1)
    image.EchoTrainLength = protocol.matrix
    image.MagneticFieldStrength = protocol.timing.field_strength_t
    image.SliceThickness = protocol.slice_thickness_mm
    image.SpacingBetweenSlices = protocol.slice_distance_mm
    image.AcquisitionMatrix = [protocol.matrix, 0, 0, protocol.matrix]
    image.InPlanePhaseEncodingDirection = "COL"


def _set_diffusion(image: Dataset, volume: DwiVolume) -> None:
    image.DiffusionBValue = volume.b_value
    if volume.b_value > 0:
        image.ImageType = ["DERIVED", "PRIMARY", "DIFFUSION", "TRACEW"]
        image.DiffusionDirectionality = "ISOTROPIC"
    else:
        image.ImageType = ["ORIGINAL", "PRIMARY", "DIFFUSION", "NONE"]
        image.DiffusionDirectionality = "NONE"


def _set_plane(image: Dataset, volume: DwiVolume, index: int) -> None:
    """PS3.3 C.7.6.2: orientation is that of the row (column index rises), then of the column."""
    slice_mm, row_mm, column_mm = volume.spacing_mm
    affine = volume.affine_lps
    cosines = [*(affine[:3, 0] / column_mm), *(affine[:3, 1] / row_mm)]
    position = affine @ np.array([0.0, 0.0, index, 1.0])
    image.ImageOrientationPatient = [_decimal(value) for value in cosines]
    image.ImagePositionPatient = [_decimal(value) for value in position[:3]]
    image.PixelSpacing = [_decimal(row_mm), _decimal(column_mm)]
    image.SliceLocation = _decimal(slice_mm * index)


def _decimal(value: float) -> str:
    """A DS of at most 16 characters."""
    return f"{value:.9f}"[:16]


def _set_pixels(image: Dataset, plane_YX: npt.NDArray[np.float32]) -> None:
    pixels = np.clip(np.rint(plane_YX), 0, 65535).astype("<u2")
    image.SamplesPerPixel = 1
    image.PhotometricInterpretation = "MONOCHROME2"
    image.Rows, image.Columns = pixels.shape
    image.BitsAllocated = image.BitsStored = 16
    image.HighBit = 15
    image.PixelRepresentation = 0
    image.WindowCenter, image.WindowWidth = "300", "600"
    image.PixelData = pixels.tobytes()
