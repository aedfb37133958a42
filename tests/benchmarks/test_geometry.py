"""The measurement of one patient scanned in many ways runs, and finds the anatomy where it is."""

import numpy as np
import pytest

from benchmarks import geometry
from benchmarks.figures import Result
from reconstruction.volume import Volume


@pytest.fixture(scope="module")
def result() -> Result:
    """Scan the fast patient in every way."""
    return geometry.run("toy")


def test_landmarks_lie_within_half_a_pixel_in_plane_and_half_the_slice_distance_along_the_normal(
    result: Result,
) -> None:
    assert {row["scan"]: True for row in result.rows} == {row["scan"]: row["beads_share"] <= 0.5 for row in result.rows}


def test_the_skin_lies_there_too_at_its_farthest_place(result: Result) -> None:
    assert {row["scan"]: True for row in result.rows} == {row["scan"]: row["skin_max_share"] < 1 for row in result.rows}
    assert all(row["skin_points"] > 2000 for row in result.rows)


def test_every_way_of_scanning_was_measured(result: Result) -> None:
    names = " ".join(str(row["scan"]) for row in result.rows)
    assert all(word in names for word in ("straight", "+18.5", "-18.5", "uneven", "feet first", "prone"))


def test_a_misplaced_patient_is_not_called_right() -> None:
    body = geometry.patient("toy")
    case = geometry.cases("toy")[0]
    truth = geometry.described(body)
    moved = Volume(hu=truth.hu, geometry=truth.geometry.cropped((0, 0, 3), truth.geometry.shape))
    assert geometry.measured(case, body, moved)["skin_p95_share"] > 1
    stack, volume = geometry.scanned(case, body)
    beside = body.beads_lps_mm[0] + np.array([1.5, 0.0, 0.0])
    assert geometry.bead(volume, beside)[0] - body.beads_lps_mm[0][0] == pytest.approx(0.0, abs=0.3)
    assert len(stack.headers) == volume.geometry.shape[0]
