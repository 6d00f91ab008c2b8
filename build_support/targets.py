"""The GPU architectures the CUDA kernels are compiled for."""

from __future__ import annotations

import re
from dataclasses import dataclass

from build_support.errors import BuildError, Unusable


@dataclass(frozen=True)
class Target:
    """One architecture: its name, the first nvcc release that knows it, and what an older nvcc gets instead."""

    name: str
    since: tuple[int, int]
    instead: str | None = None
    instead_since: tuple[int, int] | None = None


# 87, 88 run the code of 86; 103 runs 100f; 121 runs 120f. nvcc learnt the family suffix "f" in 12.9: before, the
# plain architecture is compiled, which has the same instructions less the family-specific ones.
TARGETS = (
    Target("80", (11, 0)),
    Target("86", (11, 1)),
    Target("89", (11, 8)),
    Target("90a", (12, 0)),
    Target("100f", (12, 9), instead="100", instead_since=(12, 8)),
    Target("120f", (12, 9), instead="120", instead_since=(12, 8)),
)
OLDEST_NVCC = (12, 0)
COMPRESS_MODE_SINCE = (12, 8)


@dataclass(frozen=True)
class Selection:
    """What one nvcc will compile: cubins for `archs`, PTX of `ptx`, and a note on what it cannot."""

    archs: tuple[str, ...]
    ptx: str
    note: str

    @property
    def flags(self) -> list[str]:
        pairs = [f"arch=compute_{_front_end(a, self.archs)},code=sm_{a}" for a in self.archs]
        pairs.append(f"arch=compute_{self.ptx},code=compute_{self.ptx}")
        # One word each: CMake drops the second of two equal words.
        return [f"-gencode={pair}" for pair in pairs]

    @property
    def names(self) -> list[str]:
        """As in the binary's build info: sm_80 is machine code, compute_120 is PTX."""
        return [f"sm_{a}" for a in self.archs] + [f"compute_{self.ptx}"]


def parse_archs(text: str) -> list[str] | None:
    """The architectures SENTCORE_CUDA_ARCHS names, or None when it is unset or blank."""
    words = [word for word in re.split(r"[;,\s]+", text) if word]
    if not words:
        return None
    known = [target.name for target in TARGETS]
    for word in words:
        if word not in known:
            raise BuildError(
                f"SENTCORE_CUDA_ARCHS={text!r} names {word!r}; accepted are {', '.join(known)}, "
                'separated by ";", for example SENTCORE_CUDA_ARCHS="80;90a"'
            )
    return [name for name in known if name in words]


def select(version: tuple[int, int], codes: frozenset[str], asked: list[str] | None) -> Selection:
    """The targets that nvcc `version`, whose `--list-gpu-code` said `codes`, can compile.

    Args:
        asked: what SENTCORE_CUDA_ARCHS named; None means all. An asked target that nvcc lacks is an error, one of the
            default targets that it lacks goes into the note.
    """
    archs: list[str] = []
    missing: list[str] = []
    for target in TARGETS:
        if asked is not None and target.name not in asked:
            continue
        if version >= target.since and _number(target.name) in codes:
            archs.append(target.name)
        elif target.instead and version >= target.instead_since and target.instead in codes:
            archs.append(target.instead)
        else:
            missing.append(target.name)
    release = f"{version[0]}.{version[1]}"
    if missing and asked is not None:
        raise BuildError(
            f"SENTCORE_CUDA_ARCHS asks for {', '.join(missing)}, which nvcc {release} cannot compile; "
            "name fewer architectures or install a CUDA toolkit that has them (12.9 or newer has all)"
        )
    if not archs:
        raise Unusable(
            f"nvcc {release} can compile none of {', '.join(t.name for t in TARGETS)}; "
            "install CUDA toolkit 12.9 or newer"
        )
    note = f"nvcc {release} has no {', '.join(missing)}" if missing else ""
    # PTX of an "a" or "f" target would not run on later GPUs, so the plain number is taken.
    return Selection(tuple(archs), _number(archs[-1]), note)


def _front_end(arch: str, archs: tuple[str, ...]) -> str:
    """The architecture whose PTX is assembled for `arch`: one front-end run serves 80, 86 and 89, half of their compile time.

    The kernels use nothing that 86 or 89 have and 80 lacks, so __CUDA_ARCH__ is 800 for all three.
    """
    return "80" if arch in ("86", "89") and "80" in archs else arch


def _number(name: str) -> str:
    return name.rstrip("af")
