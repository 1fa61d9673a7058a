"""The limit on open files, and its division among connections."""

import resource
from collections.abc import Iterator
from typing import NamedTuple

#: The highest limit requested. Child processes inherit it, and some loop over every possible descriptor.
MAX_FILES = 1 << 16
#: Below this limit, print a warning: a waiting agent has a connection, and its call may have one to its server.
LOW_LIMIT = 4096
#: Files reserved for the gateway itself: the store, sockets to servers, child processes.
RESERVED = 64
#: The least number of connections for the inbox.
MIN_INBOX = 128


class FileShares(NamedTuple):
    """The maximum connections of each listener."""

    agents: int
    inbox: int


def hard_limit() -> int:
    """Return the hard limit on open files."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return MAX_FILES if limit == resource.RLIM_INFINITY else limit


def limit_warnings() -> Iterator[str]:
    """Yield a warning if the hard limit is low."""
    if (files := hard_limit()) < LOW_LIMIT:
        yield (
            f"this process may open {files} files, enough for {divide_files(files).agents} agent connections; "
            f"raise the hard limit to {LOW_LIMIT} or more (ulimit -Hn, LimitNOFILE=, docker --ulimit nofile)."
        )


def raise_limit() -> int:
    """Raise the soft limit to the hard limit, at most MAX_FILES; returns the new limit."""
    soft, limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(hard_limit(), MAX_FILES)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, limit))
    return max(soft, wanted)


def divide_files(files: int) -> FileShares:
    """Divide *files* between the connections of agents and of the inbox, without the reserved ones."""
    inbox = max(MIN_INBOX, files // 8)
    return FileShares(agents=max(1, files - RESERVED - inbox), inbox=inbox)
