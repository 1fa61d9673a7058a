"""Compares the schema in a store's file with the schema that this version creates."""

import re
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import NamedTuple

from sqlite_utils import Database
from sqlite_utils.db import Column, ForeignKey, Table, quote_identifier

from approvals.store.sqlite import schema

_RESTORE = "restore a good copy"
#: A string, a word or another character of a statement.
_TOKEN = re.compile(r"'[^']*'|\w+|[^\w\s]")


class Difference(NamedTuple):
    """One difference between two schemas, and its remedy."""

    fault: str
    remedy: str


class _Part(NamedTuple):
    """A column, constraint, index or trigger; *create* or *drop* is empty if no statement does it."""

    text: str = ""
    create: str = ""
    drop: str = ""


def check_schema(db: Database) -> Iterator[Difference]:
    """Yield the differences between a file's schema and a new store's."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        schema.create(connection)
        yield from compare_schemas(db, Database(connection, execute_plugins=False))


def compare_schemas(found: Database, expected: Database) -> Iterator[Difference]:
    """Yield the differences in the expected tables. Other tables are ignored: backup programs add some."""
    for table in expected.tables:
        if (twin := found.table(table.name)).exists():
            yield from _compare_parts(_list_parts(twin), _list_parts(table))
        else:
            yield Difference(f"The file lacks the table {table.name}", _RESTORE)


def _compare_parts(found: Mapping[str, _Part], expected: Mapping[str, _Part]) -> Iterator[Difference]:
    for name in {**expected, **found}:
        old, new = found.get(name), expected.get(name)
        if new is None and old:
            yield Difference(f"The file has an unexpected {name}", _remedy(old.drop))
        elif old is None and new:
            yield Difference(f"The file lacks the {name}", _remedy(new.create))
        elif old and new and old.text != new.text:
            # The remedy has the statement of an index or a trigger.
            instead = "not as expected" if new.create else f"{old.text} instead of {new.text}"
            yield Difference(f"The {name} is {instead}", _remedy(old.drop, new.create))


def _remedy(*statements: str) -> str:
    return f"stop the gateway, then execute: {'; '.join(statements)}" if all(statements) else _RESTORE


def _list_parts(table: Table) -> dict[str, _Part]:
    """Return the columns, constraints, indexes and triggers of a table by their names."""
    on = f"on {table.name}"
    return {
        **{f"column {table.name}.{column.name}": _column(table, column) for column in table.columns},
        **{f"constraint {text} of {table.name}": _Part() for text in _list_constraints(table)},
        **{f"index {name} {on}": _object("INDEX", name, sql) for name, sql in _list_indexes(table)},
        **{
            f"trigger {name} {on}": _object("TRIGGER", name, sql) for name, sql in table.triggers_dict.items()
        },
    }


def _column(table: Table, column: Column) -> _Part:
    words = [column.type.upper()]
    if column.notnull:
        words.append("NOT NULL")
    if column.default_value is not None:
        words.append(f"DEFAULT {column.default_value}")
    drop = f"ALTER TABLE {quote_identifier(table.name)} DROP COLUMN {quote_identifier(column.name)}"
    return _Part(" ".join(words), drop=drop)


def _object(kind: str, name: str, sql: str) -> _Part:
    return _Part(_normalize(sql), create=" ".join(sql.split()), drop=f"DROP {kind} {quote_identifier(name)}")


def _list_constraints(table: Table) -> Iterator[str]:
    yield f"PRIMARY KEY ({', '.join(table.pks)})"
    for index in table.indexes:
        if index.origin == "u":
            yield f"UNIQUE ({', '.join(index.columns)})"
    for check in table.checks:
        yield f"CHECK ({_normalize(check.check)})"
    yield from map(_reference, table.foreign_keys)


def _reference(key: ForeignKey) -> str:
    return f"FOREIGN KEY ({', '.join(key.columns)}) REFERENCES {key.other_table} ({', '.join(key.other_columns)})"


def _list_indexes(table: Table) -> Iterator[tuple[str, str]]:
    """Yield the name and the statement of each index, without those that belong to a constraint."""
    for index in table.indexes:
        if index.origin == "c":
            yield index.name, table.db.table(index.name).schema


def _normalize(sql: str) -> str:
    """Return a statement without the quotes of its names, its white space, and the case of its words."""
    tokens = _TOKEN.findall(sql.replace('"', ""))
    return " ".join(token if token.startswith("'") else token.casefold() for token in tokens)
