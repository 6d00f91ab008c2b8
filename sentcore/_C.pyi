"""Types of the compiled part (csrc/extension.cpp). Arrays must be of these dtypes: nothing is converted."""

from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

class CompiledOps(TypedDict):
    cpu: list[str]
    cuda: list[str]

class BuildInfo(TypedDict):
    version: str
    compiler: str
    torch_target: str  # the oldest torch that it runs on
    cpu: bool
    cpu_isa: str  # what the CPU kernels use of this machine: portable, avx2, avx512, avx512_vnni, avx512_bf16 or amx
    cuda: bool
    cuda_toolkit: str | None
    archs: list[str]  # "sm_90" is machine code, "compute_80" is PTX
    fp8_archs: list[str]  # the same of 8-bit floating-point products
    ops: CompiledOps

def build_info() -> BuildInfo: ...
def plan_batches(
    lengths: NDArray[np.int64],  # [B]
    batch_tokens: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]: ...  # order [B], batch_offsets [n+1]
def pack_batch(
    token_ids: NDArray[np.int32],  # [T]
    offsets: NDArray[np.int64],  # [B+1]
    token_type_ids: NDArray[np.int32] | None,  # [T]
    indices: NDArray[np.int64],  # [b]
    out: NDArray[np.int64],  # [3, t], written
    cu_seqlens: NDArray[np.int32],  # [b+1], written
) -> int: ...  # max_seqlen
