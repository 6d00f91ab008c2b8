"""The machine code of the built CUDA kernels still is what they were written for: read without a GPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from build_support.errors import Unusable
from build_support.machine_code import Instruction, find_disassembler, machine_code, names_of
from build_support.native import ROOT, build_folder
from build_support.resources import kernels_of
from build_support.warpgroup_products import (
    PRODUCTS,
    done_beside_one_group,
    group_sizes,
    groups_begun_beside_another,
    touched,
)

BUILD = build_folder("cuda")
ATTENTION = "varlen_attention_forward_sm90a.cu"
Kernels = dict[tuple[str, str], list[Instruction]]  # by source and name


def built(pattern: str, arch: str) -> Kernels:
    """The kernels of the sources of this name that the build has an object of."""
    found: Kernels = {}
    for source in sorted((ROOT / "csrc").rglob(pattern)):
        object_file = BUILD / "CMakeFiles" / "_C.dir" / f"{source.relative_to(ROOT)}.o"
        if object_file.is_file():
            kernels = machine_code(object_file, arch)
            assert kernels, f"{object_file} has no kernel for {arch}"
            found |= {(source.name, name): code for name, code in kernels.items()}
    return found


@pytest.fixture(scope="module")
def compiled() -> Path:
    if not BUILD.is_dir():
        pytest.skip(f"no CUDA kernels were built from this checkout, which has no {BUILD}")
    try:
        find_disassembler()
    except Unusable as why:
        pytest.skip(str(why))
    return BUILD


@pytest.fixture(scope="module")
def sm90a(compiled) -> Kernels:
    return built("*_sm90a.cu", "sm_90a") or pytest.skip(f"the build in {BUILD} was not for sm_90a")


@pytest.fixture(scope="module")
def portable(compiled) -> Kernels:
    """The products of matrices on the oldest GPU that was built for."""
    archs = {kernel.arch for kernel in kernels_of(BUILD)} - {"sm_90a"}
    oldest = min(archs, key=lambda arch: int(arch.removeprefix("sm_")), default="")
    return built("*_mma.cu", oldest) | built("*_short.cu", oldest) or pytest.skip(
        f"{BUILD} has no object of a *_mma.cu"
    )


def test_every_kernel_of_sm_90a_multiplies_by_warpgroups(sm90a):
    wanted = {kernel: {"QGMMA" if kernel[0].startswith("fp8_") else "HGMMA"} for kernel in sm90a}
    assert {kernel: names_of(code) & {*PRODUCTS} for kernel, code in sm90a.items()} == wanted


def test_no_register_of_a_product_under_way_is_touched(sm90a):
    found = {kernel: [" beside ".join(map(str, pair)) for pair in touched(code)] for kernel, code in sm90a.items()}
    assert {kernel: pairs for kernel, pairs in found.items() if pairs} == {}


def test_products_do_not_wait_for_each_other(sm90a):
    # A group is a step: of 64 of K (128 of e4m3), of a head, or of a tile of keys, four products at the least.
    sizes = {kernel: group_sizes(code) for kernel, code in sm90a.items()}
    assert {kernel: found for kernel, found in sizes.items() if not found or min(found) < 4} == {}


def test_a_step_begins_before_the_last_one_has_ended(sm90a):
    assert [kernel for kernel, code in sm90a.items() if not groups_begun_beside_another(code)] == []


def test_the_softmax_runs_beside_the_products_of_the_outputs(sm90a):
    # 64 queries x 128 keys for 128 threads: the exponentials of a tile, all of them between the wait that leaves the
    # outputs' products under way and the one that leaves none. The first tile's have nothing to run beside.
    found = {
        kernel: done_beside_one_group(code, "MUFU.EX2") for kernel, code in sm90a.items() if kernel[0] == ATTENTION
    }
    assert found
    assert {kernel: count for kernel, count in found.items() if count < 64 * 128 // 128} == {}


def test_the_portable_products_use_tensor_cores_and_copy_beside_them(portable):
    for kernel, code in portable.items():
        assert {"HMMA", "LDSM", "LDGSTS"} - names_of(code) == set(), kernel


@pytest.mark.parametrize("kind", ["sm90a", "portable"])
def test_no_kernel_keeps_anything_in_local_memory(kind, request):
    kernels: Kernels = request.getfixturevalue(kind)
    assert [kernel for kernel, code in kernels.items() if names_of(code) & {"LDL", "STL"}] == []
