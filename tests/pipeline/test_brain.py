"""The brain on a volume's own grid."""

import numpy as np
import pytest

from pipeline.brain import brain_of
from pipeline.phantom import ScanOptions, make_patient
from reconstruction.errors import NotAVolume
from reconstruction.geometry import Geometry
from reconstruction.volume import Volume


def test_the_inside_of_the_skull_is_soft_and_as_large_as_a_brain() -> None:
    volume = make_patient(
        "head", seed=1, options=ScanOptions(rows=128, columns=128, slice_count=30, detail_mm=2.0)
    ).volume
    brain = brain_of(volume)
    inside = volume.hu[brain.full()]
    assert 900 < brain.voxel_count * volume.geometry.voxel_ml < 1900
    assert 10 < float(np.median(inside)) < 50
    assert brain.geometry is volume.geometry


def test_where_there_is_no_head_the_reason_is_said() -> None:
    air = Volume(
        hu=np.full((20, 30, 30), -1000, dtype=np.int16), geometry=Geometry(affine=np.eye(4), shape=(20, 30, 30))
    )
    with pytest.raises(NotAVolume, match="no skull"):
        brain_of(air)
