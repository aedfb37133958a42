"""How do two processes ask each other: one socket pair, values that are pickled, answers in any order."""

import itertools
import os
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any, Final

GONE: Final = "the process at the other end has gone"
Reply = Callable[[Any], None]
Handle = Callable[[str, Any, Reply], None]
"""(what is asked, its value, how to answer): called on the reading thread, so it must be quick; it may answer later."""


class LinkGone(OSError):
    """The process at the other end has gone; what was asked may or may not have been done."""


class Link:
    """One end. Any thread may `ask`; every question gets its answer, or LinkGone."""

    def __init__(self, connection: Connection, handle: Handle, *, on_gone: Callable[[], None]) -> None:
        """Begin to read on a thread of its own; ``on_gone`` is called there, once, at the end."""
        self._connection = connection
        self._handle = handle
        self._on_gone = on_gone
        self._sending = threading.Lock()
        self._waiting: dict[int, Future[Any]] = {}
        self._numbers = itertools.count()
        self._is_gone = False
        self._reader = threading.Thread(target=self._read, name="link", daemon=True)
        self._reader.start()

    def ask(self, what: str, value: Any, *, within_s: float | None = None) -> Any:
        """Ask, and wait for the answer. Raises LinkGone, TimeoutError, or what the other end raised."""
        return self._asked(lambda: None, what, value, within_s)

    def ask_while(self, meanwhile: Callable[[], None], what: str, value: Any) -> Any:
        """Ask, do something while the answer is on its way, and wait for it. Raises as `ask`, and what that raises."""
        return self._asked(meanwhile, what, value, None)

    def close(self) -> None:
        """End; the other end sees it as well. Closing alone would not wake the thread that reads."""
        with suppress(OSError), socket.socket(fileno=os.dup(self._connection.fileno())) as both_ways:
            both_ways.shutdown(socket.SHUT_RDWR)
        self._reader.join()
        self._connection.close()

    def _asked(self, meanwhile: Callable[[], None], what: str, value: Any, within_s: float | None) -> Any:
        number = next(self._numbers)
        future: Future[Any] = Future()
        self._waiting[number] = future
        try:
            self._send((number, what, value))
            meanwhile()
            return future.result(within_s)
        finally:
            self._waiting.pop(number, None)

    def _send(self, message: tuple[int, str | None, Any]) -> None:
        try:
            with self._sending:
                if self._is_gone:
                    raise LinkGone(GONE)
                self._connection.send(message)
        except (OSError, ValueError) as broken:
            raise LinkGone(GONE) from broken

    def _read(self) -> None:
        try:
            while True:
                number, what, value = self._connection.recv()
                if what is None:
                    self._answered(number, value)
                else:
                    self._handle(what, value, self._reply_to(number))
        except (EOFError, OSError):
            pass
        finally:
            self._end()

    def _reply_to(self, number: int) -> Reply:
        def reply(value: Any) -> None:
            try:
                self._send((number, None, value))
            except LinkGone:
                return  # nobody is left who waits for it

        return reply

    def _answered(self, number: int, value: Any) -> None:
        future = self._waiting.get(number)
        if future is None:
            return
        if isinstance(value, BaseException):
            future.set_exception(value)
        else:
            future.set_result(value)

    def _end(self) -> None:
        with self._sending:
            self._is_gone = True
        for future in list(self._waiting.values()):
            if not future.done():
                future.set_exception(LinkGone(GONE))
        self._on_gone()
