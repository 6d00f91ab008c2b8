"""Which GPUs a binary with code for some architectures runs on."""

from __future__ import annotations

import re
from collections.abc import Iterable


def numbers(version: str) -> tuple[int, int]:
    """(13, 0) of "13.0", (2, 13) of "2.13.0+cpu"."""
    found = re.match(r"(\d+)\.(\d+)", version)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def arch_is_covered(capability: tuple[int, int], archs: Iterable[str], ptx: bool = True) -> bool:
    """Whether code for `archs` runs on a GPU of compute capability `capability`.

    Args:
        capability: (major, minor).
        archs: as in the binary's build info. "sm_86" is machine code for 8.6 and later minors of 8, "sm_90a" for 9.0
            alone, "sm_100f" for its family, 10.0 and later minors of 10; "compute_120" is PTX, which the driver
            translates for 12.0 and everything later.
        ptx: False when the driver cannot translate the PTX, so that machine code alone counts.
    """
    for arch in archs:
        parts = re.fullmatch(r"(sm|compute)_(\d+)(\d)([af]?)", arch)
        if parts is None:
            continue
        kind, major, minor, suffix = parts[1], int(parts[2]), int(parts[3]), parts[4]
        if kind == "compute" and not ptx:
            continue
        if suffix == "a":
            covered = capability == (major, minor)
        elif kind == "sm" or suffix == "f":
            covered = capability[0] == major and capability[1] >= minor
        else:
            covered = capability >= (major, minor)
        if covered:
            return True
    return False


def why_not_covered(
    name: str,
    capability: tuple[int, int],
    archs: list[str],
    toolkit: str,
    driver: str | None,
) -> str | None:
    """None when a binary with `archs`, from CUDA `toolkit`, runs on this GPU under a driver for CUDA `driver`.

    A driver runs machine code of its own major CUDA release and PTX no newer than itself; None means unknown.
    """
    behind = driver is not None and numbers(driver) < numbers(toolkit)
    if driver is not None and numbers(driver)[0] < numbers(toolkit)[0]:
        return (
            f"sentcore was compiled with CUDA {toolkit}, which the NVIDIA driver here (CUDA {driver}) cannot run; "
            f"update the driver, or install sentcore again with an nvcc of CUDA {numbers(driver)[0]}"
        )
    if arch_is_covered(capability, archs, ptx=not behind):
        return None
    return (
        f"sentcore holds no code for {name} (compute capability {capability[0]}.{capability[1]}), "
        f"only for {', '.join(archs)}"
        + (f", and its PTX needs a driver for CUDA {toolkit} where this one is for {driver}" if behind else "")
        + "; install sentcore again with an nvcc that knows this GPU and without SENTCORE_CUDA_ARCHS"
    )
