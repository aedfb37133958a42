"""However a child process that draws ends, the reason is one sentence, and nothing of the patient's stays behind."""

import os
import resource
import signal
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from reconstruction.errors import NoSurface, ReconstructionError, RenderingUnavailable
from reconstruction.geometry import Geometry
from reconstruction.render_3d import render_turn
from reconstruction.surface import surface
from reconstruction.volume import Volume
from tests.conftest import WaitUntil


def sponge() -> Volume:
    """Bone with so many holes that drawing it takes seconds."""
    hu = np.random.default_rng(1).integers(-1000, 1400, (120, 160, 160)).astype(np.int16)
    return Volume(hu=hu, geometry=Geometry(affine=np.eye(4)[[2, 1, 0, 3]], shape=(120, 160, 160)))


def drawing() -> None:
    render_turn(sponge(), "bone", frames=720, size=2048)


def triangulating() -> None:
    surface(sponge(), "bone", triangles=100)


def children_of_this_process(module: str) -> list[int]:
    return [
        int(each)
        for task in Path("/proc/self/task").iterdir()
        for each in (task / "children").read_text().split()
        if module.encode() in Path(f"/proc/{each}/cmdline").read_bytes()
    ]


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def starve(pid: int) -> None:
    resource.prlimit(pid, resource.RLIMIT_AS, (2**26, 2**26))


@pytest.mark.parametrize(
    ("work", "module", "error"),
    [
        (drawing, "reconstruction.render_child", RenderingUnavailable),
        (triangulating, "reconstruction.surface_vtk", NoSurface),
    ],
)
@pytest.mark.parametrize(
    ("end", "reason"), [(kill, "process ended by SIGKILL"), (starve, "memory|status 1|ended by SIG")]
)
def test_a_child_killed_or_starved_half_way_is_a_stated_reason_and_leaves_no_folder(
    work: Callable[[], None],
    module: str,
    error: type[ReconstructionError],
    end: Callable[[int], None],
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    wait_until: WaitUntil,
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    raised: list[ReconstructionError] = []

    def run() -> None:
        try:
            work()
        except ReconstructionError as told:
            raised.append(told)

    thread = threading.Thread(target=run)
    thread.start()
    wait_until(lambda: children_of_this_process(module), deadline_s=60.0)
    assert [1] == [len(list(each.iterdir())) // 2 for each in tmp_path.iterdir()]  # the order and the voxels
    end(children_of_this_process(module)[0])
    thread.join(timeout=60.0)
    assert not thread.is_alive()
    with pytest.raises(error, match=reason):
        raise raised[0]
    assert [] == list(tmp_path.iterdir())
