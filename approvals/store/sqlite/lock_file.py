"""The notes in a store's `<file>.lock`: lines of `name value`, each at a fixed offset.

A process writes one line without touching the others. So the gateway that holds the lock and one that waits for it can
both write. A line is 128 bytes, padded with spaces. Older versions wrote a single line, `SEQ HASH`; it is read as the
line `event`.
"""

import os
from collections.abc import Mapping

#: Bytes of a line, with its newline.
WIDTH = 128
#: The names of the lines in file order: the last committed audit event, how many times a gateway was started with this
#: store, the process that waits for it, and after a clean stop the file's size with the first two notes.
LINES = ("event", "starts", "wanted", "closed")


def read(file: int) -> Mapping[str, str]:
    """Return the notes in the open *file* by name, without the lines that are empty."""
    text = os.pread(file, WIDTH * len(LINES), 0).decode("ascii", "replace")
    lines = [line.strip(" \0") for line in text.split("\n")]
    if lines[0][:1].isdecimal():
        lines[0] = f"event {lines[0]}"
    return {name: value for name, _, value in (line.partition(" ") for line in lines) if value}


def write(file: int, name: str, value: str) -> None:
    """Replace one line of the open *file*."""
    line = f"{name} {value}".ljust(WIDTH - 1)
    os.pwrite(file, f"{line}\n".encode("ascii"), WIDTH * LINES.index(name))
