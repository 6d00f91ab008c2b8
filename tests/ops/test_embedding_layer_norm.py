"""embedding_layer_norm: its definition, gradients, and what torch asks of an op."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from compare import assert_as_accurate
from sentcore import ops
from sentcore.errors import ArgumentTypeError, ArgumentValueError

EPS = 1e-5


def draw(tokens, hidden, dtype=torch.float64):
    generator = torch.Generator().manual_seed(tokens)
    ids = [torch.randint(rows, (tokens,), generator=generator) for rows in (9, 5, 2)]
    tables = [torch.randn(rows, hidden, generator=generator, dtype=torch.float64).to(dtype) for rows in (9, 5, 2)]
    weight, norm_bias = torch.randn(2, hidden, generator=generator, dtype=torch.float64).to(dtype)
    return [*ids, *tables, weight + 1, norm_bias]


def with_gradients(function, arguments):
    leaves = [a.clone().requires_grad_() if a is not None and a.is_floating_point() else a for a in arguments]
    out = function(*leaves, eps=EPS)
    out.backward(torch.linspace(-1, 1, out.numel(), dtype=torch.float64).view_as(out).to(out.dtype))
    return [out, *(leaf.grad for leaf in leaves if leaf is not None and leaf.is_floating_point())]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("sizes", [(0, 8), (1, 1), (17, 33), (65, 40)], ids=str)
def test_as_accurate_as_plain_pytorch(dtype, sizes):
    arguments = draw(*sizes, dtype)
    wide = [a.double() if a.is_floating_point() else a for a in arguments]
    ours = with_gradients(ops.embedding_layer_norm, arguments)
    plain = with_gradients(ops.reference.embedding_layer_norm, arguments)
    exact = with_gradients(ops.reference.embedding_layer_norm, wide)
    for index, value in enumerate(exact):
        assert ours[index].dtype == dtype
        assert_as_accurate(ours[index], plain[index], value, f"result {index}")


def test_definition_is_the_formula():
    token, position, kind, word, places, kinds, weight, bias = draw(6, 5)
    total = F.embedding(token, word) + F.embedding(kind, kinds) + F.embedding(position, places)
    expected = F.layer_norm(total, (5,), weight, bias, EPS)
    torch.testing.assert_close(
        ops.embedding_layer_norm(token, position, kind, word, places, kinds, weight, bias, eps=EPS), expected
    )
    alone = ops.embedding_layer_norm(token, None, None, word, None, None, weight, None, eps=EPS)
    torch.testing.assert_close(alone, F.layer_norm(word[token], (5,), weight, None, EPS))


@pytest.mark.parametrize("absent", [(), (1, 4), (2, 5), (7,)])
def test_gradcheck(absent):
    arguments = draw(6, 5)
    for place in absent:
        arguments[place] = None
    floats = [i for i, a in enumerate(arguments) if a is not None and a.is_floating_point()]

    def function(*values):
        given = list(arguments)
        for place, value in zip(floats, values, strict=True):
            given[place] = value
        return ops.embedding_layer_norm(*given, eps=EPS)

    assert torch.autograd.gradcheck(function, [arguments[i].requires_grad_() for i in floats])


def test_a_frozen_table_gets_no_gradient():
    arguments = draw(6, 5)
    arguments[4].requires_grad_()
    ops.embedding_layer_norm(*arguments, eps=EPS).sum().backward()
    assert arguments[3].grad is None
    assert arguments[4].grad is not None


def test_opcheck_and_compile():
    arguments = [a.float() if a.is_floating_point() else a for a in draw(6, 5)]
    op = torch.ops.sentcore.embedding_layer_norm.default
    torch.library.opcheck(op, (*arguments, EPS, False))
    torch.library.opcheck(op, (*(a.requires_grad_() if a.is_floating_point() else a for a in arguments), EPS, True))
    torch.library.opcheck(
        torch.ops.sentcore.embedding_gradient.default, (torch.ones(6, 5), arguments[0], arguments[0].argsort(), 9)
    )
    function = torch.compile(lambda *a: ops.embedding_layer_norm(*a, eps=EPS), fullgraph=True)
    out = function(*arguments)
    torch.testing.assert_close(out, ops.reference.embedding_layer_norm(*arguments, eps=EPS))
    out.sum().backward()
    assert all(a.grad is not None for a in arguments if a.is_floating_point())


def test_wrong_arguments_are_named():
    arguments = draw(6, 5)
    for place, value, error, message in [
        (0, None, ArgumentTypeError, "token_ids is of NoneType; accepted: an int64 tensor"),
        (0, arguments[0].int(), ArgumentTypeError, r"token_ids is of torch\.int32"),
        (0, arguments[0] + 9, ArgumentValueError, "token_ids holds .*; accepted: 0 to 8, the rows of word"),
        (2, arguments[2] - 3, ArgumentValueError, "token_type_ids holds -.*; accepted: 0 to 1"),
        (1, None, ArgumentTypeError, "position is given and position_ids is None"),
        (4, arguments[4][:, :4], ArgumentValueError, r"position has shape \[5, 4\]; accepted: \[rows, 5\]"),
        (6, arguments[6].float(), ArgumentTypeError, r"weight has dtype torch\.float32"),
    ]:
        given = list(arguments)
        given[place] = value
        with pytest.raises(error, match=message):
            ops.embedding_layer_norm(*given, eps=EPS)
