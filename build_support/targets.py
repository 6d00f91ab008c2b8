"""The GPU architectures the CUDA kernels are compiled for."""

from __future__ import annotations

import re
from dataclasses import dataclass

from build_support.errors import BuildError, Unusable


@dataclass(frozen=True)
class Target:
    """One architecture, and the first nvcc release that knows it."""

    name: str
    since: tuple[int, int]


# 87 and 88 run the code of 86; 103 that of 100, 121 that of 120; what has none translates the PTX. The variants 100f and
# 120f have instructions that no kernel here uses, and those that use 90a's (*_sm90a.cu) go with 90: asking for a variant
# gives the plain architecture.
TARGETS = (
    Target("80", (11, 0)),
    Target("86", (11, 1)),
    Target("89", (11, 8)),
    Target("90", (11, 8)),
    Target("100", (12, 8)),
    Target("120", (12, 8)),
)
VARIANTS = {"90a": "90", "100f": "100", "120f": "120"}
FP8_SINCE = 89  # the first architecture whose instructions multiply and round to 8-bit floating-point numbers
OLDEST_NVCC = (12, 0)
COMPRESS_MODE_SINCE = (12, 8)


@dataclass(frozen=True)
class Selection:
    """What one nvcc will compile: cubins for `archs`, PTX of `ptx`, a note on what it cannot, and whether sm_90a's own
    kernels are among it."""

    archs: tuple[str, ...]
    ptx: str
    note: str
    sm90a: bool = False

    @property
    def sm90a_flags(self) -> list[str]:
        """Of the sources that only compute capability 9.0 runs; empty to leave them out."""
        return ["-gencode=arch=compute_90a,code=sm_90a"] if self.sm90a else []

    @property
    def flags(self) -> list[str]:
        # All machine code comes from the same PTX: one run of nvcc's front end, more than half of the compile time,
        # serves every architecture. __CUDA_ARCH__ is that of the oldest.
        codes = [f"code=sm_{arch}" for arch in self.archs] + [f"code=compute_{self.ptx}"]
        # One word each: CMake drops the second of two equal words.
        return [f"-gencode=arch=compute_{self.ptx},{code}" for code in codes]

    @property
    def fp8(self) -> Selection | None:
        """The same for the files fp8_*.cu: the architectures from 89 on, or None where none was selected."""
        archs = tuple(arch for arch in self.archs if int(arch) >= FP8_SINCE)
        return Selection(archs, archs[0], "") if archs else None

    @property
    def names(self) -> list[str]:
        """As in the binary's build info: sm_80 is machine code, compute_80 is PTX."""
        return [f"sm_{a}" for a in self.archs] + [f"compute_{self.ptx}"]


def parse_archs(text: str) -> list[str] | None:
    """The architectures SENTCORE_CUDA_ARCHS names, or None when it is unset or blank."""
    words = [word for word in re.split(r"[;,\s]+", text) if word]
    if not words:
        return None
    known = [target.name for target in TARGETS]
    words = [VARIANTS.get(word, word) for word in words]
    for word in words:
        if word not in known:
            raise BuildError(
                f"SENTCORE_CUDA_ARCHS={text!r} names {word!r}; accepted are {', '.join(known)}, "
                'separated by ";", for example SENTCORE_CUDA_ARCHS="80;90"'
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
        if version >= target.since and target.name in codes:
            archs.append(target.name)
        else:
            missing.append(target.name)
    release = f"{version[0]}.{version[1]}"
    if missing and asked is not None:
        raise BuildError(
            f"SENTCORE_CUDA_ARCHS asks for {', '.join(missing)}, which nvcc {release} cannot compile; "
            "name fewer architectures or install a CUDA toolkit that has them (12.8 or newer has all)"
        )
    if not archs:
        raise Unusable(
            f"nvcc {release} can compile none of {', '.join(t.name for t in TARGETS)}; "
            "install CUDA toolkit 12.8 or newer"
        )
    note = f"nvcc {release} has no {', '.join(missing)}" if missing else ""
    return Selection(tuple(archs), archs[0], note, sm90a="90" in archs)
