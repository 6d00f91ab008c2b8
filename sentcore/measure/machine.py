"""What figures depend on: processor, threads, GPU, versions."""

from __future__ import annotations

import importlib.metadata
import platform
from pathlib import Path
from typing import Any

import torch

from sentcore._version import __version__

_INSTRUCTIONS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile")
_PACKAGES = ("sentence-transformers", "transformers", "tokenizers", "numpy")


def machine(device: torch.device) -> dict[str, Any]:
    """cpu, instructions, threads (torch's), gpu (None on a CPU), python, and versions by package (None: not installed)."""
    name, instructions = cpu()
    return {
        "cpu": name,
        "instructions": instructions,
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "python": platform.python_version(),
        "versions": {
            "sentcore": __version__,
            "torch": torch.__version__,
            **{package: _version(package) for package in _PACKAGES},
        },
    }


def cpu() -> tuple[str, list[str]]:
    """(the processor's name, those of its vector instructions that matter here); no instructions where there is no /proc."""
    info = Path("/proc/cpuinfo")
    if not info.is_file():
        return platform.processor() or platform.machine(), []
    lines = (line.split(":", 1) for line in info.read_text(encoding="utf-8").splitlines() if ":" in line)
    found = {key.strip(): value.strip() for key, value in lines}
    flags = found.get("flags", "").split()
    name = found.get("model name") or platform.processor() or platform.machine()
    return name, [flag for flag in _INSTRUCTIONS if flag in flags]


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
