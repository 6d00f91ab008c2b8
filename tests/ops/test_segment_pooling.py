"""segment_pooling: its definition, gradients, and what torch asks of an op."""

from __future__ import annotations

from itertools import accumulate, pairwise

import pytest
import torch

from compare import assert_as_accurate
from sentcore import ops
from sentcore.errors import ArgumentTypeError, ArgumentValueError
from sentcore.ops.segment_pooling.reference import MODES

LENGTHS = [3, 0, 17, 1, 2, 65, 0]


def draw(lengths, hidden, dtype=torch.float64):
    x = torch.randn(sum(lengths), hidden, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)
    return x, torch.tensor([0, *accumulate(lengths)], dtype=torch.int32)


def by_hand(x, cu, mode, skip):
    rows = []
    for first, last in pairwise(cu.tolist()):
        tokens = x[first:last][skip:]
        weights = torch.arange(1, last - first + 1, dtype=x.dtype)[skip:, None]
        if not len(tokens):
            rows.append(torch.zeros(x.shape[1], dtype=x.dtype))
            continue
        rows.append(
            {
                "cls": lambda t=tokens: t[0],
                "lasttoken": lambda t=tokens: t[-1],
                "max": lambda t=tokens: t.amax(0),
                "mean": lambda t=tokens: t.mean(0),
                "mean_sqrt_len_tokens": lambda t=tokens: t.sum(0) / len(t) ** 0.5,
                "weightedmean": lambda t=tokens, w=weights: (t * w).sum(0) / w.sum(),
            }[mode]()
        )
    return torch.stack(rows)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("skip", [0, 2])
def test_definition_is_the_formula(mode, skip):
    x, cu = draw(LENGTHS, 5)
    torch.testing.assert_close(ops.segment_pooling(x, cu, mode=mode, skip=skip), by_hand(x, cu, mode, skip))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("normalize", [False, True])
def test_as_accurate_as_plain_pytorch(dtype, mode, normalize):
    results = []
    x, cu = draw(LENGTHS, 9, dtype)
    for room, value in ((ops, x), (ops.reference, x), (ops.reference, x.double())):
        leaf = value.clone().requires_grad_()
        out = room.segment_pooling(leaf, cu, mode=mode, skip=1, normalize=normalize)
        out.backward(torch.linspace(-1, 1, out.numel(), dtype=torch.float64).view_as(out).to(out.dtype))
        results.append((out, leaf.grad))
    assert results[0][0].dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    for ours, plain, exact in zip(*results, strict=True):
        assert_as_accurate(ours, plain, exact)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("normalize", [False, True])
def test_gradcheck(mode, normalize):
    x, cu = draw([3, 0, 4, 1], 3)
    assert torch.autograd.gradcheck(
        lambda x: ops.segment_pooling(x, cu, mode=mode, normalize=normalize), x.requires_grad_()
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("mode", MODES)
def test_a_sentence_alone_has_the_same_bits(dtype, mode):
    x, cu = draw([*LENGTHS, *range(30)], 200, dtype)
    grad_out = torch.linspace(-1, 1, (len(cu) - 1) * 200).view(-1, 200)
    results = []
    for first, last in [(0, len(x)), *pairwise(cu.tolist())]:
        leaf = x[first:last].clone().requires_grad_()
        lengths = cu if last - first == len(x) else torch.tensor([0, last - first], dtype=torch.int32)
        out = ops.segment_pooling(leaf, lengths, mode=mode, skip=1, normalize=True)
        out.backward(grad_out if lengths is cu else grad_out[len(results) - 1][None])
        results.append((out, leaf.grad))
    together, *alone = results
    assert torch.equal(together[0], torch.cat([out for out, _ in alone]))
    assert torch.equal(together[1], torch.cat([grad for _, grad in alone]))


def test_nan_and_infinity_stay_in_their_tokens():
    x, cu = draw([3, 2], 2)
    x[1], x[3] = torch.nan, torch.inf
    for room in (ops, ops.reference):
        assert torch.equal(room.segment_pooling(x, cu, mode="cls")[0], x[0])
        assert torch.equal(room.segment_pooling(x, cu, mode="lasttoken")[1], x[4])
        assert torch.equal(room.segment_pooling(x, cu, mode="mean", skip=2)[0], x[2])
        assert room.segment_pooling(x, cu)[0].isnan().all()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("lengths", [[], [0], [0, 0], [1]], ids=str)
def test_nothing_and_next_to_nothing(mode, lengths):
    x, cu = draw(lengths, 4)
    out = ops.segment_pooling(x.requires_grad_(), cu, mode=mode, normalize=True)
    assert out.shape == (len(lengths), 4)
    out.sum().backward()
    assert torch.isfinite(x.grad).all()


def test_opcheck_and_compile():
    x, cu = draw([3, 4], 5, torch.float32)
    for mode in MODES:
        torch.library.opcheck(torch.ops.sentcore.segment_pooling.default, (x.requires_grad_(), cu, mode, 1, True))
    function = torch.compile(lambda x, cu: ops.segment_pooling(x, cu, normalize=True), fullgraph=True)
    torch.testing.assert_close(function(x, cu), ops.reference.segment_pooling(x, cu, normalize=True))


def test_wrong_arguments_are_named():
    x, cu = draw([3, 4], 5)
    with pytest.raises(ArgumentValueError, match="mode is 'sum'; accepted: cls, max, mean"):
        ops.segment_pooling(x, cu, mode="sum")
    with pytest.raises(ArgumentTypeError, match=r"cu_seqlens is of torch\.int64; accepted: an int32"):
        ops.segment_pooling(x, cu.long())
    with pytest.raises(ArgumentValueError, match="skip is -1; accepted: at least 0"):
        ops.segment_pooling(x, cu, skip=-1)
    with pytest.raises(ArgumentValueError, match=r"x has shape \[7\]"):
        ops.segment_pooling(x[:, 0], cu)
