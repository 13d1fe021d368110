"""Small diffusion series, made from nothing."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydicom import Dataset, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

NAME = "Nightingale^Florence"
PATIENT_ID = "PID-4711"


def dwi_series(
    *, slices: int = 20, b_values: Sequence[int] = (0, 1000), promise: bool = True, size: int = 32
) -> list[Dataset]:
    """A classic axial MR series, one image a slice and b-value: a bright head in dark air.

    promise: state ImagesInAcquisition, so that the series is whole with its last image.
    """
    study_uid, series_uid, frame_uid = generate_uid(), generate_uid(), generate_uid()
    head = np.zeros((size, size), np.uint16)
    head[size // 8 : -size // 8, size // 6 : -size // 6] = 500
    images: list[Dataset] = []
    for b_value in b_values:
        for index in range(slices):
            image = Dataset()
            image.file_meta = FileMetaDataset()
            image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
            image.file_meta.MediaStorageSOPClassUID = image.SOPClassUID = MRImageStorage
            image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID = generate_uid()
            image.StudyInstanceUID, image.SeriesInstanceUID = study_uid, series_uid
            image.FrameOfReferenceUID = frame_uid
            image.PatientName, image.PatientID = NAME, PATIENT_ID
            image.PatientBirthDate, image.PatientSex = "18200512", "F"
            image.StudyDate, image.StudyTime, image.StudyID, image.AccessionNumber = (
                "20260101",
                "030000",
                "1",
                "",
            )
            image.ReferringPhysicianName = ""
            image.Modality, image.SeriesNumber, image.SeriesDescription = "MR", 5, "ep2d_diff_trace"
            image.Manufacturer = "triage tests"
            image.ImageType = ["ORIGINAL", "PRIMARY", "DIFFUSION", "NONE"]
            image.ScanningSequence, image.SequenceVariant, image.ScanOptions = "EP", "SK", ""
            image.MRAcquisitionType, image.EchoTime, image.EchoTrainLength = "2D", 80, 1
            image.InstanceNumber = len(images) + 1
            image.ImagePositionPatient = [-120, -120, 5.0 * index - 50]
            image.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
            image.PixelSpacing, image.SliceThickness = [7.5, 7.5], 5
            image.DiffusionBValue = float(b_value)
            image.DiffusionDirectionality = "ISOTROPIC" if b_value else "NONE"
            if promise:
                image.ImagesInAcquisition = slices * len(b_values)
            image.Rows, image.Columns, image.SamplesPerPixel = size, size, 1
            image.PhotometricInterpretation = "MONOCHROME2"
            image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 12, 11, 0
            image.PixelData = (head + np.uint16(index)).tobytes()
            images.append(image)
    return images


def write(images: Sequence[Dataset], folder: Path) -> Path:
    """The images as Part 10 files in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, image in enumerate(images):
        dcmwrite(folder / f"{index:04d}.dcm", image, enforce_file_format=True)
    return folder
