"""Do a folder and a peer keep the promises of every output?"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset

from pacs_bridge.destinations import Destination, deliver
from pacs_bridge.ledger import KeptObject
from pacs_bridge.outputs import FolderOutput
from pacs_bridge.part10 import file_header, read_file
from pacs_bridge.send import Peer
from pipeline.ports import Output
from pipeline.testing import OutputContract

EXPLICIT = "1.2.840.10008.1.2.1"


def write_slices(folder: Path, make_slice: Any, encode: Any) -> list[Path]:
    paths = []
    for n in (1, 2, 3):
        header: Dataset = make_slice(n)
        path = folder / f"{n}.dcm"
        path.write_bytes(file_header(header.SOPClassUID, header.SOPInstanceUID, EXPLICIT, "X") + encode(header))
        paths.append(path)
    return paths


class TestFolderOutput(OutputContract):
    @pytest.fixture(autouse=True)
    def _around(self, make_slice: Any, encode: Any) -> None:
        self.slices = (make_slice, encode)

    def make_output(self, tmp_path: Path) -> Output:
        self.results = tmp_path / "results"
        return FolderOutput(name="results", place=lambda source: self.results / "v1" / source.name)

    def make_objects(self, tmp_path: Path) -> Sequence[Path]:
        return write_slices(tmp_path, *self.slices)

    def arrived(self, output: Output) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.results.glob("v1/*")}


class Delivered:
    """A destination as the service delivers to it, seen as an Output: result objects, and the folder of their study."""

    def __init__(self, destination: Destination) -> None:
        self.name = destination.name
        self._destination = destination

    def deliver(self, objects: Sequence[Path]) -> None:
        """See pipeline.ports.Output."""
        deliver(self._destination, [kept(path) for path in objects], objects, "abc/v1")


def kept(path: Path) -> KeptObject:
    file = read_file(path)
    return KeptObject(
        kind="sr",
        index=int(path.stem),
        sop_instance_uid=file.sop_instance_uid,
        sop_class_uid=file.sop_class_uid,
        series_instance_uid="1.2.3.4",
        path="",
        sha256="",
    )


class TestResultsFolder(OutputContract):
    @pytest.fixture(autouse=True)
    def _around(self, make_slice: Any, encode: Any) -> None:
        self.slices = (make_slice, encode)

    def make_output(self, tmp_path: Path) -> Output:
        self.results = tmp_path / "results"
        return Delivered(Destination(name="results", send=("sr",), folder=self.results))

    def make_objects(self, tmp_path: Path) -> Sequence[Path]:
        return write_slices(tmp_path, *self.slices)

    def arrived(self, output: Output) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.results.rglob("*.dcm")}


class TestPeer(OutputContract):
    @pytest.fixture(autouse=True)
    def _around(self, bridge: Any, listen: Any, make_slice: Any, encode: Any) -> None:
        self.slices = (make_slice, encode)
        self.archive = bridge.archive
        self.port = listen(bridge).port

    def make_output(self, tmp_path: Path) -> Output:
        peer = Peer(ae_title="CTRIAGE", host="127.0.0.1", port=self.port)
        return Delivered(Destination(name="pacs", send=("sr",), folder=tmp_path, peer=peer))

    def make_objects(self, tmp_path: Path) -> Sequence[Path]:
        folder = tmp_path / "objects"
        folder.mkdir()
        return write_slices(folder, *self.slices)

    def arrived(self, output: Output) -> dict[str, bytes]:
        kept = self.archive.instances_of("1.2.3", "1.2.3.4")
        return {each.facts.sop_instance_uid: each.path.read_bytes()[read_file(each.path).offset :] for each in kept}
