"""A Bloom filter of the keys in the file: most searches for the key of a new call read no file.

It may take an absent key for a stored one, and then the file is read. It never takes a stored key for an absent one.
"""

import mmap
from collections.abc import Iterable

#: The beginning of a key that the filter knows, as the index in the file does.
PREFIX = 16
#: Bytes of the filter. With a million keys, it takes one absent key in seventy for a stored one.
SIZE = 1 << 21


class KeyFilter:
    """The keys that the file may have. Until `complete` is called, it may have every key."""

    def __init__(self) -> None:
        # A page of the mapping takes memory once a bit in it is set.
        self._bits = mmap.mmap(-1, SIZE)
        self._complete = False

    def __contains__(self, key: str) -> bool:
        """Return whether the file may have a call with *key*."""
        if not self._complete:
            return True
        (first, first_bit), (second, second_bit) = _places(key)
        return bool(self._bits[first] & first_bit and self._bits[second] & second_bit)

    def add(self, keys: Iterable[str]) -> None:
        """Add keys, or their prefixes; a key is added before its call is written."""
        bits = self._bits
        for key in keys:
            for place, bit in _places(key):
                bits[place] |= bit

    def complete(self) -> None:
        """Note that every key in the file was added."""
        self._complete = True


def _places(key: str) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the two places of a key: bytes, and a bit in each. No agent can predict the hashes of this process."""
    found = hash(key[:PREFIX])
    return (found >> 3 & SIZE - 1, 1 << (found & 7)), (found >> 35 & SIZE - 1, 1 << (found >> 32 & 7))
