"""Builds csrc's .cu files for the emulated GPU, loads them, and runs tests on them in other processes."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
CSRC = ROOT / "csrc"
HERE = Path(__file__).resolve().parent
LIBRARY_VARIABLE = "SENTCORE_EMULATED_LIBRARY"  # a library built by another process, to be used as it is
SEED_VARIABLE = "SENTCORE_EMULATION_SEED"
SANITIZER_EXIT = 77


def compiler() -> str | None:
    """The C++ compiler of this machine: CXX, or the first one found."""
    named = os.environ.get("CXX", "").split()
    return shutil.which(named[0]) if named else shutil.which("c++") or shutil.which("g++")


def build(
    variant: str,
    csrc: Path = CSRC,
    *,
    sanitize: str = "",
    kernels: bool = True,
    rooms: Sequence[str] = (),
    sm90a: bool = True,
) -> Path:
    """The shared library of `csrc`, built in build/emulation-<variant> and only as far as something has changed.

    Args:
        variant: name of the build folder.
        csrc: the sources, or a changed copy of them.
        sanitize: "address" for AddressSanitizer.
        kernels: with the kernels that test the emulation itself.
        rooms: the folders of csrc/ops and csrc/common whose kernels are wanted; none means all.
        sm90a: with what sm_90a alone has.
    """
    torch_folder = Path(torch.__file__).parent
    folder = ROOT / "build" / f"emulation-{variant}"
    settings = {
        "CMAKE_MAKE_PROGRAM": _tool("ninja"),
        "CMAKE_CXX_COMPILER": compiler(),
        "SENTCORE_TORCH_INCLUDE": torch_folder / "include",
        "SENTCORE_TORCH_LIB": torch_folder / "lib",
        "SENTCORE_EXTRA_SOURCES": HERE / "gpu_kernels.cu" if kernels else "",
        "SENTCORE_ROOMS": ";".join(rooms),
        "SENTCORE_SM90A": "ON" if sm90a else "OFF",
        "SANITIZE": sanitize,
    }
    arguments = [f"-D{name}={value}" for name, value in settings.items()]
    source, target = csrc / "emulation", folder / "cmake"
    configured = folder / "arguments.txt"
    text = "\n".join([str(source), *arguments])
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another run of the tests may be building the same
        if not configured.is_file() or configured.read_text() != text:
            shutil.rmtree(target, ignore_errors=True)
            _run([_tool("cmake"), "-S", source, "-B", target, "-G", "Ninja", *arguments])
            configured.write_text(text)
        _run([_tool("ninja"), "-C", target, "-j", "2"])
    return next(target.glob("libsentcore_emulated.*"))


def mutated(variant: str, changes: Sequence[tuple[str, str, str]]) -> Path:
    """A copy of csrc, in the build folder of `variant`: of each (file, old, new) the one occurrence of `old` is `new`."""
    copy = ROOT / "build" / f"emulation-{variant}" / "csrc"
    wanted = {path.relative_to(CSRC): path.read_text() for path in CSRC.rglob("*") if path.is_file()}
    for file, old, new in changes:
        count = wanted[Path(file)].count(old)
        assert count == 1, f"{old!r} occurs {count} times in {file}, not once"
        wanted[Path(file)] = wanted[Path(file)].replace(old, new)
    copy.mkdir(parents=True, exist_ok=True)
    with (copy.parent / "sources.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another worker of the tests may be writing the same
        for path in copy.rglob("*"):
            if path.is_file() and path.relative_to(copy) not in wanted:
                path.unlink()
        for path, text in wanted.items():  # what is right already keeps its time, so that it is not compiled again
            target = copy / path
            if not target.is_file() or target.read_text() != text:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(text)
    return copy


def declare() -> None:
    """Gives every op of sentcore a namesake in `sentcore_emulated`, with the same schema."""
    import sentcore.ops.encoder_layer  # noqa: F401  with it and the package above it all of sentcore's are declared

    for name in torch._C._dispatch_get_all_op_names():
        namespace, _, op = name.partition("::")
        if namespace != "sentcore":
            continue
        schema = str(getattr(torch.ops.sentcore, op).default._schema)
        torch.library.define(f"sentcore_emulated::{op}", schema[schema.index("(") :])


def pytest_with(
    library: Path, *arguments: str, sanitize: bool = False, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Runs pytest on `arguments` in a process of its own that uses `library`."""
    environment = os.environ | {LIBRARY_VARIABLE: str(library)} | variables
    options = ["-q", "-x", "-p", "no:cacheprovider"]
    # tests/conftest.py imports all of sentcore, which these tests do not need.
    options.append(f"--confcutdir={HERE}")
    if sanitize:
        options.append("--capture=no")  # the report goes past Python
        environment |= {
            "LD_PRELOAD": " ".join(_preloaded()),
            "ASAN_OPTIONS": f"detect_leaks=0:exitcode={SANITIZER_EXIT}",  # Python keeps what it has
        }
    return subprocess.run(
        [sys.executable, "-m", "pytest", *options, *arguments],
        cwd=ROOT,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def why_not(*, sanitize: bool = False) -> str | None:
    """Why nothing can be built here, or None."""
    if compiler() is None:
        return "this machine has no C++ compiler, which the emulated kernels are built with"
    if sanitize and not all(Path(file).is_file() for file in _preloaded()):
        return f"{compiler()} comes without AddressSanitizer's shared library"
    return None


def _preloaded() -> list[str]:
    """AddressSanitizer's library, and libstdc++, whose exceptions it must find when it starts."""
    found = []
    for name in ("libasan.so", "libstdc++.so"):
        command = [compiler(), f"-print-file-name={name}"]
        answer = subprocess.run(command, text=True, capture_output=True, check=True).stdout.strip()
        found.append(str(Path(answer).resolve()))
    return found


def _tool(name: str) -> str:
    """cmake or ninja, from the Python environment or the machine."""
    beside = shutil.which(name, path=str(Path(sys.executable).parent))
    path = beside or shutil.which(name)
    assert path is not None, f"{name} was not found; pip install {name}"
    return path


def _run(command: list) -> None:
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}"
