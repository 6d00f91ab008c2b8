"""A layer trained in one call: as accurate as its parts, with the same dropout."""

from __future__ import annotations

import itertools

import pytest
import torch

from compare import assert_as_accurate
from sentcore._extension import extension
from sentcore.layers import whole_layer
from sentcore.ops import reference as plain_ops
from sentcore.ops.encoder_layer import WEIGHTS, encoder_layer
from sentcore.ops.encoder_layer import reference as definition

RAGGED = [0, 1, 2, 17, 64, 65, 200, 0]


@pytest.fixture(autouse=True)
def _with_kernels(monkeypatch):
    if extension() is None:
        pytest.skip("the compiled kernels are not here")
    monkeypatch.setattr(whole_layer, "_FEWEST_TOKENS", 1)


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def draw(hidden: int, inner: int, lengths: list[int], parts: int):
    """x, cu_seqlens, max_seqlen, qkv, weights."""
    generator = torch.Generator().manual_seed(0)

    def some(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator) * (shape[1] ** -0.5 if len(shape) == 2 else 0.3)

    rows = 3 * hidden // parts
    qkv = [*(some(rows, hidden) for _ in range(parts)), *(some(rows) for _ in range(parts))]
    weights = [some(hidden, hidden), some(hidden), 1 + some(hidden), some(hidden), some(inner, hidden), some(inner)]
    weights += [some(hidden, inner), some(hidden), 1 + some(hidden), some(hidden)]
    cu_seqlens = torch.tensor([0, *itertools.accumulate(lengths)], dtype=torch.int32)
    x = torch.randn(sum(lengths), hidden, generator=generator)
    return x, cu_seqlens, max(lengths), qkv, weights


def with_gradients(function, given, dtype=torch.float32, frozen=(), **options) -> list[torch.Tensor]:
    x, cu_seqlens, max_seqlen, qkv, weights = given
    leaves = [t.to(dtype).clone().requires_grad_(i not in frozen) for i, t in enumerate((x, *qkv, *weights))]
    out = function(leaves[0], cu_seqlens, max_seqlen, leaves[1 : 1 + len(qkv)], leaves[1 + len(qkv) :], **options)
    out.backward(torch.linspace(-1, 1, out.numel(), dtype=torch.float64).view_as(out).to(dtype))
    return [out.detach(), *(leaf.grad for leaf in leaves)]


def parts_with_dropout(
    x, cu_seqlens, max_seqlen, qkv, weights, *, num_heads, activation, eps, attention_dropout_p, hidden_dropout_p, seeds
):
    """The definition with the masks of its parts' definitions."""
    output, output_bias, norm, norm_bias, up, up_bias, down, down_bias, last, last_bias = weights
    half, hidden_p = len(qkv) // 2, hidden_dropout_p
    projected = plain_ops.qkv_projection(x, torch.cat(qkv[:half]), torch.cat(qkv[half:]), num_heads=num_heads)
    context = plain_ops.varlen_attention(
        projected, cu_seqlens, max_seqlen, dropout_p=attention_dropout_p, seed=seeds[0]
    ).flatten(1)
    attended = plain_ops.linear(context, output, output_bias)
    normed = plain_ops.add_layer_norm(attended, x, norm, norm_bias, dropout_p=hidden_p, seed=seeds[1], eps=eps)
    fed = plain_ops.activation_linear(plain_ops.linear(normed, up, up_bias), down, down_bias, activation=activation)
    return plain_ops.add_layer_norm(fed, normed, last, last_bias, dropout_p=hidden_p, seed=seeds[2], eps=eps)


SEEDS = [torch.tensor([1, 2]), torch.tensor([3, 4]), torch.tensor([5, 6])]


@pytest.mark.parametrize("dropped", [False, True], ids=["no dropout", "dropout"])
@pytest.mark.parametrize("activation", ["relu", "gelu", "gelu_tanh"])
@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize(
    "hidden, inner, heads, lengths",
    [(48, 80, 3, RAGGED), (40, 72, 5, [1]), (33, 7, 3, [5, 0, 9]), (128, 512, 2, [40] * 30), (6, 5, 1, [3, 30])],
    ids=str,
)
def test_as_accurate_as_its_parts_in_plain_pytorch(hidden, inner, heads, lengths, parts, activation, dropped):
    given = draw(hidden, inner, lengths, parts)
    options = {"num_heads": heads, "activation": activation, "eps": 1e-12}
    function = definition.encoder_layer
    if dropped:
        options |= {"attention_dropout_p": 0.1, "hidden_dropout_p": 0.2, "seeds": SEEDS}
        function = parts_with_dropout
    ours = with_gradients(encoder_layer, given, **options)
    plain = with_gradients(function, given, **options)
    exact = with_gradients(function, given, torch.float64, **options)
    names = ["out", "x", *(f"qkv {i}" for i in range(2 * parts)), *WEIGHTS]
    for name, *results in zip(names, ours, plain, exact, strict=True):
        assert_as_accurate(*results, name, typical=True)


@pytest.mark.parametrize("count", [2, 3, 5])
def test_the_same_bits_on_any_number_of_threads(count, threads):
    given = draw(96, 200, [1 + 7 * i % 40 for i in range(60)], 3)
    options = {"num_heads": 3, "activation": "gelu", "eps": 1e-12, "hidden_dropout_p": 0.1, "seeds": SEEDS}
    threads(1)
    expected = with_gradients(encoder_layer, given, **options)
    threads(count)
    for found, wanted in zip(with_gradients(encoder_layer, given, **options), expected, strict=True):
        assert torch.equal(found, wanted)


def test_frozen_weights_get_no_gradient_and_the_others_the_same():
    given = draw(48, 80, [9, 20], 3)
    options = {"num_heads": 3, "activation": "gelu", "eps": 1e-12}
    whole = with_gradients(encoder_layer, given, **options)
    for frozen in ({0}, {1, 2, 4, 6}, {3, 5}, {7, 11, 12, 13}, set(range(1, 17))):
        found = with_gradients(encoder_layer, given, frozen=frozen, **options)
        for place, (gradient, expected) in enumerate(zip(found[1:], whole[1:], strict=True)):
            assert gradient is None if place in frozen else torch.equal(gradient, expected)


def test_a_longer_max_seqlen_drops_what_the_parts_drop():
    x, cu_seqlens, _, qkv, weights = draw(48, 80, [9, 5], 1)
    options = {"num_heads": 3, "activation": "gelu", "eps": 1e-12, "attention_dropout_p": 0.3}
    options |= {"hidden_dropout_p": 0.0, "seeds": SEEDS}
    given = (x, cu_seqlens, 40, qkv, weights)
    torch.testing.assert_close(encoder_layer(*given, **options), parts_with_dropout(*given, **options))


def test_opcheck():
    x, cu_seqlens, max_seqlen, qkv, weights = draw(48, 80, [9, 20], 3)
    options = ("gelu", 1e-12, 0.1, 0.1, SEEDS)
    given = (x, cu_seqlens, max_seqlen, 3, qkv, weights)
    torch.library.opcheck(torch.ops.sentcore.encoder_layer.default, (*given, *options))
    saved = torch.ops.sentcore.encoder_layer.default(*given, *options)[1:]
    for needed in ([True] * 16, [False] * 16, [i % 3 == 0 for i in range(16)]):
        arguments = (torch.ones_like(x), *given, saved, *options, needed)
        torch.library.opcheck(torch.ops.sentcore.encoder_layer_backward.default, arguments)


def test_no_second_derivative():
    given = draw(48, 80, [9, 20], 1)
    x = given[0].requires_grad_()
    out = encoder_layer(x, *given[1:], num_heads=3, activation="gelu", eps=1e-12)
    (gradient,) = torch.autograd.grad(out.sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="does not require grad"):
        gradient.sum().backward()


@pytest.mark.parametrize(
    "change, message",
    [
        ({"x": lambda x: x.double()}, r"x is of dtype float64; accepted: float32"),
        ({"x": lambda x: x[:0]}, r"x is empty; accepted: at least one token"),
        ({"cu_seqlens": lambda c: c.long()}, r"cu_seqlens is of dtype int64; accepted: int32"),
        ({"cu_seqlens": lambda c: c[:-1]}, r"cu_seqlens does not run from 0 to the 29 tokens"),
        ({"max_seqlen": lambda _: 5}, r"cu_seqlens gives sentence 0 9 tokens; accepted: 0 to max_seqlen = 5"),
        ({"qkv": lambda q: q[:5]}, r"qkv holds 5 tensors; accepted: a weight and a bias, or three"),
        ({"weights": lambda w: w[:9]}, r"weights holds 9 tensors; accepted: 10"),
        ({"weights": lambda w: [w[0][1:], *w[1:]]}, r"output has shape \[47, 48\]; accepted: \[48, 48\]"),
        ({"weights": lambda w: [*w[:6], w[6].half(), *w[7:]]}, r"down is of dtype float16; accepted: float32"),
        ({"num_heads": lambda _: 5}, r"x has 48 columns for 5 heads"),
        ({"activation": lambda _: "swish"}, r"activation is 'swish'; accepted: relu, gelu, gelu_tanh"),
        ({"hidden_dropout_p": lambda _: 0.1}, r"seeds holds 0 tensors; accepted with dropout: 3"),
        ({"attention_dropout_p": lambda _: 1.0, "seeds": lambda _: SEEDS}, r"dropout_p is 1.0+; accepted: .* \[0, 1\)"),
    ],
)
def test_errors_name_argument_value_and_remedy(change, message):
    x, cu_seqlens, max_seqlen, qkv, weights = draw(48, 80, [9, 20], 3)
    arguments = {"x": x, "cu_seqlens": cu_seqlens, "max_seqlen": max_seqlen, "qkv": qkv, "weights": weights}
    arguments |= {"num_heads": 3, "activation": "gelu", "eps": 1e-12}
    for name, new in change.items():
        arguments[name] = new(arguments.get(name))
    with pytest.raises(RuntimeError, match=message):
        encoder_layer(**arguments)
