"""The folder `<out>.parts`: shards that are done, and a manifest of them, safe against a kill at any moment.

Every file is written under a temporary name, synced, and renamed, and the folder is synced: a name that is there stands
for a whole file. A shard counts once the manifest lists it, which is written behind it in the same way.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from sentcore.errors import SentcoreError

_MANIFEST, _LOCK, _OURS = "manifest.json", "lock", re.compile(r"manifest\.json|lock|\d{8}\.shard|.*\.tmp")
_FORMAT = 1


class PartsError(SentcoreError, RuntimeError):
    """The folder of an earlier run is in the way, damaged, or in use."""


class Parts:
    """The shards of one output file.

    Args:
        output: the file; its shards lie in `<output>.parts` beside it.

    Attributes:
        shards: of those that are done, in order: bytes, crc32, rows written and read, bad ones, where the input goes on
            behind, and a checksum of what was read.
    """

    def __init__(self, output: Path) -> None:
        self.output = Path(os.path.realpath(output))  # a link goes on pointing where it did
        self.folder = self.output.with_name(self.output.name + ".parts")
        self.shards: list[dict] = []
        self._identity: dict = {}
        self._lock: IO[str] | None = None

    def begin(self) -> dict | None:
        """Takes the folder for this process; what an earlier run noted as its identity, None where it has done nothing yet.

        Raises:
            PartsError: another process is at work there, or it holds what no run of ours has put there.
        """
        self.remove_finished()
        self.folder.mkdir(exist_ok=True)
        strange = sorted(entry.name for entry in os.scandir(self.folder) if not _OURS.fullmatch(entry.name))
        if strange:
            raise PartsError(
                f"{self.folder} holds {strange[0]!r}, which is not of ours; move it away, or name another output"
            )
        lock = open(self.folder / _LOCK, "w")  # noqa: SIM115  # held as long as the run lasts
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            raise PartsError(f"{self.folder} is in use by another run; wait for it, or name another output") from None
        self._lock = lock
        try:
            manifest = json.loads((self.folder / _MANIFEST).read_bytes())
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise PartsError(f"{self.folder / _MANIFEST} is damaged ({error}); delete {self.folder}") from error
        if manifest.get("format") != _FORMAT:
            raise PartsError(f"{self.folder} is of another version of sentcore; finish it there, or delete it")
        self.shards = manifest["shards"]
        return manifest["identity"] if self.shards else None

    def start(self, identity: dict, keep: bool) -> int:
        """Notes what the run is of; how many of the shards that were done are not there whole, and will be made again.

        Args:
            identity: of the run, as JSON.
            keep: whether the shards that are done stay.
        """
        whole = self._whole() if keep else 0
        lost = len(self.shards) - whole if keep else 0
        self.shards = self.shards[:whole]
        self._identity = identity
        self._write_manifest()
        for entry in os.scandir(self.folder):
            if entry.name.endswith(".tmp") or (entry.name.endswith(".shard") and int(entry.name[:8]) >= whole):
                os.unlink(entry.path)
        return lost

    def add(self, data: bytes, record: dict) -> None:
        """One more shard; done when this returns."""
        self._write(self._name(len(self.shards)), data)
        self.shards.append({"bytes": len(data), "crc32": zlib.crc32(data), **record})
        try:
            self._write_manifest()
        except BaseException:
            self.shards.pop()
            raise

    def read(self) -> Iterator[bytes]:
        """The bytes of every shard, in order.

        Raises:
            PartsError: one is not what was written; it and those behind it will be made again.
        """
        for number, record in enumerate(self.shards):
            path = self.folder / self._name(number)
            data = path.read_bytes()
            if zlib.crc32(data) != record["crc32"]:
                del self.shards[number:]
                self._write_manifest()
                raise PartsError(
                    f"{path} is damaged; the same command with --resume makes it again, and those behind it"
                )
            yield data

    @contextlib.contextmanager
    def finished(self) -> Iterator[IO[bytes]]:
        """A file that becomes the output when the block ends well; then the folder goes."""
        unfinished = self.folder / "output.tmp"
        try:
            with _named(unfinished), open(unfinished, "w+b") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(unfinished, self.output)
        finally:
            unfinished.unlink(missing_ok=True)
        _sync_folder(self.output.parent)
        # Under another name first: what a kill leaves of it from here on is known to be finished.
        os.rename(self.folder, self._finished_folder)
        self.remove_finished()
        self.release()

    def discard(self) -> None:
        """Removes the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.release()

    def release(self) -> None:
        """Lets another process take the folder."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    @property
    def locked(self) -> bool:
        """Whether the folder is this process's."""
        return self._lock is not None

    @property
    def _finished_folder(self) -> Path:
        return self.folder.with_name(f"{self.folder.name}.finished")

    def finished_identity(self) -> dict | None:
        """Of a run that wrote the output and was killed while it removed its shards, else None."""
        try:
            manifest = json.loads((self._finished_folder / _MANIFEST).read_bytes())
        except (OSError, ValueError):
            return None
        return manifest["identity"] if self.output.is_file() else None

    def remove_finished(self) -> None:
        """Removes what such a run has left."""
        if self._finished_folder.is_dir():
            for path in self._finished_folder.glob("*.shard"):  # the manifest last, as long as it takes
                path.unlink(missing_ok=True)
            shutil.rmtree(self._finished_folder, ignore_errors=True)

    def _whole(self) -> int:
        """How many of the first shards are there in full size."""
        for number, record in enumerate(self.shards):
            path = self.folder / self._name(number)
            if not path.is_file() or path.stat().st_size != record["bytes"]:
                return number
        return len(self.shards)

    @staticmethod
    def _name(number: int) -> str:
        return f"{number:08d}.shard"

    def _write_manifest(self) -> None:
        manifest = {"format": _FORMAT, "identity": self._identity, "shards": self.shards}
        self._write(_MANIFEST, json.dumps(manifest).encode())

    def _write(self, name: str, data: bytes) -> None:
        path = self.folder / name
        unfinished = path.with_name(f"{name}.tmp")
        with _named(unfinished):
            try:
                with open(unfinished, "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(unfinished, path)
            except BaseException:
                unfinished.unlink(missing_ok=True)
                raise
        _sync_folder(self.folder)


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """An OSError within says of which file it is."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        with _named(folder):
            os.fsync(handle)
    finally:
        os.close(handle)
