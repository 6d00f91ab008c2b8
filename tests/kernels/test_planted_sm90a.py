"""Faults planted in the kernels of compute capability 9.0, all in one library: a variable of the environment says which one is
there in a run."""

from __future__ import annotations

import pytest

from kernels import emulated

VARIABLE = "SENTCORE_PLANTED"
PRODUCT, TILE = "common/gemm/sm90a_multiply.cuh", "common/gemm/sm90a_tile.cuh"
ATTENTION = "ops/varlen_attention/varlen_attention_forward_sm90a.cu"
NORM = "ops/linear_add_layer_norm/linear_add_layer_norm_sm90a.cu"
# A file of this folder with a test of it, and which of its cases.
PRODUCTS = ("test_sm90a.py::test_products_of_many_tiles", "dtype0")
ORDERS = ("test_sm90a.py", "order_of_threads")
SENTENCES = ("test_sm90a.py::test_attention_of_every_length", "dtype0 and 64 and (lengths6 or lengths7)")
NAN = ("test_sm90a.py::test_a_sentence_with_nan_leaves_its_neighbours_alone", "64")
ROWS = ("test_linear_add_layer_norm.py::test_every_size", "dtype0")
# name -> file of csrc, the statement that is left out, the tests that must see it
FAULTS = {
    "stage-full": (PRODUCT, "ptx::barrier_wait(&full[turn.stage], turn.parity);", PRODUCTS),
    "stage-empty": (PRODUCT, "ptx::barrier_wait(&empty[turn.stage], turn.parity ^ 1u);", PRODUCTS),
    "products-done": (PRODUCT, "ptx::product_wait<1>();", PRODUCTS),
    "turns": (
        PRODUCT, "if (round > 0) ptx::barrier_wait(&order[group], static_cast<unsigned>((round - 1) / 2) & 1u);", PRODUCTS,
    ),
    "biases": (PRODUCT, "if (kEnd == End::rotated) ptx::named_barrier(1 + group, kWarpgroup);", ORDERS),
    "boxes-read": (TILE, "if (starts_) ptx::store_wait_read<1>();", PRODUCTS),
    "boxes-free": (TILE, "ptx::named_barrier(barrier_, kWarpgroup);  // the copies that read these boxes are done", PRODUCTS),
    "boxes-full": (TILE, "ptx::named_barrier(barrier_, kWarpgroup);  // the boxes are full", PRODUCTS),
    "boxes-at-the-end": (TILE, "if (starts_) ptx::store_wait_read<0>();", PRODUCTS),
    "queries-full": (ATTENTION, "ptx::barrier_wait(&barriers.queries_full[query.stage], query.parity);", SENTENCES),
    "queries-read": (
        ATTENTION, "ptx::barrier_wait(&barriers.queries_read[query.stage], query.parity ^ 1u);", SENTENCES,
    ),
    "values-read": (ATTENTION, "ptx::barrier_wait(&barriers.values_read[turn.stage], turn.parity ^ 1u);", SENTENCES),
    "scores-done": (ATTENTION, "ptx::product_wait<1>();", SENTENCES),
    "values-clear": (
        ATTENTION, "if (end < kTileKeys) clear_values<kD>(values_of(), end, group * kWarpgroup + thread);",
        NAN,
    ),
    "outputs-there": (ATTENTION, "ptx::named_barrier(1 + group, kWarpgroup);  // the outputs are there", SENTENCES),
    "norm-products-done": (NORM, "ptx::product_wait<1>();", ROWS),
    "norm-box-read": (NORM, "if (thread == 0) ptx::store_wait_read<0>();", ROWS),
}  # fmt: skip
# What says that a fault was seen: a wrong result, or the emulated GPU's own word.
SEEN = ("AssertionError", "emulated GPU:")


@pytest.fixture(scope="module")
def library():
    if reason := emulated.why_not():
        pytest.skip(reason)
    planted = (
        "emulation/sm90a.h",
        "#define __grid_constant__\n",
        "#define __grid_constant__\n#include <cstdlib>\n"
        "inline bool planted(const char* name) {\n"
        f'  const char* found = std::getenv("{VARIABLE}");\n'
        "  return found != nullptr && std::strcmp(found, name) == 0;\n}\n",
    )
    changes = [planted]
    for name, (file, statement, _) in FAULTS.items():
        changes.append((file, statement, f'if (!planted("{name}")) {{ {statement.replace("//", "/*")} '
                        + ("*/ " if "//" in statement else "") + "}"))  # fmt: skip
    rooms = (
        "linear",
        "gemm",
        "sums",
        "qkv_projection",
        "varlen_attention",
        "linear_add_layer_norm",
        "choices",
        "sm90a",
    )
    return emulated.build("sm90a-faults", emulated.mutated("sm90a-faults", changes), kernels=False, rooms=rooms)


def run(library, name, tests):
    test, cases = tests
    return emulated.pytest_with(library, f"tests/kernels/{test}", f"-k={cases}", **{VARIABLE: name})


@pytest.mark.parametrize("tests", sorted({tests for _, _, tests in FAULTS.values()}))
def test_without_a_fault_they_pass(library, tests):
    done = run(library, "none", tests)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_found(library, name):
    done = run(library, name, FAULTS[name][2])
    assert done.returncode == 1, done.stdout  # 1: tests were run, and failed
    assert any(word in done.stdout for word in SEEN), done.stdout
