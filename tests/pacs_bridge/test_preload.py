"""What the first study of a fresh service must not wait for."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pacs_bridge.results.testing import ct_headers, reread

_FIRST_STUDY = """
import gc, json, sys
from pathlib import Path

import pacs_bridge.preload
from numba.core.dispatcher import Dispatcher
from reconstruction.headers import read_headers
from pipeline.derive import derive
from pipeline.model import PictureOptions
from pipeline.process import Source, assemble_report, process_series
from pacs_bridge.results.testing import PROVENANCE

def loaded():
    gc.unfreeze()
    kernels = [each for each in gc.get_objects() if isinstance(each, Dispatcher)]
    return {f"{k.py_func.__module__}.{k.py_func.__name__}{types}" for k in kernels for types in k.overloads}

before = loaded()
paths = sorted(Path(sys.argv[1]).iterdir())
sources = {header.sop_instance_uid: Source(header=header, path=path)
           for header, path in zip(read_headers(paths), paths)}
result = process_series(list(sources.values()), [])
report = assemble_report(sources[next(iter(sources))].header.study_instance_uid, [result], PROVENANCE)
pictures = sum(1 for _ in derive(report, sources, PictureOptions(render=False), language="en", study_key="1"))
notes = [*result.examined[0].notes, *("straightened" for row in result.examined if row.working_grid)]
print(json.dumps({"new": sorted(loaded() - before), "notes": notes, "pictures": pictures}))
"""


@pytest.mark.parametrize("signed", [0, 1])
def test_a_padded_and_tilted_first_study_loads_no_kernel(tmp_path: Path, signed: int) -> None:
    for k, header in enumerate(ct_headers(RescaleIntercept=0, RescaleSlope=1, PixelPaddingValue=3)):
        header.ImagePositionPatient = [-12, -16 + k, 5 * k]
        header.Rows, header.Columns, header.SamplesPerPixel = 64, 48, 1
        header.PhotometricInterpretation = "MONOCHROME2"
        header.BitsAllocated, header.BitsStored, header.HighBit, header.PixelRepresentation = 16, 16, 15, signed
        header.add_new("PixelData", "OW", np.arange(64 * 48, dtype="<u2").tobytes())
        reread(header).save_as(tmp_path / f"{k}.dcm")
    run = subprocess.run(
        [sys.executable, "-c", _FIRST_STUDY, str(tmp_path)], capture_output=True, text=True, check=True, timeout=120
    )
    said = json.loads(run.stdout)
    assert [] == said["new"]
    assert ["padded pixels hold no measurement and are masked", "straightened"] == said["notes"]
    assert said["pictures"] >= 5
