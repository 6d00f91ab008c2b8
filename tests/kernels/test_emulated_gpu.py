"""The emulated GPU itself: what threads exchange, what it refuses, and that it makes races visible."""

from __future__ import annotations

import ctypes

import pytest
import torch

from compare import assert_as_accurate
from kernels.emulated import SEED_VARIABLE

SEEDS = range(12)


def call(gpu, name, *arguments):
    """Runs a kernel of gpu_kernels.cu; a string is the error it ended with."""
    function = getattr(gpu, name)
    function.restype = ctypes.c_char_p
    values = [ctypes.c_void_p(a.data_ptr()) if torch.is_tensor(a) else a for a in arguments]
    message = function(*values)
    return None if message is None else message.decode()


@pytest.mark.parametrize("seed", SEEDS)
def test_warp_operations(gpu, monkeypatch, seed):
    monkeypatch.setenv(SEED_VARIABLE, str(seed))
    out = torch.zeros(8, 64, dtype=torch.int32)
    assert call(gpu, "run_warp_operations", out) is None
    i = torch.arange(64)
    lane, first = i % 32, i // 32 * 32
    expected = [
        first + 5,
        i ^ 3,
        torch.where(lane >= 2, i - 2, i),
        torch.where(lane % 8 < 4, i + 4, i),
        torch.full_like(i, sum(1 << b for b in range(0, 32, 3))),
        torch.where(i < 32, 2, 1),
        torch.where(lane < 16, i ^ 1, i ^ 8),
        torch.cat((2 * i[:32] + 32, torch.zeros(32, dtype=torch.int64))),
    ]
    assert torch.equal(out, torch.stack(expected).int())


@pytest.mark.parametrize("seed", SEEDS)
def test_block_sums(gpu, monkeypatch, seed):
    monkeypatch.setenv(SEED_VARIABLE, str(seed))
    out = torch.full((3, 128), torch.nan)
    assert call(gpu, "run_block_sums", out) is None
    total = 128 * 127 / 2
    assert torch.equal(out, torch.tensor([total, 128.0, 128 * total + total])[:, None].expand(3, 128))


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        *enumerate(
            [
                r"deadlock in block \(\d, 0, 0\): of 64 threads .*32 wait at __syncthreads \(gpu_kernels\.cu:\d+\)",
                "24 have left the kernel, 40 wait at __syncthreads",
                "a thread of the block waits at another barrier, __syncthreads",
                "thread .* at __syncwarp .*: the calling lane is not in the mask",
                "2 have left the kernel, 62 wait at __syncwarp",
                "a lane of the mask waits elsewhere",
                "16-byte load .*: the address is not aligned to 16 bytes",
                "copy_async_16 .* not all in the block's shared memory",
                "copy_async_16 .* not aligned to 16 bytes",
                "thread .* has left the kernel with copies that are in no group",
            ]
        )
    ],
)
def test_misuse_is_an_error_that_says_where(gpu, kind, message):
    memory = torch.zeros(256, dtype=torch.uint8)
    with pytest.raises(RuntimeError, match=message):
        raise RuntimeError(call(gpu, "run_misuse", kind, memory))
    # And the next launch finds everything in order.
    assert call(gpu, "run_block_sums", torch.zeros(3, 128)) is None


def test_a_block_beyond_the_limits_is_refused(gpu):
    assert call(gpu, "run_too_many_threads") == "invalid configuration argument"


def multiply(gpu, a, b, transposed, fault=0):
    (m, k), n = a.shape, b.shape[1 if transposed else 0]
    c = torch.full((m, n), torch.nan)
    error = call(gpu, "run_multiply", int(a.dtype == torch.float16), int(transposed), a, b, c, m, n, k, fault)
    assert error is None, error
    return c


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize(("m", "n", "k"), [(1, 8, 8), (64, 64, 32), (65, 72, 136), (130, 200, 96)])
def test_matrix_product_of_copies_matrix_loads_and_mma(gpu, dtype, transposed, m, n, k):
    a, b = torch.randn(m, k).to(dtype), torch.randn(n, k).to(dtype)
    exact = a.double() @ b.double().T
    c = multiply(gpu, a, b.T.contiguous() if transposed else b, transposed)
    assert_as_accurate(c, a.float() @ b.float().T, exact)


@pytest.mark.parametrize(("fault", "what"), [(1, "wait"), (2, "first barrier"), (3, "second barrier")])
def test_a_matrix_product_without_its_waits_is_wrong(gpu, monkeypatch, fault, what):
    a, b = torch.randn(64, 160).bfloat16(), torch.randn(64, 160).bfloat16()
    right = multiply(gpu, a, b, False)
    wrong = 0
    for seed in SEEDS:
        monkeypatch.setenv(SEED_VARIABLE, str(seed))
        assert torch.equal(multiply(gpu, a, b, False), right)
        wrong += not torch.equal(multiply(gpu, a, b, False, fault), right)
    assert wrong >= len(SEEDS) // 2, f"without the {what} only {wrong} of {len(SEEDS)} orders are wrong"


def test_half_precision_conversions_round_as_torch_does(gpu):
    every = torch.arange(65536, dtype=torch.int32).to(torch.int16)  # every bit pattern
    from_bfloat16, from_float16 = torch.empty(65536), torch.empty(65536)
    gpu.convert_from_half(*map(pointer, (every, from_bfloat16, from_float16)), ctypes.c_int64(65536))
    expected = [every.view(dtype).float() for dtype in (torch.bfloat16, torch.float16)]
    for ours, wanted in zip((from_bfloat16, from_float16), expected, strict=True):
        torch.testing.assert_close(ours, wanted, rtol=0, atol=0, equal_nan=True)

    # Every value, its neighbours in float32, the middle between it and the next, and values beyond both ranges.
    values = torch.cat(expected)
    bits = torch.cat([v.view(torch.int32) + step for v in expected for step in (-1, 0, 1, 0x1000, 0x8000)])
    values = torch.cat(
        (
            values,
            bits.view(torch.float32),
            torch.tensor([65519.0, 65520.0, 1e38, 3.4e38, 1e-45, 3e-8]),
        )
    )
    n = values.numel()
    halves = torch.empty(n, dtype=torch.bfloat16), torch.empty(n, dtype=torch.float16)
    gpu.convert_to_half(*map(pointer, (values, *halves)), ctypes.c_int64(n))
    for half in halves:
        torch.testing.assert_close(half, values.to(half.dtype), rtol=0, atol=0, equal_nan=True)


def pointer(tensor):
    return ctypes.c_void_p(tensor.data_ptr())


@pytest.mark.parametrize(
    ("key", "low", "high", "words"),
    [  # the known answers of the generator's authors
        (0, 0, 0, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        (2**64 - 1, 2**64 - 1, 2**64 - 1, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            0x299F31D0A4093822,
            0x85A308D3243F6A88,
            0x0370734413198A2E,
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_gives_its_known_answers(gpu, key, low, high, words):
    out = (ctypes.c_uint32 * 4)()
    gpu.random_words(*map(ctypes.c_uint64, (key, low, high)), out)
    assert tuple(out) == words
