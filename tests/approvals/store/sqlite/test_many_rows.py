import sqlite3

import pytest

from approvals.store.sqlite.many_rows import MAX_ROWS, insert_rows


@pytest.mark.parametrize("count", [0, 1, 3, MAX_ROWS - 1, MAX_ROWS, MAX_ROWS + 1, 2 * MAX_ROWS + 5])
def test_every_row_is_inserted_once_and_in_order(count):
    db = sqlite3.connect(":memory:")
    db.execute("CREATE TABLE t (n INTEGER PRIMARY KEY AUTOINCREMENT, a, b)")
    rows = [(f"a{number}", number) for number in range(count)]
    insert_rows(db, "INSERT INTO t (a, b) VALUES (?, ?)", rows)
    assert db.execute("SELECT a, b FROM t ORDER BY n").fetchall() == rows


def test_the_values_of_the_widest_row_fit_in_one_statement():
    columns = 14
    db = sqlite3.connect(":memory:")
    db.execute(f"CREATE TABLE t ({', '.join(f'c{number}' for number in range(columns))})")
    row = tuple(range(columns))
    insert_rows(db, f"INSERT INTO t VALUES ({', '.join('?' * columns)})", [row] * MAX_ROWS)
    assert db.execute("SELECT count(*) FROM t").fetchone() == (MAX_ROWS,)
