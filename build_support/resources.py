"""What each compiled kernel needs of a GPU, from ptxas' own report (-Xptxas -v)."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Kernel:
    """One kernel on one architecture.

    Attributes:
        source: the .cu file's name.
        name: demangled, where a c++filt is there.
        arch: "sm_80", ...
        registers: of a thread.
        stack, spill_stores, spill_loads: bytes of a thread in local memory.
        shared: bytes of a block that are declared in the source; what a launch asks for beyond is not known here.
    """

    source: str
    name: str
    arch: str
    registers: int
    stack: int
    spill_stores: int
    spill_loads: int
    shared: int


_ENTRY = re.compile(r"Compiling entry function '(?P<name>\w+)' for '(?P<arch>\w+)'")
_FRAME = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
_USED = re.compile(r"Used (\d+) registers")
_SHARED = re.compile(r"(\d+) bytes smem")
_SERIALIZED = re.compile(r"\(C75\d\d\)|wgmma\.mma_async instructions are serialized")


def read_report(text: str, source: str) -> list[Kernel]:
    """The kernels of one report, names as the linker knows them."""
    kernels, entry, frame = [], None, (0, 0, 0)
    for line in text.splitlines():
        if found := _ENTRY.search(line):
            entry, frame = found, (0, 0, 0)
        elif found := _FRAME.search(line):
            frame = tuple(int(number) for number in found.groups())
        elif entry is not None and (found := _USED.search(line)):
            shared = _SHARED.search(line)
            kernels.append(
                Kernel(source, entry["name"], entry["arch"], int(found[1]), *frame, int(shared[1]) if shared else 0)
            )
            entry = None
    return kernels


def read_serialized(text: str) -> list[str]:
    """What one report says of warpgroup products that wait for each other (C7510 and its neighbours)."""
    return [line for line in text.splitlines() if _SERIALIZED.search(line)]


def serialized_of(build_folder: Path) -> dict[str, list[str]]:
    """Source -> what ptxas said, of those in `build_folder` whose warpgroup products wait for each other."""
    said = {source: read_serialized(text) for source, text in _reports(build_folder)}
    return {source: lines for source, lines in said.items() if lines}


def kernels_of(build_folder: Path) -> list[Kernel]:
    """Every kernel that was compiled in `build_folder`, by source, name and architecture."""
    found: list[Kernel] = []
    for source, text in _reports(build_folder):
        found += read_report(text, source)
    names = demangled({kernel.name for kernel in found})
    return sorted(
        (Kernel(**{**vars(kernel), "name": names[kernel.name]}) for kernel in found),
        key=lambda k: (k.source, k.name, int(re.sub(r"\D", "", k.arch))),
    )


def _reports(build_folder: Path) -> Iterator[tuple[str, str]]:
    """(source, text) of every report."""
    for report in sorted(build_folder.rglob("*.cu.o.ptxas")):
        if report.with_suffix("").is_file():  # an object that is no longer part of the build takes its report with it
            yield report.name.removesuffix(".o.ptxas"), report.read_text(errors="replace")


def demangled(names: Iterable[str]) -> dict[str, str]:
    """Symbol -> "kernel<template arguments>"."""
    ordered, tool = sorted(names), shutil.which("c++filt")
    if not tool or not ordered:
        return {name: name for name in ordered}
    text = subprocess.run([tool], input="\n".join(ordered), capture_output=True, text=True, check=True).stdout
    return dict(zip(ordered, map(_short, text.splitlines()), strict=True))


def _short(name: str) -> str:
    """Without return type, argument list and namespaces."""
    name = re.sub(r"\(anonymous namespace\)::|sentcore::|\b__", "", name).removeprefix("void ")
    depth = 0
    for place, letter in enumerate(name):
        depth += {"<": 1, ">": -1}.get(letter, 0)
        if letter == "(" and depth == 0:
            return name[:place]
    return name
