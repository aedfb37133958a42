"""How do we report over an association that its peer has opened, while it goes on asking and storing?

pynetdicom's own way takes whatever message comes next for the answer, and waits for it with everything else at rest.
Here the answer goes to who waits for it (`Reports.heard`), so that requests may cross it.
"""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from io import BytesIO
from typing import Any, Final

from pydicom.uid import UID
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_primitives import N_EVENT_REPORT
from pynetdicom.dsutils import decode, encode

from pacs_bridge.services import EventReport

WITHIN_S: Final = 25.0
_NUMBERS: Final = 0xFFFF
_NO_ANSWER: Final = -1


class WholeMessages(DIMSEServiceProvider):  # type: ignore[misc] # pynetdicom is not typed for us
    """Lets one message after the other be sent, whichever thread it is from: fragments of two never mix."""

    def __init__(self, association: Any) -> None:
        """Begin with nothing to answer."""
        super().__init__(association)
        self.turn = threading.Lock()
        """Held while the fragments of a message are put in line."""
        self.has_answered = threading.Event()
        """Cleared while there is an answer which no report may overtake."""
        self.has_answered.set()

    def send_msg(self, primitive: Any, context_id: int) -> None:
        """Put a message in line."""
        with self.turn:
            super().send_msg(primitive, context_id)
        if primitive.MessageIDBeingRespondedTo is not None:
            self.has_answered.set()


class Reports:
    """Sends N-EVENT-REPORTs over one association, one at a time (PS3.7, 10.1.1); threads may share it."""

    def __init__(self, association: Any, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin with nothing to report."""
        self._association = association
        self._clock = clock
        self._one_at_a_time = threading.Lock()
        self._number = 0
        self._status: Future[int] = Future()
        self._is_over = False

    def send(self, report: EventReport, *, within_s: float = WITHIN_S) -> bool:
        """Send a report; say whether the peer has taken it. Raises ValueError where its class was not negotiated."""
        until = self._clock() + within_s
        if not self._one_at_a_time.acquire(timeout=within_s):
            return False
        try:
            return self._sent(report, until) == 0
        finally:
            self._one_at_a_time.release()

    def heard(self, number: int, status: int) -> None:
        """Take the peer's answer; one that comes too late, or to nothing, is dropped."""
        if number == self._number:
            self._settle(status)

    def ended(self) -> None:
        """Take note that the association has ended: whoever waits is answered, and nothing more is sent."""
        self._is_over = True
        self._settle(_NO_ANSWER)

    def _sent(self, report: EventReport, until: float) -> int:
        dimse = self._association.dimse
        if not dimse.has_answered.wait(until - self._clock()):
            return _NO_ANSWER
        request, context_id = self._request(report)
        self._status = Future()
        self._number = request.MessageID
        if self._is_over or not self._association.is_established:
            return _NO_ANSWER
        dimse.send_msg(request, context_id)
        try:
            return self._status.result(max(0.0, until - self._clock()))
        except TimeoutError:
            return _NO_ANSWER

    def _request(self, report: EventReport) -> tuple[Any, int]:
        context = self._association._get_valid_context(report.sop_class_uid, "", None)
        syntax = context.transfer_syntax[0]
        content = decode(BytesIO(report.dataset), True, True)  # noqa: FBT003 - implicit VR, little endian
        request = N_EVENT_REPORT()
        request.MessageID = self._number % _NUMBERS + 1
        request.AffectedSOPClassUID = UID(report.sop_class_uid)
        request.AffectedSOPInstanceUID = UID(report.sop_instance_uid)
        request.EventTypeID = report.event_type_id
        encoded = encode(content, syntax.is_implicit_VR, syntax.is_little_endian, syntax.is_deflated)
        if encoded is None:
            raise ValueError("a report that cannot be encoded")
        request.EventInformation = BytesIO(encoded)
        return request, int(context.context_id)

    def _settle(self, status: int) -> None:
        with suppress(InvalidStateError):
            self._status.set_result(status)
