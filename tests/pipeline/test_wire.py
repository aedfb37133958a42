"""What is kept between two jobs comes back as it was."""

import json
import math
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pipeline.model import (
    HEMORRHAGE,
    SKULL_FRACTURE,
    Acquisition,
    Code,
    DetectorRun,
    ExaminedStack,
    Finding,
    Measurement,
    Priority,
    Provenance,
    Report,
    Role,
    StudyStatus,
    WorkingGrid,
)
from pipeline.process import SeriesResult, Source, process_series
from pipeline.wire import dumps, loads
from reconstruction.geometry import Geometry
from reconstruction.headers import read_header
from reconstruction.volume import Mask

UNIT = Code(scheme="UCUM", value="mL", meaning="milliliter")
numbers = st.floats(-1e6, 1e6)
texts = st.text(max_size=12)
maybe_texts = st.none() | texts
grids = st.builds(
    lambda diagonal, origin, frame: Geometry(
        affine=np.vstack([np.column_stack([np.diag(diagonal), origin]), [0, 0, 0, 1]]),
        shape=(9, 8, 7),
        frame_of_reference_uid=frame,
    ),
    st.tuples(*[st.floats(0.1, 9.0)] * 3),
    st.tuples(*[numbers] * 3),
    maybe_texts,
)
bits = hnp.arrays(np.bool_, st.tuples(*[st.integers(1, 5)] * 3))
masks = st.builds(Mask, bits=bits, origin_kji=st.tuples(*[st.integers(0, 2)] * 3), geometry=grids)
measurements = st.builds(Measurement, name=st.just(SKULL_FRACTURE), value=numbers, unit=st.just(UNIT))
findings = st.builds(
    Finding,
    kind=st.sampled_from(["hemorrhage", "fracture"]),
    subtype=texts,
    code=st.just(HEMORRHAGE),
    probability=st.floats(0.0, 1.0),
    region=masks,
    volume_ml=st.none() | numbers,
    centroid_lps_mm=st.tuples(numbers, numbers, numbers),
    detector=texts,
    measurements=st.lists(measurements, max_size=2).map(tuple),
    also_seen_in=st.lists(st.tuples(texts, st.integers(1, 9)), max_size=2).map(tuple),
)
runs = st.builds(
    DetectorRun,
    name=texts,
    version=texts,
    looks_for=st.just(("hemorrhage",)),
    status=st.sampled_from(["ran", "declined", "failed"]),
    reason=maybe_texts,
)
rows = st.builds(
    ExaminedStack,
    series_instance_uid=texts,
    series_number=st.none() | st.integers(),
    series_description=texts,
    stack=st.integers(1, 9),
    role=st.sampled_from(Role),
    instances=st.lists(texts, max_size=3).map(tuple),
    reason=maybe_texts,
    detectors=st.lists(runs, max_size=2).map(tuple),
    geometry=st.none() | grids,
    slice_positions_mm=st.none() | st.lists(numbers, max_size=3).map(tuple),
    nominal_step_mm=st.none() | numbers,
    gaps_mm=st.lists(numbers, max_size=3).map(tuple),
    working_grid=st.none() | st.builds(WorkingGrid, geometry=grids, max_distance_to_slice_mm=numbers),
    covered_by=st.none() | st.tuples(texts, st.integers(1, 9)),
    notes=st.lists(texts, max_size=2).map(tuple),
    acquisition=st.builds(Acquisition, kernel=maybe_texts, kvp=st.none() | numbers, slice_count=st.integers(0, 999)),
)
reports = st.builds(
    Report,
    study_instance_uid=texts,
    study_digest=texts,
    status=st.sampled_from(StudyStatus),
    priority=st.none() | st.sampled_from(Priority),
    examined=st.lists(rows, max_size=2).map(tuple),
    findings=st.lists(findings, max_size=2).map(tuple),
    provenance=st.builds(
        Provenance, code_version=texts, detector_versions=st.dictionaries(texts, texts, max_size=2), settings_hash=texts
    ),
    version=st.integers(1, 9),
    supersedes_digest=maybe_texts,
    changes=st.lists(texts, max_size=2).map(tuple),
    committed_at=st.none() | st.datetimes(timezones=st.just(UTC)),
)
results = st.builds(
    SeriesResult,
    series_instance_uid=texts,
    digest=texts,
    examined=st.lists(rows, max_size=2).map(tuple),
    findings=st.lists(findings, max_size=2).map(tuple),
    timings_s=st.dictionaries(st.sampled_from(["assemble", "detect"]), numbers),
)


def plain(value: Any) -> Any:
    """Take a value apart into what can be compared, types included."""
    if isinstance(value, np.ndarray):
        return str(value.dtype), value.shape, value.tolist()
    if is_dataclass(value):
        return type(value).__name__, {f.name: plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, tuple):
        return tuple(plain(item) for item in value)
    return type(value).__name__, value


few = settings(max_examples=25, deadline=None)


@few
@given(report=reports)
def test_a_report_comes_back_as_it_was(report: Report) -> None:
    assert plain(report) == plain(loads(Report, dumps(report)))


@few
@given(result=results)
def test_the_result_of_a_series_comes_back_as_it_was(result: SeriesResult) -> None:
    assert plain(result) == plain(loads(SeriesResult, dumps(result)))


@given(text=texts)
def test_what_headers_say_comes_back_letter_by_letter(text: str) -> None:
    acquisition = Acquisition(series_description=text, study_description=text, age_years=61.5)
    assert acquisition == loads(Acquisition, dumps(acquisition))


def test_the_wire_carries_json_and_arrays_stay_small() -> None:
    mask = Mask(
        bits=np.ones((50, 200, 200), dtype=np.bool_),
        origin_kji=(1, 2, 3),
        geometry=Geometry(affine=np.eye(4), shape=(60, 300, 300)),
    )
    text = dumps({"ñ": mask, "at": datetime(2026, 1, 2, tzinfo=UTC), "status": StudyStatus.ANALYSED})
    assert ("2026-01-02T00:00:00+00:00", "analysed") == (json.loads(text)["at"], json.loads(text)["status"])
    assert "ñ" in text
    assert len(text) < 5000


def test_numbers_of_numpy_and_numbers_that_are_none_survive() -> None:
    acquisition = Acquisition(kvp=float(np.float32(120.5)), slice_thickness_mm=math.nan, age_years=np.float64(3.5))
    back = loads(Acquisition, dumps(acquisition))
    assert (120.5, 3.5) == (back.kvp, back.age_years)
    assert back.slice_thickness_mm is not None
    assert math.isnan(back.slice_thickness_mm)


def test_a_result_made_from_files_comes_back(write_series: Callable[..., list[Path]]) -> None:
    paths = write_series([0.0, 2.0, 5.0, 9.0], lambda points: np.zeros(points.shape[:-1]), tilt_deg=12.0)
    result = process_series([Source(header=read_header(path), path=path) for path in paths], [])
    assert plain(result) == plain(loads(SeriesResult, dumps(result)))
