"""No statement takes longer because the history is long: its plan scans no large table, and its steps do not grow with the history.

A new statement in `statements` fails `test_every_statement_is_known` until this module has values for it.
"""

import math
import re
import sqlite3
from collections.abc import Callable
from contextlib import closing, contextmanager
from itertools import product
from types import FunctionType

import pytest

from approvals.model import State
from approvals.store.call_lists import split_filter
from approvals.store.sqlite import lists, schema, statements
from approvals.store.sqlite.event_search import search_events

#: Calls that have ended; each has two events and a notice.
FEW, MANY = 12_500, 50_000
OPEN = 300
NOW = 1e9
#: Tables that may be scanned: they do not grow with the history.
SMALL = {
    "codes", "hits", "locks", "logins", "pins", "presence", "probe", "progress", "replicas", "secrets", "sessions",
}  # fmt: skip
#: Partial indexes that hold only open calls, and notices that a channel has still to send.
OPEN_INDEXES = {"calls_open", "notices_to_update"}
#: The most steps of SQLite's virtual machine: of a statement, and of a page that looks at 10,000 rows.
STEPS, PAGE_STEPS = 25_000, 600_000

FILL = (
    """
    CREATE TEMP VIEW numbers AS
    WITH RECURSIVE up(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM up WHERE n <= (SELECT count FROM total))
    SELECT n FROM up
    """,
    """
    INSERT INTO calls
    SELECT n, printf('hold_%026d', n), 2, iif(n % 10, 'completed', 'denied'), 'key ' || n, '', 'bot', 'github',
        'delete', 1e9 - 10 * (count - n), 0, 0, zeroblob(300), x''
    FROM numbers, total
    """,
    """
    UPDATE calls SET expires_at = 2e9, state = CASE n % 4
        WHEN 0 THEN 'pending' WHEN 1 THEN 'approved' WHEN 2 THEN 'forwarding' ELSE 'in_doubt' END
    WHERE n > (SELECT count - 300 FROM total)
    """,
    """
    INSERT INTO summaries
    SELECT n, id, state, agent, server, tool, n % 3 = 0, created_at, 5000, zeroblob(900), x'' FROM calls, total
    WHERE n <= count
    """,
    """
    INSERT INTO notices (call, channel, ref, shown_version, failures, retry_at, wanted)
    SELECT id, 'slack', iif(n % 3, 'posted', NULL), iif(n % 3, 2, 0), 0, 0, 2 FROM calls
    """,
    """
    INSERT INTO events
    SELECT n, 1e9 - (2 * count - n), 'hold.pending', 'bot', printf('hold_%026d', (n + 1) / 2), 'bot', 'github',
        'delete', '{}', '', ''
    FROM (SELECT n FROM numbers UNION ALL SELECT n + count + 1 FROM numbers, total), total
    """,
    "INSERT INTO hits (key, at, until) SELECT 'k', n, n FROM numbers WHERE n < 100",
    "INSERT INTO replicas SELECT 'replica ' || n, 2e9 FROM numbers WHERE n < 5",
)


@contextmanager
def history(path, count):
    """Open a store of *count* ended and OPEN open calls. The newest call has no summary, as in an older version."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode=OFF")
        schema.create(db)
        db.execute("DROP TRIGGER calls_stay_settled")
        db.execute("CREATE TEMP TABLE total AS SELECT ? AS count", (count + OPEN,))
        db.execute("BEGIN")
        for statement in FILL:
            db.execute(statement)
        db.execute("COMMIT")
        db.execute("PRAGMA foreign_keys=ON")
        yield db


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    folder = tmp_path_factory.mktemp("histories")
    with history(folder / "few", FEW) as few, history(folder / "many", MANY) as many:
        yield {FEW: few, MANY: many}


def call_id(n):
    return f"hold_{n:026d}"


def bindings(count):
    """Return the values of each statement, in a store with *count* ended calls."""
    last, ended, event = call_id(count + OPEN), call_id(count // 2), 2 * (count + OPEN) + 3
    new_call = (
        count + OPEN + 2,
        1,
        "pending",
        "",
        2e9,
        None,
        b"",
        b"",
        "hold_new",
        "key new",
        "bot",
        "github",
        "delete",
        NOW,
    )
    login, session = ("x", "alice", 1.0, 2.0, b"", 1.0), ("github", "s", "bot", b"", 1.0, b"")
    at_end = {"after": event - 500, "since": NOW - 600}
    return {
        "INSERT_CALL": new_call,
        "SWAP_CALL": (3, "denied", "", 0, 0, b"", b"", last, 2),
        "INSERT_SUMMARY": (
            count + OPEN + 1,
            "completed",
            0,
            b"",
            b"",
            last,
            "bot",
            "github",
            "delete",
            NOW,
            1,
        ),
        "SWAP_SUMMARY": ("denied", 0, b"", b"", last),
        "WITHOUT_SUMMARY": (),
        "SAME_ID": ("none",),
        "NEXT_ROW": (),
        "VERSION": (ended,),
        "ID_OF_ROW": (5,),
        "CALL_OF_ROW": (5,),
        "CALL": (ended,),
        "NEWEST_OF_KEY": ("key 7",),
        "KEY_PREFIXES": ("key 3",),
        "OPEN_CALLS": (),
        "RECENT": [("bot", NOW - 3600, math.inf), ("bot", NOW - 3600, NOW - 3500)],
        "STALE": {"channel": "slack", "now": NOW},
        "STALE_PRESENCE": {"channel": "slack", "now": NOW},
        "SAVE_NOTICE": (last, "slack", "posted", 2, 1, 0, 0, last),
        "LAST_LINK": (),
        "INSERT_EVENT": (event, NOW, "k", "bot", last, "bot", "github", "delete", "{}", "", ""),
        "LAST_EVENTS": (1000,),
        "LATER_EVENTS": (5, 1000),
        "EVENTS_OF_CALL": (ended, 0, 1000),
        "BEFORE_TIME": [{"after": 0, "since": NOW - 600}, at_end, {"after": event, "since": 2e9}],
        "LAST_OF_CALL": (ended,),
        "DROP_HITS": (50,),
        "INSERT_HIT": ("k", 1.0, 2.0, 1.0),
        "HITS": (0.0,),
        "DROP_LOGINS": (5.0,),
        "SAVE_LOGIN": login,
        "LOGIN": ("x",),
        "RECORD_ACTIVITY": (5.0, "x"),
        "DELETE_LOGIN": ("x",),
        "DROP_CODES": (5.0,),
        "SAVE_CODE": login[:-1],
        "CODE": ("x",),
        "DELETE_CODE": ("x",),
        "CREATE_KEY": ("k", b""),
        "KEY": ("k",),
        "SAVE_PIN": ("github", "delete", "", b"", ""),
        "PINS": (),
        "DROP_SESSIONS": (5.0,),
        "SAVE_SESSION": session,
        "SESSION": ("github", "s"),
        "DELETE_SESSION": ("github", "s"),
        "STARTS": (),
        "COUNT_START": (2,),
        "HIGHEST_TIME": (),
        "KEEP_TIME": (NOW,),
        "RESET_TIME": {"at": NOW},
        "RENEW_REPLICA": ("r", NOW),
        "LIVE_REPLICAS": (NOW,),
        "ENDED_REPLICAS": (NOW,),
        "END_REPLICA": ("r",),
        "FORGET_REPLICAS": (),
        "LOCKS_OF_REPLICA": ("r",),
        "ACQUIRE_LOCK": {"name": "n", "replica": "r", "now": NOW},
        "ADD_PRESENCE": (last, "r"),
        "REMOVE_PRESENCE": (last, "r"),
        "ATTENDED": (f'["{last}", "{ended}"]', NOW),
        "PROBE": (),
    }


#: Constants that are not statements; the builders complete them.
PARTS = {
    "EVENTS",
    "SIZES",
    "SUMMARIES",
    "NUMBERS",
}
STATEMENTS = {
    name: (value,) if isinstance(value, str) else value
    for name, value in vars(statements).items()
    if name.isupper() and not name.startswith("_") and isinstance(value, str | tuple) and name not in PARTS
}
BUILDERS = {
    name
    for name, value in vars(statements).items()
    if isinstance(value, FunctionType) and value.__module__ == statements.__name__ and name[0] != "_"
}


class Observed:
    """A connection that checks each plan and counts the steps of each statement."""

    def __init__(self, db):
        self.db = db
        self.steps = 0

    def execute(self, sql, values=()):
        for scan in find_scans(self.db, sql, values):
            pytest.fail(f"{scan} in {sql}")
        return self.db.execute(sql, values)

    def _step(self):
        self.steps += 10

    @contextmanager
    def counting(self):
        self.db.execute("SAVEPOINT test")
        self.db.set_progress_handler(self._step, 10)
        try:
            yield
        finally:
            self.db.set_progress_handler(None, 0)
            self.db.execute("ROLLBACK TO test")
            self.db.execute("RELEASE test")


def find_scans(db, sql, values):
    """Return the lines of the plan that scan a table of the history."""
    for *_, line in db.execute(f"EXPLAIN QUERY PLAN {sql}", values):
        scanned = re.match(r"SCAN (\w+)(?: USING (?:COVERING )?INDEX (\w+))?", line)
        if scanned and scanned[1] not in SMALL | {"CONSTANT", "json_each"} and scanned[2] not in OPEN_INDEXES:
            yield line


def check(stores, work: Callable[[Observed, int], object], most):
    """Check the plans of *work*, and that its steps are limited and the same in a long history."""
    steps = {}
    for count, db in stores.items():
        observed = Observed(db)
        with observed.counting():
            work(observed, count)
        steps[count] = observed.steps
    assert steps[MANY] <= most
    assert steps[MANY] <= 1.1 * steps[FEW] + 200, steps


def test_every_statement_is_known():
    assert STATEMENTS.keys() == bindings(1).keys(), "give the new statement its values in `bindings`"
    assert {"calls", "events", "event_search"} == BUILDERS, "add a test of the new builder"


@pytest.mark.parametrize("name", STATEMENTS)
def test_a_statement_does_not_cost_what_the_history_costs(stores, name):
    def work(observed, count):
        values = bindings(count)[name]
        for sql, each in product(STATEMENTS[name], values if isinstance(values, list) else [values]):
            observed.execute(sql, each).fetchall()

    check(stores, work, STEPS)


def combinations(**filters):
    """Return each combination of the filters; with a search for nothing at its end, so that it looks at all it may."""
    for chosen in product([False, True], repeat=len(filters)):
        given = {name: value for (name, value), one in zip(filters.items(), chosen, strict=True) if one}
        yield given
        if last := [name for name in given if isinstance(given[name], str) and name != "before"]:
            yield given | {last[-1]: "none"}


LISTS = [
    pytest.param(states, matching, id=f"{len(states)} states {' '.join(map(str, matching.items()))}")
    for states in ((), (State.PENDING, State.IN_DOUBT), (State.COMPLETED,), tuple(State))
    for matching in combinations(before=True, agent="bot", tool="delete", server="github", text="bot")
]


@pytest.mark.parametrize("states, matching", LISTS)
def test_a_page_of_calls_does_not_cost_what_the_history_costs(stores, states, matching):
    def work(observed, count):
        before = {"before": call_id(count - 100)} if matching.get("before") else {}
        for read in (statements.SIZES, statements.SUMMARIES):
            lists._read_page(read, states, matching | before, 200, observed)

    check(stores, work, 2 * PAGE_STEPS)


def test_the_open_calls_are_read_without_the_history(stores):
    def work(observed, _):
        for checked in ({}, {"tool": "delete"}, {"server": "none", "tool": "none"}):
            sql, values = statements.calls(
                statements.SUMMARIES, lists.OPEN, {}, checked, limit=statements.ALL
            )
            observed.execute(sql, values).fetchall()

    check(stores, work, STEPS)


def test_statistics_in_the_file_change_no_plan_for_the_worse(stores):
    """The store never runs ANALYZE, but an operator may."""
    db = stores[MANY]
    with Observed(db).counting():
        db.execute("ANALYZE")
        for name, values in bindings(MANY).items():
            for sql, each in product(STATEMENTS[name], values if isinstance(values, list) else [values]):
                assert list(find_scans(db, sql, each)) == []
        for states, matching in (param.values for param in LISTS):
            index_filters, row_filters = split_filter(states, matching)
            query = statements.calls(statements.SUMMARIES, states, index_filters, row_filters, limit=9)
            assert list(find_scans(db, *query)) == []


def test_recent_calls_are_counted_from_an_index_alone(stores):
    plan = stores[MANY].execute(f"EXPLAIN QUERY PLAN {statements.RECENT}", ("bot", 0.0, NOW)).fetchall()
    assert len(plan) == 1
    assert "COVERING INDEX summaries_by_age" in plan[0][-1]


EVENT_FILTERS = list(combinations(since=NOW - 600, tool="delete", agent="bot", call=call_id(7)))


@pytest.mark.parametrize("matching", EVENT_FILTERS, ids=str)
@pytest.mark.parametrize("part", [0, 0.5, 1])
def test_a_page_of_events_does_not_cost_what_the_history_costs(stores, matching, part):
    def work(observed, count):
        search_events(observed, int(2 * part * count), 1000, matching)

    check(stores, work, PAGE_STEPS)


@pytest.mark.parametrize("call", ["", call_id(7)])
def test_events_in_order_do_not_cost_what_the_history_costs(stores, call):
    check(stores, lambda observed, _: observed.execute(*statements.events(9, 100, call)).fetchall(), STEPS)


@pytest.mark.parametrize(
    "sql, why",
    [
        (
            "SELECT summary FROM calls JOIN summaries USING (n) WHERE +calls.state = 'in_doubt' LIMIT 200",
            "SCAN",
        ),
        ("SELECT count(*) FROM summaries WHERE +state = 'pending'", "SCAN summaries"),
        ("SELECT count(*) FROM summaries", "SCAN summaries"),
        ("SELECT n FROM summaries INDEXED BY summaries_by_agent WHERE state = 'pending'", "SCAN summaries"),
        ("SELECT min(seq) FROM events WHERE at >= 1e9 - 600", "assert"),
        ("SELECT sum(size) FROM summaries INDEXED BY summaries_by_age WHERE agent = 'bot'", "assert"),
        ("UPDATE notices SET retry_at = 1 WHERE retry_at > 1", "SCAN notices"),
    ],
)
def test_a_statement_that_reads_the_history_fails_these_checks(stores, sql, why):
    with pytest.raises((AssertionError, pytest.fail.Exception), match=why):
        check(stores, lambda observed, _: observed.execute(sql).fetchall(), STEPS)
