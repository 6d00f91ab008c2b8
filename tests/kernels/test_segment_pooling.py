"""segment_pooling's CUDA kernels, forward and backward."""

from __future__ import annotations

from itertools import accumulate

import pytest
import torch

from compare import assert_as_accurate
from kernels.emulated import SEED_VARIABLE
from sentcore.ops.segment_pooling.reference import MODES, segment_pooling, segment_pooling_backward

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
RAGGED = [17, 0, 65, 1, 2, 64, 0, 5]


def draw(lengths, hidden, dtype):
    generator = torch.Generator().manual_seed(sum(lengths) + hidden)
    x = torch.randn(sum(lengths), hidden, generator=generator, dtype=torch.float64).to(dtype)
    grad = torch.randn(len(lengths), hidden, generator=generator)
    return x, torch.tensor([0, *accumulate(lengths)], dtype=torch.int32), grad


def run(ops, x, cu, grad, mode="mean", skip=0, normalize=False):
    out, norm = ops.segment_pooling(x, cu, mode, skip, normalize)
    return out, ops.segment_pooling_backward(grad, x, cu, out, norm, mode, skip, normalize)


def define(x, cu, grad, mode, skip, normalize):
    out = segment_pooling(x, cu, mode=mode, skip=skip, normalize=normalize)
    return out, segment_pooling_backward(grad, x, cu, mode, skip, normalize)


def check(ops, x, cu, grad, mode="mean", skip=0, normalize=False):
    ours = run(ops, x, cu, grad, mode, skip, normalize)
    plain = define(x, cu, grad, mode, skip, normalize)
    exact = define(x.double(), cu, grad.double(), mode, skip, normalize)
    assert ours[0].dtype == torch.float32
    assert ours[1].dtype == x.dtype
    assert_as_accurate(ours[0], plain[0], exact[0], "out")
    assert_as_accurate(ours[1], plain[1], exact[1], "grad_x")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("normalize", [False, True])
def test_every_mode(ops, dtype, mode, normalize):
    check(ops, *draw(RAGGED, 40, dtype), mode, 0, normalize)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("skip", [1, 3, 100])
def test_tokens_left_out(ops, mode, skip):
    check(ops, *draw(RAGGED, 9, torch.float32), mode, skip, True)


@pytest.mark.parametrize("lengths", [[], [0], [0, 0], [1], [3, 3]], ids=str)
@pytest.mark.parametrize("hidden", [1, 384, 700])
def test_sizes(ops, lengths, hidden):
    check(ops, *draw(lengths, hidden, torch.bfloat16), "mean", 0, True)
    check(ops, *draw(lengths, hidden, torch.float32), "max")


@pytest.mark.parametrize("equal", [[1, 2], [5, 9], [3, 11, 19], [0, 8], [16, 23]], ids=str)
@pytest.mark.parametrize("value", [2.0, -torch.inf])
def test_of_equal_maxima_the_first_gets_the_gradient(ops, equal, value):
    x, cu = torch.full((24, 1), -3.0 if value > 0 else -torch.inf), torch.tensor([0, 24], dtype=torch.int32)
    x[equal] = value
    first = equal[0] if value > 0 else 0
    assert run(ops, x, cu, torch.ones(1, 1), "max")[1].flatten().tolist() == [float(i == first) for i in range(24)]


def test_nan_stays(ops):
    x, cu = torch.tensor([[1.0], [torch.nan], [3.0]]), torch.tensor([0, 3], dtype=torch.int32)
    for mode in ("max", "mean"):
        assert ops.segment_pooling(x, cu, mode, 0, False)[0].isnan().all()


@pytest.mark.parametrize("mode", MODES)
def test_addresses_that_packs_do_not_fit_change_no_bit(ops, mode):
    x, cu, grad = draw(RAGGED, 40, torch.bfloat16)

    def shifted(value):
        buffer = torch.full((value.numel() + 1,), torch.nan, dtype=value.dtype)
        buffer[1:] = value.flatten()
        return buffer[1:].view(value.shape)

    first = run(ops, x, cu, grad, mode, 1, True)
    for a, b, c in zip(
        first, run(ops, shifted(x), cu, grad, mode, 1, True), run(ops, x, cu, shifted(grad), mode, 1, True), strict=True
    ):
        assert torch.equal(a, b)
        assert torch.equal(a, c)


def test_weights_far_into_a_sentence(ops):
    check(ops, *draw([5000, 3], 1, torch.float32), "weightedmean", 4990)


def test_a_sentence_has_the_same_bits_in_any_batch(ops):
    x, cu, grad = draw([5, 40, 3], 33, torch.bfloat16)
    whole = run(ops, x, cu, grad, "weightedmean", 1, True)
    alone = run(ops, x[5:45], torch.tensor([0, 40], dtype=torch.int32), grad[1:2], "weightedmean", 1, True)
    assert torch.equal(alone[0][0], whole[0][1])
    assert torch.equal(alone[1], whole[1][5:45])


def test_strided_input_and_the_order_of_threads(ops, monkeypatch):
    x, cu, grad = draw(RAGGED, 40, torch.float32)
    first = run(ops, x, cu, grad, "mean", 0, True)
    turned = run(ops, x.t().contiguous().t(), cu, grad.t().contiguous().t(), "mean", 0, True)
    for seed in ("1", "2", "3"):
        monkeypatch.setenv(SEED_VARIABLE, seed)
        for a, b, c in zip(first, turned, run(ops, x, cu, grad, "mean", 0, True), strict=True):
            assert torch.equal(a, b)
            assert torch.equal(a, c)


def test_refusals_name_argument_value_and_remedy(ops):
    x, cu, _ = draw([3, 2], 8, torch.float32)
    with pytest.raises(RuntimeError, match=r"^segment_pooling: mode is 'sum'; accepted: cls, max"):
        ops.segment_pooling(x, cu, "sum", 0, False)
    with pytest.raises(RuntimeError, match=r"^segment_pooling: x is of dtype float64; accepted: float32"):
        ops.segment_pooling(x.double(), cu, "mean", 0, False)
    with pytest.raises(RuntimeError, match=r"^segment_pooling: cu_seqlens is of dtype int64; accepted: int32"):
        ops.segment_pooling(x, cu.long(), "mean", 0, False)
    with pytest.raises(RuntimeError, match=r"^segment_pooling: skip is -1; accepted: at least 0"):
        ops.segment_pooling(x, cu, "mean", -1, False)
