"""A rendering shows the bone the right way round, and a system that cannot render says so."""

import ctypes

import numpy as np
import pytest

from reconstruction.errors import NotAVolume, RenderingUnavailable
from reconstruction.geometry import Geometry
from reconstruction.render_3d import ANTERIOR, BACKENDS, LEFT, reduced, render_bone, without_couch
from reconstruction.volume import Volume


def loads(names: tuple[str, ...]) -> bool:
    for name in names:
        try:
            ctypes.CDLL(name)
        except OSError:
            continue
        return True
    return False


needs_backend = pytest.mark.skipif(
    not any(loads(tuple(names)) for names in BACKENDS.values()), reason="neither libegl1 nor libosmesa6 is installed"
)


def block_head() -> Volume:
    """A soft block with a bone cube at its left front top, stored from the head downwards."""
    affine = np.array([[0, 0, 1.5, -45], [0, 1.5, 0, -45], [-1.5, 0, 0, 45], [0, 0, 0, 1]], dtype=np.float64)
    hu = np.full((60, 60, 60), -1000, dtype=np.int16)
    hu[4:56, 4:56, 4:56] = 40
    hu[4:20, 4:20, 40:56] = 1200
    hu[52:56, 52:56, 4:8] = 1200
    return Volume(hu=hu, geometry=Geometry(affine=affine, shape=hu.shape))


@needs_backend
@pytest.mark.parametrize("reverse", [np.s_[:], np.s_[::-1]])
def test_bone_is_seen_where_it_is_from_head_or_feet_stored(reverse: slice) -> None:
    volume = block_head()
    if reverse.step == -1:
        affine = volume.geometry.affine.copy()
        affine[:, 0], affine[2, 3] = -affine[:, 0], affine[2, 3] - 1.5 * 59
        volume = Volume(hu=volume.hu[::-1].copy(), geometry=Geometry(affine=affine, shape=volume.hu.shape))
    front, side = render_bone(volume, (ANTERIOR, LEFT), size=200)
    middle = np.s_[30:170, 30:170]
    assert front.rgb.shape == (200, 200, 3)
    up, right = np.argwhere(front.rgb[middle].sum(axis=-1) > 200).mean(axis=0) - 70
    assert up < -15  # at the top
    assert right > 15  # the patient's left is on the picture's right
    up, right = np.argwhere(side.rgb[middle].sum(axis=-1) > 200).mean(axis=0) - 70
    assert up < -15
    assert right < -15  # seen from the left, the front is on the picture's left


def test_a_system_without_the_libraries_says_so_and_what_to_install() -> None:
    hidden = {"vtkOSOpenGLRenderWindow": ("libnowhere.so.1",), "vtkEGLRenderWindow": ("libnothing.so.1",)}
    with pytest.raises(RenderingUnavailable, match="install libegl1 or libosmesa6"):
        render_bone(block_head(), backends=hidden)


def test_a_child_that_dies_is_a_stated_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/bin/false")
    with pytest.raises(RenderingUnavailable, match="vtkEGLRenderWindow failed with status 1"):
        render_bone(block_head(), backends={"vtkEGLRenderWindow": ("libc.so.6",)})


@needs_backend
def test_a_child_that_takes_too_long_is_stopped() -> None:
    with pytest.raises(RenderingUnavailable, match=r"longer than 0\.05 s"):
        render_bone(block_head(), limit_s=0.05)


def test_a_sheared_volume_is_refused() -> None:
    affine = np.eye(4)
    affine[1, 0] = 0.3
    volume = Volume(hu=np.zeros((4, 4, 4), dtype=np.int16), geometry=Geometry(affine=affine, shape=(4, 4, 4)))
    with pytest.raises(NotAVolume, match="regularise"):
        render_bone(volume)


def test_a_reduced_grid_keeps_means_and_places() -> None:
    volume = block_head()
    small = reduced(volume, largest=30)
    assert small.hu.shape == (30, 30, 30)
    assert small.hu[5, 5, 22] == volume.hu[10:12, 10:12, 44:46].mean()
    assert np.allclose(small.geometry.to_mm((5, 5, 22)), volume.geometry.to_mm((10.5, 10.5, 44.5)))


def test_what_lies_apart_from_the_patient_is_left_out_and_no_bone_is_lost() -> None:
    volume = block_head()
    hu = np.pad(volume.hu.copy(), ((0, 0), (0, 40), (0, 0)), constant_values=-1000)
    hu[:, 90:94] = 700
    wide = Volume(hu=hu, geometry=Geometry(affine=volume.geometry.affine, shape=hu.shape))
    cleared = without_couch(wide)
    assert np.count_nonzero(cleared.hu > 1000) == np.count_nonzero(volume.hu > 1000)
    assert not np.isin(cleared.hu, [700]).any()
