"""Lays the headers and libraries that a build reads under build/, at paths that never change.

Under build isolation torch and pybind11 sit in a fresh temporary folder every time. Compiling against those paths would
change every command line and so recompile everything; these copies keep their time stamps while their bytes are the same.
"""

from __future__ import annotations

import filecmp
import os
import re
import shutil
import site
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from build_support.errors import BuildError

OLDEST_TORCH = (2, 11)
# The stable ABI's headers: all that an op's .cpp file may include.
TORCH_HEADERS = ("torch/csrc/stable", "torch/headeronly", "torch/csrc/inductor/aoti_torch")
_NEEDED_LIBRARIES = ("torch", "torch_cpu")


@dataclass(frozen=True)
class Staged:
    torch_include: Path
    torch_lib: Path
    pybind11_include: Path


def find_torch() -> tuple[Path, str] | None:
    """(folder, version) of an installed torch, which is not imported; None when there is none of 2.11 or newer.

    Under build isolation the environment that is installed into is off sys.path, but its torch serves as well: the
    binary depends on no particular torch, and this saves downloading one for its headers.
    """
    for folder in [
        *map(Path, sys.path),
        Path(sysconfig.get_path("purelib")),
        *map(Path, _user_site()),
    ]:
        found = folder / "torch"
        file = found / "version.py"
        if not (found / "include" / TORCH_HEADERS[0]).is_dir() or not file.is_file():
            continue
        version = re.search(r"__version__\s*=\s*['\"]([^'\"]+)", file.read_text())
        if version and _release(version[1]) >= OLDEST_TORCH:
            return found, version[1]
    return None


def stage(build_folder: Path) -> Staged:
    """Copies what changed and returns where it lies."""
    oldest = ".".join(map(str, OLDEST_TORCH))
    torch = find_torch()
    if torch is None:
        raise BuildError(
            f"no torch {oldest} or newer was found to compile against; "
            f"pip install 'torch>={oldest}' or build with isolation (leave out --no-build-isolation)"
        )
    try:
        import pybind11
    except ImportError:
        raise BuildError(
            "pybind11 is not installed; pip install pybind11 or build with isolation (leave out --no-build-isolation)"
        ) from None
    staged = Staged(
        build_folder / "torch" / "include",
        build_folder / "torch" / "lib",
        build_folder / "pybind11",
    )
    for tree in TORCH_HEADERS:
        _mirror(torch[0] / "include" / tree, staged.torch_include / tree)
    _mirror(Path(pybind11.get_include()) / "pybind11", staged.pybind11_include / "pybind11")

    staged.torch_lib.mkdir(parents=True, exist_ok=True)
    suffix = "dylib" if sys.platform == "darwin" else "so"
    for name in _NEEDED_LIBRARIES:
        link = staged.torch_lib / f"lib{name}.{suffix}"
        library = torch[0] / "lib" / link.name
        if not library.is_file():
            raise BuildError(f"{library} is missing; install torch {torch[1]} again")
        link.unlink(missing_ok=True)
        link.symlink_to(library)
    return staged


def _user_site() -> list[str]:
    return [site.getusersitepackages()] if site.ENABLE_USER_SITE else []


def _release(version: str) -> tuple[int, int]:
    numbers = re.match(r"(\d+)\.(\d+)", version)
    return (int(numbers[1]), int(numbers[2])) if numbers else (0, 0)


def _mirror(source: Path, target: Path) -> None:
    """Makes `target` hold the files of `source`, leaving alone those that already do."""
    kept = set()
    for folder, _, names in os.walk(source):
        for name in names:
            file = Path(folder) / name
            copy = target / file.relative_to(source)
            kept.add(copy)
            if not copy.is_file() or not filecmp.cmp(file, copy, shallow=False):
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, copy)
    for folder, _, names in os.walk(target):
        for name in names:
            if Path(folder) / name not in kept:
                (Path(folder) / name).unlink()
