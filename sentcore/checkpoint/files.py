"""Reading a model folder's files, with errors that name the file and never a path outside the folder."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath
from typing import Any

from sentcore.errors import CheckpointError, MissingFileError

MAX_JSON_BYTES = 64 * 2**20  # an index of weights is a few MB; anything larger is no config


def read_json(path: Path, kind: type = dict) -> Any:
    """The JSON object (or list) in `path`.

    Raises:
        MissingFileError: there is no such file.
        CheckpointError: it is no JSON, not of `kind`, or too large.
    """
    if not path.is_file():
        raise MissingFileError(
            f"{path} does not exist; accepted: a model folder that holds it. Copy the whole folder, or download it again"
        )
    if path.stat().st_size > MAX_JSON_BYTES:
        raise CheckpointError(
            f"{path} has {path.stat().st_size} bytes; accepted: at most {MAX_JSON_BYTES} for a JSON file. It is not what "
            "its name says; download it again"
        )
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not JSON ({error}); download or write it again") from error
    if not isinstance(value, kind):
        wanted = {dict: "an object", list: "a list"}[kind]
        raise CheckpointError(
            f"{path} holds a JSON {type(value).__name__}; accepted: {wanted}. Download or write it again"
        )
    return value


def inside(folder: Path, relative: object, where: str) -> Path:
    """`folder / relative`, for a relative path that a file of the folder names.

    The path is judged as written: in a hub cache the files themselves are links into a store beside the folder.

    Raises:
        CheckpointError: it is no text, absolute, or climbs with "..".
    """
    if not isinstance(relative, str) or "\0" in relative or "\\" in relative:
        raise CheckpointError(f"{where} is {relative!r}; accepted: a path relative to the model folder")
    path = PurePosixPath(relative)
    if path.is_absolute() or ".." in path.parts or ":" in relative:
        raise CheckpointError(
            f"{where} is {relative!r}, which leaves the model folder; accepted: a path inside it, such as '1_Pooling'"
        )
    return folder / path


def field(values: dict, name: str, kinds: tuple[type, ...], default: Any, where: Path) -> Any:
    """`values[name]`, or `default` where it is absent or null.

    Raises:
        CheckpointError: it is there with another type.
    """
    value = values.get(name)
    if value is None:
        return default
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        names = " or ".join(kind.__name__ for kind in kinds)
        raise CheckpointError(f"{where}: {name} is {value!r}; accepted: {names}")
    return value
