"""The files of a model folder, which anybody may have written: ordinary files of that folder alone, JSON of bounded size.

A link that leads out of the folder is refused, but for the links of the Hugging Face hub's cache::

    CACHE/models--org--name/snapshots/REVISION/config.json -> ../../blobs/SUM
    CACHE/models--org--name/blobs/SUM, itself a file or a link -> ../../blobs/ab/SUM, shared by all models of the cache
"""

from __future__ import annotations

import json
import os
import re
import stat
from pathlib import Path
from typing import Any

from sentcore.errors import CheckpointError, MissingFileError

MAX_JSON_BYTES = 16 * 2**20  # the largest tokenizer_config.json of known models has 2 MB
MAX_JSON_DEPTH = 64
_SHOWN = 200
_SHARED_BLOB = re.compile(r"[0-9a-f]{2}/[0-9a-f]{64}")


def has(path: Path) -> bool:
    """Whether there is a file at `path`, which is then an ordinary one of its folder.

    Raises:
        CheckpointError: what is there is none (a folder, a pipe, a device), leads out of the folder, or cannot be reached.
    """
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        if os.path.islink(path):
            raise CheckpointError(
                f"{path} is a link to {shown(os.readlink(path))}, which does not exist; copy or download the whole folder again"
            ) from None
        return False
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be reached ({brief(error)}); accepted: an ordinary file") from error
    if not stat.S_ISREG(mode):
        what = "a folder" if stat.S_ISDIR(mode) else "a pipe, socket or device"
        raise CheckpointError(f"{path} is {what}; accepted: an ordinary file. Download or copy the folder again")
    check_inside(path, path.parent)
    return True


def check_inside(path: Path, folder: Path) -> None:
    """Raises CheckpointError where `path`, every link followed, leaves `folder` for anything but the hub's cache."""
    target, root = Path(os.path.realpath(path)), Path(os.path.realpath(folder))
    if target == root or root in target.parents or _in_hub_cache(target, root):
        return
    raise CheckpointError(
        f"{path} leads to {target}, outside the model folder; accepted: files of the folder itself, or the links of the "
        "Hugging Face hub's cache. Where the links are yours, copy the folder with cp -rL and load the copy"
    )


def _in_hub_cache(target: Path, root: Path) -> bool:
    """Whether `target` lies where the snapshot that `root` is, or is within, keeps its files."""
    snapshots = next((parent for parent in (root, *root.parents) if parent.parent.name == "snapshots"), None)
    repository = None if snapshots is None else snapshots.parent.parent
    if repository is None or not repository.name.startswith("models--"):
        return False
    if target.parent == repository / "blobs":
        return True
    shared = repository.parent / "blobs"
    return shared in target.parents and _SHARED_BLOB.fullmatch(target.relative_to(shared).as_posix()) is not None


def read_bytes(path: Path, limit: int, what: str) -> bytes:
    """All of a file.

    Args:
        limit: bytes that it may have.
        what: what it is, for messages.

    Raises:
        MissingFileError: there is no such file.
        CheckpointError: it is not an ordinary file of its folder, too large, or cannot be read.
    """
    if not has(path):
        raise MissingFileError(
            f"{path} does not exist; accepted: a model folder that holds it. Copy the whole folder, or download it again"
        )
    try:
        with open(path, "rb") as file:
            size = os.stat(file.fileno()).st_size
            data = file.read(limit) if size <= limit else b""
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error}); check its permissions") from error
    if size > limit:
        raise CheckpointError(
            f"{path} has {size} bytes; accepted: at most {limit} for {what}. It is not what its name says; "
            "download it again"
        )
    return data


def read_json(path: Path, kind: type = dict) -> Any:
    """The JSON object (or list) in `path`; of a key that comes twice the last value, as transformers reads it.

    Raises:
        MissingFileError: there is no such file.
        CheckpointError: it is no JSON, not of `kind`, too large or too deep, holds half a character, or is no file of its folder.
    """
    data = read_bytes(path, MAX_JSON_BYTES, "a JSON file")
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not JSON ({error}); download or write it again") from error
    if not isinstance(value, kind):
        wanted = {dict: "an object", list: "a list"}[kind]
        raise CheckpointError(
            f"{path} holds a JSON {type(value).__name__}; accepted: {wanted}. Download or write it again"
        )
    _check_values(value, path)
    return value


def shown(value: object) -> str:
    """repr, cut where it is long, for messages."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}... ({len(text)} characters)"


def brief(error: BaseException) -> str:
    """What an error says, cut where it is long: a library's may hold whole values of a file."""
    text = str(error).strip() or type(error).__name__
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _check_values(value: object, path: Path) -> None:
    """Depth and texts of a JSON value, level by level: what is deeper than Python's stack has no repr."""
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > MAX_JSON_DEPTH:
            raise CheckpointError(f"{path} is nested deeper than {MAX_JSON_DEPTH} levels; download or write it again")
        below: list[object] = []
        for item in level:
            if isinstance(item, dict):
                below.extend(item)
                below.extend(item.values())
            elif isinstance(item, list):
                below.extend(item)
            elif isinstance(item, str) and not item.isascii():
                _check_text(item, path)
        level = below


def _check_text(text: str, path: Path) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise CheckpointError(
            f"{path} holds the text {shown(text)} with a lone surrogate at {error.start}, half of a character; accepted: valid "
            "Unicode. Write the file again"
        ) from None
