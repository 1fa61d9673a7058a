"""How many files the process may have open, and which share of them connections may take."""

import resource
from collections.abc import Iterator
from typing import NamedTuple

#: Enough for any gateway. Servers that are started here inherit the limit, and some loop over all files they could have.
MAX_FILES = 1 << 16
#: Fewer are few: each agent that waits has a connection here, and its call may have one to its server.
LOW_LIMIT = 4096
#: Files for the gateway itself: the store, sockets to servers, children.
RESERVED = 64
#: Connections that the inbox has at least, whatever agents do.
MIN_INBOX = 128


class FileShares(NamedTuple):
    """The most connections of each listener."""

    agents: int
    inbox: int


def hard_limit() -> int:
    """Return how many files the process could have open at most."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return MAX_FILES if limit == resource.RLIM_INFINITY else limit


def limit_warnings() -> Iterator[str]:
    """Yield what is wrong with the hard limit, as a sentence."""
    if (files := hard_limit()) < LOW_LIMIT:
        yield (
            f"this process may open {files} files, so at most {divide_files(files).agents} connections of agents; "
            f"raise the hard limit to {LOW_LIMIT} or more (ulimit -Hn, LimitNOFILE=, docker --ulimit nofile)."
        )


def raise_limit() -> int:
    """Raise the limit as far as useful; returns how many files the process may have open now."""
    soft, limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(hard_limit(), MAX_FILES)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, limit))
    return max(soft, wanted)


def divide_files(files: int) -> FileShares:
    """Divide *files* into connections of agents and of the inbox; the gateway's own are left out."""
    inbox = max(MIN_INBOX, files // 8)
    return FileShares(agents=max(1, files - RESERVED - inbox), inbox=inbox)
