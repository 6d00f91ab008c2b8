"""Real builds of a small copy of the source tree, through the same hooks that pip calls."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from build_support import plan, stage

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow

# What pip does with a source tree: ask for the requirements, then for the wheel.
BUILD = """
import sys
sys.path.insert(0, ".")
from build_support import backend
out = sys.argv[1]  # setuptools changes sys.argv
backend.get_requires_for_build_wheel()
backend.build_wheel(out)
"""
KERNEL = """
#include <cuda_runtime.h>
namespace sentcore {
__global__ void NAME(float* x) { x[0] = 1.0f; }
void launch_NAME(float* x) { NAME<<<1, 1>>>(x); }
}
"""
OP = """
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/tensor.h>
namespace sentcore {
torch::stable::Tensor toy_cpu(torch::stable::Tensor x) { return x; }
}
STABLE_TORCH_LIBRARY_IMPL(sentcore, CPU, m) { m.impl("toy", TORCH_BOX(&sentcore::toy_cpu)); }
#ifdef SENTCORE_WITH_CUDA
STABLE_TORCH_LIBRARY_IMPL(sentcore, CUDA, m) { m.impl("toy", TORCH_BOX(&sentcore::toy_cpu)); }
#endif
"""
USE = """
import json, sys, torch
sys.path.insert(0, sys.argv[1])
import _C
torch.library.define("sentcore::toy", "(Tensor x) -> Tensor")
has = torch._C._dispatch_has_kernel_for_dispatch_key
keys = [key for key in ("CPU", "CUDA") if has("sentcore::toy", key)]
print(json.dumps(_C.build_info() | {"keys": keys, "toy": torch.ops.sentcore.toy(torch.ones(2)).tolist()}))
"""


@pytest.fixture(scope="module")
def best():
    """The most this machine can build: "cuda", "cpu" or "none"."""
    return plan.decide().kind


@pytest.fixture
def tree(tmp_path):
    """The checkout with one toy op of two .cu files and two .cpp files in place of the real ones."""
    folder = tmp_path / "tree"
    ignored = shutil.ignore_patterns("__pycache__", "*.so", "_build_record.json")
    for name in ("build_support", "sentcore", "csrc/inputs", "csrc/common/choices"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    for name in (
        "CMakeLists.txt",
        "LICENSE",
        "MANIFEST.in",
        "pyproject.toml",
        "setup.py",
        "csrc/extension.cpp",
    ):
        shutil.copy(ROOT / name, folder / name)
    for header in (ROOT / "csrc" / "common").glob("*.*h"):
        shutil.copy(header, folder / "csrc" / "common")
    (folder / "README.md").write_text("")
    toy = folder / "csrc" / "ops" / "toy"
    toy.mkdir(parents=True)
    for name in ("forward", "backward"):
        (toy / f"toy_{name}.cu").write_text(KERNEL.replace("NAME", name))
    (toy / "toy.cpp").write_text(OP)
    (toy / "toy_cpu.cpp").write_text("namespace sentcore { int toy() { return 1; } }\n")
    return folder


def fresh_requirements(folder):
    """torch and pybind11 under a path that no build has seen, as build isolation lays them."""
    torch, _ = stage.find_torch()
    import pybind11

    for tree in stage.TORCH_HEADERS:
        shutil.copytree(torch / "include" / tree, folder / "torch" / "include" / tree)
    shutil.copy(torch / "version.py", folder / "torch")
    (folder / "torch" / "lib").symlink_to(torch / "lib")
    shutil.copytree(Path(pybind11.__file__).parent, folder / "pybind11")
    return folder


def build(tree, requirements=None, **environment):
    """(succeeded, what it printed, the wheel it made or None)"""
    out = tree.parent / "wheels"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    env = {k: v for k, v in os.environ.items() if not k.startswith("SENTCORE_")} | environment
    if requirements:
        env["PYTHONPATH"] = str(requirements)
    done = subprocess.run(
        [sys.executable, "-c", BUILD, str(out)],
        cwd=tree,
        env=env,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    wheels = list(out.glob("*.whl"))
    return done.returncode == 0, done.stdout, wheels[0] if wheels else None


def compiled_files(printed):
    """The sources that Ninja said it compiled."""
    lines = [line.split()[-1] for line in printed.splitlines() if " object CMakeFiles/" in line]
    return sorted(Path(line).name.removesuffix(".o") for line in lines)


def record(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return json.loads(archive.read("sentcore/_build_record.json"))


def use(wheel, folder):
    """Loads the wheel's extension in a fresh process and says what it holds."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(n for n in archive.namelist() if n.startswith("sentcore/_C."))
        archive.extract(name, folder)
    done = subprocess.run(
        [sys.executable, "-c", USE, str(folder / "sentcore")],
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def test_none_builds_a_wheel_for_every_python(tree):
    succeeded, printed, wheel = build(tree, SENTCORE_BUILD="none")
    assert succeeded, printed
    assert wheel.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as archive:
        assert not [n for n in archive.namelist() if n.startswith("sentcore/_C") and not n.endswith(".pyi")]
        assert "sentcore/_extension.py" in archive.namelist()
    assert record(wheel) == {
        "kind": "none",
        "why_not_more": "SENTCORE_BUILD=none asked for that",
        "kernel_choices": [],
    }


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        (
            {"SENTCORE_BUILD": "cuda", "CUDACXX": "/nowhere/nvcc"},
            ["SENTCORE_BUILD=cuda", "nvcc", "CUDACXX names '/nowhere/nvcc'"],
        ),
        ({"SENTCORE_BUILD": "gpu"}, ["SENTCORE_BUILD is 'gpu'", "auto, cuda, cpu, none"]),
        ({"SENTCORE_BUILD": "cpu", "CXX": "/nowhere/g++"}, ["CXX names '/nowhere/g++'"]),
    ],
)
def test_a_build_that_cannot_be_done_is_one_clear_line(tree, best, environment, words):
    if best == "none" and "CUDACXX" in environment:
        pytest.skip("this machine has no C++ compiler, which is what the message would name")
    succeeded, printed, _ = build(tree, **environment)
    assert not succeeded
    assert [word for word in words if word not in printed] == []
    assert "Traceback" not in printed
    assert len(printed.strip().splitlines()) == 1


def test_a_mistake_in_our_own_code_is_an_error_and_no_fall_back(tree, best):
    if best == "none":
        pytest.skip("this machine has no C++ compiler")
    (tree / "csrc" / "inputs" / "planner.cpp").write_text("#error planted mistake\n")
    succeeded, printed, wheel = build(tree, CUDACXX="/nowhere/nvcc")
    assert not succeeded
    assert wheel is None
    assert "planted mistake" in printed
    assert "sentcore: a source file did not compile" in printed
    assert "Traceback" not in printed


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_a_second_build_compiles_only_what_was_touched(tree, best, kind, tmp_path):
    if best == "none" or (kind == "cuda" and best != "cuda"):
        pytest.skip(f"this machine has no compiler for {kind}")
    chosen = {"SENTCORE_BUILD": kind} | ({"SENTCORE_CUDA_ARCHS": "80;90a"} if kind == "cuda" else {})
    succeeded, printed, wheel = build(tree, fresh_requirements(tmp_path / "first"), **chosen)
    assert succeeded, printed
    kernels = ["toy_backward.cu", "toy_forward.cu", "choices.cu"] if kind == "cuda" else []
    host = ["extension.cpp", "packer.cpp", "planner.cpp", "toy.cpp", "toy_cpu.cpp"]
    assert compiled_files(printed) == sorted(host + kernels)

    info = use(wheel, tmp_path / "loaded")
    assert info["cuda"] is (kind == "cuda")
    assert info["archs"] == (["sm_80", "sm_90", "compute_80"] if kind == "cuda" else [])
    assert info["ops"] == {"cpu": ["toy"], "cuda": ["toy"] if kind == "cuda" else []}
    assert info["keys"] == (["CPU", "CUDA"] if kind == "cuda" else ["CPU"])
    assert info["toy"] == [1.0, 1.0]

    second = fresh_requirements(tmp_path / "second")
    shutil.rmtree(tmp_path / "first")
    succeeded, printed, _ = build(tree, second, **chosen)
    assert succeeded, printed
    assert compiled_files(printed) == []

    touched = kernels[0] if kernels else "toy_cpu.cpp"
    (tree / "csrc" / "ops" / "toy" / touched).touch()
    shutil.move(second, tmp_path / "third")
    succeeded, printed, _ = build(tree, tmp_path / "third", **chosen)
    assert succeeded, printed
    assert compiled_files(printed) == [touched]


def test_a_wheel_holds_nothing_of_an_earlier_build(tree):
    """setuptools keeps its build folder and ships what it finds there."""
    extra = tree / "sentcore" / "gone_tomorrow.py"
    extra.write_text("")
    assert build(tree, SENTCORE_BUILD="none")[0]
    extra.unlink()
    succeeded, printed, wheel = build(tree, SENTCORE_BUILD="none")
    assert succeeded, printed
    with zipfile.ZipFile(wheel) as archive:
        assert "sentcore/gone_tomorrow.py" not in archive.namelist()
