"""No kernel spills: what ptxas reported when the installed extension was built."""

from __future__ import annotations

import pytest

from build_support.native import ROOT, build_folder
from build_support.resources import kernels_of, read_report
from sentcore import _extension

BUILD = build_folder("cuda")
REPORT = """\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_Z3onePf' for 'sm_80'
ptxas info    : Function properties for _Z3onePf
    16 bytes stack frame, 4 bytes spill stores, 8 bytes spill loads
ptxas info    : Used 40 registers, used 1 barriers, 16896 bytes smem, 400 bytes cmem[0]
ptxas info    : Compiling entry function '_Z3twoPf' for 'sm_90a'
ptxas info    : Function properties for _Z3twoPf
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 24 registers, 400 bytes cmem[0]
"""


def test_a_report_is_read():
    one, two = read_report(REPORT, "x.cu")
    assert (one.name, one.arch, one.registers, one.stack, one.spill_stores, one.spill_loads, one.shared) == (
        "_Z3onePf", "sm_80", 40, 16, 4, 8, 16896,
    )  # fmt: skip
    assert (two.name, two.arch, two.registers, two.stack, two.shared) == ("_Z3twoPf", "sm_90a", 24, 0, 0)


@pytest.fixture(scope="module")
def kernels():
    built = _extension.build_info()["extension"]
    if not built.get("cuda"):
        pytest.skip(f"no CUDA kernels are installed: {built['why_absent'] or built['why_not_more']}")
    if not BUILD.is_dir():
        pytest.skip(f"the installed extension was not built from this checkout, which has no {BUILD}")
    return kernels_of(BUILD)


def test_every_kernel_is_there_for_every_target(kernels):
    built = _extension.build_info()["extension"]
    archs = {arch for arch in built["archs"] if arch.startswith("sm_")}
    assert archs <= {kernel.arch for kernel in kernels}
    files = [*(ROOT / "csrc" / "ops").glob("*/*.cu"), *(ROOT / "csrc" / "common").glob("*/*.cu")]
    own = {file.name for file in files if file.name.endswith("_sm90a.cu")}  # their kernels are in headers
    sources = {file.name for file in files if "__global__" in file.read_text()} - own
    assert {kernel.source for kernel in kernels if kernel.arch == "sm_90a"} == (own if built["sm_90a"] else set())
    for arch in archs:
        wanted = {name for name in sources if not name.startswith("fp8_") or arch in built["fp8_archs"]}
        assert {kernel.source for kernel in kernels if kernel.arch == arch} == wanted


def test_no_kernel_spills(kernels):
    spilled = [kernel for kernel in kernels if kernel.stack or kernel.spill_stores or kernel.spill_loads]
    assert spilled == []
