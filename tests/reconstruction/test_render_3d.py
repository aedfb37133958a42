"""A rendering shows what its preset says, the right way round from every side, or says why there is none."""

import stat
import sys
from pathlib import Path

import numpy as np
import pytest

from reconstruction.child import why_failed
from reconstruction.errors import NotAVolume, NothingToShow, RenderingUnavailable
from reconstruction.geometry import Geometry
from reconstruction.render import letters
from reconstruction.render_3d import ANTERIOR, LEFT, render_bone, render_turn, turning
from reconstruction.volume import Mask, Volume


def block_head(hu_of_bone: int = 1200) -> Volume:
    """A soft block with a bone cube at its left front top, stored from the head downwards."""
    affine = np.array([[0, 0, 1.5, -45], [0, 1.5, 0, -45], [-1.5, 0, 0, 45], [0, 0, 0, 1]], dtype=np.float64)
    hu = np.full((60, 60, 60), -1000, dtype=np.int16)
    hu[4:56, 4:56, 4:56] = 40
    hu[4:20, 4:20, 40:56] = hu_of_bone
    hu[52:56, 52:56, 4:8] = hu_of_bone
    return Volume(hu=hu, geometry=Geometry(affine=affine, shape=hu.shape))


def middle_of(rgb: np.ndarray, *, size: int = 200) -> tuple[float, float]:
    """How far right of and above the picture's middle its bright part lies, letters left out."""
    inner = np.s_[size * 3 // 20 : size * 17 // 20, size * 3 // 20 : size * 17 // 20]
    down, right = np.argwhere(rgb[inner].sum(axis=-1) > 200).mean(axis=0) - size * 7 / 20
    return float(right), float(-down)


@pytest.mark.parametrize("reverse", [np.s_[:], np.s_[::-1]])
def test_bone_is_seen_where_it_is_from_head_or_feet_stored(reverse: slice) -> None:
    volume = block_head()
    if reverse.step == -1:
        affine = volume.geometry.affine.copy()
        affine[:, 0], affine[2, 3] = -affine[:, 0], affine[2, 3] - 1.5 * 59
        volume = Volume(hu=volume.hu[::-1].copy(), geometry=Geometry(affine=affine, shape=volume.hu.shape))
    front, side = render_bone(volume, (ANTERIOR, LEFT), size=200)
    assert front.rgb.shape == (200, 200, 3)
    right, up = middle_of(front.rgb)
    assert up > 15  # at the top
    assert right > 15  # the patient's left is on the picture's right
    right, up = middle_of(side.rgb)
    assert up > 15
    assert right < -15  # seen from the left, the front is on the picture's left


def test_a_turn_starts_in_front_and_goes_to_the_patients_left() -> None:
    turn = render_turn(block_head(), "bone", frames=4, size=200)
    assert ((4, 200, 200, 3), (0.0, 90.0, 180.0, 270.0)) == (turn.rgb.shape, turn.angles_deg)
    rights, ups = zip(*[middle_of(frame) for frame in turn.rgb], strict=True)
    # the cube lies at the left, in front: to the right of the picture from the front and from the right side
    assert [right > 15 for right in rights] == [True, False, False, True]
    assert [right < -15 for right in rights] == [False, True, True, False]
    assert min(ups) > 15
    assert turn.sample_mm <= min(turn.voxel_mm)
    assert len(turn.timings.frames_s) == 4


def test_letters_follow_the_turn() -> None:
    at_right = [letters(np.cross(-np.array(view.from_lps), (0.0, 0.0, 1.0))) for view in turning(12)]
    assert at_right == ["L", "LP", "PL", "P", "PR", "RP", "R", "RA", "AR", "A", "AL", "LA"]
    assert [view.name for view in turning(4)] == ["0°", "90°", "180°", "270°"]


def test_a_picture_is_as_large_as_its_scale_says() -> None:
    hu = np.full((40, 60, 60), -1000, dtype=np.int16)
    hu[10:30, 10:50, 10:50] = 1000
    volume = Volume(hu=hu, geometry=Geometry(affine=np.eye(4)[[2, 1, 0, 3]], shape=hu.shape))
    turn = render_turn(volume, "bone", frames=8, size=256)
    inner = turn.rgb[0, 40:216, 30:226].sum(axis=-1) > 60
    wide_mm = np.ptp(np.flatnonzero(inner.any(axis=0))) * turn.pixel_mm
    tall_mm = np.ptp(np.flatnonzero(inner.any(axis=1))) * turn.pixel_mm
    assert float(wide_mm) == pytest.approx(40.0, abs=2.0)
    assert float(tall_mm) == pytest.approx(20.0, abs=2.0)


def test_a_brain_needs_a_region_and_shows_that_alone() -> None:
    volume = block_head(hu_of_bone=1200)
    with pytest.raises(NothingToShow, match="region"):
        render_turn(volume, "brain", frames=1, size=100)
    bits = np.zeros(volume.hu.shape, dtype=np.bool_)
    bits[25:50, 20:50, 10:30] = True  # low, and to the patient's right
    region = Mask.cropped_from(bits, volume.geometry)
    turn = render_turn(volume, "brain", frames=2, size=200, shown=region)
    inner = turn.rgb[0, 30:170, 30:170]
    assert np.count_nonzero(inner.sum(axis=-1) > 200) > 2000
    elsewhere = Mask.cropped_from(bits[:-1], Geometry(affine=np.eye(4), shape=(59, 60, 60)))
    with pytest.raises(NotAVolume, match="another grid"):
        render_turn(volume, "brain", frames=1, size=100, shown=elsewhere)
    air = np.zeros(volume.hu.shape, dtype=np.bool_)
    air[:3] = True
    with pytest.raises(NothingToShow, match="no brain in the region"):
        render_turn(volume, "brain", frames=1, size=100, shown=Mask.cropped_from(air, volume.geometry))


def test_vessels_are_red_and_dense_bone_beside_them_is_dimmed() -> None:
    hu = np.full((60, 80, 80), -1000, dtype=np.int16)
    hu[:, 8:72, 8:72] = 40
    hu[:, 20:28, 20:28] = 300  # a vessel at the patient's right
    hu[:, 20:32, 48:60] = 900  # bone at the left
    volume = Volume(hu=hu, geometry=Geometry(affine=np.eye(4)[[2, 1, 0, 3]], shape=hu.shape))
    frame = render_turn(volume, "vessel", frames=1, size=200).rgb[0, 70:130].astype(int)
    light = frame[:, 20:180].sum(axis=-1)
    assert light[:, 80:].max() > 30
    assert light[:, :80].max() > 2 * light[:, 80:].max()
    bright = frame[:, 20:100][light[:, :80] > 150]
    assert (bright[:, 0] > 1.5 * bright[:, 2]).mean() > 0.9
    with pytest.raises(NothingToShow, match="contrast medium"):
        render_turn(block_head(), "vessel", frames=1, size=100)


def test_where_there_is_no_bone_that_is_said() -> None:
    with pytest.raises(NothingToShow, match="no bone in the image"):
        render_bone(block_head(hu_of_bone=60))


@pytest.mark.parametrize(("frames", "size"), [(0, 512), (1000, 512), (4, 8), (4, 5000)])
def test_frames_beyond_bounds_are_refused(frames: int, size: int) -> None:
    with pytest.raises(RenderingUnavailable, match="can be made"):
        render_turn(block_head(), "bone", frames=frames, size=size)
    with pytest.raises(RenderingUnavailable, match="bone, brain, vessel"):
        render_turn(block_head(), "liver")  # type: ignore[arg-type]


def test_a_child_that_takes_too_long_is_stopped() -> None:
    with pytest.raises(RenderingUnavailable, match=r"longer than 0\.05 s"):
        render_bone(block_head(), limit_s=0.05)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "ended by SIGSEGV"),
        ("raise SystemExit(4)", "does not fit into memory"),
        ("raise SystemExit(1)", "failed with status 1"),
        ("pass", None),
    ],
)
def test_how_a_child_ends_is_a_stated_reason(code: str, reason: str | None, tmp_path: Path) -> None:
    program = tmp_path / "python"
    program.write_text(f"#!{sys.executable}\n{code}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    found = why_failed("any.module", tmp_path, limit_s=20.0, python=(str(program),))
    assert (reason is None, reason or "") == (found is None, (found or "")[-len(reason or "") :] if reason else "")


def test_a_python_that_is_not_there_is_a_stated_reason(tmp_path: Path) -> None:
    found = why_failed("any.module", tmp_path, limit_s=5.0, python=(str(tmp_path / "none"),))
    assert found == "its process could not be started (No such file or directory)"


def test_a_sheared_volume_is_refused() -> None:
    affine = np.eye(4)
    affine[1, 0] = 0.3
    volume = Volume(hu=np.zeros((4, 4, 4), dtype=np.int16), geometry=Geometry(affine=affine, shape=(4, 4, 4)))
    with pytest.raises(NotAVolume, match="regularise"):
        render_bone(volume)
