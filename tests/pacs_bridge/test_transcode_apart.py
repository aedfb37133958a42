"""Does what a codec does to its own process stay there, and is each object's fate told apart?"""

import os
import resource
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pacs_bridge.destinations import Destination
from pacs_bridge.part10 import file_header
from pacs_bridge.sending.source import Source
from pacs_bridge.sending.testing import FakePeer, Stored, keeping
from pacs_bridge.transcode_apart import Transcoder, Work
from scheduler.errors import Broke, Permanent

CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT, IMPLICIT, JPEG_LS = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.4.80"

Make = Callable[..., Transcoder]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    made: list[Transcoder] = []

    def transcoder(work: Work, **limits: float) -> Transcoder:
        made.append(Transcoder(tmp_path / "scratch", work=work, **limits))
        return made[-1]

    yield transcoder
    for each in made:
        each.close()


def dies_of_some(path: Path, _syntax: str) -> bytes:
    if path.stem == "deadly":
        os.kill(os.getpid(), signal.SIGSEGV)
    return b"plain " + path.stem.encode()


def hangs(path: Path, _syntax: str) -> bytes:
    if path.stem == "endless":
        threading.Event().wait()
    return b"done"


def dies_once(path: Path, _syntax: str) -> bytes:
    if not path.exists():
        path.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return b"second"


def wants_too_much(path: Path, _syntax: str) -> bytes:
    return bytes(2**34) if path.stem == "huge" else b"little"


def is_wrong(_path: Path, _syntax: str) -> bytes:
    raise ZeroDivisionError


def cannot_read(path: Path, _syntax: str) -> bytes:
    raise OSError(24, "Too many open files", str(path))


def tells_its_limits(_path: Path, _syntax: str) -> bytes:
    return f"{os.getpid()} {resource.getrlimit(resource.RLIMIT_CORE)[0]}".encode()


def content(source: Source) -> bytes:
    room = bytearray(source.size)
    source.read_into([memoryview(room)])
    source.close()
    return bytes(room)


def test_a_codec_that_kills_its_process_refuses_that_one_object_and_nothing_else(make: Make, tmp_path: Path) -> None:
    paths = [tmp_path / f"{name}.dcm" for name in ("one", "deadly", "two")]
    for number, path in enumerate(paths):
        path.write_bytes(file_header(CT_IMAGE, f"1.2.3.{number}", JPEG_LS, "X") + b"compressed")
    stored: list[Stored] = []
    with FakePeer(keeping(stored), accepts=lambda _, syntax: syntax == IMPLICIT) as fake:
        to = Destination(name="pacs", send=(), folder=tmp_path, peer=fake.peer, transcoder=make(dies_of_some))
        result = to.store(paths)
    assert (paths[0], paths[2]) == result.sent
    assert [b"plain one", b"plain two"] == [each.dataset for each in stored]
    (failure,) = result.failures
    assert (paths[1], Permanent) == (failure.path, type(failure.problem))
    assert "ended the process" in failure.problem.reason


def test_what_takes_too_long_is_ended_and_refused_and_the_next_is_not(make: Make) -> None:
    transcode = make(hangs, limit_s=2.0)
    assert b"done" == content(transcode(Path("first.dcm"), EXPLICIT))
    with pytest.raises(Permanent, match="takes longer than 2 s"):
        transcode(Path("endless.dcm"), EXPLICIT)
    assert b"done" == content(transcode(Path("next.dcm"), EXPLICIT))


def test_what_needs_too_much_memory_is_refused_and_the_next_is_not(make: Make) -> None:
    transcode = make(wants_too_much)
    with pytest.raises(Permanent, match="MiB of memory"):
        transcode(Path("huge.dcm"), EXPLICIT)
    assert b"little" == content(transcode(Path("small.dcm"), EXPLICIT))


def test_a_child_that_died_once_is_given_the_object_again(make: Make, tmp_path: Path) -> None:
    assert b"second" == content(make(dies_once)(tmp_path / "mark", EXPLICIT))


def test_an_error_of_ours_refuses_one_object_and_a_machines_trouble_passes(make: Make) -> None:
    with pytest.raises(Permanent, match="ZeroDivisionError"):
        make(is_wrong)(Path("a.dcm"), EXPLICIT)
    with pytest.raises(Broke, match="Too many open files"):
        make(cannot_read)(Path("a.dcm"), EXPLICIT)


def test_nothing_is_left_in_the_folder_and_no_core_of_an_image_is_written(make: Make, tmp_path: Path) -> None:
    process, core = content(make(tells_its_limits)(Path("a.dcm"), EXPLICIT)).split()
    assert (True, b"0") == (int(process) != os.getpid(), core)
    assert [] == list((tmp_path / "scratch").iterdir())


def test_a_folder_that_cannot_be_made_is_tried_again(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Broke, match="cannot be transcoded now"):
        Transcoder(tmp_path / "file" / "scratch")(Path("a.dcm"), EXPLICIT)


def test_closing_ends_what_runs_and_that_is_no_fault_of_the_object(make: Make) -> None:
    transcode = make(hangs)
    assert b"done" == content(transcode(Path("first.dcm"), EXPLICIT))
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(transcode, Path("endless.dcm"), EXPLICIT)
        transcode.close()
        with pytest.raises(Broke, match="the service stops"):
            waiting.result(timeout=30)
    with pytest.raises(Broke, match="the service stops"):
        transcode(Path("next.dcm"), EXPLICIT)
