"""embedding_layer_norm's and embedding_gradient's CUDA kernels."""

from __future__ import annotations

import pytest
import torch

from compare import assert_as_accurate
from kernels.emulated import SEED_VARIABLE
from sentcore.ops.embedding_layer_norm import reference

FLOAT32, BFLOAT16, FLOAT16 = torch.float32, torch.bfloat16, torch.float16
DTYPES = [FLOAT32, BFLOAT16, FLOAT16]
EPS = 1e-5
SIZES = [(0, 8), (1, 1), (17, 33), (9, 384), (130, 24), (3, 1032)]


def draw(tokens, hidden, dtype, parameter_dtype=None):
    generator = torch.Generator().manual_seed(tokens * 1009 + hidden)

    def normal(*shape, dtype=dtype):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    def ids(rows):
        return torch.randint(rows, (tokens,), generator=generator)

    p = parameter_dtype or dtype
    return [
        ids(50), ids(20), ids(2), normal(50, hidden), normal(20, hidden), normal(2, hidden), normal(hidden, dtype=p) + 1,
        normal(hidden, dtype=p),
    ]  # fmt: skip


def wide(arguments):
    return [a.double() if a is not None and a.is_floating_point() else a for a in arguments]


def check(ops, arguments):
    ours = ops.embedding_layer_norm(*arguments, EPS, True)
    plain = list(reference.embedding_layer_norm_forward(*arguments, EPS))
    exact = list(reference.embedding_layer_norm_forward(*wide(arguments), EPS))
    assert_as_accurate(ours[0], plain[0], exact[0], "out")
    assert_as_accurate(ours[1], plain[1], exact[1], "total")
    for results, total in (
        (plain, ours[1].float()),
        (exact, ours[1].double()),
    ):  # the statistics are those of what is saved
        results[2] = total.mean(1)
        results[3] = ((total - results[2][:, None]).square().mean(1) + EPS).rsqrt()
    assert_as_accurate(ours[2], plain[2].float(), exact[2], "mean")
    assert_as_accurate(ours[3], plain[3].float(), exact[3], "rstd")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_every_size(ops, dtype, sizes):
    check(ops, draw(*sizes, dtype))


@pytest.mark.parametrize("hidden", [24581, 24832])
def test_a_row_longer_than_shared_memory(ops, hidden):
    check(ops, draw(2, hidden, BFLOAT16))


@pytest.mark.parametrize("dtype", [BFLOAT16, FLOAT16])
def test_float32_parameters(ops, dtype):
    check(ops, draw(5, 40, dtype, FLOAT32))


@pytest.mark.parametrize("absent", [(1, 4), (2, 5), (1, 2, 4, 5), (7,)])
def test_optional_tensors(ops, absent):
    arguments = draw(7, 24, FLOAT32)
    for place in absent:
        arguments[place] = None
    check(ops, arguments)


def test_without_saving_nothing_but_out_comes_back(ops):
    arguments = draw(7, 24, BFLOAT16)
    out, *saved = ops.embedding_layer_norm(*arguments, EPS, False)
    assert torch.equal(out, ops.embedding_layer_norm(*arguments, EPS, True)[0])
    assert [tuple(t.shape) for t in saved] == [(0, 24), (0,), (0,)]


@pytest.mark.parametrize("bad", [-1, 50, 2**40])
def test_an_unknown_id_gives_a_row_of_nan_and_no_other(ops, bad):
    arguments = draw(5, 24, FLOAT32)
    good = ops.embedding_layer_norm(*arguments, EPS, False)[0]
    arguments[0][2] = bad
    out = ops.embedding_layer_norm(*arguments, EPS, False)[0]
    assert out[2].isnan().all()
    for row in (0, 1, 3, 4):
        assert torch.equal(out[row], good[row])


def gradient(ops, grad, ids, rows):
    return ops.embedding_gradient(grad, ids, ids.argsort(stable=True), rows)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("tokens", "rows"),
    [(0, 4), (1, 1), (17, 30), (64, 1), (65, 1), (128, 2), (200, 3), (333, 1), (200, 150)],
)
def test_gradients_of_tables(ops, dtype, tokens, rows):
    generator = torch.Generator().manual_seed(tokens)
    grad = torch.randn(tokens, 40, generator=generator, dtype=torch.float64).to(dtype)
    ids = torch.randint(rows, (tokens,), generator=generator)
    ours = gradient(ops, grad, ids, rows)
    exact = reference.embedding_gradient(grad.double(), ids, rows)
    assert_as_accurate(ours, reference.embedding_gradient(grad, ids, rows), exact)


def test_gradients_of_unknown_ids_go_nowhere(ops):
    grad, ids = torch.ones(4, 8), torch.tensor([0, 9, -1, 0])
    assert torch.equal(gradient(ops, grad, ids, 3), torch.tensor([2.0, 0, 0])[:, None].expand(3, 8))


def test_the_order_of_threads_changes_no_bit(ops, monkeypatch):
    arguments = draw(150, 40, BFLOAT16)
    grad = torch.randn(150, 40, generator=torch.Generator().manual_seed(0)).bfloat16()

    def everything():
        return [*ops.embedding_layer_norm(*arguments, EPS, True), gradient(ops, grad, arguments[2], 2)]

    first = everything()
    for seed in range(1, 5):
        monkeypatch.setenv(SEED_VARIABLE, str(seed))
        for a, b in zip(everything(), first, strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (0, torch.ones(5), "token_ids is of dtype float32; accepted: int64"),
        (1, None, "position_ids and position are not both given"),
        (1, torch.zeros(4, dtype=torch.int64), r"position_ids has shape \[4\]; accepted: \[5\]"),
        (3, torch.ones(50, 24).double(), "word is of dtype float64; accepted: float32"),
        (4, torch.ones(20, 23), r"position has shape \[20, 23\]; accepted: \[20, 24\]"),
        (6, torch.ones(24).half(), "weight is of dtype float16; accepted: float32"),
        (7, torch.ones(2), r"norm_bias has shape \[2\]; accepted: \[24\]"),
    ],
)
def test_refusals_name_argument_value_and_remedy(ops, place, value, message):
    arguments = draw(5, 24, FLOAT32)
    arguments[place] = value
    with pytest.raises(RuntimeError, match=f"^embedding_layer_norm: {message}"):
        ops.embedding_layer_norm(*arguments, EPS, False)
