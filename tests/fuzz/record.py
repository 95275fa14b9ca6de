"""Runs of one fuzzer, kept beside each other: `NAME.json` has a row a run, `NAME.md` the rows and their sum."""

import json
import os
import sys
import time
from pathlib import Path

import psutil

Row = dict[str, int | float | str]


def keep(folder: Path, name: str, title: str, row: Row) -> str:
    """Add a run to `NAME.json` and write `NAME.md` anew; the page. A repeated command takes its old row's place."""
    kept = folder / f"{name}.json"
    rows: list[Row] = json.loads(kept.read_text()) if kept.exists() else []
    rows = [*(other for other in rows if other["command"] != row["command"]), row]
    text = page(title, rows)
    kept.write_text(json.dumps(rows, indent=1) + "\n")
    (folder / f"{name}.md").write_text(text)
    return text


def run_of(module: str, seconds: float) -> Row:
    """What every row says: the command, the machine and the day."""
    return {
        "command": f"python -m {module} " + " ".join(sys.argv[1:]),
        "seconds": round(seconds),
        "machine": f"{psutil.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the end",
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def page(title: str, rows: list[Row]) -> str:
    """A line for each run, then every count summed, the largest of what ends in `_s` or `_mib`."""
    said = ("command", "machine", "date")
    names = sorted({name for row in rows for name in row if name not in said and name != "seconds"})
    lines = [f"# {title}", ""]
    lines += [f"- `{row['command']}`: {row['seconds']} s, {row['machine']}, {row['date']}" for row in rows]
    lines += ["", "| in all runs | |", "|---|---|"]
    for name in names:
        values = [row[name] for row in rows if isinstance(row.get(name), (int, float))]
        total = max(values) if name.endswith(("_s", "_mib")) else sum(values)  # type: ignore[type-var, arg-type]
        lines.append(f"| {name} | {total:.4g} |" if isinstance(total, float) else f"| {name} | {total} |")
    return "\n".join([*lines, ""])
