"""The ids of held calls are ULIDs as the library `ulid` makes and reads them, and they sort by time."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ulid import ULID

from gateway.hold.call_ids import PREFIX, CallIds

TIMES = st.integers(0, (1 << 48) - 1)
RANDOM = st.binary(min_size=10, max_size=10)


@given(TIMES, RANDOM)
def test_an_id_is_the_ulid_of_its_time_and_random_bits(milliseconds, random):
    made = CallIds(lambda: milliseconds * 1_000_000 + 999_999, lambda size: (random * size)[:size]).make()
    assert made == f"{PREFIX}{str(ULID(milliseconds.to_bytes(6) + random)).lower()}"
    assert ULID.from_str(made.removeprefix(PREFIX).upper()).milliseconds == milliseconds


@given(st.lists(st.tuples(st.sampled_from([0, 1, 10_000_000]), RANDOM), min_size=2))
def test_ids_are_in_the_order_in_which_they_were_made(steps):
    now, random = 1_700_000_000 * 10**9, b""
    ids = CallIds(lambda: now, lambda _: random)  # one id's
    made = []
    for step, random in steps:
        now += step
        made.append(ids.make())
    assert made == sorted(set(made))


@pytest.mark.parametrize("last", [b"\xff" * 10, b"\x00" * 9 + b"\xff"])
def test_the_id_after_the_last_one_of_a_millisecond_is_greater(last):
    ids = CallIds(lambda: 5_000_000, lambda _: last)
    assert ids.make() < ids.make()


def test_every_random_byte_is_used_once():
    reads, now = [], iter(range(0, 10**12, 1_000_000))

    def read(size):
        reads.append(os.urandom(size))
        return reads[-1]

    ids = CallIds(lambda: next(now), read)
    made = [ULID.from_str(ids.make().removeprefix(PREFIX).upper()).bytes[6:] for _ in range(250)]
    assert len(reads) == 3
    assert b"".join(reads).startswith(b"".join(made))


def test_ids_of_two_processes_differ():
    assert CallIds().make()[-16:] != CallIds().make()[-16:]
