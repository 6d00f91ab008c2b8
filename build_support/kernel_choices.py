"""Reads bench/results/kernel_choices.json: which kernels of sm_90a are taken, because a committed measurement says so."""

from __future__ import annotations

import json
from pathlib import Path

from build_support.errors import BuildError

FILE = Path(__file__).resolve().parent.parent / "bench" / "results" / "kernel_choices.json"
CHOICES = (
    "linear",
    "linear_input_gradient",
    "linear_weight_gradient",
    "attention",
    "fp8_linear",
    "linear_add_layer_norm",
)
DTYPES = ("bfloat16", "float16")


def read(file: Path = FILE) -> list[dict[str, str | int]]:
    """The rows: {"choice", "dtype", "first", "second", "results", "case"}; none where the file is not part of the sources.

    Raises:
        BuildError: a row is malformed, or its results are not there, or do not show that the kernel is faster.
    """
    if not file.is_file():  # an sdist without the benchmarks
        return []
    rows = json.loads(file.read_text())["rows"]
    for row in rows:
        if row["choice"] not in CHOICES or row["dtype"] not in DTYPES:
            raise BuildError(
                f"{file.name} names {row['choice']!r} in {row['dtype']!r}; accepted: {', '.join(CHOICES)} in "
                f"{' or '.join(DTYPES)}"
            )
        results = file.parent / row["results"]
        if not results.is_file():
            raise BuildError(f"{file.name} leans on {row['results']}, which is not there; commit it, or remove the row")
        measured = [
            r
            for r in json.loads(results.read_text())["rows"]
            if r["case"] == row["case"] and r["peer"] == "portable" and r["group"].endswith(f", {row['dtype']}")
        ]
        if not measured or any(r["ratio"] is None or r["ratio"] <= 1 for r in measured):
            raise BuildError(
                f"{row['results']} does not show that {row['case']!r} is faster in {row['dtype']} in every row; remove the row from {file.name}"
            )
    return rows
