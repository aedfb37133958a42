"""Agreement with the truth: what passes, and that each kind of error is told."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacs_bridge.agreement import Expectation, Lesion, Outcome, disagreements, is_near
from pipeline.model import StudyStatus

BLEED = Lesion(kind="hemorrhage", volume_ml=15.0, centroid_lps_mm=(10.0, 20.0, 30.0))
FRACTURE = Lesion(kind="fracture", centroid_lps_mm=(-60.0, 0.0, 40.0))
READ = Outcome(status=StudyStatus.ANALYSED, found=(), reasons=(), pictures=3)
TORSO = Expectation(lesions=(), examined=False)
DECLINED = Outcome(status=StudyStatus.NOT_ANALYSED, found=(), reasons=("no detector for the trunk",), pictures=3)


def head(*lesions: Lesion) -> Expectation:
    return Expectation(lesions=lesions, examined=True)


def told(expected: Expectation, outcome: Outcome) -> str:
    return "; ".join(disagreements(expected, outcome))


def test_a_lesion_found_where_and_as_large_as_it_is_agrees() -> None:
    found = replace(BLEED, volume_ml=12.0, centroid_lps_mm=(12.0, 22.0, 28.0))
    assert "" == told(head(BLEED), replace(READ, found=(found,)))


def test_parts_of_one_lesion_count_together() -> None:
    parts = (replace(BLEED, volume_ml=9.0), replace(BLEED, volume_ml=5.0, centroid_lps_mm=(18.0, 20.0, 30.0)))
    assert "" == told(head(BLEED), replace(READ, found=parts))


@given(st.floats(0.0, 100.0))
def test_a_volume_agrees_exactly_within_thirty_percent(volume_ml: float) -> None:
    agrees = not told(head(BLEED), replace(READ, found=(replace(BLEED, volume_ml=volume_ml),)))
    assert (abs(volume_ml - 15.0) <= 4.5) == agrees


def test_a_missed_lesion_is_told() -> None:
    assert "the hemorrhage at (10, 20, 30) mm was not found" == told(head(BLEED), READ)


def test_a_lesion_of_another_kind_in_its_place_is_both_missed_and_a_false_alarm() -> None:
    wrong = replace(BLEED, kind="fracture")
    assert ["was not found", "where there is none"] == [
        next(words for words in ("was not found", "where there is none") if words in each)
        for each in disagreements(head(BLEED), replace(READ, found=(wrong,)))
    ]


def test_a_finding_in_a_normal_head_is_a_false_alarm() -> None:
    assert "where there is none" in told(head(), replace(READ, found=(BLEED,)))


def test_a_normal_head_must_have_been_looked_at() -> None:
    assert "should have been analysed" in told(head(), replace(READ, status=StudyStatus.NOT_ANALYSED))
    assert "" == told(head(), READ)


def test_a_detector_that_declined_has_not_found_its_kind_absent() -> None:
    outcome = replace(READ, undecided=("hemorrhage: the head is cut off",))
    assert "undecided: hemorrhage: the head is cut off" == told(head(), outcome)


def test_a_fracture_needs_no_volume() -> None:
    assert "" == told(head(FRACTURE), replace(READ, found=(FRACTURE,)))


def test_a_finding_on_a_long_lesion_is_near_though_far_from_its_centre() -> None:
    line = np.array([(-60.0, y, 40.0) for y in range(0, 80, 2)])
    end = replace(FRACTURE, centroid_lps_mm=(-60.0, 75.0, 40.0))
    assert (False, True) == (is_near(end, FRACTURE), is_near(end, replace(FRACTURE, points_lps_mm=line)))


def test_a_study_nobody_examines_agrees_when_it_says_so_and_is_pictured() -> None:
    assert "" == told(TORSO, DECLINED)


@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        (replace(DECLINED, status=StudyStatus.ANALYSED), "no detector examines it"),
        (replace(DECLINED, reasons=("",)), "no reason is given"),
        (replace(DECLINED, pictures=0), "no picture was made"),
        (replace(DECLINED, found=(BLEED,)), "1 findings"),
    ],
)
def test_a_study_nobody_examines_must_not_read_as_negative(outcome: Outcome, words: str) -> None:
    assert words in told(TORSO, outcome)
