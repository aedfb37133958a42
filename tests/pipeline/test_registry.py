"""Detectors run because the settings name them, and for no other reason."""

import pytest

from pipeline.errors import UnknownDetector
from pipeline.registry import known_detectors, load_detectors


def test_our_own_detectors_are_installed() -> None:
    assert {"hemorrhage", "skull_fracture"} <= set(known_detectors())


def test_only_the_named_detectors_run_in_the_order_named() -> None:
    assert [] == [d.name for d in load_detectors([])]
    assert ["hemorrhage"] == [d.name for d in load_detectors(["hemorrhage"])]
    assert ["skull_fracture", "hemorrhage"] == [d.name for d in load_detectors(["skull_fracture", "hemorrhage"])]


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UnknownDetector) as refused:
        load_detectors(["hemorrhage", "tumour"])
    assert ("tumour", known_detectors()) == (refused.value.name, refused.value.known)
    assert f"no detector is called 'tumour'; installed are: {', '.join(known_detectors())}" == str(refused.value)


def test_where_none_is_installed_the_message_says_so() -> None:
    assert "no detector is called 'x'; installed are: none" == str(UnknownDetector("x", ()))
