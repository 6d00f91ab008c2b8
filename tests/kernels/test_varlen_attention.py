"""varlen_attention's CUDA kernels, forward and backward, on the emulated GPU."""

from __future__ import annotations

import pytest
import torch

from compare import assert_as_accurate
from kernels.emulated import SEED_VARIABLE
from sentcore.ops.varlen_attention import reference

SEED = torch.tensor([123456789012345678, 987654321])
FLOAT32, BFLOAT16, FLOAT16 = torch.float32, torch.bfloat16, torch.float16
DTYPES = [FLOAT32, BFLOAT16, FLOAT16]
RAGGED = [17, 0, 65, 1, 2, 64, 0]
MANY = [17, 66, 1, 64, 0, 33, 48, 2, 16]  # enough for the kernel for short sentences, and one that is none
CROSS = [([1, 2], [200, 70]), ([130, 1], [1, 9]), ([0, 4], [3, 0]), ([5], [0]), (MANY, [0, 9, 64, 17, 1, 33, 5, 70, 2])]


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

    def backward(self, ops, out, lse):
        return ops.varlen_attention_backward(
            self.grad, self.q, self.kv, out, lse, self.cu_q, self.cu_k, self.max_q, self.max_k, *self.arguments()
        )

    def reference_backward(self, dtype):
        """Of the definition in dtype, which is given what it saved itself."""
        bias = self.options.get("bias")
        bias = bias if bias is None or dtype != torch.float64 else bias.double()
        options = self.reference_options(bias)
        _, lse = self.reference_forward(dtype)
        q, k, v, grad_bias = reference.backward(
            self.grad.to(dtype), *self.split(dtype), lse, self.cu_q, self.cu_k, options
        )
        none = self.q.new_empty(0)
        grad_bias = none if grad_bias is None else grad_bias
        if self.kv is None:
            return torch.stack((q, k, v), 1), none, grad_bias
        return q, torch.stack((k, v), 1), grad_bias


def check_forward(ops, case):
    out, lse = case.forward(ops)
    plain, exact = case.reference_forward(case.q.dtype), case.reference_forward(torch.float64)
    assert_as_accurate(out, plain[0], exact[0], "out")
    assert lse.dtype == FLOAT32
    seen = exact[1] > -torch.inf
    assert torch.equal(lse > -torch.inf, seen)
    assert_as_accurate(lse[seen], plain[1][seen], exact[1][seen], "lse")
    return out, lse


def check_backward(ops, case, out, lse):
    grads = case.backward(ops, out, lse)
    plain, exact = case.reference_backward(case.q.dtype), case.reference_backward(torch.float64)
    for name, ours, one, other in zip(("grad_q", "grad_kv", "grad_bias"), grads, plain, exact, strict=True):
        assert ours.dtype == one.dtype
        # A bias' gradient is a sentence's probability or two, in float32: whose rounding is the largest is luck.
        assert_as_accurate(ours, one, other, name, typical=name == "grad_bias")


def check(ops, case):
    check_backward(ops, case, *check_forward(ops, case))


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
    if size <= 64:
        check(ops, Case(dtype, MANY, size=size, heads=1))


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
@pytest.mark.parametrize("lengths", [[], [0], [0, 0], [1], [1, 1, 1], [16, 3], [32, 17, 16], [200, 1, 129], MANY])
def test_every_length(ops, dtype, lengths):
    check(ops, Case(dtype, lengths, heads=3))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("queries", "keys"), CROSS)
def test_cross_attention(ops, dtype, queries, keys):
    check(ops, Case(dtype, queries, keys, heads=5, size=24))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("options", [{"window": (10, 5)}, {"causal": True, "window": (40, -1)}], ids=["both", "left"])
def test_tiles_outside_the_window(ops, dtype, options):
    check(ops, Case(dtype, [150, 3], heads=1, **options))


@pytest.mark.parametrize("dtype", [FLOAT32, BFLOAT16])
@pytest.mark.parametrize("heads", [20, 64])  # two groups of sentences, and one
def test_gradient_of_bias_over_many_sentences(ops, dtype, heads):
    case = Case(dtype, [1, 5, 0, 3, 2], heads=heads, size=8, bias=draw(heads, 130, 130, seed=11))
    check_backward(ops, case, *case.forward(ops))


@pytest.mark.parametrize("dtype", DTYPES)
def test_max_seqlen_above_every_sentence(ops, dtype):
    case = Case(dtype, [5, 18], dropout_p=0.25, bias=draw(2, 90, 83, seed=12, dtype=dtype))
    case.max_q, case.max_k = 90, 83
    check(ops, case)


def both(ops, case):
    out, lse = case.forward(ops)
    return out, lse, *case.backward(ops, out, lse)


def assert_same(left, right):
    for index, (one, other) in enumerate(zip(left, right, strict=True)):
        assert torch.equal(one, other), index


def strided(value):
    wide = torch.full((*value.shape, 2), torch.nan, dtype=value.dtype)
    wide[..., 0] = value
    return wide[..., 0]


def shifted(value):
    buffer = torch.full((value.numel() + 1,), torch.nan, dtype=value.dtype)
    buffer[1:] = value.flatten()
    return buffer[1:].view(value.shape)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("change", [strided, shifted], ids=["not-contiguous", "not-aligned"])
def test_inputs_as_they_lie_in_memory(ops, dtype, change):
    for keys in (None, [4, 17, 1]):
        options = {"bias": draw(2, 20, 18, seed=5, dtype=dtype), "alibi_slopes": torch.tensor([0.5, 0.25])}
        expected = both(ops, Case(dtype, [18, 2, 5], keys, **options))
        case = Case(dtype, [18, 2, 5], keys, **{name: change(value) for name, value in options.items()})
        case.q, case.kv, case.grad = change(case.q), case.kv if keys is None else change(case.kv), change(case.grad)
        out, lse = case.forward(ops)
        assert_same((out, lse, *case.backward(ops, change(out), strided(lse))), expected)


@pytest.mark.parametrize("dtype", [FLOAT32, FLOAT16])
def test_expanded_bias(ops, dtype):
    bias = draw(1, 1, 20, seed=6).expand(2, 20, 20)
    expected = both(ops, Case(dtype, [18, 2], bias=bias.contiguous()))
    assert_same(both(ops, Case(dtype, [18, 2], bias=bias)), expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_without_saving_nothing_but_out_comes_back(ops, dtype):
    case = Case(dtype, [17, 3])
    out, lse = case.forward(ops, save=False)
    assert torch.equal(out, case.forward(ops)[0])
    assert lse.shape == (0, 0)


@pytest.mark.parametrize(("dtype", "size"), [(BFLOAT16, 32), (FLOAT32, 40)])
def test_the_order_of_threads_changes_no_bit(ops, monkeypatch, dtype, size):
    options = {"bias": draw(3, 90, 90, seed=7), "dropout_p": 0.2}
    cases = [Case(dtype, [70, 2], [90, 3], heads=3, size=size, **options), Case(dtype, [16, 9], heads=3, size=size)]
    first = [both(ops, case) for case in cases]
    for seed in range(1, 5):
        monkeypatch.setenv(SEED_VARIABLE, str(seed))
        for case, expected in zip(cases, first, strict=True):
            assert_same(both(ops, case), expected)


@pytest.mark.parametrize(("dtype", "size"), [(BFLOAT16, 16), (BFLOAT16, 64), (FLOAT16, 128), (FLOAT32, 24), (FLOAT32, 256)])  # fmt: skip
@pytest.mark.parametrize("length", [1, 17, 40, 64])
@pytest.mark.parametrize("others", [[70, 3], MANY], ids=["few", "many"])
def test_a_row_does_not_depend_on_the_batch(ops, dtype, size, length, others):
    alone = Case(dtype, [length], heads=3, size=size)
    batch = Case(dtype, [*others, length], heads=3, size=size)
    own = slice(sum(others), None)
    batch.q[own], batch.grad[own] = alone.q, alone.grad
    for packed, single in zip(both(ops, batch)[:3], both(ops, alone)[:3], strict=True):
        assert torch.equal(packed[own], single)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"q": torch.ones(5, 3, 2, 8).double()}, r"qkv is of dtype float64; accepted: float32, bf.*\.float\(\)"),
        ({"q": torch.ones(5, 2, 8)}, r"qkv has shape \[5, 2, 8\]; accepted: 4 dimensions, \[T, 3, N, D\]"),
        ({"q": torch.ones(5, 2, 2, 8)}, r"qkv has shape \[5, 2, 2, 8\]; accepted: \[T, 3, N, D\]"),
        ({"q": torch.ones(5, 3, 2, 257)}, r"qkv has shape .*257\]; accepted: a head size D of 1 to 256"),
        ({"q": torch.ones(5, 3, 0, 8)}, r"qkv has shape .*; accepted: at least one head"),
        ({"kv": torch.ones(5, 2, 2, 8)}, r"q has shape \[5, 3, 2, 8\]; accepted: 3 dimensions, \[Tq, N, D\]"),
        ({"q": torch.ones(5, 2, 8), "kv": torch.ones(5, 2, 2, 9)}, r"kv has shape .*; accepted: \[5, 2, 2, 8\]"),
        ({"q": torch.ones(5, 2, 8), "kv": torch.ones(5, 2, 2, 8).half()}, r"kv is of dtype float16; accepted: float32"),
        ({"cu_seqlens_q": torch.tensor([0, 5])}, r"cu_seqlens_q is of dtype int64; accepted: int32"),
        ({"cu_seqlens_q": offsets([]) [:0]}, r"cu_seqlens_q is empty; accepted: \[B\+1\]"),
        ({"cu_seqlens_k": offsets([2, 3])}, r"cu_seqlens_k has shape \[3\]; accepted: \[2\]"),
        ({"max_seqlen_k": -1}, r"max_seqlen_k is -1; accepted: the longest"),
        ({"bias": torch.ones(2, 4, 5)}, r"bias has shape \[2, 4, 5\]; accepted: \[2, at least 5, at least 5\]"),
        ({"bias": torch.ones(2, 5, 5).half()}, r"bias is of dtype float16; accepted: float32"),
        ({"alibi_slopes": torch.ones(3)}, r"alibi_slopes has shape \[3\]; accepted: \[2\]"),
        ({"alibi_slopes": torch.ones(2).half()}, r"alibi_slopes is of dtype float16; accepted: float32"),
        ({"window_left": -2}, r"window is \(-2, -1\); accepted: \(left, right\)"),
        ({"scale": float("nan")}, r"scale is nan; accepted: a finite factor"),
        ({"dropout_p": 1.0}, r"dropout_p is 1\.0+; accepted: a probability in \[0, 1\)"),
        ({"dropout_p": 0.1}, r"seed is None; accepted with dropout_p > 0: an int64"),
    ],
)  # fmt: skip
def test_refusals_name_argument_value_and_remedy(ops, change, message):
    given = {
        "q": torch.ones(5, 3, 2, 8), "kv": None, "cu_seqlens_q": offsets([5]), "cu_seqlens_k": offsets([5]),
        "max_seqlen_q": 5, "max_seqlen_k": 5, "scale": None, "bias": None, "alibi_slopes": None, "window_left": -1,
        "window_right": -1, "causal": False, "dropout_p": 0.0, "seed": None,
    }  # fmt: skip
    with pytest.raises(RuntimeError, match=f"^varlen_attention: {message}"):
        ops.varlen_attention(**(given | change), save_for_backward=True)


def test_backward_refuses_what_the_forward_did_not_save(ops):
    case = Case(BFLOAT16, [5])
    out, lse = case.forward(ops)
    for change, message in [
        ({"out": out[:2]}, r"out has shape \[2, 2, 16\]; accepted: \[5, 2, 16\]"),
        ({"out": out.float()}, "out is of dtype float32; accepted: bfloat16"),
        ({"lse": lse.half()}, "lse is of dtype float16; accepted: float32"),
        ({"lse": lse[:0]}, r"lse has shape \[0, 2\]; accepted: \[5, 2\]"),
    ]:
        with pytest.raises(RuntimeError, match=f"^varlen_attention_backward: {message}"):
            case.backward(ops, **({"out": out, "lse": lse} | change))
