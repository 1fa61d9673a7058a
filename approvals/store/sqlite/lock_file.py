"""The notes beside a store's file, in `<file>.lock`: lines of `name value`, each at a place of its own.

A process writes one line without touching the others, so the gateway that holds the lock and one that waits for it
can both write. A line is 128 bytes, filled up with spaces. Older versions wrote one line, `SEQ HASH`; it is read as
the line `event`.
"""

import os
from collections.abc import Mapping

#: Bytes of a line, with its end.
WIDTH = 128
#: Every line there may be, in the order of their places: the last audit event that was committed, how often a gateway
#: was started with this store, and the process that wants it.
LINES = ("event", "starts", "wanted")


def read(file: int) -> Mapping[str, str]:
    """Return the notes in the open *file* by name; a line that was never written is left out."""
    text = os.pread(file, WIDTH * len(LINES), 0).decode("ascii", "replace")
    lines = [line.strip(" \0") for line in text.split("\n")]
    if lines[0][:1].isdecimal():
        lines[0] = f"event {lines[0]}"
    return {name: value for name, _, value in (line.partition(" ") for line in lines) if value}


def write(file: int, name: str, value: str) -> None:
    """Write one line of the open *file*, in place of what it said."""
    line = f"{name} {value}".ljust(WIDTH - 1)
    os.pwrite(file, f"{line}\n".encode("ascii"), WIDTH * LINES.index(name))
