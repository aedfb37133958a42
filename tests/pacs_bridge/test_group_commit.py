"""Is everybody served, once, in order, and is nobody kept to serve others?"""

import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from pacs_bridge.group_commit import MOST_ROUNDS, GroupCommit


def test_everybody_hears_the_outcome_of_their_own_item_once() -> None:
    rounds: list[int] = []

    def commit(items: Sequence[int]) -> Sequence[int]:
        rounds.append(len(items))
        return [-item for item in items]

    group = GroupCommit(commit)
    heard: list[Future[int]] = [Future() for _ in range(400)]
    with ThreadPoolExecutor(8) as threads:
        for number, each in enumerate(heard):
            threads.submit(group.add, number, each.set_result)  # hearing twice would raise
    assert [-number for number in range(400)] == [each.result(20) for each in heard]
    assert 400 == sum(rounds)


def test_who_commits_is_let_go_while_others_keep_coming() -> None:
    stop = threading.Event()
    by: set[int] = set()

    def commit(items: Sequence[int]) -> Sequence[int]:
        by.add(threading.get_ident())
        return items

    def again(number: int) -> None:
        if number and not stop.is_set():
            group._waiting.append((number + 1, again))  # one more has come while this one was committed

    group = GroupCommit(commit)
    last: Future[int] = Future()
    group.add(1, again)  # returns, though there is always another
    wait_for_another_thread = threading.Event()
    while len(by) < 2:
        assert not wait_for_another_thread.wait(0.001)
    stop.set()
    group.add(0, last.set_result)
    assert 0 == last.result(20)
    assert threading.get_ident() in by


def test_a_lone_item_is_committed_on_its_own_thread() -> None:
    threads: list[int] = []

    def commit(items: Sequence[int]) -> Sequence[int]:
        threads.append(threading.get_ident())
        return items

    group = GroupCommit(commit)
    for number in range(MOST_ROUNDS + 2):
        group.add(number, lambda _number: None)
    assert {threading.get_ident()} == set(threads)
