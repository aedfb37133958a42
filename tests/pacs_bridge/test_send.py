"""Do files reach real peers as the bytes they are, and is what goes wrong told apart?"""

import errno
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset

from pacs_bridge.front_desk import Known
from pacs_bridge.outputs import FolderOutput
from pacs_bridge.part10 import file_header, read_file
from pacs_bridge.send import Peer, SendFailure, SendResult, echo, send_files, unreadable_file
from scheduler.errors import Broke, Permanent, Transient

EXPLICIT = "1.2.840.10008.1.2.1"
WriteFile = Callable[..., Path]


@pytest.fixture
def write_file(make_slice: Any, encode: Any, tmp_path: Path) -> WriteFile:
    """Return a writer of slices as Part-10 files."""

    def write(n: int = 1, **overrides: Any) -> Path:
        header: Dataset = make_slice(n, **overrides)
        path = tmp_path / f"{n}.dcm"
        path.write_bytes(file_header(header.SOPClassUID, header.SOPInstanceUID, EXPLICIT, "X") + encode(header))
        return path

    return write


def peer_of(listener: Any) -> Peer:
    return Peer(ae_title="CTRIAGE", host="127.0.0.1", port=listener.port)


def data_set_of(path: Path) -> bytes:
    return path.read_bytes()[read_file(path).offset :]


def test_files_arrive_as_the_bytes_they_are(bridge: Any, listen: Any, shared_data: Path) -> None:
    paths = sorted((shared_data / "geometry_faults" / "gantrytilting").rglob("*.dcm"))
    seen: list[Path] = []
    result = send_files(paths, peer_of(listen(bridge)), calling_ae="CTRIAGE", progress=seen.append)
    assert (tuple(paths), (), paths) == (result.sent, result.failures, seen)
    (study,) = bridge.archive.studies()
    (series,) = bridge.archive.series_of(study.study_instance_uid)
    kept = bridge.archive.instances_of(study.study_instance_uid, series.series_instance_uid)
    assert [data_set_of(path) for path in paths] == [data_set_of(each.path) for each in kept]


def test_more_classes_than_one_association_can_propose_are_sent_in_several(
    bridge: Any, listen: Any, write_file: WriteFile
) -> None:
    paths = [write_file(n, SOPClassUID=f"1.3.12.2.1107.5.9.{n}") for n in range(1, 131)]
    result = send_files(paths, peer_of(listen(bridge)), calling_ae="CTRIAGE")
    assert (130, ()) == (len(result.sent), result.failures)


def test_a_file_that_is_no_dicom_is_named_and_the_others_are_sent(
    bridge: Any, listen: Any, write_file: WriteFile, tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").write_text("no DICOM at all")
    result = send_files([tmp_path / "notes.txt", write_file()], peer_of(listen(bridge)), calling_ae="CTRIAGE")
    assert (1, 1) == (len(result.sent), len(result.failures))
    with pytest.raises(Permanent, match="no DICOM file"):
        result.raise_failure()


def test_a_full_disk_at_the_peer_is_transient(make_bridge: Any, listen: Any, write_file: WriteFile) -> None:
    full = make_bridge(free_bytes=lambda _folder: 0)
    result = send_files([write_file()], peer_of(listen(full)), calling_ae="CTRIAGE")
    with pytest.raises(Transient, match="0xA700"):
        result.raise_failure()


def test_an_instance_the_peer_does_not_understand_is_permanent(bridge: Any, listen: Any, write_file: WriteFile) -> None:
    broken = write_file()
    broken.write_bytes(broken.read_bytes()[:-3])
    result = send_files([broken, write_file(2)], peer_of(listen(bridge)), calling_ae="CTRIAGE")
    assert len(result.sent) == 1
    with pytest.raises(Permanent, match="0xC000"):
        result.raise_failure()


def test_rejection_by_title_is_tried_again_until_somebody_enters_our_title(
    bridge: Any, listen: Any, write_file: WriteFile
) -> None:
    listener = listen(bridge, known=[Known(ae_title="CT01", address="127.0.0.1")])
    with pytest.raises(Transient, match=r"rejected us .*: enter our AE title"):
        send_files([write_file()], peer_of(listener), calling_ae="STRANGER").raise_failure()


@pytest.fixture
def nobody() -> Iterator[Peer]:
    """Return a peer at a port where nobody listens (bound, so that nobody else takes it)."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield Peer(ae_title="NOBODY", host="127.0.0.1", port=bound.getsockname()[1])


def test_a_peer_that_is_away_is_transient(write_file: WriteFile, nobody: Peer) -> None:
    with pytest.raises(Transient, match="NOBODY@"):
        send_files([write_file()], nobody, calling_ae="CTRIAGE").raise_failure()
    with pytest.raises(Transient):
        echo(nobody, calling_ae="CTRIAGE")


def test_echo_is_answered(bridge: Any, listen: Any) -> None:
    echo(peer_of(listen(bridge)), calling_ae="CTRIAGE")


def test_a_folder_output_copies_files_whole_and_may_do_so_again(write_file: WriteFile, tmp_path: Path) -> None:
    results = tmp_path / "results" / "abc" / "v1"
    output = FolderOutput(name="folder", place=lambda source: results / source.name)
    path = write_file()
    output.deliver([path])
    output.deliver([path])
    assert [path.name] == [each.name for each in results.iterdir()]
    assert path.read_bytes() == (results / path.name).read_bytes()


def test_a_result_that_is_gone_is_permanent_and_an_unwritable_folder_transient(
    write_file: WriteFile, tmp_path: Path
) -> None:
    gone = FolderOutput(name="folder", place=lambda source: tmp_path / "x" / source.name)
    with pytest.raises(Permanent):
        gone.deliver([tmp_path / "gone.dcm"])
    (tmp_path / "a file").write_text("in the way")
    blocked = FolderOutput(name="folder", place=lambda source: tmp_path / "a file" / source.name)
    with pytest.raises(Transient):
        blocked.deliver([write_file()])


def test_orthanc_takes_what_is_sent_and_refused_classes_are_permanent(
    orthanc: Any, shared_data: Path, write_file: WriteFile
) -> None:
    peer = Peer(ae_title=orthanc.ae_title, host=orthanc.host, port=orthanc.dicom_port)
    paths = sorted((shared_data / "head_ge_tilted").glob("*.dcm"))
    echo(peer, calling_ae="CTRIAGE")
    result = send_files(paths, peer, calling_ae="CTRIAGE")
    assert tuple(paths) == result.sent
    assert {read_file(path).sop_instance_uid for path in paths} == orthanc.sop_instance_uids()
    private = send_files([write_file(SOPClassUID="1.3.12.2.1107.5.9.1")], peer, calling_ae="CTRIAGE")
    with pytest.raises(Permanent, match="does not take"):
        private.raise_failure()


def test_a_file_that_is_gone_is_permanent_and_what_the_machine_cannot_read_now_is_its_own_trouble(
    bridge: Any, listen: Any, write_file: WriteFile, tmp_path: Path
) -> None:
    (tmp_path / "folder.dcm").mkdir()
    paths = [tmp_path / "gone.dcm", tmp_path / "folder.dcm", write_file()]
    result = send_files(paths, peer_of(listen(bridge)), calling_ae="CTRIAGE")
    assert ((paths[2],), [Permanent, Broke]) == (result.sent, [type(each.problem) for each in result.failures])


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EIO, errno.ESTALE, errno.EACCES])
def test_only_a_file_that_is_gone_is_refused_for_good(number: int) -> None:
    assert Permanent is type(unreadable_file(OSError(errno.ENOENT, "gone")))
    assert Broke is type(unreadable_file(OSError(number, "passes")))


def test_what_the_peer_did_is_told_before_what_this_machine_did() -> None:
    problems = (Permanent("refused"), Broke("no descriptors"), Transient("away"))
    result = SendResult(failures=tuple(SendFailure(path=Path("a"), problem=each) for each in problems))
    with pytest.raises(Transient, match=r"away \(3 objects did not arrive\)"):
        result.raise_failure()
