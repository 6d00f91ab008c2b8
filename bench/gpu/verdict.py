"""Lays what was measured on a GPU beside targets.py: a table of target, measured, met.

    python bench/gpu/verdict.py bench/results/<gpu>

A figure whose file or rows are absent, or were taken on a CPU as a check of the script, is "not measured". One that is not met
fails nothing: the exit status is 0 unless the folder is absent. Of several rows the worst is shown.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

from targets import TARGETS, Target

NOT_MEASURED = "not measured"


def rows_in(folder: Path, stem: str) -> list[dict] | str:
    """The rows of a file, or why there are none."""
    path = folder / f"{stem}.json"
    if not path.is_file():
        return f"no {path.name}"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        rows, taken_on = content["rows"], str(content["machine"]["device"])
    except (ValueError, KeyError, TypeError) as error:
        return f"{path.name} cannot be read ({type(error).__name__})"
    if taken_on.startswith("CPU"):
        return f"{path.name} is of a CPU"
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else f"{path.name} holds no rows"


def matches(target: Target, row: dict) -> bool:
    """Whether all of the target's patterns are found in the row's names."""
    text = " | ".join(str(row.get(key, "")) for key in ("group", "case", "peer"))
    return all(re.search(pattern, text, re.IGNORECASE) for pattern in target.rows)


def figure_of(target: Target, row: dict) -> float | None:
    """The row's figure, where it holds one."""
    extra = row.get("extra")
    value = row.get(target.figure, extra.get(target.figure) if isinstance(extra, dict) else None)
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def judge(target: Target, rows: list[dict] | str) -> tuple[str, str]:
    """(measured, met) as the table shows them."""
    if isinstance(rows, str):
        return f"{NOT_MEASURED}: {rows}", "-"
    chosen = [row for row in rows if matches(target, row)]
    found = [(value, row) for row in chosen if (value := figure_of(target, row)) is not None]
    if not found:
        why = f"no {target.figure} in {len(chosen)} rows" if chosen else "no such row"
        refused = next((row["extra"]["refused"] for row in rows if "refused" in (row.get("extra") or {})), None)
        return f"{NOT_MEASURED}: {f'refused, {refused}' if refused else why}", "-"
    value, row = (max if target.at_most else min)(found, key=lambda pair: pair[0])
    # NaN meets nothing.
    met = value <= target.bound if target.at_most else value >= target.bound
    of = f" (worst of {len(found)}: {row.get('case', '')})" if len(found) > 1 else ""
    return f"{shown(value, target)}{of}", "yes" if met else "no"


def shown(value: float, target: Target) -> str:
    """A figure with its unit."""
    text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{text} {target.unit}".strip() if target.unit != "x" else f"{text}x"


def table(folder: Path, targets: tuple[Target, ...] = TARGETS) -> str:
    """The table, in Markdown."""
    lines = ["| target | wanted | measured | met |", "| --- | --- | --- | --- |"]
    for target in targets:
        wanted = f"{'at most' if target.at_most else 'at least'} {shown(target.bound, target)}"
        measured, met = judge(target, rows_in(folder, target.file))
        lines.append(f"| {target.name} | {wanted} | {measured} | {met} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="bench/results/<gpu>")
    folder = parser.parse_args().folder
    if not folder.is_dir():
        parser.error(f"{folder} is no folder; pass the one that the benchmarks wrote to with --out")
    text = table(folder)
    print(text)
    (folder / "verdict.md").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
