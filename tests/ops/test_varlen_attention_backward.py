"""varlen_attention's backward kernel on CPUs: every option and length against float64, and the same bits wherever it runs."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from compare import assert_as_accurate
from sentcore import _extension
from sentcore.ops.varlen_attention import reference, register

RAGGED = [0, 1, 2, 17, 5, 17, 0, 33, 80]  # 80: more than a block of queries
DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
OPTIONS = {
    "plain": {},
    "scale": {"scale": -0.3},
    "bias": {"bias": True},
    "alibi": {"alibi": True},
    "causal": {"causal": True},
    "window": {"window": (3, 1)},
    "left": {"window": (20, -1), "causal": True},
    "dropout": {"dropout_p": 0.3},
    "all": {"scale": 0.4, "bias": True, "alibi": True, "causal": True, "window": (9, 2), "dropout_p": 0.2},
}
NATIVE = (
    torch.ops.sentcore.varlen_attention.default,
    torch.ops.sentcore.varlen_attention_backward.default,
)
DEFINITION = (register._forward, register._backward)

pytestmark = pytest.mark.skipif(_extension.extension() is None, reason="the compiled kernels are not here")


def draw(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def offsets(lengths):
    return torch.tensor([0, *lengths]).cumsum(0).int()


class Case:
    """What both functions are called with: qkv, or q and kv of sentences of other lengths."""

    def __init__(self, name, dtype, lengths, lengths_k=None, heads=2, size=16, bias_dtype=None):
        total, longest, options = sum(lengths), max(lengths, default=0), OPTIONS[name]
        self.lengths = (offsets(lengths), offsets(lengths if lengths_k is None else lengths_k))
        self.longest = (longest, longest if lengths_k is None else max(lengths_k))
        self.q = draw(total, *((3,) if lengths_k is None else ()), heads, size, dtype=dtype)
        self.kv = None if lengths_k is None else draw(sum(lengths_k), 2, heads, size, seed=1, dtype=dtype)
        self.grad_out = draw(total, heads, size, seed=2, dtype=dtype)
        rows, columns = self.longest
        bias = draw(heads, rows + 3, columns + 5, seed=3, dtype=bias_dtype or dtype) if "bias" in options else None
        slopes = torch.tensor([0.25, 0.5]) if "alibi" in options else None
        dropout_p = options.get("dropout_p", 0.0)
        seed = torch.tensor([5, 77]) if dropout_p else None
        window = options.get("window", (-1, -1))
        self.options = [options.get("scale"), bias, slopes, *window, options.get("causal", False), dropout_p, seed]

    def gradients(self, functions, dtype=None):
        """grad_q, grad_k, grad_v [T, N, D] and grad_bias [N, Sq, Sk] or [0]."""
        forward, backward = functions
        q, kv, grad_out, options = self.q, self.kv, self.grad_out, list(self.options)
        if dtype is not None:
            q, kv, grad_out = (None if t is None else t.to(dtype) for t in (q, kv, grad_out))
            options[1] = None if options[1] is None else options[1].to(dtype)
        rest = (*self.lengths, *self.longest, *options)
        out, lse = forward(q, kv, *rest, True)
        grad_q, grad_kv, grad_bias = backward(grad_out, q, kv, out, lse, *rest)
        return [*(grad_q.unbind(1) if kv is None else (grad_q, *grad_kv.unbind(1))), grad_bias]


def check(case):
    ours, plain = case.gradients(NATIVE), case.gradients(DEFINITION)
    exact = case.gradients(DEFINITION, torch.float64)
    for index, what in enumerate(("grad q", "grad k", "grad v", "grad bias")):
        assert ours[index].dtype == plain[index].dtype
        assert_as_accurate(ours[index], plain[index], exact[index], what)


def assert_same_bits(ours, others):
    assert all(torch.equal(a, b) for a, b in zip(ours, others, strict=True))


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_cpus_run_a_kernel_of_ours(monkeypatch):
    def never(*_):
        raise AssertionError("plain PyTorch ran")

    monkeypatch.setattr(reference, "backward", never)
    Case("plain", torch.float32, [3, 2]).gradients(NATIVE)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", OPTIONS)
def test_gradient_matches_float64(dtype, name):
    check(Case(name, dtype, RAGGED))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", OPTIONS)
def test_gradient_to_sentences_of_other_lengths_matches_float64(dtype, name):
    check(Case(name, dtype, [3, 0, 5, 40, 2, 1], [6, 2, 5, 11, 0, 90]))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["plain", "causal", "all"])
def test_gradient_of_more_keys_than_a_block(dtype, name):
    check(Case(name, dtype, [300, 600]))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [1, 7, 8, 20, 32, 33, 64, 80])
def test_gradient_of_every_head_size(dtype, size):
    check(Case("plain", dtype, RAGGED, size=size))
    check(Case("all", dtype, RAGGED, size=size))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_gradient_of_a_float32_bias(dtype):
    check(Case("bias", dtype, RAGGED, bias_dtype=torch.float32))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_key_has_probability_1_and_no_gradient(dtype):
    for name in ("plain", "bias", "alibi"):
        grad_q, grad_k, grad_v, grad_bias = (case := Case(name, dtype, [1, 0, 1, 1])).gradients(NATIVE)
        assert not grad_q.any()
        assert not grad_k.any()
        assert not grad_bias.any()
        assert torch.equal(grad_v, case.grad_out)


@pytest.mark.parametrize("name", ["plain", "bias", "all"])
def test_gradient_of_nothing(name):
    for lengths in ([], [0, 0]):
        grad_q, grad_k, grad_v, grad_bias = Case(name, torch.float32, lengths).gradients(NATIVE)
        assert grad_q.shape == grad_k.shape == grad_v.shape == (0, 2, 16)
        assert not grad_bias.any()
    *_, grad_k, grad_v, grad_bias = Case(name, torch.float32, [0, 2], [3, 2]).gradients(NATIVE)
    assert not grad_k[:3].any()
    assert not grad_v[:3].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", OPTIONS)
def test_gradient_is_the_same_bits_wherever_it_runs(dtype, name, threads):
    case = Case(name, dtype, RAGGED)
    threads(1)
    together = case.gradients(NATIVE)
    for count in (2, 3, 4):
        threads(count)
        assert_same_bits(case.gradients(NATIVE), together)
    # Strided inputs, and a gradient that does not lie row by row.
    case.q = case.q.transpose(0, 2).contiguous().transpose(0, 2)
    case.grad_out = case.grad_out.transpose(0, 1).contiguous().transpose(0, 1)
    if case.options[1] is not None:
        case.options[1] = case.options[1].transpose(1, 2).contiguous().transpose(1, 2)
    assert_same_bits(case.gradients(NATIVE), together)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["plain", "bias", "alibi", "window", "left"])
def test_gradient_of_a_sentence_alone_is_the_same_bits(dtype, name):
    lengths = [*RAGGED, 300]
    case = Case(name, dtype, lengths)
    together, cu = case.gradients(NATIVE)[:3], case.lengths[0].tolist()
    for first, last in pairwise(cu):
        alone = Case(name, dtype, [last - first])
        alone.q, alone.grad_out, alone.options = case.q[first:last], case.grad_out[first:last], case.options
        assert_same_bits(alone.gradients(NATIVE)[:3], [grad[first:last] for grad in together])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradient_of_nan_stays_in_its_sentence_and_head(dtype):
    case = Case("plain", dtype, [5, 20])
    case.q[7, 0, 1, 3] = torch.nan
    for grad in case.gradients(NATIVE)[:3]:
        bad = grad.isnan().any(-1)
        assert bad[5:, 1].any()
        assert not bad[:5].any()
        assert not bad[:, 0].any()
