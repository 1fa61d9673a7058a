"""The SQL of the SQLite store; `schema` has the tables, and the indexes that each query relies on."""

from collections.abc import Mapping, Sequence
from typing import Any

from approvals.model import State

INSERT_CALL = """
    INSERT INTO calls (n, version, state, digest, expires_at, settled_at, body, seal, id, key, agent, server, tool, created_at)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
SWAP_CALL = """
    UPDATE calls SET version = ?, state = ?, digest = ?, expires_at = ?, settled_at = ?, body = ?, seal = ?
    WHERE id = ? AND version = ?
"""
INSERT_SUMMARY = """
    INSERT INTO summaries (n, state, task, summary, seal, id, agent, server, tool, created_at, size)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
SWAP_SUMMARY = """
    UPDATE summaries SET state = ?, task = ?, summary = ?, seal = ? WHERE n = (SELECT n FROM calls WHERE id = ?)
"""
#: The next call without a summary: an older version wrote it.
WITHOUT_SUMMARY = """
    SELECT n, state, body, seal, id, agent, server, tool, created_at FROM calls
    WHERE n > (SELECT coalesce(max(n), 0) FROM summaries) ORDER BY n LIMIT 1
"""
SAME_ID = "SELECT 1 FROM calls WHERE id = ?"
NEXT_ROW = "SELECT coalesce(max(n), 0) + 1 FROM calls"
VERSION = "SELECT version FROM calls WHERE id = ?"
ID_OF_ROW = "SELECT id FROM summaries WHERE n = ?"
CALL_OF_ROW = "SELECT body, seal FROM calls WHERE n = ?"
CALL = "SELECT body, seal FROM calls WHERE id = ?"
#: `+key`: otherwise SQLite puts the value into `substr` and cannot use the index.
NEWEST_OF_KEY = """
    SELECT body, seal FROM calls INDEXED BY calls_by_key
    WHERE substr(key, 1, 16) = substr(?1, 1, 16) AND +key = ?1 ORDER BY n DESC LIMIT 1
"""
#: Some prefixes of keys, in order, from the index alone.
KEY_PREFIXES = """
    SELECT substr(key, 1, 16) FROM calls INDEXED BY calls_by_key WHERE substr(key, 1, 16) > ?
    ORDER BY substr(key, 1, 16) LIMIT 1000
"""
OPEN_CALLS = """
    SELECT n, body, seal FROM calls INDEXED BY calls_open
    WHERE state IN ('pending', 'approved', 'forwarding', 'in_doubt')
"""
#: The number and the bytes of an agent's calls that were created between two times.
RECENT = """
    SELECT count(*), coalesce(sum(size), 0) FROM summaries INDEXED BY summaries_by_age
    WHERE agent = ? AND created_at > ? AND created_at <= ?
"""
# Two halves, each found by an index: open calls, and settled calls that the channel has posted.
STALE = """
    SELECT n, summary, seal, notices.* FROM summaries INDEXED BY summaries_by_state
    LEFT JOIN notices ON notices.call = id AND channel = :channel
    WHERE state IN ('pending', 'approved', 'forwarding', 'in_doubt')
    AND (call IS NULL OR shown_version < wanted AND retry_at <= :now)
    UNION ALL
    SELECT n, summary, summaries.seal, notices.* FROM notices INDEXED BY notices_to_update
    CROSS JOIN calls ON calls.id = notices.call CROSS JOIN summaries USING (n)
    WHERE channel = :channel AND shown_version < wanted AND retry_at <= :now AND ref IS NOT NULL
    AND summaries.state NOT IN ('pending', 'approved', 'forwarding', 'in_doubt')
    ORDER BY 1
"""
STALE_PRESENCE = """
    SELECT notices.* FROM summaries INDEXED BY summaries_by_state
    CROSS JOIN notices ON notices.call = summaries.id AND channel = :channel
    WHERE state = 'pending' AND ref IS NOT NULL AND retry_at <= :now AND shown_attended IS NOT (EXISTS (
        SELECT 1 FROM presence JOIN replicas ON replicas.id = replica WHERE presence.call = summaries.id AND until > :now
    ))
    ORDER BY n
"""
SAVE_NOTICE = """
    INSERT OR REPLACE INTO notices (call, channel, ref, shown_version, shown_attended, failures, retry_at, wanted)
    VALUES (?, ?, ?, ?, ?, ?, ?, (SELECT version FROM calls WHERE id = ?))
"""
LAST_LINK = "SELECT seq, hash FROM events WHERE seq = (SELECT max(seq) FROM events)"
INSERT_EVENT = "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
LAST_EVENTS = "SELECT * FROM events WHERE seq > (SELECT max(seq) FROM events) - ? ORDER BY seq"
LATER_EVENTS = "SELECT * FROM events WHERE seq > ? ORDER BY seq LIMIT ?"
EVENTS_OF_CALL = """
    SELECT * FROM events INDEXED BY events_by_call WHERE call = ? AND seq > ? ORDER BY seq LIMIT ?
"""
#: The number before the first event that may match a search since a time, or NULL. On a later page the first event usually
#: does. `+seq`: the index on times is read, and not the trail from its beginning.
BEFORE_TIME = """
    SELECT CASE WHEN (SELECT at FROM events WHERE seq > :after ORDER BY seq LIMIT 1) >= :since THEN :after
    ELSE (SELECT min(+seq) - 1 FROM events INDEXED BY events_by_time WHERE at >= :since) END
"""
#: The last event that was written with a version of a call.
LAST_OF_CALL = """
    SELECT * FROM events WHERE call = ? AND (kind LIKE 'hold.%' OR kind = 'arguments.revealed')
    ORDER BY seq DESC LIMIT 1
"""
DROP_HITS = "DELETE FROM hits WHERE until <= ?"
INSERT_HIT = "INSERT INTO hits (key, at, until, amount) VALUES (?, ?, ?, ?)"
HITS = "SELECT key, at, amount FROM hits WHERE until > ? ORDER BY at, rowid"
DROP_LOGINS = "DELETE FROM logins WHERE expires_at <= ?"
SAVE_LOGIN = """
    INSERT OR REPLACE INTO logins (id_sha256, approver, created_at, expires_at, seal, seen_at) VALUES (?, ?, ?, ?, ?, ?)
"""
LOGIN = "SELECT id_sha256, approver, created_at, expires_at, seal, seen_at FROM logins WHERE id_sha256 = ?"
RECORD_ACTIVITY = "UPDATE logins SET seen_at = ?1 WHERE id_sha256 = ?2 AND seen_at < ?1"
DELETE_LOGIN = "DELETE FROM logins WHERE id_sha256 = ?"
DROP_CODES = "DELETE FROM codes WHERE expires_at <= ?"
SAVE_CODE = (
    "INSERT OR REPLACE INTO codes (id_sha256, approver, created_at, expires_at, seal) VALUES (?, ?, ?, ?, ?)"
)
CODE = "SELECT id_sha256, approver, created_at, expires_at, seal FROM codes WHERE id_sha256 = ?"
DELETE_CODE = "DELETE FROM codes WHERE id_sha256 = ?"
CREATE_KEY = "INSERT OR IGNORE INTO secrets (name, bytes) VALUES (?, ?)"
KEY = "SELECT bytes FROM secrets WHERE name = ?"
SAVE_PIN = "INSERT OR REPLACE INTO pins (server, tool, hash, definition, identity) VALUES (?, ?, ?, ?, ?)"
PINS = "SELECT server, tool, hash, definition, identity FROM pins ORDER BY server, tool"
DROP_SESSIONS = "DELETE FROM sessions WHERE at <= ?"
SAVE_SESSION = (
    "INSERT OR REPLACE INTO sessions (server, id, agent, opening, at, seal) VALUES (?, ?, ?, ?, ?, ?)"
)
SESSION = "SELECT server, id, agent, opening, at, seal FROM sessions WHERE server = ? AND id = ?"
DELETE_SESSION = "DELETE FROM sessions WHERE server = ? AND id = ?"
STARTS = "SELECT starts FROM progress"
COUNT_START = "UPDATE progress SET starts = ?"
HIGHEST_TIME = "SELECT time FROM progress"
KEEP_TIME = "UPDATE progress SET time = ?1 WHERE time < ?1"
RESET_TIME = (
    "UPDATE progress SET time = :at",
    "UPDATE hits SET until = :at + until - at, at = :at WHERE at > :at",
    "DELETE FROM logins WHERE created_at > :at",
    "UPDATE logins SET seen_at = :at WHERE seen_at > :at",
    "DELETE FROM codes WHERE created_at > :at",
    """
    UPDATE notices INDEXED BY notices_to_update SET retry_at = :at
    WHERE shown_version < wanted AND ref IS NOT NULL AND retry_at > :at
    """,
    """
    UPDATE notices SET retry_at = :at WHERE retry_at > :at AND call IN (
        SELECT id FROM summaries INDEXED BY summaries_by_state
        WHERE state IN ('pending', 'approved', 'forwarding', 'in_doubt')
    )
    """,
)
RENEW_REPLICA = "INSERT OR REPLACE INTO replicas (id, until) VALUES (?, ?)"
LIVE_REPLICAS = "SELECT id FROM replicas WHERE until > ?"
ENDED_REPLICAS = "SELECT id FROM replicas WHERE until <= ?"
END_REPLICA = (
    "DELETE FROM replicas WHERE id = ?",
    "DELETE FROM locks WHERE holder = ?",
    "DELETE FROM presence WHERE replica = ?",
)
FORGET_REPLICAS = ("DELETE FROM replicas", "DELETE FROM locks", "DELETE FROM presence")
LOCKS_OF_REPLICA = "SELECT name FROM locks WHERE holder = ?"
#: Changes one row, or none when another replica holds the lock and its lease lasts.
ACQUIRE_LOCK = """
    INSERT INTO locks (name, holder) VALUES (:name, :replica) ON CONFLICT (name) DO UPDATE SET holder = :replica
    WHERE holder = :replica OR NOT EXISTS (SELECT 1 FROM replicas WHERE id = holder AND until > :now)
"""
ADD_PRESENCE = "INSERT OR IGNORE INTO presence (call, replica) VALUES (?, ?)"
REMOVE_PRESENCE = "DELETE FROM presence WHERE call = ? AND replica = ?"
#: Of the ids in a JSON array, those with a waiting client.
ATTENDED = """
    SELECT call FROM presence JOIN replicas ON replicas.id = presence.replica
    WHERE call IN (SELECT value FROM json_each(?)) AND until > ?
"""
PROBE = "UPDATE probe SET writes = writes + 1"

#: For `limit`: every row.
ALL = -1

Values = Sequence[Any] | Mapping[str, Any]
Query = tuple[str, Values]

#: The start of a query for `event_search`.
EVENTS = "SELECT * FROM events"
#: The three starts of a query for `calls`: with the size of a whole call, with its summary, with neither.
SIZES = "SELECT n, id, (SELECT length(body) FROM calls WHERE calls.n = summaries.n) FROM summaries"
SUMMARIES = "SELECT n, id, summary, seal FROM summaries"
NUMBERS = "SELECT n FROM summaries"

_CALL_CONDITIONS = {
    "before": "n < (SELECT n FROM calls WHERE id = :before)",
    "agent": "agent = :agent",
    "tool": "tool = :tool",
    "server": "server = :server",
    "text": "(instr(tool, :text) OR instr(agent, :text) OR instr(id, :text))",
}


def calls(
    read: str,
    states: Sequence[State],
    index_filters: Mapping[str, Any],
    row_filters: Mapping[str, Any],
    *,
    limit: int,
    skip: int = 0,
    oldest: int = 0,
) -> Query:
    """Return the query that starts with *read* for the matching calls, newest first, down to the row *oldest*.

    The filters are split by `call_lists.split_filter`. Each state has its own scan: the index is in order of arrival within a state.
    """
    states = tuple(dict.fromkeys(states))
    index = "state" if states else next((name for name in index_filters if name != "before"), "")
    source = f"{read} INDEXED BY summaries_by_{index}" if index else f"{read} NOT INDEXED"
    conditions = " AND ".join(
        ["n >= :oldest", *(_CALL_CONDITIONS[name] for name in (*index_filters, *row_filters))]
    )
    scans = [f"{source} WHERE state = :state{n} AND {conditions}" for n, _ in enumerate(states)]
    sql = f"{' UNION ALL '.join(scans or [f'{source} WHERE {conditions}'])} ORDER BY n DESC LIMIT :limit OFFSET :skip"
    values = {f"state{n}": state for n, state in enumerate(states)} | {**index_filters, **row_filters}
    return sql, values | {"limit": limit, "skip": skip, "oldest": oldest}


def events(after: int, limit: int, call: str = "") -> Query:
    """Return the query for the audit events after event *after*, in order."""
    return (EVENTS_OF_CALL, (call, after, limit)) if call else (LATER_EVENTS, (after, limit))


_EVENT_CONDITIONS = {
    "since": "at >= :since",
    "tool": "tool = :tool",
    "agent": "agent = :agent",
    "call": "call = :call",
}


def event_search(
    start: int, end: int, limit: int, *, since: float = 0.0, tool: str = "", agent: str = "", call: str = ""
) -> Query:
    """Return the query for the matching audit events from *start* (exclusive) to *end*, in order."""
    given = {
        name: value
        for name, value in (("since", since), ("tool", tool), ("agent", agent), ("call", call))
        if value
    }
    source = f"{EVENTS} INDEXED BY events_by_call" if call else f"{EVENTS} NOT INDEXED"
    conditions = " AND ".join(["seq > :start", "seq <= :end", *(_EVENT_CONDITIONS[name] for name in given)])
    values = given | {"start": start, "end": end, "limit": limit}
    return f"{source} WHERE {conditions} ORDER BY seq LIMIT :limit", values
