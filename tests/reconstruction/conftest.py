"""CT images written for one test: a small, valid Part-10 file whose tags a test may change or take away."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID

WriteCt = Callable[..., Path]

_TAGS: dict[str, Any] = {
    "SOPClassUID": "1.2.840.10008.5.1.4.1.1.2",
    "SOPInstanceUID": "2.25.1",
    "SeriesInstanceUID": "2.25.2",
    "StudyInstanceUID": "2.25.3",
    "Modality": "CT",
    "Rows": 4,
    "Columns": 6,
    "SamplesPerPixel": 1,
    "PhotometricInterpretation": "MONOCHROME2",
    "BitsAllocated": 16,
    "BitsStored": 16,
    "HighBit": 15,
    "PixelRepresentation": 1,
    "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
    "ImagePositionPatient": [-10, -20, 30],
    "PixelSpacing": [0.5, 0.25],
    "RescaleSlope": 1,
    "RescaleIntercept": -1024,
    "InstanceNumber": 7,
}


@pytest.fixture
def write_ct(tmp_path: Path) -> WriteCt:
    """Return a writer: ``write_ct(Rows=8, PixelSpacing=None, pixels=array)``; None takes a tag away."""

    def write(
        name: str = "ct.dcm",
        *,
        pixels: Any = None,
        transfer_syntax: str = "1.2.840.10008.1.2.1",
        **changes: Any,
    ) -> Path:
        dataset = Dataset()
        for keyword, value in {**_TAGS, **changes}.items():
            if value is not None:
                setattr(dataset, keyword, value)
        _add_pixels(dataset, pixels)
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = UID(transfer_syntax)
        path = tmp_path / name
        dataset.save_as(path, enforce_file_format=True)
        return path

    return write


def _add_pixels(dataset: Dataset, pixels: Any) -> None:
    if isinstance(pixels, bytes):
        dataset.PixelData = pixels
        dataset["PixelData"].VR = "OB" if pixels[:4] == b"\xfe\xff\x00\xe0" else "OW"
    elif pixels is not None:
        dataset.PixelData = np.asarray(pixels).tobytes()
        dataset["PixelData"].VR = "OW"
