"""Does a file reach the disk whole or not at all?"""

import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacs_bridge.files import keep_by_content, write_whole


def test_parts_stand_in_the_file_in_order_and_nothing_beside_it(tmp_path: Path) -> None:
    write_whole(tmp_path / "target", (b"one ", b"", b"two"), tmp_path)
    assert b"one two" == (tmp_path / "target").read_bytes()
    assert ["target"] == [path.name for path in tmp_path.iterdir()]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_half_written(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"old")
    with pytest.raises(TypeError):
        write_whole(tmp_path / "target", (b"half", "no bytes"), tmp_path)  # type: ignore[arg-type]
    assert [b"old"] == [path.read_bytes() for path in tmp_path.iterdir()]


def test_a_target_that_cannot_be_is_refused_and_nothing_stays(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    with pytest.raises(OSError, match="directory"):
        write_whole(tmp_path / "target", (b"x",), tmp_path)
    assert ["target"] == [path.name for path in tmp_path.iterdir()]


@given(content=st.binary(max_size=200))
def test_content_is_named_by_its_hash(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("store")
    path, digest = keep_by_content(folder, content)
    assert hashlib.sha256(content).hexdigest() == digest
    assert (f"{digest[:2]}/{digest}.dcm", content) == (path, (folder / path).read_bytes())


def test_the_same_content_is_written_once(tmp_path: Path) -> None:
    path, _ = keep_by_content(tmp_path, b"x")
    written = (tmp_path / path).stat()
    assert path == keep_by_content(tmp_path, b"x")[0]
    assert (written.st_ino, written.st_mtime_ns) == (
        (tmp_path / path).stat().st_ino,
        (tmp_path / path).stat().st_mtime_ns,
    )


def test_writers_of_the_same_content_do_not_get_in_each_others_way(tmp_path: Path) -> None:
    start = threading.Barrier(8)

    def keep(_: int) -> str:
        start.wait()
        return keep_by_content(tmp_path, b"x" * 100_000)[0]

    with ThreadPoolExecutor(8) as pool:
        (name,) = set(pool.map(keep, range(8)))
    assert [tmp_path / name] == [path for path in tmp_path.rglob("*") if path.is_file()]
    assert b"x" * 100_000 == (tmp_path / name).read_bytes()
