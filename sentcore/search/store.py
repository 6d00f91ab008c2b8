"""An index in a folder: features.npy, the texts, where each begins, and a manifest that makes these files the index.

Every build writes files of new names; manifest.json names them and is put in place last, by one rename. So a reader finds the
old index or the new one, and a build that fails or is interrupted leaves the old one as it was.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sentcore.errors import ArgumentValueError, MissingFileError, SentcoreError

MANIFEST = "manifest.json"
FORMAT = 1
REMEDY = "build it again: SearchIndex.build(..., folder=...), or --rebuild on the command line"


class IndexMismatchError(SentcoreError, ValueError):
    """A stored index is damaged, or is not one of this model, this corpus or these options."""


class GrowingNpy:
    """An npy file of rows whose number is known last."""

    def __init__(self, path: Path, row: tuple[int, ...], dtype: str) -> None:
        self.rows, self._row, self._dtype = 0, row, dtype
        self._file = open(path, "wb")  # noqa: SIM115  closed by finish or close
        self._header()

    def _header(self) -> None:
        # NumPy leaves room for a larger number of rows in the header.
        described = {"descr": self._dtype, "fortran_order": False, "shape": (self.rows, *self._row)}
        np.lib.format.write_array_header_1_0(self._file, described)

    def append(self, rows: np.ndarray) -> None:
        """So many rows more, [b, *row]."""
        self._file.write(np.ascontiguousarray(rows, dtype=self._dtype).tobytes())
        self.rows += len(rows)

    def finish(self) -> None:
        """Writes the number of rows, to the disk."""
        self._file.seek(0)
        self._header()
        flush_to_disk(self._file)
        self._file.close()

    def close(self) -> None:
        """Without finishing."""
        self._file.close()


class IndexWriter:
    """Takes blocks of texts and features into `folder`; nothing of it counts before `commit`.

    Raises:
        ArgumentValueError: the folder is a file.
    """

    def __init__(self, folder: Path, dimension: int) -> None:
        if folder.exists() and not folder.is_dir():
            raise ArgumentValueError(f"folder is {folder}, a file; accepted: a folder, or a path where none is yet")
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        token = secrets.token_hex(4)
        ends = {"features": ".npy", "texts": ".bin", "offsets": ".npy", "faiss": ".index"}
        self._names = {kind: f"{kind}-{token}{end}" for kind, end in ends.items()}
        self._features = GrowingNpy(self.path("features"), (dimension,), "<f4")
        self._offsets = GrowingNpy(self.path("offsets"), (), "<i8")
        self._offsets.append(np.zeros(1))
        self._texts = open(self.path("texts"), "wb")  # noqa: SIM115  closed by finish or discard
        self._bytes = 0
        self.rows = 0

    def path(self, kind: str) -> Path:
        """Where this build writes its "features", "texts", "offsets" or "faiss"."""
        return self.folder / self._names[kind]

    def write(self, texts: list[str], rows: np.ndarray) -> None:
        """One more block: rows [b, E] float32."""
        encoded = [text.encode() for text in texts]
        self._features.append(rows)
        self._texts.write(b"".join(encoded))
        self._offsets.append(self._bytes + np.cumsum([len(text) for text in encoded], dtype=np.int64))
        self._bytes += sum(map(len, encoded))
        self.rows += len(texts)

    def finish(self) -> None:
        """All texts and rows are on the disk."""
        self._features.finish()
        self._offsets.finish()
        flush_to_disk(self._texts)
        self._texts.close()

    def commit(self, manifest: dict) -> None:
        """Makes what was written the index of the folder, and removes the files of the one before."""
        present = {kind: name for kind, name in self._names.items() if (self.folder / name).exists()}
        sizes = {kind: (self.folder / name).stat().st_size for kind, name in present.items()}
        before = _files_before(self.folder)
        partial = self.folder / f".{MANIFEST}.{os.getpid()}.part"
        with open(partial, "w", encoding="utf-8") as file:
            whole = {"format": FORMAT, "rows": self.rows, **manifest, "files": present, "bytes": sizes}
            json.dump(whole, file, indent=2, ensure_ascii=False)
            flush_to_disk(file)
        os.replace(partial, self.folder / MANIFEST)
        for name in before - set(present.values()):
            (self.folder / name).unlink(missing_ok=True)

    def discard(self) -> None:
        """Removes what was written."""
        for file in (self._features, self._offsets, self._texts):
            file.close()
        for kind in self._names:
            self.path(kind).unlink(missing_ok=True)


class StoredTexts(Sequence):
    """The texts of an index, each read from its file when it is asked for."""

    def __init__(self, path: Path, offsets: np.ndarray) -> None:
        self._offsets = offsets  # [N + 1] int64
        self._bytes = np.memmap(path, np.uint8, "r") if offsets[-1] else np.zeros(0, np.uint8)

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, row: int) -> str:
        if not 0 <= row < len(self):
            raise IndexError(f"row is {row}; accepted: 0 to {len(self) - 1}")
        return bytes(self._bytes[self._offsets[row] : self._offsets[row + 1]]).decode()


def is_index(folder: Path) -> bool:
    """Whether an index was written there."""
    return (folder / MANIFEST).is_file()


def read_manifest(folder: Path) -> dict:
    """manifest.json, whose files are there with the sizes they had.

    Raises:
        MissingFileError: there is no index.
        IndexMismatchError: it is damaged, or of another version's form.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise MissingFileError(f"{folder} holds no index ({MANIFEST} is absent); {REMEDY}")
    try:
        manifest = json.loads(path.read_bytes())
        found, names, sizes = manifest["format"], manifest["files"], manifest["bytes"]
        if found == FORMAT:
            for kind, name in names.items():
                file = folder / name
                size = file.stat().st_size if file.is_file() else "absent"
                if size != sizes[kind]:
                    raise IndexMismatchError(f"{file}: {size} instead of {sizes[kind]} bytes; {REMEDY}")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, IndexMismatchError):
            raise
        raise IndexMismatchError(f"{path} is no manifest of an index ({error!r}); {REMEDY}") from error
    if found != FORMAT:
        raise IndexMismatchError(f"{path}: format {found!r}; this version reads {FORMAT}; {REMEDY}")
    return manifest


def open_files(folder: Path, manifest: dict) -> tuple[np.ndarray, StoredTexts]:
    """(features [N, E] float32, memory-mapped; texts)."""
    files = manifest["files"]
    try:
        features = np.load(folder / files["features"], mmap_mode="r")
        offsets = np.load(folder / files["offsets"], mmap_mode="r")
    except ValueError as error:
        raise IndexMismatchError(f"{folder}: a file is no npy file any more ({error}); {REMEDY}") from error
    rows = manifest["rows"]
    if features.shape[:1] != (rows,) or offsets.shape != (rows + 1,):
        raise IndexMismatchError(
            f"{folder}: {len(features)} features and {len(offsets) - 1} texts where the manifest says {rows}; {REMEDY}"
        )
    return features, StoredTexts(folder / files["texts"], offsets)


def refuse_differences(where: str, found: dict, wanted: dict) -> None:
    """Raises IndexMismatchError that names every entry of `wanted` that `found` has otherwise."""
    different = [
        f"{name} ({_shown(found.get(name))} in the index, {_shown(value)} here)"
        for name, value in wanted.items()
        if found.get(name) != value
    ]
    if different:
        raise IndexMismatchError(f"{where} differs in {', '.join(different)}; {REMEDY}")


def flush_to_disk(file) -> None:
    """What was written outlives a power cut."""
    file.flush()
    os.fsync(file.fileno())


def _files_before(folder: Path) -> set[str]:
    """The names of the files of the index that is there; none where its manifest cannot be read."""
    try:
        names = json.loads((folder / MANIFEST).read_bytes())["files"].values()
        return {name for name in names if Path(name).name == name}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return set()


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) < 24 else text[:12].rstrip("'") + "...'"
