"""Writes bench/results/kernel_choices.json from what bench/gpu/sm_90a.py measured: sm_90a's kernel is taken for a shape where
it was faster than the portable one at every number of tokens. A shape's choice never depends on the tokens, so that a sentence's
vector does not depend on its batch. Run it only when all tests passed on that GPU, and install again.

python bench/gpu/choose.py bench/results/<gpu>
"""

from __future__ import annotations

import argparse
import json
import re
from itertools import groupby
from pathlib import Path

RESULTS = Path(__file__).resolve().parents[1] / "results"
FILE = RESULTS / "kernel_choices.json"
ALONE = "portable"  # the peer a choice is made against


def choices(rows: list[dict], results: str) -> list[dict]:
    """Rows of the table, from those of sm_90a.json."""

    def of(row: dict) -> tuple[str, str, str]:
        return row["group"].split(" ")[0].rstrip(","), row["group"].rsplit(", ", 1)[1], row["case"]

    against = sorted((row for row in rows if row["peer"] == ALONE), key=of)
    faster = {
        key: all(row["ratio"] is not None and row["ratio"] > 1 for row in group) for key, group in groupby(against, of)
    }
    found = []
    for (kind, dtype, case), taken in faster.items():
        base = {"dtype": dtype, "results": results, "case": case}
        if kind == "attention" or not taken:
            continue
        columns, depth = map(int, re.fullmatch(r"(?:backward |fp8 |norm )?N(\d+) K(\d+)", case).groups())
        if case.startswith("backward"):
            found.append({"choice": "linear_input_gradient", "first": depth, "second": columns, **base})
            found.append({"choice": "linear_weight_gradient", "first": columns, "second": depth, **base})
        elif case.startswith("norm"):
            found.append({"choice": "linear_add_layer_norm", "first": columns, "second": depth, **base})
        elif case.startswith("fp8"):
            found.append({"choice": "fp8_linear", "first": columns, "second": -(-depth // 16) * 16, **base})
        else:
            found.append({"choice": "linear", "first": columns, "second": depth, **base})
    return found + _attention({key[1:]: taken for key, taken in faster.items() if key[0] == "attention"}, results)


def _attention(faster: dict[tuple[str, str], bool], results: str) -> list[dict]:
    """For each dtype and head size the fewest keys from which on every measured length was faster."""
    lengths: dict[tuple[str, int], list[tuple[int, str, bool]]] = {}
    for (dtype, case), taken in faster.items():
        size, keys = map(int, re.fullmatch(r"D(\d+) keys (\d+)", case).groups())
        lengths.setdefault((dtype, size), []).append((keys, case, taken))
    found = []
    for (dtype, size), cases in lengths.items():
        row = None
        for keys, case, taken in sorted(cases, reverse=True):
            if not taken:
                break
            row = {
                "choice": "attention",
                "first": size,
                "second": keys,
                "dtype": dtype,
                "results": results,
                "case": case,
            }
        found += [row] if row else []
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path, help="a folder under bench/results with sm_90a.json")
    parser.add_argument("--out", type=Path, default=FILE)
    options = parser.parse_args()
    file = options.results / "sm_90a.json"
    found = json.loads(file.read_text())
    if "H100" not in found["machine"]["device"] and "H200" not in found["machine"]["device"]:
        raise SystemExit(f"{file} is of {found['machine']['device']!r}; accepted: a GPU of compute capability 9.0")
    rows = choices(found["rows"], f"{options.results.name}/sm_90a.json")
    what = json.loads(FILE.read_text())["what"]
    options.out.write_text(json.dumps({"what": what, "rows": rows}, indent=1) + "\n")
    print(f"{len(rows)} choices, of {len({r['case'] for r in found['rows']})} cases, written to {options.out}")


if __name__ == "__main__":
    main()
