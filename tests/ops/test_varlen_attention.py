"""varlen_attention: against one sentence at a time in float64, its gradients, and what torch asks of an op."""

from __future__ import annotations

import pytest
import torch

from compare import assert_as_accurate
from sentcore import ops
from sentcore.errors import ArgumentTypeError, ArgumentValueError

LENGTHS = [0, 1, 2, 17, 5, 17, 0, 33]
SEED = torch.tensor([5, 77])


def draw(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def offsets(lengths):
    return torch.tensor([0, *lengths]).cumsum(0).int()


def one_by_one(q, k, v, cu_q, cu_k, *, bias=None, alibi_slopes=None, window=None, causal=False):
    """The textbook, with a loop over sentences and heads, rows and all."""
    out = torch.zeros_like(q)
    for b in range(len(cu_q) - 1):
        rows, columns = slice(cu_q[b], cu_q[b + 1]), slice(cu_k[b], cu_k[b + 1])
        length_q, length_k = rows.stop - rows.start, columns.stop - columns.start
        for n in range(q.shape[1]):
            scores = q[rows, n] @ k[columns, n].T / q.shape[-1] ** 0.5
            for i in range(length_q):
                for j in range(length_k):
                    away = i + int(length_k - length_q) - j
                    if bias is not None:
                        scores[i, j] += bias[n, i, j]
                    if alibi_slopes is not None:
                        scores[i, j] -= alibi_slopes[n] * abs(away)
                    hidden = causal and away < 0
                    if window is not None:
                        hidden |= window[0] >= 0 and away > window[0]
                        hidden |= window[1] >= 0 and -away > window[1]
                    if hidden:
                        scores[i, j] = -torch.inf
            weights = torch.nan_to_num(torch.softmax(scores, dim=-1))
            out[rows, n] = weights @ v[columns, n]
    return out


OPTIONS = {
    "plain": {},
    "bias": {"bias": draw(2, 40, 40, seed=8)},
    "alibi": {"alibi_slopes": torch.tensor([0.25, 0.5])},
    "causal": {"causal": True},
    "window": {"window": (3, 1)},
    "left": {"window": (2, -1), "causal": True},
}


@pytest.mark.parametrize("room", [ops, ops.reference], ids=["op", "reference"])
@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("shuffled", [False, True])
def test_matches_one_sentence_at_a_time(room, name, shuffled):
    lengths = LENGTHS if shuffled else sorted(LENGTHS, reverse=True)
    qkv, cu = draw(sum(lengths), 3, 2, 8), offsets(lengths)
    expected = one_by_one(*qkv.unbind(1), cu, cu, **OPTIONS[name])
    torch.testing.assert_close(room.varlen_attention(qkv, cu, 33, **OPTIONS[name]), expected)
    with_grad = room.varlen_attention(qkv.clone().requires_grad_(), cu, 33, **OPTIONS[name])
    torch.testing.assert_close(with_grad, expected)


@pytest.mark.parametrize("room", [ops, ops.reference], ids=["op", "reference"])
@pytest.mark.parametrize("name", OPTIONS)
def test_cross_attention_matches_one_sentence_at_a_time(room, name):
    lengths_q, lengths_k = [3, 0, 5, 4, 2], [6, 2, 5, 1, 0]
    q, kv = draw(sum(lengths_q), 2, 8), draw(sum(lengths_k), 2, 2, 8, seed=1)
    cu_q, cu_k = offsets(lengths_q), offsets(lengths_k)
    out = room.varlen_cross_attention(q, kv, cu_q, cu_k, 5, 6, **OPTIONS[name])
    torch.testing.assert_close(out, one_by_one(q, *kv.unbind(1), cu_q, cu_k, **OPTIONS[name]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["plain", "bias", "dropout"])
def test_as_accurate_as_plain_pytorch(dtype, name):
    options = {"dropout_p": 0.2, "seed": SEED} if name == "dropout" else dict(OPTIONS[name])
    cu, grad_out = offsets(LENGTHS), draw(sum(LENGTHS), 2, 16, seed=3)
    base = draw(sum(LENGTHS), 3, 2, 16).to(dtype)

    def run(room, dtype):
        qkv = base.detach().clone().to(dtype).requires_grad_()
        given = {k: v.to(dtype) if k == "bias" else v for k, v in options.items()}
        out = room.varlen_attention(qkv, cu, 33, **given)
        out.backward(grad_out.to(dtype))
        return out, qkv.grad

    ours, plain, exact = run(ops, dtype), run(ops.reference, dtype), run(ops.reference, torch.float64)
    for index, what in enumerate(("out", "grad qkv")):
        assert_as_accurate(ours[index], plain[index], exact[index], what)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("size", [1, 8, 20, 24, 32, 33, 64, 80])
def test_every_head_size_and_number_of_keys(dtype, size):
    lengths = [1, 3, 16, 31, 65, 300, 530]  # more than a block of keys: 300, and by matrix tiles 530
    qkv, cu = draw(sum(lengths), 3, 2, size, dtype=dtype), offsets(lengths)
    with torch.no_grad():
        ours = ops.varlen_attention(qkv, cu, 530)
        apart = ops.varlen_attention(qkv.transpose(0, 1).contiguous().transpose(0, 1), cu, 530)
        plain, exact = (ops.reference.varlen_attention(x, cu, 530) for x in (qkv, qkv.double()))
    assert_as_accurate(ours, plain, exact)
    assert torch.equal(ours, apart)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("given", [{"window": (3, 5)}, {"causal": True}, {"window": (600, 40)}], ids=str)
def test_blocks_of_keys_that_a_row_does_not_see(dtype, given):
    qkv, cu = draw(1100, 3, 1, 32, dtype=dtype), offsets([1090, 10])
    with torch.no_grad():
        ours = ops.varlen_attention(qkv, cu, 1090, **given)
        plain, exact = (ops.reference.varlen_attention(x, cu, 1090, **given) for x in (qkv, qkv.double()))
    assert_as_accurate(ours, plain, exact)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["plain", "window"])
def test_nan_comes_out(dtype, name):
    qkv, cu = draw(25, 3, 2, 8, dtype=dtype), offsets([5, 20])
    qkv[7, 0, 1, 3] = torch.nan  # of a query alone: no value brings it in
    with torch.no_grad():
        out = ops.varlen_attention(qkv, cu, 20, **OPTIONS[name])
    bad = out.isnan().nonzero()
    assert {(int(token), int(head)) for token, head, _ in bad} == {(7, 1)}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("length", [1, 4, 30, 50, 80, 300])
def test_a_row_whose_scores_all_overflow_is_zero(dtype, length):
    qkv = draw(length + 3, 3, 2, 32).to(dtype)
    huge = torch.finfo(dtype).max / 4
    qkv[:length, 0], qkv[:length, 1] = -huge, huge
    cu_seqlens = offsets([length, 3])
    with torch.no_grad():
        ours, plain = (room.varlen_attention(qkv, cu_seqlens, length + 3) for room in (ops, ops.reference))
    assert (ours[:length] == 0).all() and (plain[:length] == 0).all()
    assert_as_accurate(
        ours[length:], plain[length:], ops.reference.varlen_attention(qkv.double(), cu_seqlens, length + 3)[length:]
    )


@pytest.mark.parametrize("name", [*OPTIONS, "dropout"])
def test_gradcheck(name):
    options = {"dropout_p": 0.3, "seed": SEED} if name == "dropout" else dict(OPTIONS[name])
    qkv, cu = draw(9, 3, 2, 4).requires_grad_(), offsets([3, 0, 1, 3, 2])
    bias = draw(2, 4, 4, seed=8).requires_grad_()

    def function(qkv, bias):
        if name == "bias":
            options["bias"] = bias
        return ops.varlen_attention(qkv, cu, 3, **options)

    assert torch.autograd.gradcheck(function, (qkv, bias if name == "bias" else bias.detach()))


def test_dropout_is_the_same_packed_alone_or_by_backend():
    qkv, cu = draw(9, 3, 2, 4).requires_grad_(), offsets([3, 4, 2])
    options = {"dropout_p": 0.4, "seed": SEED}
    out = ops.varlen_attention(qkv, cu, 4, **options)
    torch.testing.assert_close(out, ops.reference.varlen_attention(qkv, cu, 4, **options))
    assert not torch.allclose(out, ops.varlen_attention(qkv, cu, 4))


def test_opcheck_and_compile():
    qkv, cu = draw(9, 3, 2, 4, dtype=torch.float32).requires_grad_(), offsets([3, 4, 2])
    bias = draw(2, 4, 4, dtype=torch.float32).requires_grad_()
    op = torch.ops.sentcore.varlen_attention.default
    torch.library.opcheck(op, (qkv, None, cu, cu, 4, 4, None, bias, None, -1, -1, False, 0.0, None, True))
    torch.library.opcheck(op, (qkv.detach(), None, cu, cu, 4, 4, 0.5, None, None, 1, 1, True, 0.0, None, False))
    function = torch.compile(lambda qkv: ops.varlen_attention(qkv, cu, 4), fullgraph=True)
    out = function(qkv)
    torch.testing.assert_close(out, ops.reference.varlen_attention(qkv, cu, 4))
    out.sum().backward()
    assert qkv.grad is not None


def test_empty_batch():
    out = ops.varlen_attention(torch.empty(0, 3, 2, 8), offsets([]), 0)
    assert out.shape == (0, 2, 8)
    assert ops.varlen_attention(torch.empty(0, 3, 2, 8), offsets([0, 0]), 0).shape == (0, 2, 8)


def test_wrong_arguments_are_named():
    qkv, cu = torch.ones(5, 3, 2, 4), offsets([2, 3])
    with pytest.raises(ArgumentTypeError, match=r"cu_seqlens is of torch.int64"):
        ops.varlen_attention(qkv, cu.long(), 3)
    with pytest.raises(ArgumentValueError, match=r"qkv has shape \[5, 2, 4\]"):
        ops.varlen_attention(qkv[:, 0], cu, 3)
    with pytest.raises(ArgumentValueError, match=r"bias has shape \[2, 2, 2\]"):
        ops.varlen_attention(qkv, cu, 3, bias=torch.ones(2, 2, 2))
    with pytest.raises(ArgumentValueError, match=r"window is \(-2, 0\)"):
        ops.varlen_attention(qkv, cu, 3, window=(-2, 0))
    with pytest.raises(ArgumentValueError, match="cu_seqlens_k has shape"):
        ops.varlen_cross_attention(qkv[:, 0], qkv[:, 1:], cu, offsets([5]), 3, 5)
