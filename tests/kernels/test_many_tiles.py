"""Work of several tiles a block. The other tests' work is a tile a block on a real GPU, with its hundred multiprocessors; here
rings turn, warpgroups take turns, and a block's last round is cut, at sizes of real models. All of a result is compared, and
the bits of twenty launches: a stage that is given back too early, or a fence that is missing, shows there."""

from __future__ import annotations

import pytest
import torch

from devices import real_gpu
from kernels.device import chosen
from kernels.test_fp8_linear import check as check_fp8
from kernels.test_linear import check as check_linear
from kernels.test_linear_add_layer_norm import check as check_norm
from kernels.test_qkv_projection import check as check_qkv
from kernels.test_varlen_attention import SEED, Case, check_backward, check_forward
from sentcore.ops.fp8_linear.reference import quantize_weight_fp8

BFLOAT16, FLOAT16 = torch.bfloat16, torch.float16
pytestmark = pytest.mark.usefixtures("kernels")
TILE = 128  # rows
PRODUCTS = [  # K, R, activation
    (768, 192, "none"),
    (768, 2304, "none"),
    (768, 3072, "gelu"),
    (384, 256, "gelu_tanh"),
    (384, 768, "geglu"),
    (384, 768, "swiglu"),
    (3072, 768, "none"),
    (72, 200, "none"),
][: None if real_gpu() else 1]


class Here:
    """The ops on tensors of their own device, which is where they are compared too."""

    def __init__(self, ops):
        self.device, self._ops = ops.device, ops.namespace
        self.real = ops.device != "cpu"
        processors = torch.cuda.get_device_properties(0).multi_processor_count if self.real else 3
        self.rows = processors * TILE * 3 + 77 if self.real else TILE * processors + 77
        self._generator = torch.Generator(ops.device).manual_seed(0)

    def __getattr__(self, name):
        return getattr(self._ops, name)

    def size(self, count):
        """Of a weight: the emulated GPU takes a sixth, which is several tiles to its few multiprocessors."""
        return count if self.real else max(64, count // 6 // 8 * 8)

    def normal(self, dtype, *shape, scale=1.0, shift=0.0):
        values = torch.randn(*shape, generator=self._generator, device=self.device)
        return (values * scale + shift).to(dtype)

    def angles(self, count):
        return torch.rand(self.rows, count, generator=self._generator, device=self.device) * 6


@pytest.fixture
def here(ops):
    return Here(ops)


def same_bits(here, run):
    """Twenty launches beside one; the emulated GPU, whose orders are another test's, shows with one that this runs."""
    first = run()
    for _ in range(20 if here.real else 1):
        for a, b in zip(run(), first, strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("dtype", [BFLOAT16, FLOAT16])
@pytest.mark.parametrize(("depth", "rows", "activation"), PRODUCTS)
def test_products(here, dtype, depth, rows, activation):
    depth, rows = here.size(depth), here.size(rows)
    t = {
        "x": here.normal(dtype, here.rows, depth),
        "weight": here.normal(dtype, rows, depth, scale=depth**-0.5),
        "bias": here.normal(dtype, rows),
        "grad": here.normal(dtype, here.rows, rows // 2 if activation in ("geglu", "swiglu") else rows),
    }
    check_linear(here, t, activation)
    out = here.linear(t["x"], t["weight"], t["bias"], activation, True)
    same_bits(here, lambda: here.linear(t["x"], t["weight"], t["bias"], activation, True))
    same_bits(here, lambda: here.linear_backward(t["grad"], t["x"], t["weight"], out[1], True, activation))


@pytest.mark.parametrize(("depth", "rows", "activation"), PRODUCTS)
def test_products_of_e4m3(here, depth, rows, activation):
    depth, rows = here.size(depth), here.size(rows)
    weight = quantize_weight_fp8(here.normal(torch.float32, rows, depth, scale=depth**-0.5))
    t = {
        "x": here.normal(BFLOAT16, here.rows, depth),
        "weight": weight,
        "bias": here.normal(torch.float32, rows),
    }
    check_fp8(here, t, activation)
    same_bits(here, lambda: [here.fp8_linear(t["x"], *weight, t["bias"], activation)])


@pytest.mark.parametrize("dtype", [BFLOAT16, FLOAT16])
@pytest.mark.parametrize("size", [32, 64])
def test_queries_keys_and_values(here, dtype, size):
    hidden = 384 if here.real else 128
    angles = here.angles(size // 2)
    t = {
        "x": here.normal(dtype, here.rows, hidden),
        "weights": [here.normal(dtype, hidden, hidden, scale=hidden**-0.5) for _ in range(3)],
        "biases": [here.normal(dtype, hidden) for _ in range(3)],
        "cos": angles.cos().to(dtype),
        "sin": angles.sin().to(dtype),
        "grad": here.normal(dtype, here.rows, 3, hidden // size, size),
        "heads": hidden // size,
    }
    check_qkv(here, t, rotary=True)
    given = (t["x"], *t["weights"], *t["biases"], t["heads"], t["cos"], t["sin"])
    same_bits(here, lambda: [here.qkv_projection(*given)])


@pytest.mark.parametrize("dtype", [BFLOAT16, FLOAT16])
@pytest.mark.parametrize("depth", [384, 1536])
def test_product_residual_and_norm(ops, here, dtype, depth):
    depth = here.size(depth)
    t = {
        "x": here.normal(dtype, here.rows, depth),
        "weight": here.normal(dtype, 384, depth, scale=depth**-0.5),
        "bias": here.normal(dtype, 384),
        "residual": here.normal(dtype, here.rows, 384, shift=0.5),
        "norm_weight": here.normal(dtype, 384, scale=0.2, shift=1.0),
        "norm_bias": here.normal(dtype, 384),
    }
    with chosen(ops, "sm_90a"):  # the only ones that have it
        check_norm(here, t)
        same_bits(here, lambda: [here.linear_add_layer_norm(*t.values(), 1e-12)])


@pytest.mark.parametrize("dtype", [BFLOAT16, FLOAT16])
@pytest.mark.parametrize("size", [32, 64, 128])
def test_attention_beside_a_sentence_of_nan(here, dtype, size):
    """Sentences of every remainder by a tile, some empty, one of NaN, which is nobody else's."""
    lengths = [1, 127, 128, 129, 0, 255, 256, 257, 1000, 77] * 24 if here.real else [1, 127, 130, 0, 129]
    case = Case(dtype, lengths, heads=8 if here.real else 1, size=size, seed=SEED.to(here.device))
    for name in ("q", "grad", "cu_q", "cu_k"):
        setattr(case, name, getattr(case, name).to(here.device))
    out, lse = check_forward(here, case)
    check_backward(here, case, out, lse)
    same_bits(here, lambda: case.forward(here))
    same_bits(here, lambda: case.backward(here, out, lse)[:1])
    bad = slice(int(case.cu_q[2]), int(case.cu_q[3]))
    case.q[bad] = torch.nan
    beside, _ = case.forward(here)
    assert beside[bad].isnan().all()
    beside[bad] = out[bad]
    assert torch.equal(beside, out)
