"""Do results arrive under names that stay the same, and does a folder that refuses them say so?"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, ImplicitVRLittleEndian
from pynetdicom import AE, evt

from pacs_bridge.destinations import RESULTS, Destination, deliver, destinations_of, file_names
from pacs_bridge.ledger import KeptObject
from pacs_bridge.results.context import Context
from pacs_bridge.results.secondary_capture import Capture, build_captures
from pacs_bridge.results.sources import SourceHeaders
from pacs_bridge.send import Peer
from pacs_bridge.settings import Destination as DestinationSettings
from pacs_bridge.settings import Settings
from pacs_bridge.throttle import Throttle
from pacs_bridge.transcode_apart import Transcoder
from pacs_bridge.work import keep_objects
from pipeline.model import ExaminedStack, ObjectKind, Provenance, Report, Role, StudyStatus
from scheduler.errors import Permanent, Transient

NOW = datetime(2026, 3, 1, tzinfo=UTC)
KINDS: tuple[ObjectKind, ...] = (
    *("sr", "seg", "key_objects", "mpr", "mip", "minip", "isotropic"),
    *("curved", "needle", "surface", "render", "summary"),
)


def kept(kind: ObjectKind, index: int, series: int = 1) -> KeptObject:
    return KeptObject(
        kind=kind,
        index=index,
        sop_instance_uid=f"{kind}.{series}.{index}",
        sop_class_uid="1.2",
        series_instance_uid=f"{kind}.{series}",
        path="",
        sha256="",
    )


def test_one_object_of_a_kind_is_named_after_it_and_several_are_numbered() -> None:
    objects = [kept("sr", 1), kept("seg", 1, 1), kept("seg", 1, 2), kept("mip", 1), kept("mip", 2)]
    assert ["sr.dcm", "seg_1.dcm", "seg_2.dcm", "mip/0001.dcm", "mip/0002.dcm"] == file_names(objects)


def test_series_of_images_get_folders_in_the_order_of_their_first_image() -> None:
    # As the ledger lists them: by index, so that the series alternate.
    objects = [kept("mpr", index, series) for index in (1, 2) for series in (2, 1)]
    assert ["mpr_1/0001.dcm", "mpr_2/0001.dcm", "mpr_1/0002.dcm", "mpr_2/0002.dcm"] == file_names(objects)


@given(st.lists(st.tuples(st.sampled_from(KINDS), st.integers(1, 4), st.integers(1, 3)), unique=True, max_size=40))
def test_no_two_objects_share_a_name_and_the_same_objects_get_the_same_names(
    chosen: list[tuple[ObjectKind, int, int]],
) -> None:
    objects = [kept(*each) for each in chosen]
    names = file_names(objects)
    assert len(objects) == len({name.casefold() for name in names})
    assert names == file_names(objects)
    assert all(name.startswith(each.kind) for each, name in zip(objects, names, strict=True))


def test_the_results_folder_comes_first_and_gets_everything_peers_what_they_asked_for(tmp_path: Path) -> None:
    peer = DestinationSettings(name="pacs", ae_title="ORTHANC", host="127.0.0.1", port=4242, send=("sr",))
    destinations = destinations_of(Settings(state_dir=tmp_path, destination=(peer,)))
    assert [RESULTS, "pacs"] == list(destinations)
    assert (None, KINDS) == (destinations[RESULTS].peer, destinations[RESULTS].send)
    assert ("ORTHANC@127.0.0.1:4242", ("sr",)) == (str(destinations["pacs"].peer), destinations["pacs"].send)


def test_a_destination_keeps_its_own_limits(tmp_path: Path) -> None:
    where = {"ae_title": "PACS", "host": "127.0.0.1", "port": 4242}
    line = DestinationSettings.model_validate({**where, "name": "line", "associations": 1, "throttle_mb_per_s": 2.5})
    free = DestinationSettings.model_validate({**where, "name": "free"})
    destinations = destinations_of(Settings(state_dir=tmp_path, destination=(line, free)))
    assert (1, 2.5, True) == (
        destinations["line"].associations,
        destinations["line"].throttle_mb_per_s,
        destinations["line"].throttle is not None,
    )
    assert (2, None) == (destinations["free"].associations, destinations["free"].throttle)


def test_no_more_bytes_leave_than_the_line_may_carry_and_values_arrive_as_the_peer_takes_them(
    shared_data: Path, tmp_path: Path
) -> None:
    files = sorted((shared_data / "head_ge_tilted").glob("*.dcm"))[:4]
    took: list[tuple[str, int]] = []

    def store(event: Any) -> int:
        took.append((str(event.context.transfer_syntax), len(event.request.DataSet.getvalue())))
        return 0

    entity = AE(ae_title="PACS")
    entity.add_supported_context(CTImageStorage, ImplicitVRLittleEndian)
    server: Any = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, store)])
    waits: list[float] = []
    line = Destination(
        name="line",
        send=("sr",),
        folder=tmp_path,
        peer=Peer(ae_title="PACS", host="127.0.0.1", port=server.socket.getsockname()[1]),
        throttle=Throttle(100_000, clock=lambda: 0.0, wait=waits.append),
        transcoder=Transcoder(tmp_path / "scratch"),
    )
    assert tuple(files) == line.store(files).sent
    line.close()
    server.shutdown()
    assert {ImplicitVRLittleEndian} == {syntax for syntax, _ in took}
    owed_s = [sum(size for _, size in took[:count]) / 100_000 - 1 for count in (1, 2, 3)]
    assert waits == pytest.approx(owed_s)


def captures(folder: Path, count: int = 2) -> tuple[tuple[KeptObject, ...], list[Path]]:
    """Put real Secondary Captures into an object store."""
    header = Dataset()
    header.SOPClassUID, header.SOPInstanceUID = CTImageStorage, "1.2.3.4.1"
    header.StudyInstanceUID, header.SeriesInstanceUID = "1.2.3", "1.2.3.4"
    row = ExaminedStack(
        series_instance_uid="1.2.3.4",
        series_number=1,
        series_description="",
        stack=1,
        role=Role.VOLUME,
        instances=("1.2.3.4.1",),
        reason=None,
    )
    report = Report(
        study_instance_uid="1.2.3",
        study_digest="d",
        status=StudyStatus.ANALYSED,
        priority=None,
        examined=(row,),
        findings=(),
        provenance=Provenance(code_version="1", detector_versions={}, settings_hash=""),
        committed_at=NOW,
    )
    context = Context(sources=SourceHeaders(datasets={"1.2.3.4.1": header}), committed_at=NOW)
    pictures = [
        Capture(kind="render", rgb=np.full((8, 8, 3), 50 * n, dtype=np.uint8), burned_in="NO") for n in range(count)
    ]
    objects = keep_objects(folder, build_captures(context, report, pictures))
    return objects, [folder / each.path for each in objects]


@pytest.fixture
def results(tmp_path: Path) -> Destination:
    return Destination(name=RESULTS, send=KINDS, folder=tmp_path / "results")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_pictures_lie_beside_their_objects_and_doing_it_twice_is_harmless(results: Destination, tmp_path: Path) -> None:
    objects, paths = captures(tmp_path / "objects")
    deliver(results, objects, paths, "abc/v1")
    once = contents(results.folder)
    names = {f"abc/v1/render/000{n}.{suffix}" for n in (1, 2) for suffix in ("dcm", "png")}
    assert names == set(once)
    assert paths[1].read_bytes() == once["abc/v1/render/0002.dcm"]
    assert (50, 50, 50) == Image.open(results.folder / "abc/v1/render/0002.png").getpixel((0, 0))
    deliver(results, objects, paths, "abc/v1")
    assert once == contents(results.folder)


def test_a_delivery_that_was_cut_short_is_completed_by_the_next(results: Destination, tmp_path: Path) -> None:
    objects, paths = captures(tmp_path / "objects")
    deliver(results, objects[:1], paths[:1], "abc/v1")
    (results.folder / "abc/v1/render.dcm").unlink()
    (results.folder / "abc/v1/render").mkdir()
    (results.folder / "abc/v1/render/0001.dcm").write_bytes(b"half")
    deliver(results, objects, paths, "abc/v1")
    uid = pydicom.dcmread(results.folder / "abc/v1/render/0001.dcm").SOPInstanceUID
    assert objects[0].sop_instance_uid == uid


def test_a_folder_that_cannot_be_made_is_tried_again(results: Destination, tmp_path: Path) -> None:
    objects, paths = captures(tmp_path / "objects")
    results.folder.write_text("a file where the folder should be")
    with pytest.raises(Transient, match="results folder cannot be written"):
        deliver(results, objects, paths, "abc/v1")


def test_a_picture_that_cannot_be_written_is_tried_again(results: Destination, tmp_path: Path) -> None:
    objects, paths = captures(tmp_path / "objects", 1)
    (results.folder / "v1" / "render.png").mkdir(parents=True)
    with pytest.raises(Transient, match="results folder cannot be written"):
        deliver(results, objects, paths, "v1")


def test_an_object_that_is_gone_is_permanent(results: Destination, tmp_path: Path) -> None:
    objects, paths = captures(tmp_path / "objects")
    paths[1].unlink()
    with pytest.raises(Permanent, match="a result file is gone"):
        deliver(results, objects, paths, "abc/v1")
