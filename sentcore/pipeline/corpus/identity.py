"""What a run was started on, to refuse to go on with another model or another file."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

_ENDS = 2**20  # bytes of a file's head and tail that are looked at
_SUFFIXES = {".json", ".safetensors", ".bin", ".txt", ".model", ".pt"}
_PIECE = 2**22


def folder_identity(folder: Path) -> dict[str, str]:
    """{file: SHA-256} of a model folder's weights, configurations and tokenizer."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.suffix in _SUFFIXES and path.is_file() and not any(part.startswith(".") for part in name.parts):
            found[name.as_posix()] = _digest(path)
    return found


def file_identity(path: Path) -> dict[str, str | int]:
    """Size, time of the last change, and SHA-256 of the head and the tail of a file."""
    status = os.stat(path)
    with open(path, "rb") as file:
        digest = hashlib.sha256(file.read(_ENDS))
        file.seek(max(0, status.st_size - _ENDS))
        digest.update(file.read(_ENDS))
    return {"size": status.st_size, "mtime_ns": status.st_mtime_ns, "head_and_tail": digest.hexdigest()}


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()


def differences(before: dict, now: dict, name: str = "") -> list[str]:
    """What differs between two identities, a line each: "options.dtype was 'float32' and is 'bfloat16'"."""
    said = []
    for key in sorted({*before, *now}):
        where = f"{name}.{key}" if name else key
        old, new = before.get(key), now.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            said.extend(differences(old, new, where))
        elif old != new:
            said.append(f"{where} was {_shown(old)} and is {_shown(new)}")
    return said


def _shown(value: object) -> str:
    text = "absent" if value is None else repr(value)
    return f"{text[:12]}..." if len(text) > 60 else text
