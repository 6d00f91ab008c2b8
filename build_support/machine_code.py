"""What ptxas made of each kernel: its instructions, from cuobjdump's listing (-sass)."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from build_support.errors import Unusable
from build_support.resources import demangled
from build_support.toolchain import CUDA_ROOTS

DISASSEMBLER_REMEDY = "pip install nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm, or point CUDA_HOME at a CUDA toolkit"


@dataclass(frozen=True)
class Instruction:
    """One instruction.

    Attributes:
        address: bytes from the kernel's beginning.
        guard: the predicate that it is done under, "P0" or "!UP1"; empty where it always is.
        opcode: with its modifiers, "LDG.E.128".
        operands: as they are written, "desc[UR4][R2.64+0x10]".
    """

    address: int
    guard: str
    opcode: str
    operands: tuple[str, ...]

    @property
    def name(self) -> str:
        """The opcode without modifiers."""
        return self.opcode.partition(".")[0]

    @property
    def modifiers(self) -> list[str]:
        return self.opcode.split(".")[1:]

    def __str__(self) -> str:
        guard = f"@{self.guard} " if self.guard else ""
        return f"{self.address:#06x}: {guard}{self.opcode} {', '.join(self.operands)}".rstrip()


_FUNCTION = re.compile(r"^\s*Function : (\S+)")
_INSTRUCTION = re.compile(r"^\s*/\*([0-9a-f]{4,})\*/\s+(?:@(!?U?P\w+)\s+)?([A-Z][\w.]*)\s*([^;]*);")


def read_sass(text: str) -> dict[str, list[Instruction]]:
    """The functions of one listing, names as the linker knows them."""
    functions: dict[str, list[Instruction]] = {}
    code: list[Instruction] = []
    for line in text.splitlines():
        if found := _FUNCTION.match(line):
            code = functions.setdefault(found[1], [])
        elif found := _INSTRUCTION.match(line):
            operands = tuple(word.strip() for word in found[4].split(",") if word.strip())
            code.append(Instruction(int(found[1], 16), found[2] or "", found[3], operands))
    return functions


def names_of(code: Iterable[Instruction]) -> set[str]:
    """The opcodes that occur, without modifiers."""
    return {instruction.name for instruction in code}


def machine_code(file: Path, arch: str) -> dict[str, list[Instruction]]:
    """Kernel -> instructions of an object file for `arch` ("sm_80", "sm_90a"); empty where it has none for that.

    Raises:
        Unusable: there is no disassembler, or it refuses the file.
        ValueError: two kernels have the same name without their namespaces.
    """
    path = _search_path()
    # cuobjdump runs nvdisasm, by this PATH.
    done = subprocess.run(
        [find_disassembler(), "--gpu-architecture", arch, "--dump-sass", str(file)],
        capture_output=True,
        text=True,
        env=os.environ | {"PATH": path},
    )
    if done.returncode:
        raise Unusable(f"{file} cannot be disassembled: {done.stderr.strip()}; {DISASSEMBLER_REMEDY}")
    functions = read_sass(done.stdout)
    names = demangled(functions)
    if len(set(names.values())) < len(names):
        raise ValueError(f"two kernels of {file} have one short name: {sorted(names.values())}")
    return {names[symbol]: code for symbol, code in functions.items()}


def find_disassembler() -> str:
    """cuobjdump's path, where nvdisasm is found as well.

    Both are looked for on PATH, in CUDA_HOME, CUDA_PATH and /usr/local/cuda, and in the Python packages that bring them:
    NVIDIA's own, and triton.

    Raises:
        Unusable: one of the two was not found.
    """
    path = _search_path()
    found = {tool: shutil.which(tool, path=path) for tool in ("cuobjdump", "nvdisasm")}
    for tool, place in found.items():
        if place is None:
            raise Unusable(f"{tool} was found neither on PATH nor in a CUDA toolkit or package; {DISASSEMBLER_REMEDY}")
    return str(found["cuobjdump"])


def _search_path() -> str:
    roots = [os.environ.get(variable, "").strip() for variable in ("CUDA_HOME", "CUDA_PATH")]
    folders = [Path(root) / "bin" for root in (*roots, *CUDA_ROOTS) if root]
    for package, below in (("nvidia", "*/bin"), ("triton", "backends/nvidia/bin")):
        spec = importlib.util.find_spec(package)  # which does not import it
        for place in (spec and spec.submodule_search_locations) or ():
            folders += sorted(Path(place).glob(below))
    return os.pathsep.join([*os.get_exec_path(), *map(str, folders)])
