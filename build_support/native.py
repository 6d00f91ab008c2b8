"""Runs CMake and Ninja in a build folder that is kept between builds."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from build_support import toolchain
from build_support.errors import BuildError
from build_support.plan import Plan
from build_support.stage import Staged, stage
from build_support.targets import COMPRESS_MODE_SINCE

ROOT = Path(__file__).resolve().parent.parent
MEMORY_PER_JOB = 2 << 30  # one nvcc run over all targets stays below


def build(plan: Plan, version: str) -> Path:
    """Builds `plan` (not "none") and returns the extension module's path."""
    jobs = parallel_jobs()
    cmake, ninja = _tool("cmake"), _tool("ninja")
    folder = build_folder(plan.kind)
    with _locked(ROOT / "build" / "lock"):
        staged = stage(ROOT / "build" / "headers")
        _forget_other_compilers(folder, plan)
        _run(
            [cmake, *_arguments(plan, version, folder, staged, ninja)],
            "CMake could not configure the build",
        )
        _run([ninja, "-C", str(folder), "-j", str(jobs)], "a source file did not compile")
    module = folder / f"_C{sysconfig.get_config_var('EXT_SUFFIX')}"
    if not module.is_file():
        raise BuildError(f"the build ended without {module}; remove {folder} and build again")
    return module


def build_folder(kind: str) -> Path:
    """Where `kind` ("cuda" or "cpu") is built, whichever the Python: one source file and the link differ between Pythons."""
    return ROOT / "build" / f"cmake-{sysconfig.get_platform()}-{kind}"


def parallel_jobs() -> int:
    """MAX_JOBS, else CMAKE_BUILD_PARALLEL_LEVEL, else what cores and memory allow."""
    for variable in ("MAX_JOBS", "CMAKE_BUILD_PARALLEL_LEVEL"):
        value = os.environ.get(variable, "").strip()
        if value:
            if not value.isdigit() or int(value) < 1:
                raise BuildError(f"{variable} is {value!r}; accepted is a whole number of at least 1")
            return int(value)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (OSError, ValueError):
        memory = MEMORY_PER_JOB
    return max(1, min(cores, memory // MEMORY_PER_JOB))


def _arguments(plan: Plan, version: str, folder: Path, staged: Staged, ninja: str) -> list[str]:
    values = {
        "CMAKE_BUILD_TYPE": "Release",
        "CMAKE_MAKE_PROGRAM": ninja,
        "SENTCORE_VERSION": version,
        "SENTCORE_EXT_SUFFIX": sysconfig.get_config_var("EXT_SUFFIX"),
        "SENTCORE_PYTHON_INCLUDE": toolchain.python_include(),
        "SENTCORE_PYBIND11_INCLUDE": staged.pybind11_include,
        "SENTCORE_TORCH_INCLUDE": staged.torch_include,
        "SENTCORE_TORCH_LIB": staged.torch_lib,
        "SENTCORE_CUDA": "ON" if plan.nvcc else "OFF",
    }
    if not os.environ.get("CXX", "").strip():
        values["CMAKE_CXX_COMPILER"] = plan.cxx[0]
    if plan.nvcc and plan.selection:
        compress = ["--compress-mode=size"] if plan.nvcc.version >= COMPRESS_MODE_SINCE else []
        fp8 = plan.selection.fp8
        values |= {
            "CMAKE_CUDA_COMPILER": plan.nvcc.path,
            "CMAKE_CUDA_HOST_COMPILER": plan.host_compiler,
            "SENTCORE_CUDA_FLAGS": ";".join(plan.selection.flags + compress),
            "SENTCORE_SM90A_FLAGS": ";".join(plan.selection.sm90a_flags),
            "SENTCORE_CUDA_NAMES": ",".join(plan.selection.names),
            "SENTCORE_FP8_FLAGS": ";".join(fp8.flags + compress) if fp8 else "",
            "SENTCORE_FP8_NAMES": ",".join(fp8.names) if fp8 else "",
            "SENTCORE_CUDA_RELEASE": plan.nvcc.release,
        }
    return [
        "-S",
        str(ROOT),
        "-B",
        str(folder),
        "-G",
        "Ninja",
        *(f"-D{k}={v}" for k, v in values.items()),
    ]


def _forget_other_compilers(folder: Path, plan: Plan) -> None:
    """CMake cannot change compilers in a folder that it has configured, so such a folder is emptied."""
    now = {
        "cxx": list(plan.cxx),
        "host": plan.host_compiler,
        "nvcc": plan.nvcc and [plan.nvcc.path, plan.nvcc.release],
    }
    text = json.dumps(now)
    note = folder / "sentcore-compilers.json"
    if folder.exists() and (not note.is_file() or note.read_text() != text):
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    note.write_text(text)


def _tool(name: str) -> str:
    """cmake or ninja: the build environment's package, whose scripts may not be on PATH, else the machine's own."""
    with contextlib.suppress(ImportError, AttributeError):
        folder = {"cmake": "CMAKE_BIN_DIR", "ninja": "BIN_DIR"}[name]
        path = shutil.which(name, path=getattr(__import__(name), folder))
        if path:
            return path
    path = shutil.which(name)
    if path is None:
        raise BuildError(
            f"{name} was not found; pip install {name} or build with isolation (leave out --no-build-isolation)"
        )
    return path


def _run(command: list[str], failure: str) -> None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    print(done.stdout, flush=True)
    if done.returncode:
        hint = "SENTCORE_BUILD=cpu leaves the CUDA kernels out, SENTCORE_BUILD=none installs without any"
        raise BuildError(f"{failure} (see the compiler's message above); {hint}")


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Two installs from one checkout at a time would write the same object files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        with contextlib.suppress(ImportError):
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        yield
