"""Everything that can happen to a held call, each as: read, ask the law, swap, and only then tell.

On `Conflict` the call is read again and the law asked anew, so the first decision wins and later ones are told
what became of it. Channels, inbox, API, CLI and the gateway all use this one service.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any

from approvals import digest, lifecycle
from approvals.errors import AlreadyDecided, Conflict, IllegalTransition, ReasonNeeded, StaleView, TooMany, UnknownCall
from approvals.identity import Directory
from approvals.model import (
    Answer,
    AuditEvent,
    CallId,
    Classification,
    HeldCall,
    Outcome,
    Review,
    State,
    Terms,
    ToolCall,
)
from approvals.store import Store
from approvals.waiters import Waiters

Clock = Callable[[], float]
#: The most open calls one agent, and all together, may have waiting.
MAX_PENDING_PER_AGENT = 100
MAX_PENDING = 2000
REASON_BYTES = 4096
