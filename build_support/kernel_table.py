"""Prints the table of docs/kernels.md: what the hot kernels need of a GPU, from the last build in this checkout.

python -m build_support.kernel_table [sm_90]
"""

from __future__ import annotations

import re
import sys

from build_support.native import build_folder
from build_support.resources import Kernel, kernels_of

REGISTERS, WARPS = 65536, 64  # of a multiprocessor; sm_86, sm_89 and sm_120 run 48 warps
# What is launched for bfloat16 or float32 at usual sizes: source, the kernel's name (a pattern), threads of a block.
HOT = (
    ("add_layer_norm_forward.cu", r"forward_warp<nv_bfloat16, nv_bfloat16, \d, .*>", 128),
    ("add_layer_norm_backward.cu", r"backward_warp<nv_bfloat16, nv_bfloat16, \d, \d>", 128),
    ("embedding_layer_norm_forward.cu", r"forward<nv_bfloat16, nv_bfloat16, 8, true>", 128),
    ("bias_gelu_forward.cu", r"forward<nv_bfloat16, nv_bfloat16, 8>", 64),
    ("bias_gelu_backward.cu", r"backward<nv_bfloat16, nv_bfloat16, 8>", 256),
    ("gemm_mma.cu", r"multiply<nv_bfloat16, .*>", 256),
    ("gemm_fma.cu", r"multiply<float, .*>", 256),
    ("varlen_attention_forward_mma.cu", r".*<nv_bfloat16, (32|64|128), .*>", 128),
    ("varlen_attention_forward_short.cu", r".*<nv_bfloat16, (32|64)>", 32),
    ("varlen_attention_backward_query_mma.cu", r".*<nv_bfloat16, (32|64|128), .*>", 128),
    ("varlen_attention_backward_key_mma.cu", r".*<nv_bfloat16, (32|64|128), .*>", 128),
    ("fp8_linear_rows.cu", r"round_rows<nv_bfloat16, 8, (2|8)>", 128),
    ("fp8_linear_product.cu", r"multiply<nv_bfloat16, .*, 8>", 512),
    ("segment_pooling.cu", r"forward<nv_bfloat16, 8>", 256),
    ("segment_pooling_quantized.cu", r"quantized<nv_bfloat16, 8>", 256),
)


def warps_that_fit(kernel: Kernel, threads: int) -> int:
    """Warps a multiprocessor can hold as far as registers go; they are given out to a warp in units of 256."""
    of_warp = -(-kernel.registers * 32 // 256) * 256
    blocks = REGISTERS // (of_warp * threads // 32)
    return min(WARPS, blocks * threads // 32)


def main() -> None:
    arch = sys.argv[1] if len(sys.argv) > 1 else "sm_90"
    kernels = [kernel for kernel in kernels_of(build_folder("cuda")) if kernel.arch == arch]
    print(
        f"| {arch}: file | kernel | registers | static shared memory, bytes | spills | warps of {WARPS} by registers |"
    )
    print("| --- | --- | --- | --- | --- | --- |")
    for source, pattern, threads in HOT:
        for kernel in kernels:
            name = re.sub(r"\((int|bool)\)", "", kernel.name)
            if kernel.source == source and re.fullmatch(pattern, name):
                spills = kernel.spill_stores + kernel.spill_loads
                warps = warps_that_fit(kernel, threads)
                print(f"| {source} | `{name}` | {kernel.registers} | {kernel.shared} | {spills} | {warps} |")


if __name__ == "__main__":
    main()
