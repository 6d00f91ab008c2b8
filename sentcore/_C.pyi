"""Types of the compiled part (csrc/extension.cpp). Arrays must be of these dtypes: nothing is converted."""

from enum import Enum
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
    sm_90a: bool  # kernels of their own for compute capability 9.0
    ops: CompiledOps

# With CUDA kernels alone: csrc/common/choices/choices.h
class Kernels(Enum):
    portable = 0
    measured = 1
    sm_90a = 2

class Choice(Enum):
    linear = 0
    linear_input_gradient = 1
    linear_weight_gradient = 2
    attention = 3
    fp8_linear = 4
    linear_add_layer_norm = 5

class Dtype(Enum):
    bfloat16 = 2
    float16 = 3

def choose_kernels(kernels: Kernels) -> None: ...
def takes_sm90a(choice: Choice, dtype: Dtype, first: int, second: int) -> bool: ...
def add_kernel_choice(choice: Choice, dtype: Dtype, first: int, second: int) -> None: ...
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
