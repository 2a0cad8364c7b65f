#!/usr/bin/env python3
"""Makes the chart's README from README.md.in and values.yaml.

A comment that begins with "# --" stands above each value and is its row of the table. With --check nothing is
written, and the exit status is 1 where the README is not what it would be.
"""

import json
import re
import sys
from pathlib import Path

CHART = Path(__file__).parent / "shoprelay"
LINE = re.compile(r"^(?P<indent> *)(?P<key>[A-Za-z]\w*):(?: (?P<value>.*))?$")


def blocks(text):
    """Each value as (path, comment or None, its lines)."""
    path, comment, found = [], None, []
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if stripped.startswith("# --"):
            comment = stripped.removeprefix("# --").strip()
        elif match := LINE.match(line):
            depth = len(match["indent"]) // 2
            path = path[:depth] + [match["key"]]
            found.append((".".join(path), comment, [match["value"] or ""]))
            comment = None
        elif stripped.startswith("- "):
            found[-1][2].append(stripped)
        elif stripped and not stripped.startswith("#"):
            sys.exit(f"values.yaml line {number} is no key, no list item and no comment: {line}")
    return found


def shown(path, lines, found):
    """The default of a value as a cell of the table."""
    value = " ".join(line for line in lines if line)
    nested = [(name, inner) for name, _, inner in found if name.startswith(path + ".")]
    if nested:
        leaves = {name.removeprefix(path + "."): inner[0] for name, inner in nested if inner[0]}
        value = ", ".join(f"{name}: {leaf}" for name, leaf in leaves.items())
    return "" if value in ('""', "") else f"`{value}`"


def table(text):
    """The rows of every value; one without a comment must stand above others that have one."""
    found = blocks(text)
    rows, covered = ["| value | default | meaning |", "| --- | --- | --- |"], []
    for path, comment, lines in found:
        if any(path.startswith(above + ".") for above in covered):
            continue
        if comment is None:
            if lines != [""]:
                sys.exit(f"values.yaml: {path} has no comment that begins with # --")
            continue
        covered.append(path)
        rows.append(f"| `{path}` | {shown(path, lines, found)} | {comment} |")
    return "\n".join(rows)


def readme():
    template = (CHART / "README.md.in").read_text()
    return template.replace("<!-- values -->", table((CHART / "values.yaml").read_text()))


def main():
    target = CHART / "README.md"
    if sys.argv[1:] == ["--check"]:
        if not target.exists() or target.read_text() != readme():
            sys.exit(f"{target} is not up to date; run: python3 helm/readme.py")
    elif sys.argv[1:]:
        sys.exit(f"unknown arguments {json.dumps(sys.argv[1:])}; there is only --check")
    else:
        target.write_text(readme())


if __name__ == "__main__":
    main()
