"""How are objects stored at a peer over one association: C-STORE after C-STORE, the next loaded while one is answered?

The DICOM default is one operation at a time (PS3.7, D.3.3.3); what can overlap is our reading with the peer's writing.
"""

import time
from dataclasses import dataclass, field
from typing import Self

from pacs_bridge.sending.commands import LAST_MESSAGE_ID, store_request
from pacs_bridge.sending.pdu import Malformed, longest_fragment
from pacs_bridge.sending.peer import TimeLimits
from pacs_bridge.sending.source import Source
from pacs_bridge.sending.train import Train
from pacs_bridge.sending.wire import Wire


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """An object whose first PDUs are ready to leave; ``size`` is that of its data set in bytes."""

    message_id: int
    size: int
    train: Train
    first: memoryview = field(repr=False)


class Carrier:
    """Carries objects over a wire. Two trains: one is under way, the other is loaded."""

    def __init__(self, wire: Wire, maximum_length: int, limits: TimeLimits) -> None:
        """Prepare for PDUs of ``maximum_length`` bytes (0: any). Raises Malformed where they carry nothing."""
        longest = longest_fragment(maximum_length)
        self._wire, self._limits = wire, limits
        self._trains = (Train(longest), Train(longest))
        self._count = 0

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close what is still open."""
        for train in self._trains:
            train.close()

    def load(self, sop_class_uid: str, sop_instance_uid: str, context_id: int, source: Source) -> Loaded:
        """Read the first of an object; its source is the carrier's to close. Raises Unreadable: nothing was sent."""
        message_id = 1 + self._count % LAST_MESSAGE_ID
        train = self._trains[self._count % len(self._trains)]
        self._count += 1
        size = source.size
        command = store_request(message_id, sop_class_uid, sop_instance_uid)
        return Loaded(message_id=message_id, size=size, train=train, first=train.begin(command, context_id, source))

    def send(self, loaded: Loaded) -> None:
        """Send all of an object. Raises Unreadable, BrokenOff, TooSlow, Malformed: the association is over then."""
        deadline = time.monotonic() + self._limits.for_object(loaded.size)
        self._wire.send(loaded.first, deadline)
        while loaded.train.left:
            self._wire.send(loaded.train.more(), deadline)

    def status(self, loaded: Loaded) -> int:
        """Wait for what the peer says to an object. Raises BrokenOff, TooSlow, Malformed."""
        response = self._wire.response()
        if response.message_id != loaded.message_id:
            raise Malformed(f"an answer to message {response.message_id} where one to {loaded.message_id} was due")
        return response.status
