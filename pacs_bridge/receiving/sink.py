"""What becomes of one C-STORE's data set while its fragments arrive, and what does its sender hear at the end?"""

import mmap
from dataclasses import dataclass, replace

from pacs_bridge.archive import StoredFile, packed, stored_file
from pacs_bridge.archive_files import ArchiveFiles, KeptFile, PartFile
from pacs_bridge.arrived_header import header_of
from pacs_bridge.elements import Elements, elements_at_the_start, elements_of, require_whole
from pacs_bridge.errors import CannotUnderstand, StorageFull
from pacs_bridge.instance import InstanceFacts, facts_of, is_uid
from pacs_bridge.part10 import file_header
from pacs_bridge.receiving.command import Command
from pacs_bridge.receiving.desk import Answer, Entry, FrontDesk, no_room
from pacs_bridge.store_status import StoreStatus
from reconstruction.headers import Header

READ_BACK_BYTES = 32 * 2**20
"""What is larger is looked at through the page cache, and never held in memory as a whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reception:
    """What all instances of one association share; ``calling_ae`` sends them over ``association``."""

    files: ArchiveFiles
    desk: FrontDesk
    calling_ae: str
    association: str
    maximum_instance_bytes: int


@dataclass(frozen=True, slots=True)
class _Read:
    """What was read of a data set's elements."""

    elements: Elements
    facts: InstanceFacts
    header: Header | None
    packed_header: str | None
    dataset_at: int


class InstanceSink:
    """Takes the data set of one C-STORE request, and answers it. What goes wrong is kept for the answer.

    The rest of a data set that is not kept must still be read, or the sender would never listen to the answer.
    """

    __slots__ = ("_command", "_part", "_read", "_reception", "_refusal", "_transfer_syntax")

    def __init__(self, reception: Reception, command: Command, transfer_syntax: str) -> None:
        """Open its file, if the disk lets us."""
        self._reception = reception
        self._command = command
        self._transfer_syntax = transfer_syntax
        self._refusal: Answer | None = None
        self._part: PartFile | None = None
        self._read: _Read | None = None
        try:
            self._part = self._begun()
        except (StorageFull, OSError) as problem:
            self._give_up(no_room(problem))
        except CannotUnderstand as problem:
            self._give_up(Answer(StoreStatus.CANNOT_UNDERSTAND, str(problem)))

    def write(self, fragment: memoryview) -> None:
        """Take the next fragment."""
        if self._part is None:
            return
        if self._part.size_bytes + len(fragment) > self._reception.maximum_instance_bytes:
            megabytes = self._reception.maximum_instance_bytes // 2**20
            self._give_up(
                Answer(StoreStatus.CANNOT_UNDERSTAND, f"larger than {megabytes} MB, listener.maximum_instance_mb")
            )
            return
        if not self._part.size_bytes:
            # Now, while the rest is still on its way, reading the header costs nobody any time.
            self._read = self._read_ahead(bytes(fragment))
        try:
            self._part.write(fragment)
        except (StorageFull, OSError) as problem:
            self._give_up(no_room(problem))

    def finish(self) -> Answer:
        """Keep what came and enter it into the index; Success means that both are durable."""
        answer = self._refusal or self._kept()
        if answer.status is not StoreStatus.SUCCESS:
            self._reception.desk.not_kept(self._reception.calling_ae, answer)
        return answer

    def abandon(self) -> None:
        """Drop what came: the association has ended."""
        if self._part is not None:
            self._part.abandon()

    def _begun(self) -> PartFile:
        for uid in (self._command.sop_class_uid, self._command.sop_instance_uid):
            if not is_uid(uid):
                raise CannotUnderstand("the request names no valid SOP class or instance")
        return self._reception.files.begin(self._meta(self._command.sop_instance_uid), self._transfer_syntax)

    def _meta(self, sop_instance_uid: str) -> bytes:
        return file_header(
            self._command.sop_class_uid, sop_instance_uid, self._transfer_syntax, self._reception.calling_ae
        )

    def _kept(self) -> Answer:
        try:
            return self._entered()
        except CannotUnderstand as problem:
            return Answer(StoreStatus.CANNOT_UNDERSTAND, str(problem))
        except (StorageFull, OSError) as problem:
            return no_room(problem)
        finally:
            self.abandon()

    def _entered(self) -> Answer:
        part = self._part
        if part is None or not part.size_bytes:
            raise CannotUnderstand("it is empty")
        read = self._whole(part)
        if read.facts.sop_class_uid != self._command.sop_class_uid:
            return Answer(StoreStatus.DOES_NOT_MATCH, "its SOP class is not the one announced")
        if read.facts.sop_instance_uid != self._command.sop_instance_uid:
            part = self._part = part.copied(self._meta(read.facts.sop_instance_uid))
        stored = self._stored(part.place(), read)
        entry = Entry(
            facts=read.facts,
            stored=stored,
            calling_ae=self._reception.calling_ae,
            association=self._reception.association,
        )
        return self._reception.desk.enter(entry, part.settle)

    def _whole(self, part: PartFile) -> _Read:
        if self._read is None:
            return self._read_of(self._elements(part))
        require_whole(self._read.elements, part.size_bytes)
        return self._read

    def _read_ahead(self, beginning: bytes) -> _Read | None:
        elements = elements_at_the_start(beginning, self._transfer_syntax)
        try:
            return None if elements is None else self._read_of(elements)
        except CannotUnderstand:
            return None  # to be said at the end, when all has come

    def _read_of(self, elements: Elements) -> _Read:
        facts = facts_of(elements, self._transfer_syntax)
        header = header_of(elements, self._transfer_syntax) if facts.is_ct else None
        dataset_at = self._part.dataset_at if self._part else 0
        return _Read(elements, facts, header, packed(header, dataset_at), dataset_at)

    def _stored(self, kept: KeptFile, read: _Read) -> StoredFile:
        if kept.dataset_at != read.dataset_at:
            return stored_file(kept, self._transfer_syntax, read.header)
        return replace(stored_file(kept, self._transfer_syntax, None), header=read.packed_header)

    def _elements(self, part: PartFile) -> Elements:
        if part.size_bytes <= READ_BACK_BYTES:
            return elements_of(part.read(part.size_bytes), self._transfer_syntax)
        whole = mmap.mmap(part.descriptor, 0, access=mmap.ACCESS_READ)
        return elements_of(whole, self._transfer_syntax, start=part.dataset_at)

    def _give_up(self, refusal: Answer) -> None:
        self._refusal = refusal
        self.abandon()
        self._part = None
