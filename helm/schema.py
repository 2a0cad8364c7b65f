#!/usr/bin/env python3
"""Writes what the value "settings" may be into values.schema.json: every setting of the program, by its default.

The program is asked (`shoprelay check`), so a new setting is in the chart as soon as this has run. With --check
nothing is written, and the exit status is 1 where the schema is not what it would be. SHOPRELAY_BINARY names the
program; target/debug/shoprelay otherwise.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

SCHEMA = Path(__file__).parent / "shoprelay" / "values.schema.json"
# What the chart decides by values of its own, or for itself.
OWN = {
    "config",
    "listen",
    "api_listen",
    "metrics_listen",
    "store",
    "store_ca",
    "auth",
    "insecure",
    "jwt_secret_file",
    "jwt_public_key_file",
    "api_keys_file",
    "tls_listen",
    "tls_cert",
    "tls_key",
    "tls_client_ca",
    "tls_client_crl",
    "drain_window",
}
DURATION = re.compile(r"\d+(ms|s|m|h|d)")


def defaults():
    """Every setting with its default, "" for none."""
    binary = os.environ.get("SHOPRELAY_BINARY", SCHEMA.parents[2] / "target/debug/shoprelay")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SHOPRELAY_")}
    printed = subprocess.run([binary, "check"], env=environment, capture_output=True, text=True).stdout
    rows = [line.split() for line in printed.split("\n\n")[0].splitlines()[1:]]
    if not rows or any(len(row) != 3 for row in rows):
        sys.exit(f"{binary} check does not print a table of settings:\n{printed}")
    return {key: "" if value == "-" else value for key, value, _ in rows}


def form(default):
    """What a value may be whose default is this. Its bounds are the program's to know."""
    if default in ("true", "false"):
        return {"type": "boolean"}
    if default.isdecimal():
        return {"type": "integer", "minimum": 0}
    if DURATION.fullmatch(default):
        return {"$ref": "#/definitions/duration"}
    return {"$ref": "#/definitions/words"}


def table(properties):
    return {"type": "object", "additionalProperties": False, "properties": properties}


def settings():
    """The schema of the settings file, less what is the chart's own."""
    properties = {}
    # Beside a table of its name a setting is that table's `enabled`.
    found = defaults()
    tables = {key.split(".")[0] for key in found if "." in key}
    for key, default in found.items():
        if key in OWN:
            continue
        first, _, second = key.partition(".")
        if first in tables:
            properties.setdefault(first, table({}))["properties"][second or "enabled"] = form(default)
        else:
            properties[key] = form(default)
    return table(properties)


def text(value, indent=0):
    """JSON with what fits a line on one."""
    flat = json.dumps(value, ensure_ascii=False)
    if len(flat) + indent <= 118 or not isinstance(value, (dict, list)):
        return flat
    inner = " " * (indent + 2)
    if isinstance(value, dict):
        rows = [f"{inner}{json.dumps(key)}: {text(part, indent + 2)}" for key, part in value.items()]
        return "{\n" + ",\n".join(rows) + "\n" + " " * indent + "}"
    return "[\n" + ",\n".join(inner + text(part, indent + 2) for part in value) + "\n" + " " * indent + "]"


def main():
    whole = json.loads(SCHEMA.read_text())
    whole["definitions"]["settings"] = settings()
    wanted = text(whole) + "\n"
    if sys.argv[1:] == ["--check"]:
        if SCHEMA.read_text() != wanted:
            sys.exit(f"{SCHEMA} is not up to date with src/config/table.rs; run: python3 helm/schema.py")
    elif sys.argv[1:]:
        sys.exit(f"unknown arguments {json.dumps(sys.argv[1:])}; there is only --check")
    else:
        SCHEMA.write_text(wanted)


if __name__ == "__main__":
    main()
