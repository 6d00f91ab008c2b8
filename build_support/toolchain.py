"""Finds the C++ compiler and nvcc, and tries each on a small file: present is not the same as usable."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sysconfig
import tempfile
from dataclasses import dataclass
from pathlib import Path

from build_support.errors import Unusable
from build_support.targets import OLDEST_NVCC

CUDA_ROOTS = ("/usr/local/cuda",)
CUDA_REMEDY = (
    "install the CUDA toolkit (12.9 or newer has all targets) and put its nvcc on PATH, "
    "or point CUDACXX or CUDA_HOME at it"
)
COMPILER_REMEDY = "install g++ 11 or newer (Debian, Ubuntu: apt-get install g++) or point CXX at a C++20 compiler"

_CXX_TRIAL = """
#include <concepts>
template <std::integral T> T twice(T x) { return x + x; }
int trial() { return twice(2); }
"""
_PYTHON_TRIAL = """
#include <Python.h>
int trial() { return PY_MAJOR_VERSION; }
"""
_CUDA_TRIAL = """
#include <cuda_runtime.h>
__global__ void kernel(float* x) { x[0] = 1.0f; }
extern "C" void trial(float* x) { kernel<<<1, 1>>>(x); }
"""


@dataclass(frozen=True)
class Nvcc:
    path: str
    version: tuple[int, int]
    codes: frozenset[str]  # what --list-gpu-code names, without "sm_"

    @property
    def release(self) -> str:
        return f"{self.version[0]}.{self.version[1]}"


def find_cxx() -> list[str]:
    """The C++ compiler's command, tried on a C++20 file and on Python.h."""
    named = os.environ.get("CXX", "").strip()
    if named:
        command = shlex.split(named)
        if shutil.which(command[0]) is None:
            raise Unusable(f"CXX names {command[0]!r}, which is not there; {COMPILER_REMEDY}")
    else:
        found = next((p for p in map(shutil.which, ("g++", "c++", "clang++")) if p), None)
        if found is None:
            raise Unusable(f"no C++ compiler was found (CXX, g++, c++, clang++); {COMPILER_REMEDY}")
        command = [found]
    flags = ["-std=c++20", "-fPIC", "-fsyntax-only"]
    said = _try(command + flags, _CXX_TRIAL, ".cpp")
    if said is not None:
        raise Unusable(f"{command[0]} cannot compile a C++20 file ({said}); {COMPILER_REMEDY}")
    said = _try([*command, *flags, f"-I{python_include()}"], _PYTHON_TRIAL, ".cpp")
    if said is not None:
        raise Unusable(
            f"Python.h cannot be compiled ({said}); install Python's headers (Debian, Ubuntu: apt-get install python3-dev)"
        )
    return command


def without_launcher(command: list[str]) -> str:
    """The compiler itself in a command such as "ccache g++"."""
    launched = len(command) > 1 and Path(command[0]).stem in ("ccache", "sccache", "distcc")
    return command[1] if launched else command[0]


def python_include() -> str:
    return sysconfig.get_path("include")


def find_nvcc(host_compiler: str) -> Nvcc:
    """nvcc through CUDACXX, CUDA_HOME, CUDA_PATH, PATH and /usr/local/cuda, tried on a small kernel."""
    path = _nvcc_path()
    try:
        said = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=60)
        codes = subprocess.run([path, "--list-gpu-code"], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unusable(f"{path} does not run ({error}); {CUDA_REMEDY}") from None
    release = re.search(r"release (\d+)\.(\d+)", said.stdout)
    if said.returncode or release is None:
        raise Unusable(f"{path} --version gives no release ({_first_line(said)}); {CUDA_REMEDY}")
    version = (int(release[1]), int(release[2]))
    if version < OLDEST_NVCC:
        raise Unusable(
            f"{path} is release {release[1]}.{release[2]}, older than {OLDEST_NVCC[0]}.{OLDEST_NVCC[1]}; {CUDA_REMEDY}"
        )
    nvcc = Nvcc(path, version, frozenset(re.findall(r"sm_(\d+)", codes.stdout)))
    flags = [
        "-std=c++17",
        "-ccbin",
        host_compiler,
        "-Xcompiler",
        "-fPIC",
        "-cudart",
        "static",
        "-shared",
    ]
    said_trial = _try([path, *flags], _CUDA_TRIAL, ".cu")
    if said_trial is not None:
        raise Unusable(
            f"{path} {nvcc.release} cannot compile a small kernel with {host_compiler} ({said_trial}); "
            f"point CUDAHOSTCXX at a C++ compiler that it supports, or {CUDA_REMEDY}"
        )
    return nvcc


def _nvcc_path() -> str:
    named = os.environ.get("CUDACXX", "").strip()
    if named:
        path = shutil.which(named)
        if path is None:
            raise Unusable(f"CUDACXX names {named!r}, which is not there; correct or unset it")
        return path
    for variable in ("CUDA_HOME", "CUDA_PATH"):
        root = os.environ.get(variable, "").strip()
        if root and (path := shutil.which("nvcc", path=str(Path(root) / "bin"))):
            return path
    if path := shutil.which("nvcc"):
        return path
    for root in CUDA_ROOTS:
        if path := shutil.which("nvcc", path=str(Path(root) / "bin")):
            return path
    looked = ", ".join(("CUDACXX", "CUDA_HOME", "CUDA_PATH", "PATH", *(f"{r}/bin" for r in CUDA_ROOTS)))
    raise Unusable(f"no nvcc was found ({looked}); {CUDA_REMEDY}")


def _try(command: list[str], source: str, suffix: str) -> str | None:
    """None when `command` compiles `source`, else the first line of what it said."""
    with tempfile.TemporaryDirectory(prefix="sentcore-trial-") as folder:
        file = Path(folder) / f"trial{suffix}"
        file.write_text(source)
        if "-fsyntax-only" not in command:
            command = [*command, "-o", str(Path(folder) / "trial.out")]
        try:
            done = subprocess.run([*command, str(file)], capture_output=True, text=True, timeout=300)
        except (OSError, subprocess.TimeoutExpired) as error:
            return str(error)
    return _first_line(done) if done.returncode else None


def _first_line(done: subprocess.CompletedProcess[str]) -> str:
    lines = [line.strip() for line in (done.stderr + done.stdout).splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower() or "fatal" in line.lower()]
    return (errors or lines or [f"exit status {done.returncode}"])[0][:300]
