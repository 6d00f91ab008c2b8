"""Decides what `pip install .` builds: CUDA and CPU kernels, CPU kernels, or nothing."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass

from build_support import targets, toolchain
from build_support.errors import BuildError, Unusable
from build_support.toolchain import Nvcc

MODES = ("auto", "cuda", "cpu", "none")


@dataclass(frozen=True)
class Plan:
    """What will be built.

    Attributes:
        kind: "cuda" (which includes the CPU kernels), "cpu" or "none".
        why_not_more: why it is not "cuda" with every target, with the remedy; empty when it is.
    """

    kind: str
    why_not_more: str = ""
    cxx: tuple[str, ...] = ()
    host_compiler: str = ""
    nvcc: Nvcc | None = None
    selection: targets.Selection | None = None

    @property
    def line(self) -> str:
        what = {
            "cuda": "building CUDA and CPU kernels",
            "cpu": "building CPU kernels, no CUDA kernels",
            "none": "building no kernels, every op runs in plain PyTorch",
        }[self.kind]
        if self.nvcc and self.selection:
            what += f" (nvcc {self.nvcc.release} at {self.nvcc.path}: {' '.join(self.selection.names)})"
        return f"sentcore: {what}" + (f": {self.why_not_more}" if self.why_not_more else "")


def requested_mode() -> str:
    mode = os.environ.get("SENTCORE_BUILD", "").strip() or "auto"
    if mode not in MODES:
        raise BuildError(f"SENTCORE_BUILD is {mode!r}; accepted are {', '.join(MODES)} (default auto)")
    return mode


def decide() -> Plan:
    """The plan that SENTCORE_BUILD, SENTCORE_CUDA_ARCHS and this machine's compilers give."""
    mode = requested_mode()
    asked = targets.parse_archs(os.environ.get("SENTCORE_CUDA_ARCHS", ""))
    if asked is not None and mode in ("cpu", "none"):
        raise BuildError(
            f"SENTCORE_CUDA_ARCHS is set but SENTCORE_BUILD={mode} builds no CUDA kernels; unset one of the two"
        )
    if mode == "none":
        return Plan("none", "SENTCORE_BUILD=none asked for that")
    if mode == "auto" and sys.platform == "win32":
        return Plan("none", "kernels are built on Linux and macOS only")

    try:
        cxx = toolchain.find_cxx()
    except Unusable as why:
        if mode != "auto":
            raise BuildError(f"SENTCORE_BUILD={mode} needs a C++ compiler: {why}") from None
        return Plan("none", str(why))
    if mode == "cpu":
        return Plan("cpu", "SENTCORE_BUILD=cpu asked for that", tuple(cxx))

    host_compiler = os.environ.get("CUDAHOSTCXX", "").strip() or toolchain.without_launcher(cxx)
    try:
        nvcc = toolchain.find_nvcc(host_compiler)
        selection = targets.select(nvcc.version, nvcc.codes, asked)
    except Unusable as why:
        if mode == "cuda" or asked is not None:
            asker = "SENTCORE_BUILD=cuda" if mode == "cuda" else "SENTCORE_CUDA_ARCHS"
            raise BuildError(f"{asker} needs nvcc: {why}") from None
        return Plan("cpu", str(why), tuple(cxx))
    return Plan("cuda", selection.note, tuple(cxx), host_compiler, nvcc, selection)
