"""Faults planted in the sources must make the tests of this folder fail: what they guard is really guarded."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from kernels import emulated


class Fault(NamedTuple):
    """What is changed, and who must see it."""

    rooms: tuple[str, ...]  # folders of csrc that are compiled
    file: str  # in csrc
    old: str
    new: str
    test_file: str  # of this folder
    tests: str  # as pytest's -k takes them
    narrowed: tuple[tuple[str, str, str], ...] = ()  # what else is changed, so that less is compiled


NORM, ATTENTION = "ops/add_layer_norm/add_layer_norm_", "ops/varlen_attention/"
NORM_TESTS = ("add_layer_norm", "sums"), "test_add_layer_norm.py"
ATTENTION_TESTS = ("varlen_attention",), "test_varlen_attention.py"


def without(lines):
    """Left out of the choice of an attention kernel: all dtypes and sizes take minutes to compile."""
    return ATTENTION + "dispatch.cuh", lines, ""


def sizes(*left_out):
    return without("".join(f"  if (size <= {n}) return Launch::template run<T, {n}>(args...);\n" for n in left_out))


BFLOAT16_HEADS_OF_16 = (
    sizes(32, 64, 80, 96, 128),
    sizes(64, 128, "kMaxHeadSize"),
    without("  if (given.dtype == Dtype::float16) return for_mma_size<Launch, __half>(given.size, args...);\n"),
    without("    case Dtype::float16:\n      return for_fma_size<Launch, __half>(given.size, args...);\n"),
    without("    case Dtype::float32:\n      return for_fma_size<Launch, float>(given.size, args...);\n"),
)
POOLING_TESTS = ("segment_pooling",), "test_segment_pooling.py"
QUANTIZED_TESTS = ("segment_pooling",), "test_segment_pooling_quantized.py"
EMBEDDING_TESTS = ("embedding_layer_norm",), "test_embedding_layer_norm.py"
LINEAR_TESTS = ("linear", "gemm", "sums", "choices"), "test_linear.py"
FP8, FP8_TESTS = "ops/fp8_linear/fp8_linear_", (("fp8_linear",), "test_fp8_linear.py")


def barrier(of, file, line, tests, narrowed=()):
    """A barrier that is removed."""
    return Fault(of[0], file, f"__syncthreads();  // {line}\n", "\n", of[1], tests, narrowed)


def bound(of, file, old, new, tests, narrowed=()):
    """A bound that is off by one, so that the last row's tail is overrun."""
    return Fault(of[0], file, old, new, of[1], tests, narrowed)


BARRIERS = {
    "block-sum-write": barrier(
        NORM_TESTS, "common/reduce.cuh", "the sums of all warps are written", "every_size and 33"
    ),
    "block-sum-read": barrier(
        NORM_TESTS, "common/reduce.cuh", "all warps have read them: the next call may write",
        "every_size and 33 or order_of_threads and 33",
    ),
    "column-sums-write": barrier(
        NORM_TESTS, NORM + "backward.cu", "the rows of all warps are written", "every_size and 384"
    ),
    "column-sums-read": barrier(
        NORM_TESTS, NORM + "backward.cu", "and have been read: the next sum may overwrite them",
        "every_size and 384 or order_of_threads and 384",
    ),
    "groups": barrier(
        NORM_TESTS, "common/sums/sums.cu", "the sums of all threads of a column are written", "every_size and 384"
    ),
    "pooling-sums": barrier(
        POOLING_TESTS, "ops/segment_pooling/segment.cuh", "the warps' sums are written", "every_mode"
    ),
    "pooled-row": barrier(
        QUANTIZED_TESTS, "ops/segment_pooling/segment_pooling_quantized.cu",
        "these columns are written, and the warps' sums of them read", "sizes",
    ),
    "attention-keys": barrier(
        ATTENTION_TESTS, ATTENTION + "varlen_attention_forward_mma.cu",
        "the keys are there, and the last tile's values have been read", "every_length and lengths7 and dtype1", BFLOAT16_HEADS_OF_16,
    ),
    "attention-short": Fault(
        ATTENTION_TESTS[0], ATTENTION + "varlen_attention_forward_short.cu",
        "  ptx::copy_async_wait<0>();\n", "\n",
        ATTENTION_TESTS[1], "every_length and lengths8 and dtype1", BFLOAT16_HEADS_OF_16,
    ),
    "attention-stages": barrier(
        ATTENTION_TESTS, ATTENTION + "varlen_attention_backward_key_mma.cu",
        "this tile is there, and the other stage has been read", "every_length and lengths7 and dtype1", BFLOAT16_HEADS_OF_16,
    ),
    "product-stages": barrier(
        LINEAR_TESTS, "common/gemm/gemm_mma.cu",
        "this step's tiles have landed, and all have read the stage that is filled next", "every_size",
    ),
    "product-sums": barrier(
        LINEAR_TESTS, "common/gemm/gemm_fma.cu", "the sums are written", "every_size"
    ),
    "fp8-stages": barrier(
        FP8_TESTS, FP8 + "product.cu",
        "this step's tiles have landed, and all have read the stage that is filled next", "every_size",
    ),
    "fp8-last-stage": barrier(
        FP8_TESTS, FP8 + "product.cu", "all have read the last stage", "every_size or order_of_threads"
    ),
    "fp8-sums": barrier(FP8_TESTS, FP8 + "product.cu", "the tile's sums are written", "every_size"),
}  # fmt: skip

BOUNDS = {
    "warp-bound": bound(
        NORM_TESTS, NORM + "forward.cu",
        "const bool inside = first + p * kStep < hidden;", "const bool inside = first + p * kStep <= hidden;",
        "every_size and 384",
    ),
    "block-bound": bound(
        NORM_TESTS, NORM + "backward.cu",
        "column < args.hidden; column += step) {\n      load_operands<Access::reused>(args, begin + column, operands);\n      add_row_sums",
        "column <= args.hidden; column += step) {\n      load_operands<Access::reused>(args, begin + column, operands);\n      add_row_sums",
        "every_size and 33",
    ),
    "attention-rows": bound(
        ATTENTION_TESTS, ATTENTION + "mma_tiles.cuh",
        "const bool outside = row >= rows || column >= size;", "const bool outside = row > rows || column >= size;",
        "every_length and lengths7 and dtype1", BFLOAT16_HEADS_OF_16,
    ),
    "gelu-elements": bound(
        (("bias_gelu", "sums"), "test_bias_gelu.py"), "ops/bias_gelu/bias_gelu_forward.cu",
        "if (column >= args.width) return;", "if (column > args.width) return;",
        "gelu_of_every_size",
    ),
    "gelu-norm-rows": bound(
        (("bias_gelu_layer_norm", "sums"), "test_bias_gelu.py"),
        "ops/bias_gelu_layer_norm/bias_gelu_layer_norm_backward.cu",
        "if (r >= args.rows) return;", "if (r > args.rows) return;", "norm_of_every_size",
    ),
    "table-rows": bound(
        EMBEDDING_TESTS, "ops/embedding_layer_norm/embedding_layer_norm_forward.cu",
        "ids[i] < args.tables[i].rows)", "ids[i] <= args.tables[i].rows)", "unknown_id",
    ),
    "table-gradient-tokens": bound(
        EMBEDDING_TESTS, "ops/embedding_layer_norm/embedding_layer_norm_backward.cu",
        "i + 1 == args.tokens ||", "i == args.tokens ||", "gradients_of_tables",
    ),
    "pooling-columns": bound(
        POOLING_TESTS, "ops/segment_pooling/segment.cuh",
        "if (column < args.hidden) {\n    const int end", "if (column <= args.hidden) {\n    const int end", "every_mode",
    ),
    "range-columns": bound(
        QUANTIZED_TESTS, "ops/segment_pooling/segment_pooling_quantized.cu",
        "      for (std::int64_t c = thread; c < width; c += kThreads) {\n        const float level",
        "      for (std::int64_t c = thread; c <= width; c += kThreads) {\n        const float level",
        "every_precision",
    ),
    "product-rows": bound(
        LINEAR_TESTS, "common/gemm/gemm_mma.cu", "k >= depth_end", "k > depth_end", "every_size and 264"
    ),
    "fp8-depth": bound(FP8_TESTS, FP8 + "product.cu", "k >= pitch", "k > pitch", "every_size and 264"),
    "fp8-rows": bound(
        FP8_TESTS, FP8 + "rows.cu", "if (row >= args.rows) return;", "if (row > args.rows) return;", "every_size and 264"
    ),
    "fp8-columns": bound(
        FP8_TESTS, FP8 + "rows.cu", "if (column < depth) kept[p]", "if (column <= depth) kept[p]", "every_size and 264"
    ),
}  # fmt: skip


def run(fault: Fault, name: str, sanitize: str = ""):
    sources = emulated.mutated(name, [(fault.file, fault.old, fault.new), *fault.narrowed])
    library = emulated.build(name, sources, sanitize=sanitize, kernels=False, rooms=fault.rooms, sm90a=False)
    return emulated.pytest_with(
        library, f"tests/kernels/{fault.test_file}", f"-k={fault.tests}", sanitize=bool(sanitize)
    )


@pytest.mark.parametrize("name", BARRIERS)
def test_a_missing_barrier_is_found(name):
    if reason := emulated.why_not():
        pytest.skip(reason)
    done = run(BARRIERS[name], name)
    assert done.returncode == 1, done.stdout  # 1: tests were run, and failed
    assert "AssertionError" in done.stdout


@pytest.mark.parametrize("name", BOUNDS)
def test_a_read_past_the_end_is_found(name):
    if reason := emulated.why_not(sanitize=True):
        pytest.skip(reason)
    done = run(BOUNDS[name], name, "address")
    assert done.returncode == emulated.SANITIZER_EXIT, done.stdout
    assert "heap-buffer-overflow" in done.stdout
    assert "READ of size" in done.stdout
