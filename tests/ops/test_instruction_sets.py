"""The CPU kernels of every instruction set this machine has give right results, not only those of the best one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sentcore import ops
from sentcore._extension import extension

OPS = Path(__file__).parent
ROOMS = (
    "bias_gelu",
    "gated_activation",
    "int8_linear",
    "packed_linear",
    "rows",
    "segment_pooling",
    "varlen_attention",
    "varlen_attention_backward",
)
FILES = [*(f"test_{room}.py" for room in ROOMS), "../layers/test_whole_layer.py"]
CHOSEN = (
    "accurate and not its_parts and (-5- or -13- or plain) or nan and not -3 or rounded or size or matches or wherever or "
    "width or alone or its_parts and (33-7 or 128-512) and -3-"
)
LOWER = ("portable", "avx2", "avx512", "avx512_vnni", "avx512_bf16")


def used_under(environment: dict[str, str]) -> str:
    """The instruction set that the kernels of a process of this environment use."""
    code = "from sentcore._extension import extension; print(extension().build_info()['cpu_isa'])"
    done = subprocess.run(  # in OPS: in the project's folder its sources, without kernels, would be what is imported
        [sys.executable, "-c", code], cwd=OPS, env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.mark.parametrize("isa", LOWER)
def test_kernels_of_an_older_machine(isa):
    if extension() is None:
        pytest.skip("the compiled kernels are not here")
    environment = os.environ | {"SENTCORE_CPU_ISA": isa}
    if used_under(environment) != isa:
        pytest.skip(f"this machine has no {isa}, or nothing better")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *FILES, "-k", CHOSEN],
        cwd=OPS,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout


INT8_BITS = """
import sys, torch
from sentcore import ops
torch.manual_seed(0)
found = []
for rows, depth, columns in ((1, 384, 96), (17, 100, 40), (33, 70, 33), (70, 1538, 70), (600, 64, 32)):
    for dtype in (torch.float32, torch.bfloat16):
        x = torch.randn(rows, depth).to(dtype)
        x[::3, depth // 2] *= 20  # kept apart in these rows
        weight, bias = ops.quantize_weight(torch.randn(columns, depth)), torch.randn(columns)
        found += [ops.int8_linear(x, weight, bias, activation=name) for name in (None, "relu", "gelu", "gelu_tanh")]
torch.save(found, sys.argv[1])
"""


def test_matrix_tiles_give_the_bits_of_int8_products_by_vectors(tmp_path):
    if extension() is None:
        pytest.skip("the compiled kernels are not here")
    if used_under(os.environ | {"SENTCORE_CPU_ISA": ""}) != "amx":
        pytest.skip("this machine has no amx")
    found = {}
    for isa in ("", "avx512_vnni"):
        path = tmp_path / f"bits-{isa}.pt"
        environment = os.environ | {"SENTCORE_CPU_ISA": isa}
        subprocess.run([sys.executable, "-c", INT8_BITS, str(path)], cwd=OPS, env=environment, check=True)
        found[isa] = torch.load(path)
    assert all(map(torch.equal, found[""], found["avx512_vnni"]))


@pytest.mark.parametrize("depth", [2, 30, 32, 62, 64, 100, 768, 1538])
def test_a_row_has_the_same_bits_beside_any_number_of_rows(depth):
    """By tiles, where the machine has them: whole and partial ones, in rows and in depth."""
    if extension() is None:
        pytest.skip("plain PyTorch promises less")
    torch.manual_seed(0)
    x, bias = torch.randn(70, depth).bfloat16(), torch.randn(40).bfloat16()
    packed, rounded = ops.pack_weight(torch.randn(40, depth).bfloat16()), ops.quantize_weight(torch.randn(40, depth))
    for activation in (None, "gelu"):
        whole = ops.packed_linear(x, packed, bias, activation=activation)
        whole8 = ops.int8_linear(x, rounded, bias.float(), activation=activation)
        for begin, end in ((0, 1), (5, 21), (3, 20), (16, 48), (30, 63), (69, 70)):
            some = x[begin:end]
            assert torch.equal(ops.packed_linear(some, packed, bias, activation=activation), whole[begin:end])
            assert torch.equal(ops.int8_linear(some, rounded, bias.float(), activation=activation), whole8[begin:end])
