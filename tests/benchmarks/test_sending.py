"""Does the benchmark of sending run, and does its receiver hold what every sender sent?"""

import json
import shutil
from pathlib import Path

import pytest

from benchmarks import sending
from benchmarks.figures import as_json


@pytest.mark.skipif(shutil.which("storescp") is None, reason="storescp is not installed (Debian's package dcmtk)")
def test_every_sender_is_measured_against_the_same_receiver() -> None:
    printed = json.loads(json.dumps(as_json(sending.run("toy"))))
    assert {"results", "slices"} == {row["load"] for row in printed["rows"]}
    assert 10 == len(printed["rows"])
    assert set(sending.BARS) <= set(printed["figures"])
    assert all(figure > 0 for figure in printed["figures"].values())


def test_the_documents_differ_and_have_about_the_sizes_of_results(tmp_path: Path) -> None:
    files = sending.write_documents(6, tmp_path / "documents")
    sizes = [path.stat().st_size for path in files]
    assert len({path.read_bytes() for path in files}) == 6
    assert all(4_000 < size < 90_000 for size in sizes)
