"""Do instances leave soon, in order, each once and in batches that hold nobody up?"""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacs_bridge.forward_batches import LONGEST_WAIT_S, MOST_BYTES, MOST_INSTANCES, QUIET_S, cut, is_due, most_bytes
from pacs_bridge.forward_ledger import Unbatched

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def waiting(instances: int, *, first_s: float, last_s: float) -> Unbatched:
    ago = {"first_at": NOON - timedelta(seconds=first_s), "last_at": NOON - timedelta(seconds=last_s)}
    return Unbatched(destination="pacs", study_instance_uid="1.2", instances=instances, **ago)


@pytest.mark.parametrize(
    ("study", "due"),
    [
        (waiting(1, first_s=0.5, last_s=0.1), False),
        (waiting(1, first_s=QUIET_S, last_s=QUIET_S), True),
        (waiting(20, first_s=LONGEST_WAIT_S, last_s=0), True),
        (waiting(MOST_INSTANCES, first_s=0.1, last_s=0), True),
    ],
)
def test_a_study_leaves_when_it_pauses_or_enough_is_here(study: Unbatched, due: bool) -> None:  # noqa: FBT001
    assert due == is_due(study, NOON)


@given(sizes=st.lists(st.integers(0, 10**8), max_size=300), most=st.integers(1, MOST_BYTES))
def test_batches_are_all_of_it_in_order_and_bounded(sizes: list[int], most: int) -> None:
    batches = list(cut(list(enumerate(sizes)), most))
    assert list(range(len(sizes))) == [each for batch in batches for each in batch]
    assert all(len(batch) <= MOST_INSTANCES for batch in batches)
    assert all(len(batch) == 1 or sum(sizes[each] for each in batch) <= most for batch in batches)


def test_a_throttled_destination_gets_small_batches() -> None:
    assert (MOST_BYTES, 2 * 2**20, MOST_BYTES) == (most_bytes(0), most_bytes(0.2), most_bytes(100))
