"""Texts with one label each: what the examples that classify texts read, split, tokenize and count."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

Row = tuple[str, str]  # text, label


class Split(NamedTuple):
    """Rows to train on and rows to test on, and the names of the labels; a name's place is its number."""

    train: list[Row]
    test: list[Row]
    names: list[str]


def read_rows(path: Path) -> list[Row]:
    """(text, label) of every row of a .jsonl or .tsv file; an error names the line."""
    lines = path.read_text(encoding="utf-8-sig").split("\n")
    header = lines[0].rstrip("\r").split("\t") if path.suffix == ".tsv" else None
    if header is not None and not {"text", "label"} <= set(header):
        sys.exit(f"{path}, line 1: columns {header}; accepted: a header with text and label, parted by tabs")
    rows = []
    for number, line in enumerate(lines[1:] if header else lines, start=2 if header else 1):
        if not line.strip():
            continue
        try:
            row = dict(zip(header, line.rstrip("\r").split("\t"), strict=True)) if header else json.loads(line)
            text, label = row["text"], str(row["label"])
        except (ValueError, KeyError, TypeError) as error:
            found = f"{line[:80]!r} is no row" if header else "no JSON object"
            sys.exit(f"{path}, line {number}: {found} with text and label ({error!r})")
        if not isinstance(text, str):
            sys.exit(f"{path}, line {number}: text is {text!r}; accepted: a string")
        rows.append((text, label))
    return rows


def split(data: Path, test: Path | None) -> Split:
    """The rows of `data` in a random order, and those of `test`, without which a fifth of `data` is kept aside."""
    rows = read_rows(data)
    order = torch.randperm(len(rows)).tolist()
    kept = 0 if test else max(1, len(rows) // 5)
    aside = read_rows(test) if test else [rows[place] for place in order[:kept]]
    names = sorted({label for _, label in rows})
    unknown = {label for _, label in aside} - set(names)
    if unknown:
        sys.exit(f"{test}: labels {sorted(unknown)} are not in {data}, which has {names}")
    return Split([rows[place] for place in order[kept:]], aside, names)


def tokenized(rows: list[Row], names: list[str], tokenizer, max_length: int) -> list[dict]:
    """What transformers' collators and models take of each row."""
    return [
        {**tokenizer(text, truncation=True, max_length=max_length), "labels": names.index(label)}
        for text, label in rows
    ]


def accuracy(prediction) -> dict[str, float]:
    """Accuracy, and F1 averaged over the labels, as scikit-learn defines them."""
    guesses, labels = np.argmax(prediction.predictions, axis=-1), prediction.label_ids
    scores = []
    for label in np.unique(np.concatenate((labels, guesses))):
        hits = np.sum((guesses == label) & (labels == label))
        scores.append(2 * hits / (np.sum(guesses == label) + np.sum(labels == label)))
    return {"accuracy": float(np.mean(guesses == labels)), "macro_f1": float(np.mean(scores))}
