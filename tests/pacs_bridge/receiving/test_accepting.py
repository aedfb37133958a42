"""What if a receiver cannot go on accepting, and what is said of threads that end?"""

import socket
import threading
from pathlib import Path
from typing import Any

import structlog

from pacs_bridge.archive_files import ArchiveFiles
from pacs_bridge.receiving.process import thread_ended
from pacs_bridge.receiving.receiver import Receiver, ReceiverOptions
from pacs_bridge.receiving.storing_socket import Bounds


class Unacceptable(socket.socket):
    """A listening socket that fails as nobody has thought of."""

    def accept(self) -> tuple[socket.socket, Any]:
        """See socket.socket."""
        raise MemoryError


def test_a_receiver_that_does_not_accept_any_more_says_so(bridge: Any, tmp_path: Path) -> None:
    bounds = Bounds(maximum_pdu_bytes=65536, idle_s=10, slowest_bytes_per_s=0)
    options = ReceiverOptions(ae_title="CTRIAGE", bounds=bounds, maximum_instance_bytes=2**20)
    ended = threading.Event()
    receiver = Receiver(options, ArchiveFiles(tmp_path, floor_bytes=0), bridge.desk())
    before, threading.excepthook = threading.excepthook, lambda _ended: None
    try:
        with Unacceptable() as listening:
            listening.bind(("127.0.0.1", 0))
            listening.listen()
            receiver.start([(listening, None)], on_ended=ended.set)
            assert not ended.is_set()
            with socket.create_connection(listening.getsockname(), timeout=20):
                assert ended.wait(20)
            receiver.stop()
    finally:
        threading.excepthook = before


def test_a_receiver_that_is_stopped_does_not_complain(bridge: Any, listen: Any) -> None:
    listener = listen(bridge)
    listener.stop()
    assert not listener.failed.done()


def test_what_ends_a_thread_is_said_in_one_line_without_a_word_of_the_peers() -> None:
    def break_down() -> None:
        raise ValueError("Doe^Jane")

    before, threading.excepthook = threading.excepthook, thread_ended
    try:
        with structlog.testing.capture_logs() as logs:
            thread = threading.Thread(target=break_down)
            thread.start()
            thread.join()
    finally:
        threading.excepthook = before
    (entry,) = logs
    assert ("thread_ended", "ValueError") == (entry["event"], entry["by"])
    assert entry["where"].startswith("test_accepting.py:")
    assert "Doe" not in str(entry)
