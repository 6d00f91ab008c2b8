"""Types of carried columns that come from JSON or CSV, where they go into a file of typed columns."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from sentcore.pipeline.corpus.rows import Row

# the most special type first; "json": any value, as its JSON text
NAMES = ("boolean", "integer", "number", "string", "json")


class KeptTypes:
    """The type of every carried column: decided by the rows of the first shard, held to by all later ones.

    Args:
        keep: the columns.
        names: their types, where a run before this one has decided them.
    """

    def __init__(self, keep: Sequence[str], names: dict[str, str] | None = None) -> None:
        self._keep = keep
        self.names = names

    def checked(self, rows: list[Row]) -> list[Row]:
        """The rows of a shard with values of their columns' types; one of another type makes a row a bad one."""
        if self.names is None:
            good = [row.kept for row in rows if row.problem is None]
            self.names = {name: _common([kept[k] for kept in good]) for k, name in enumerate(self._keep)}
        return [self._checked(row) for row in rows]

    def _checked(self, row: Row) -> Row:
        values, problem = [], row.problem
        for name, value in zip(self._keep, row.kept, strict=True):
            kind = self.names[name]
            if value is None or _fits(value, kind):
                values.append(_stored(value, kind))
                continue
            values.append(None)
            problem = problem or (
                f"{name!r} is {json.dumps(value, ensure_ascii=False)[:60]}, of another type than in the rows before ({kind}); "
                "give the column one type, or write .jsonl"
            )
        return row._replace(kept=tuple(values), text=None if problem else row.text, problem=problem)


def _common(values: list[Any]) -> str:
    """The type that all values fit, "string" where there is none."""
    present = [value for value in values if value is not None]
    if not present:
        return "string"
    return next(kind for kind in NAMES if all(_fits(value, kind) for value in present))


def _fits(value: Any, kind: str) -> bool:
    if kind == "json":
        return True
    if kind == "string":
        return isinstance(value, str)
    if isinstance(value, bool) or kind == "boolean":
        return isinstance(value, bool) and kind == "boolean"
    whole = isinstance(value, int) and -(2**63) <= value < 2**63
    return whole or (kind == "number" and isinstance(value, float))


def _stored(value: Any, kind: str) -> Any:
    if value is None:
        return None
    if kind == "json":
        return json.dumps(value, ensure_ascii=False)
    return float(value) if kind == "number" else value
