"""Room that was given back is the system's again, and what was not given back keeps its values."""

import mmap

import numpy as np
import psutil
import pytest

from reconstruction.room import give_back, room

LARGE = (64, 256, 1024)  # 32 MB of int16


def resident_bytes() -> int:
    return int(psutil.Process().memory_info().rss)


def test_room_is_zeros_that_can_be_written_and_goes_with_its_array() -> None:
    before = resident_bytes()
    made = room(LARGE, np.int16)
    assert (LARGE, "int16", 0) == (made.shape, str(made.dtype), int(made.max()))
    made[:] = 7
    assert resident_bytes() - before > 0.9 * made.nbytes
    size = made.nbytes
    del made
    assert resident_bytes() - before < 0.1 * size


def test_the_first_slices_are_given_back_and_the_others_keep_their_values() -> None:
    made = room(LARGE, np.int16)
    made[:] = np.arange(1, 65, dtype=np.int16)[:, None, None]
    made.flags.writeable = False  # as a Volume holds it
    full = resident_bytes()
    give_back(made, 48)
    assert full - resident_bytes() > 0.7 * 0.75 * made.nbytes
    assert np.array_equal(np.arange(49, 65), made[48:, 0, 0])
    assert np.array_equal(np.arange(49, 65), made[48:, -1, -1])
    give_back(made, 1000)
    assert full - resident_bytes() > 0.7 * made.nbytes


def test_what_shares_a_page_with_the_rest_stays() -> None:
    made = room((3000, 500), np.bool_)
    made[:] = True
    give_back(made, 101)
    kept = made.reshape(-1)[101 * 500 // mmap.PAGESIZE * mmap.PAGESIZE :]
    assert kept.all()


@pytest.mark.parametrize("array", [room((4, 8), np.int16), np.ones(LARGE, np.int16), room(LARGE, np.int16)[1:]])
def test_other_arrays_and_parts_of_one_stay_as_they_are(array: np.ndarray) -> None:
    array[:] = 5
    give_back(array, 4)
    assert (array == 5).all()


def test_room_that_nobody_has_is_a_memory_error() -> None:
    for shape in ((1 << 30, 1 << 20, 1 << 10), (1 << 40, 1 << 40)):
        with pytest.raises(MemoryError):
            room(shape, np.int16)
