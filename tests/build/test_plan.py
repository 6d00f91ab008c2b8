"""What a build chooses, by the compilers that are there: fake ones, so that any machine can be played."""

import os

import pytest

from build_support import native, plan, toolchain
from build_support.errors import BuildError, Unusable
from build_support.stage import _mirror

CODES_13 = [
    "sm_75",
    "sm_80",
    "sm_86",
    "sm_87",
    "sm_89",
    "sm_90",
    "sm_100",
    "sm_103",
    "sm_110",
    "sm_120",
    "sm_121",
]
CODES_12_6 = ["sm_50", "sm_75", "sm_80", "sm_86", "sm_89", "sm_90"]
ALL = ("80", "86", "89", "90", "100", "120")


def script(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine with nothing on PATH; gxx() and nvcc() put a compiler there."""
    for variable in os.environ.keys() & {
        "CXX",
        "CUDACXX",
        "CUDA_HOME",
        "CUDA_PATH",
        "CUDAHOSTCXX",
        "SENTCORE_BUILD",
        "SENTCORE_CUDA_ARCHS",
        "MAX_JOBS",
        "CMAKE_BUILD_PARALLEL_LEVEL",
    }:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(toolchain, "CUDA_ROOTS", (str(tmp_path / "usr-local-cuda"),))

    class Machine:
        @staticmethod
        def gxx(text="exit 0"):
            return script(tmp_path / "bin" / "g++", text)

        @staticmethod
        def nvcc(release="13.0", codes=CODES_13, folder="bin", trial="exit 0"):
            listed = "\n".join(codes)
            return script(
                tmp_path / folder / "nvcc",
                f'case "$1" in\n--version) echo "Cuda compilation tools, release {release}, V1" ;;\n'
                f"--list-gpu-code) echo '{listed}' ;;\n*) {trial} ;;\nesac",
            )

    return Machine


def test_with_both_compilers_everything_is_built(machine):
    machine.gxx()
    path = machine.nvcc()
    found = plan.decide()
    assert (found.kind, found.why_not_more) == ("cuda", "")
    assert found.selection.archs == ALL
    assert found.selection.ptx == "80"
    assert found.selection.names[-2:] == ["sm_120", "compute_80"]
    assert "-gencode=arch=compute_80,code=sm_90" in found.selection.flags  # one run of the front end for all
    assert found.selection.flags[-1] == "-gencode=arch=compute_80,code=compute_80"
    assert str(path) in found.line


@pytest.mark.parametrize(
    ("asked", "names"),
    [
        ("", ["sm_89", "sm_90", "sm_100", "sm_120", "compute_89"]),
        ("80;90a", ["sm_90", "compute_90"]),
        ("80;86", None),
    ],
)
def test_8_bit_floating_point_is_compiled_from_sm_89_on(machine, monkeypatch, asked, names):
    machine.gxx()
    machine.nvcc()
    monkeypatch.setenv("SENTCORE_CUDA_ARCHS", asked)
    found = plan.decide().selection.fp8
    assert (found and found.names) == names
    assert found is None or found.flags[0] == f"-gencode=arch={names[-1]},code={names[0]}"


def test_without_nvcc_the_cpu_kernels_are_built_and_a_line_says_why(machine):
    machine.gxx()
    found = plan.decide()
    assert found.kind == "cpu"
    for word in ("no nvcc was found", "CUDACXX", "CUDA_HOME", "PATH", "usr-local-cuda", "install"):
        assert word in found.line
    assert "\n" not in found.line


def test_without_compilers_nothing_is_built_and_a_line_says_why(machine):
    machine.nvcc()  # of no use alone
    found = plan.decide()
    assert found.kind == "none"
    for word in ("no C++ compiler was found", "install g++"):
        assert word in found.line


@pytest.mark.parametrize(
    ("variable", "folder"),
    [
        ("CUDACXX", "a"),
        ("CUDA_HOME", "a/bin"),
        ("CUDA_PATH", "a/bin"),
        (None, "usr-local-cuda/bin"),
    ],
)
def test_where_nvcc_is_looked_for(machine, monkeypatch, tmp_path, variable, folder):
    machine.gxx()
    path = machine.nvcc(folder=folder)
    if variable:
        machine.nvcc(release="12.9")  # on PATH, and outranked by the variable
        monkeypatch.setenv(variable, str(path if variable == "CUDACXX" else tmp_path / "a"))
    assert plan.decide().nvcc.path == str(path)


@pytest.mark.parametrize(
    ("nvcc", "words"),
    [
        ({"release": "11.8"}, ["11.8", "older than 12.0"]),
        (
            {"trial": "echo 'error: unsupported GNU version' >&2; exit 1"},
            ["unsupported GNU version"],
        ),
        ({"codes": ["sm_300"]}, ["none of 80"]),
    ],
)
def test_an_nvcc_that_cannot_be_used_is_named(machine, monkeypatch, nvcc, words):
    machine.gxx()
    machine.nvcc(**nvcc)
    found = plan.decide()
    assert found.kind == "cpu"
    assert [word for word in words if word not in found.line] == []
    monkeypatch.setenv("SENTCORE_BUILD", "cuda")
    with pytest.raises(BuildError) as caught:
        plan.decide()
    assert [w for w in [*words, "SENTCORE_BUILD=cuda"] if w not in str(caught.value)] == []


def test_an_older_nvcc_builds_what_it_can_and_says_so(machine):
    machine.gxx()
    machine.nvcc(release="12.6", codes=CODES_12_6)
    found = plan.decide()
    assert (found.kind, found.selection.archs) == ("cuda", ("80", "86", "89", "90"))
    assert "nvcc 12.6 has no 100, 120" in found.line


@pytest.mark.parametrize(
    ("text", "archs", "ptx"),
    [("80;90a", ("80", "90"), "80"), (" 120f, 90 ", ("90", "120"), "90")],
)
def test_archs_can_be_narrowed(machine, monkeypatch, text, archs, ptx):
    machine.gxx()
    machine.nvcc()
    monkeypatch.setenv("SENTCORE_CUDA_ARCHS", text)
    assert (plan.decide().selection.archs, plan.decide().selection.ptx) == (archs, ptx)


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"SENTCORE_BUILD": "gpu"}, ["SENTCORE_BUILD", "'gpu'", "auto, cuda, cpu, none"]),
        ({"SENTCORE_CUDA_ARCHS": "80;70"}, ["SENTCORE_CUDA_ARCHS", "'70'", "80, 86, 89, 90, 100"]),
        ({"SENTCORE_CUDA_ARCHS": "120f"}, ["SENTCORE_CUDA_ARCHS", "120", "nvcc 12.6"]),
        ({"SENTCORE_CUDA_ARCHS": "80", "SENTCORE_BUILD": "cpu"}, ["SENTCORE_CUDA_ARCHS", "unset"]),
        ({"SENTCORE_CUDA_ARCHS": "80", "CUDACXX": "/no/nvcc"}, ["needs nvcc", "/no/nvcc"]),
        ({"SENTCORE_BUILD": "cuda", "CUDACXX": "/no/nvcc"}, ["CUDACXX", "/no/nvcc", "not there"]),
        ({"SENTCORE_BUILD": "cpu", "CXX": "/no/g++"}, ["CXX", "/no/g++", "install g++"]),
    ],
)
def test_what_is_asked_for_and_cannot_be_done_is_an_error(machine, monkeypatch, environment, words):
    machine.gxx()
    machine.nvcc(release="12.6", codes=CODES_12_6)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(BuildError) as caught:
        plan.decide()
    assert [word for word in words if word not in str(caught.value)] == []


@pytest.mark.parametrize("mode", ["cpu", "none"])
def test_less_can_be_asked_for(machine, monkeypatch, mode):
    machine.gxx()
    machine.nvcc()
    monkeypatch.setenv("SENTCORE_BUILD", mode)
    assert plan.decide().kind == mode
    assert f"SENTCORE_BUILD={mode}" in plan.decide().line


def test_a_compiler_without_python_headers_says_so(machine, monkeypatch):
    machine.gxx('for f; do :; done; grep -q Python.h "$f" && { echo "fatal error: Python.h" >&2; exit 1; }; exit 0')
    monkeypatch.setenv("PATH", f"{os.environ['PATH']}:/usr/bin:/bin")  # for grep, behind our g++
    found = plan.decide()
    assert found.kind == "none"
    assert "python3-dev" in found.line


def test_the_host_compiler_is_the_one_behind_a_launcher():
    assert toolchain.without_launcher(["ccache", "g++"]) == "g++"
    assert toolchain.without_launcher(["/usr/bin/g++", "-m64"]) == "/usr/bin/g++"


def test_jobs(machine, monkeypatch):
    assert 1 <= native.parallel_jobs() <= os.cpu_count()
    monkeypatch.setenv("CMAKE_BUILD_PARALLEL_LEVEL", "3")
    assert native.parallel_jobs() == 3
    monkeypatch.setenv("MAX_JOBS", "5")
    assert native.parallel_jobs() == 5
    for bad in ("0", "-1", "many"):
        monkeypatch.setenv("MAX_JOBS", bad)
        with pytest.raises(BuildError, match="MAX_JOBS"):
            native.parallel_jobs()


def test_a_mirror_touches_only_what_changed(tmp_path):
    source, target = tmp_path / "a", tmp_path / "b"
    (source / "in").mkdir(parents=True)
    for name in ("same.h", "changed.h", "gone.h", "in/deep.h"):
        (source / name).write_text(name)
    _mirror(source, target)
    before = (target / "same.h").stat().st_mtime_ns
    os.utime(source / "same.h")
    (source / "changed.h").write_text("another")
    (source / "gone.h").unlink()
    _mirror(source, target)
    assert (target / "same.h").stat().st_mtime_ns == before
    assert (target / "changed.h").read_text() == "another"
    assert (target / "in" / "deep.h").read_text() == "in/deep.h"
    assert not (target / "gone.h").exists()


def test_unusable_is_no_build_error():
    """Auto falls back on the first and must let the second through."""
    assert not issubclass(Unusable, BuildError)
