"""Faults planted in the sources must make the tests of this folder fail: what they guard is really guarded."""

from __future__ import annotations

import pytest

from kernels import emulated

FORWARD = "ops/add_layer_norm/add_layer_norm_forward.cu"
BACKWARD = "ops/add_layer_norm/add_layer_norm_backward.cu"
KERNEL_TESTS = ["tests/kernels/test_add_layer_norm.py", "tests/kernels/test_varlen_attention.py"]
ATTENTION = "ops/varlen_attention/"

# The barrier that is removed, and the tests that must see it.
BARRIERS = {
    "block-sum-write": (
        "common/reduce.cuh",
        "  __syncthreads();  // the sums of all warps are written\n",
        "every_size and 33",
    ),
    "block-sum-read": (
        "common/reduce.cuh",
        "  __syncthreads();  // all warps have read them: the next call may write\n",
        "every_size and 33 or order_of_threads and 33",
    ),
    "column-sums-write": (
        BACKWARD,
        "    __syncthreads();  // the rows of all warps are written\n",
        "every_size and 384",
    ),
    "column-sums-read": (
        BACKWARD,
        "    __syncthreads();  // and have been read: the next sum may overwrite them\n",
        "every_size and 384 or order_of_threads and 384",
    ),
    "attention-keys": (
        ATTENTION + "varlen_attention_forward_mma.cu",
        "    __syncthreads();  // the keys are there, and the last tile's values have been read\n",
        "every_length and lengths7",
    ),
    "attention-stages": (
        ATTENTION + "varlen_attention_backward_key_mma.cu",
        "    __syncthreads();  // this tile is there, and the other stage has been read\n",
        "every_length and lengths7",
    ),
}

# A bound that is made off by one so that the last row's tail is overrun.
BOUNDS = {
    "warp-bound": (
        FORWARD,
        "if (column < hidden) load_operands(args, begin + column, operands[p]);",
        "if (column <= hidden) load_operands(args, begin + column, operands[p]);",
        "every_size and 384",
    ),
    "block-bound": (
        BACKWARD,
        "column < args.hidden; column += step) {\n      load_operands<Access::reused>(args, begin + column, operands);\n      add_row_sums",
        "column <= args.hidden; column += step) {\n      load_operands<Access::reused>(args, begin + column, operands);\n      add_row_sums",
        "every_size and 33",
    ),
    "attention-rows": (
        ATTENTION + "mma_tiles.cuh",
        "const bool outside = row >= rows || column >= size;",
        "const bool outside = row > rows || column >= size;",
        "every_length and lengths7",
    ),
}


@pytest.mark.parametrize("name", BARRIERS)
def test_a_missing_barrier_is_found(name):
    if reason := emulated.why_not():
        pytest.skip(reason)
    file, barrier, tests = BARRIERS[name]
    sources = emulated.mutated(name, file, barrier, "")
    done = emulated.pytest_with(emulated.build(name, sources, kernels=False), *KERNEL_TESTS, f"-k={tests}")
    assert done.returncode == 1, done.stdout  # 1: tests were run, and failed
    assert "AssertionError" in done.stdout


@pytest.mark.parametrize("name", BOUNDS)
def test_a_read_past_the_end_is_found(name):
    if reason := emulated.why_not(sanitize=True):
        pytest.skip(reason)
    file, old, new, tests = BOUNDS[name]
    sources = emulated.mutated(name, file, old, new)
    library = emulated.build(name, sources, sanitize="address", kernels=False)
    done = emulated.pytest_with(library, *KERNEL_TESTS, f"-k={tests}", sanitize=True)
    assert done.returncode == emulated.SANITIZER_EXIT, done.stdout
    assert "heap-buffer-overflow" in done.stdout
    assert "READ of size" in done.stdout
