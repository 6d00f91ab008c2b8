"""Where a test may run: on a CPU always, and on a GPU that the installed extension has kernels for."""

from __future__ import annotations

import torch


def real_gpu() -> list[str]:
    """["cuda"] where there is such a GPU; else nothing."""
    if not torch.cuda.is_available():
        return []
    from sentcore import build_info

    return ["cuda"] if any(device["runs_native"] for device in build_info()["devices"]) else []
