"""What the files of a model folder may name and hold, with errors that name the file: see `sentcore.model_files`."""

from __future__ import annotations

import math
import sys
from pathlib import Path, PurePosixPath
from typing import Any

from sentcore.errors import CheckpointError
from sentcore.model_files import check_inside, has, read_json, shown

_LONGEST_PATH = 1024

__all__ = ["field", "has", "inside", "read_json", "shown"]


def inside(folder: Path, relative: object, where: str) -> Path:
    """`folder / relative`, for a relative path that a file of the folder names.

    Raises:
        CheckpointError: it is no text, absolute, climbs with "..", or leads out of the folder through a link.
    """
    if not isinstance(relative, str) or len(relative) > _LONGEST_PATH or "\0" in relative or "\\" in relative:
        raise CheckpointError(f"{where} is {shown(relative)}; accepted: a path relative to the model folder")
    path = PurePosixPath(relative)
    if path.is_absolute() or ".." in path.parts or ":" in relative:
        raise CheckpointError(
            f"{where} is {shown(relative)}, which leaves the model folder; accepted: a path inside it, such as '1_Pooling'"
        )
    check_inside(folder / path, folder)
    return folder / path


def field(values: dict, name: str, kinds: tuple[type, ...], default: Any, where: Path) -> Any:
    """`values[name]`, or `default` where it is absent or null.

    Raises:
        CheckpointError: it is there with another type, or is no finite number where a float is accepted.
    """
    value = values.get(name)
    if value is None:
        return default
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        names = " or ".join(kind.__name__ for kind in kinds)
        raise CheckpointError(f"{where}: {name} is {shown(value)}; accepted: {names}")
    if float in kinds and not isinstance(value, bool) and not _is_finite(value):
        raise CheckpointError(f"{where}: {name} is {shown(value)}; accepted: a finite number")
    return value


def _is_finite(value: object) -> bool:
    if isinstance(value, int):
        return abs(value) <= sys.float_info.max
    return not isinstance(value, float) or math.isfinite(value)
