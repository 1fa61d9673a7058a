"""A key is absent only while no call can have been added under it."""

from approvals.store import absent_keys
from approvals.store.absent_keys import AbsentKeys


def searched(keys, key, *, found=False):
    keys.end_search(key, keys.begin_search(key), found=found)


def test_a_key_that_was_not_found_is_absent_until_a_call_is_added():
    keys = AbsentKeys()
    assert "k" not in keys
    searched(keys, "k")
    assert "k" in keys
    keys.discard("k")
    assert "k" not in keys
    searched(keys, "k", found=True)
    assert "k" not in keys


def test_a_key_under_which_a_call_was_added_during_the_search_is_not_absent():
    keys = AbsentKeys()
    mark = keys.begin_search("k")
    keys.discard("k")
    keys.end_search("k", mark, found=False)
    assert "k" not in keys


def test_the_end_of_an_older_search_says_nothing():
    keys = AbsentKeys()
    older = keys.begin_search("k")
    keys.discard("k")
    newer = keys.begin_search("k")
    keys.end_search("k", older, found=False)
    assert "k" not in keys
    keys.end_search("k", newer, found=True)
    assert "k" not in keys


def test_only_the_newest_absent_keys_are_remembered():
    keys = AbsentKeys()
    for n in range(absent_keys.MAX_REMEMBERED + 1):
        searched(keys, f"k{n}")
    assert "k0" not in keys
    assert "k1" in keys
    assert len(keys._searches) == absent_keys.MAX_REMEMBERED
