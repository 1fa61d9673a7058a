"""Measures the classifier on labelled tools: `python bench/classify.py PATH [--errors] [--groups] [--halves]`.

PATH is a JSON-lines file. A row has `server`, `tool`, `category`, and optionally `description`, `params` (names),
`annotations`, `label_source`, `group`, `gold`. A false allow is a changing tool classified as Read; an over-ask is a
Read tool classified as anything else. Every figure is printed twice, with and without the tools' annotations, because
labels derived from annotations would otherwise look correct.
"""

import argparse
import hashlib
import json
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from gateway.tools.classify.risk import Category, classify

FIVE = [category.value for category in Category if category is not Category.OTHER]
ORDER = [category.value for category in Category]


def definition(row, *, annotated):
    """Return the row as an entry of tools/list."""
    properties = {name: {} for name in row.get("params") or () if isinstance(name, str)}
    tool = {
        "name": row["tool"],
        "description": row.get("description") or "",
        "inputSchema": {"type": "object", "properties": properties},
    }
    if annotated and row.get("annotations"):
        tool["annotations"] = row["annotations"]
    return tool


def classify_rows(rows, *, annotated):
    """Return each row with its classification; the siblings are the tools of the same server."""
    servers = defaultdict(dict)
    for row in rows:
        servers[row["server"]][row["tool"]] = None
    siblings = {server: tuple(names) for server, names in servers.items()}
    return [(row, classify(definition(row, annotated=annotated), siblings[row["server"]])) for row in rows]


def row_labels(row):
    """Yield the labels of a row as (source, label); the hand-made label has its own source, gold."""
    if row.get("category"):
        yield row.get("label_source") or "unknown", row["category"]
    if row.get("gold"):
        yield "gold", row["gold"].rstrip("?")


def format_rate(part, whole):
    """Format a share as `part/whole = percent`."""
    return f"{part}/{whole} = {100 * part / whole:.1f} %" if whole else "-"


def print_report(title, judged, *, errors):
    """Print false allows, over-asks, five-way accuracy and the confusion matrix for one label source."""
    changing = [(row, label, got) for row, label, got in judged if label not in ("Read", "Other")]
    reading = [(row, label, got) for row, label, got in judged if label == "Read"]
    five = [(row, label, got) for row, label, got in judged if label in FIVE]
    allowed = [item for item in changing if item[2].category is Category.READ]
    asked = [item for item in reading if item[2].category is not Category.READ]
    right = sum(1 for _, label, got in five if got.category.value == label)
    print(f"\n{title}: {len(judged)} tools")
    print(
        f"  false allow {format_rate(len(allowed), len(changing))}   over-ask {format_rate(len(asked), len(reading))}",
        end="",
    )
    multiway = any(label not in ("Read", "not_read") for _, label, _ in judged)
    print(f"   five-way {format_rate(right, len(five))}" if multiway else "")
    table = Counter((label, got.category.value) for _, label, got in judged)
    print("    " + "label \\ classified as".ljust(16) + "".join(column.rjust(13) for column in ORDER))
    for label in sorted({label for label, _ in table}):
        print("    " + label.ljust(16) + "".join(str(table[label, column]).rjust(13) for column in ORDER))
    for row, label, _ in allowed:
        print(f"    false allow: {row['server']} / {row['tool']} is {label}")
    if errors:
        for row, label, got in judged:
            wrong = got.category.value != label and not (
                label == "not_read" and got.category is not Category.READ
            )
            if wrong and got.category is not Category.READ:
                print(
                    f"    wrong: {row['server']} / {row['tool']} is {label}, called {got.category.value}: {got.evidence[0]}"
                )


def group_by_source(results):
    """Return (row, label, classification) triples by label source."""
    found = defaultdict(list)
    for row, got in results:
        for source, label in row_labels(row):
            found[source].append((row, label, got))
    return found


def is_in_second_half(row):
    """Return whether a row's group of servers is in the second half, by a hash of its name, the same in every run."""
    return hashlib.sha256((row.get("group") or row["server"]).encode()).digest()[-1] % 2 == 0


def print_halves(results):
    """Print the figures of each half of the groups: rules derived from one half are tested on the other."""
    print("\nhalf of the groups")
    for half, wanted in (("first", False), ("second", True)):
        part = [(row, got) for row, got in results if is_in_second_half(row) is wanted]
        for source, judged in sorted(group_by_source(part).items()):
            changing = [got.category for _, label, got in judged if label not in ("Read", "Other")]
            reading = [got.category for _, label, got in judged if label == "Read"]
            allowed, read = changing.count(Category.READ), reading.count(Category.READ)
            five = [label == got.category for _, label, got in judged if label in FIVE]
            multiway = any(label not in ("Read", "not_read") for _, label, _ in judged)
            print(
                f"  {half} {source}: {len(judged)} tools, false allow {format_rate(allowed, len(changing))},"
                f" over-ask {format_rate(len(reading) - read, len(reading))}"
                + (f", five-way {format_rate(sum(five), len(five))}" if multiway else "")
            )


def print_groups(results):
    """Print false allows and over-asks for each group of servers."""
    print("\ngroup: tools, false allow, over-ask, classified as Other")
    rows = defaultdict(list)
    for row, got in results:
        rows[row.get("group") or row["server"]].append((row, got))
    for group, found in sorted(rows.items()):
        judged = [(label, got.category) for row, got in found for _, label in row_labels(row)]
        changing = [got for label, got in judged if label not in ("Read", "Other")]
        reading = [got for label, got in judged if label == "Read"]
        other = sum(1 for _, got in found if got.category is Category.OTHER)
        wrong = (
            sum(got is Category.READ for got in changing),
            sum(got is not Category.READ for got in reading),
        )
        print(
            f"  {group}: {len(found)}, {format_rate(wrong[0], len(changing))}, {format_rate(wrong[1], len(reading))}, {other}"
        )


def print_speed(rows):
    """Print the microseconds per tool, as the best of three rounds."""
    best = min(_round(rows) for _ in range(3))
    print(f"\n{best / len(rows) * 1e6:.0f} us per tool ({len(rows)} tools)")


def _round(rows):
    started = time.perf_counter()
    classify_rows(rows, annotated=True)
    return time.perf_counter() - started


def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("path", type=Path)
    options.add_argument("--errors", action="store_true", help="list every other wrong label too")
    options.add_argument("--groups", action="store_true", help="figures of each group of servers")
    options.add_argument("--halves", action="store_true", help="figures of each half of the groups")
    chosen = options.parse_args()
    rows = [json.loads(line) for line in chosen.path.read_text("utf-8").splitlines() if line.strip()]
    for annotated in (True, False):
        print(f"\n== {'as defined' if annotated else 'without annotations'} ==")
        for source, judged in sorted(group_by_source(classify_rows(rows, annotated=annotated)).items()):
            print_report(source, judged, errors=chosen.errors and not annotated)
    if chosen.groups:
        print_groups(classify_rows(rows, annotated=False))
    if chosen.halves:
        print_halves(classify_rows(rows, annotated=False))
    print_speed(rows)


if __name__ == "__main__":
    main()
