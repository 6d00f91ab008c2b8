"""varlen_attention's CUDA kernels, forward and backward, on the emulated GPU."""

from __future__ import annotations

import pytest
import torch

from compare import assert_as_accurate
from sentcore.ops.varlen_attention import reference

SEED = torch.tensor([123456789012345678, 987654321])
FLOAT32, BFLOAT16, FLOAT16 = torch.float32, torch.bfloat16, torch.float16
DTYPES = [FLOAT32, BFLOAT16, FLOAT16]
RAGGED = [17, 0, 65, 1, 2, 64, 0]


def draw(*shape, seed=0, dtype=FLOAT32):
    generator = torch.Generator().manual_seed(seed * 10007 + len(shape))
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)


def offsets(lengths):
    return torch.tensor([0, *lengths]).cumsum(0).int()


class Case:
    """Tensors and options of one call, in either form, and what it should give."""

    def __init__(self, dtype, lengths_q, lengths_k=None, heads=2, size=16, **options):
        self.cross = lengths_k is not None
        keys = lengths_k if self.cross else lengths_q
        self.cu_q, self.cu_k = offsets(lengths_q), offsets(keys)
        self.max_q, self.max_k = max([0, *lengths_q]), max([0, *keys])
        if self.cross:
            self.q = draw(sum(lengths_q), heads, size, seed=1, dtype=dtype)
            self.kv = draw(sum(keys), 2, heads, size, seed=2, dtype=dtype)
        else:
            self.q, self.kv = draw(sum(lengths_q), 3, heads, size, seed=3, dtype=dtype), None
        self.grad = draw(sum(lengths_q), heads, size, seed=4, dtype=dtype)
        self.options = options

    def arguments(self):
        o = self.options
        window = o.get("window", (-1, -1))
        return (
            o.get("scale"), o.get("bias"), o.get("alibi_slopes"), *window, o.get("causal", False),
            o.get("dropout_p", 0.0), o.get("seed", SEED),
        )  # fmt: skip

    def forward(self, ops, save=True):
        return ops.varlen_attention(
            self.q, self.kv, self.cu_q, self.cu_k, self.max_q, self.max_k, *self.arguments(), save
        )

    def reference_options(self, bias):
        o = self.options
        return reference.Options(
            o.get("scale"), bias, o.get("alibi_slopes"), o.get("window"), o.get("causal", False),
            o.get("dropout_p", 0.0), SEED, self.max_k,
        )  # fmt: skip

    def split(self, dtype):
        q, k, v = self.q.unbind(1) if self.kv is None else (self.q, *self.kv.unbind(1))
        return q.to(dtype), k.to(dtype), v.to(dtype)

    def reference_forward(self, dtype):
        bias = self.options.get("bias")
        bias = bias if bias is None or dtype != torch.float64 else bias.double()
        return reference.forward(*self.split(dtype), self.cu_q, self.cu_k, self.reference_options(bias), True)


def check_forward(ops, case):
    out, lse = case.forward(ops)
    plain, exact = case.reference_forward(case.q.dtype), case.reference_forward(torch.float64)
    assert_as_accurate(out, plain[0], exact[0], "out")
    assert lse.dtype == FLOAT32
    seen = exact[1] > -torch.inf
    assert torch.equal(lse > -torch.inf, seen)
    assert_as_accurate(lse[seen], plain[1][seen], exact[1][seen], "lse")
    return out, lse


def check(ops, case):
    check_forward(ops, case)


OPTIONS = {
    "scale": {"scale": -0.3},
    "bias": {"bias": draw(2, 67, 90, seed=8)},
    "alibi": {"alibi_slopes": torch.tensor([0.25, -0.5])},
    "causal": {"causal": True},
    "window": {"window": (3, 1)},
    "left": {"window": (20, -1), "causal": True},
    "right": {"window": (-1, 5)},
    "dropout": {"dropout_p": 0.3},
    "all": {"bias": draw(2, 67, 90, seed=9), "alibi_slopes": torch.tensor([0.1, 0.2]), "window": (50, 30), "dropout_p": 0.1},
}  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [1, 7, 8, 16, 24, 32, 64, 80, 96, 128, 136, 256])
def test_every_head_size(ops, dtype, size):
    check(ops, Case(dtype, [17, 66, 1], size=size, heads=1))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", OPTIONS)
def test_options(ops, dtype, name):
    options = dict(OPTIONS[name])
    if "bias" in options and name == "bias":
        options["bias"] = options["bias"].to(dtype)
    check(ops, Case(dtype, RAGGED, **options))
    check(ops, Case(dtype, [3, 0, 67, 5], [6, 2, 40, 0], **options))
    check(ops, Case(dtype, [3, 30, 1], [1, 90, 70], **options))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("lengths", [[], [0], [0, 0], [1], [1, 1, 1], [16, 3], [32, 17, 16], [200, 1, 129]])
def test_every_length(ops, dtype, lengths):
    check(ops, Case(dtype, lengths, heads=3))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("queries", "keys"), [([1, 2], [200, 70]), ([130, 1], [1, 9]), ([0, 4], [3, 0]), ([5], [0])])
def test_cross_attention(ops, dtype, queries, keys):
    check(ops, Case(dtype, queries, keys, heads=5, size=24))


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_row_does_not_depend_on_the_batch(ops, dtype):
    alone = Case(dtype, [17], heads=3, size=32)
    batch = Case(dtype, [70, 17, 3], heads=3, size=32)
    batch.q[70:87] = alone.q
    out, lse = alone.forward(ops)
    packed_out, packed_lse = batch.forward(ops)
    assert torch.equal(packed_out[70:87], out)
    assert torch.equal(packed_lse[70:87], lse)
