"""Does the benchmark of the whole way run, and print what it promises?"""

import json
from typing import Any

import pytest

from benchmarks.__main__ import main


def test_the_study_benchmark_prints_one_object_with_its_figures(capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["study", "--json", "--size", "toy"])
    printed: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert (0, "study") == (status, printed["name"])
    assert {"name", "machine", "figures", "rows"} == set(printed)
    assert all(value > 0 for value in printed["figures"].values())
    (row,) = printed["rows"]
    assert {"receive_s", "seconds_to_report", "seconds_to_pictures", "peak_memory_mb"} <= set(row)
    assert {"stage_read_s", "stage_assemble_s", "stage_detect_s", "stage_derive_s", "stage_write_s"} <= set(row)
