"""Small scans that many tests look at; making one costs about a second."""

from dataclasses import replace

import pytest

from pipeline.phantom import BleedWish, Patient, ScanOptions, make_patient

SMALL = ScanOptions(rows=128, columns=128, slice_count=20, slice_thickness_mm=3.2, detail_mm=1.6)


@pytest.fixture(scope="session")
def small() -> ScanOptions:
    return SMALL


@pytest.fixture(scope="session")
def head() -> Patient:
    return make_patient("head", seed=5, options=replace(SMALL, slice_count=24))


@pytest.fixture(scope="session")
def bleed() -> Patient:
    return make_patient("head-bleed", seed=5, options=replace(SMALL, slice_count=24), wish=BleedWish(volume_ml=15))


@pytest.fixture(scope="session")
def fracture() -> Patient:
    return make_patient("head-fracture", seed=5, options=replace(SMALL, rows=176, columns=176, slice_count=24))


@pytest.fixture(scope="session")
def torso() -> Patient:
    return make_patient("torso", seed=5, options=replace(SMALL, slice_count=30, slice_step_mm=10, detail_mm=3.0))
