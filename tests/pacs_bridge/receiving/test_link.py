"""Two ends of a link: every question gets its answer, or hears that nobody is left."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import Pipe
from typing import Any

import pytest

from pacs_bridge.receiving.link import Link, LinkGone, Reply


def links(handle: Callable[[str, Any, Reply], None]) -> tuple[Link, Link, threading.Event]:
    """Return an end that asks, one that answers, and whether the asking one has seen the end."""
    one, other = Pipe()
    gone = threading.Event()
    return (
        Link(one, lambda _what, _value, _reply: None, on_gone=gone.set),
        Link(other, handle, on_gone=lambda: None),
        gone,
    )


def test_many_threads_get_their_own_answers_in_whatever_order_they_come() -> None:
    waiting: list[tuple[int, Reply]] = []
    lock = threading.Lock()

    def answer_in_pairs_backwards(_what: str, value: int, reply: Reply) -> None:
        with lock:
            waiting.append((value, reply))
            if len(waiting) == 2:
                for number, answer in reversed(waiting):
                    answer(number * number)
                waiting.clear()

    asking, answering, _ = links(answer_in_pairs_backwards)
    with ThreadPoolExecutor(8) as threads:
        assert [n * n for n in range(64)] == list(
            threads.map(lambda n: asking.ask("square", n, within_s=20), range(64))
        )
    answering.close()


def test_an_error_at_the_other_end_is_raised_here() -> None:
    asking, answering, _ = links(lambda _what, _value, reply: reply(ValueError("no")))
    with pytest.raises(ValueError, match="no"):
        asking.ask("anything", None, within_s=20)
    answering.close()


def test_who_waits_when_the_other_end_goes_hears_of_it() -> None:
    asked = threading.Event()
    asking, answering, gone = links(lambda _what, _value, _reply: asked.set())
    with ThreadPoolExecutor(1) as threads:
        answer = threads.submit(asking.ask, "never answered", None, within_s=20)
        assert asked.wait(20)
        answering.close()
        with pytest.raises(LinkGone):
            answer.result(20)
    assert gone.wait(20)
    with pytest.raises(LinkGone):
        asking.ask("too late", None)
