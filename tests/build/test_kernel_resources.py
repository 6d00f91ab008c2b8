"""No kernel spills, none lets its products wait for each other: what ptxas reported when the extension was built."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from build_support.native import ROOT, build_folder
from build_support.resources import Kernel, kernels_of, read_report, read_serialized, serialized_of
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
SERIALIZED = """\
ptxas info    : (C7515) Potential Performance Loss: wgmma.mma_async instructions are serialized due to non wgmma \
instructions defining accumulator registers of a wgmma between start and end of the pipeline stage in the function '_Z3twoPf'
"""
# Bytes of shared memory that CUDA gives a block without being asked, and the most it gives on the smallest GPU.
UNASKED, MOST = 48 * 1024, 99 * 1024


def test_a_report_is_read():
    one, two = read_report(REPORT, "x.cu")
    assert (one.name, one.arch, one.registers, one.stack, one.spill_stores, one.spill_loads, one.shared) == (
        "_Z3onePf", "sm_80", 40, 16, 4, 8, 16896,
    )  # fmt: skip
    assert (two.name, two.arch, two.registers, two.stack, two.shared) == ("_Z3twoPf", "sm_90a", 24, 0, 0)


def test_serialized_products_are_read_of_a_report(tmp_path):
    assert read_serialized(REPORT) == []
    assert read_serialized(SERIALIZED + REPORT) == SERIALIZED.splitlines()
    assert read_serialized(SERIALIZED.replace("(C7515) ", "")) and read_serialized(SERIALIZED.replace("wgmma", "mma"))
    for name, text in {"one.cu.o": REPORT, "two.cu.o": SERIALIZED + REPORT, "gone.cu.o": SERIALIZED}.items():
        (tmp_path / f"{name}.ptxas").write_text(text)
    for name in ("one.cu.o", "two.cu.o"):
        (tmp_path / name).touch()
    assert serialized_of(tmp_path) == {"two.cu": SERIALIZED.splitlines()}


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


def test_no_product_waits_for_another(kernels):
    assert serialized_of(BUILD) == {}


def test_declared_shared_memory_leaves_room_for_what_launch_does_not_ask_for(kernels):
    assert crowded(kernels) == []


def test_crowded_kernels_are_found():
    one, two = read_report(REPORT, "gemm_mma.cu")  # one declares 16.5 kB
    allowed = replace(one, shared=11 * 1024)
    more = replace(one, shared=11 * 1024 + 4)
    assert crowded([one, two, allowed, more]) == [one, more]
    assert crowded([replace(one, arch="sm_90a"), replace(one, source="gemm_fma.cu")]) == []


def crowded(kernels: list[Kernel]) -> list[Kernel]:
    """Those whose launch may be refused, since they declare shared memory beside what launch() counts on.

    launch() does not ask for dynamic memory up to kUnaskedSharedBytes, and beyond that asks for `at_least`. sm_90a's
    kernels ask for what they count themselves, and a kernel without dynamic memory may declare all that CUDA gives.
    """
    text = (ROOT / "csrc" / "common" / "launch.cuh").read_text()
    unasked, at_least = (
        int(re.search(rf"\b{name} = (\d+) \* 1024;", text)[1]) * 1024 for name in ("kUnaskedSharedBytes", "at_least")
    )
    most = min(UNASKED - unasked, MOST - at_least)
    sources = {file.name: file for file in (ROOT / "csrc").rglob("*.cu")}
    large = [kernel for kernel in kernels if kernel.shared > most and kernel.arch != "sm_90a"]
    return [kernel for kernel in large if _has_dynamic(sources[kernel.source])]


def _has_dynamic(file: Path) -> bool:
    """Whether a kernel of the source, or of a header of ours that it reads, has dynamic shared memory."""
    text = file.read_text()
    if re.search(r"^\s+SENTCORE_DYNAMIC_SHARED\(", text, re.MULTILINE):
        return True
    headers = re.findall(r'#include "([^"]+)"', text)
    return any(_has_dynamic(ROOT / "csrc" / header) for header in headers)
