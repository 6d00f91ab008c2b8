"""gated_activation: definition, a row's bits, any width and layout, and what torch asks of an op."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

from compare import assert_as_accurate
from sentcore import _extension, ops
from sentcore.errors import ArgumentTypeError, ArgumentValueError

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
ACTIVATIONS = ["geglu", "swiglu"]
WIDTHS = [1, 7, 33, 64, 1152]
ROWS = [0, 1, 3, 129]


def draw(*shape, dtype=torch.float64, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def check(x, activation, name):
    ours, plain, exact = (
        room.gated_activation(value, activation=activation)
        for room, value in ((ops, x), (ops.reference, x), (ops.reference, x.double()))
    )
    assert ours.dtype == x.dtype and ours.is_contiguous()
    assert_as_accurate(ours, plain, exact, name)


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_cpus_run_a_kernel_of_ours():
    if _extension.extension() is None:
        pytest.skip(_extension.WHY_ABSENT)
    assert _extension.build_info()["ops"]["gated_activation"]["cpu"]["runs"] == _extension.NATIVE


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_as_accurate_as_plain_pytorch_at_every_width(dtype, activation):
    for width in WIDTHS:
        for rows in ROWS:
            check(2 * draw(rows, 2 * width, dtype=dtype), activation, f"[{rows}, 2 * {width}]")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_accurate_wherever_x_is(dtype, activation):
    lowest = [-60, -30, -12] if activation == "swiglu" else [-12]  # torch's 1 + erf is 0 below, in float64 too
    borders = [*lowest, -6, -4, -2, -1, -0.1, -1e-3, 0, 1e-3, 0.1, 1, 3, 6, 12, 100]
    for low, high in pairwise(borders):
        first = torch.linspace(low, high, 3000, dtype=torch.float64).view(3, 1000)
        check(torch.cat((first, torch.ones_like(first)), dim=1).to(dtype), activation, f"from {low} to {high}")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("width", [1, 7, 33, 1152])
def test_a_rows_bits_depend_on_the_row_alone(dtype, activation, width, threads):
    """As many rows as two threads share, however narrow they are."""
    if _extension.extension() is None:
        pytest.skip("plain PyTorch promises less")
    rows = max(129, 40_000 // width)
    x = 2 * draw(rows, 2 * width, dtype=dtype)
    threads(1)
    together = ops.gated_activation(x, activation=activation)
    for count in (1, 2):
        threads(count)
        assert torch.equal(ops.gated_activation(x, activation=activation), together)
        for begin, end in ((0, 1), (rows // 2, rows // 2 + 1), (rows - 1, rows), (5, 8), (3, rows - 2)):
            assert torch.equal(ops.gated_activation(x[begin:end], activation=activation), together[begin:end])
    if rows < 2000:
        for row in range(rows):
            assert torch.equal(ops.gated_activation(x[row : row + 1], activation=activation)[0], together[row])


@pytest.mark.parametrize("dtype", DTYPES)
def test_any_layout(dtype):
    x = draw(20, 2 * 33, dtype=dtype)
    expected = ops.gated_activation(x, activation="geglu")
    assert torch.equal(ops.gated_activation(x.t().contiguous().t(), activation="geglu"), expected)
    wider = torch.cat((x, x), dim=1)
    assert torch.equal(ops.gated_activation(wider[:, :66], activation="geglu"), expected)
    assert torch.equal(ops.gated_activation(wider[::3, 66:], activation="geglu"), expected[::3])


def test_definition_is_the_formula():
    x = draw(4, 10)
    a, b = x[:, :5], x[:, 5:]
    geglu = 0.5 * a * (1 + torch.erf(a / math.sqrt(2))) * b
    torch.testing.assert_close(ops.reference.gated_activation(x, activation="geglu"), geglu)
    torch.testing.assert_close(ops.reference.gated_activation(x, activation="swiglu"), a / (1 + torch.exp(-a)) * b)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_nan_infinity_and_large_values(dtype, activation):
    if _extension.extension() is None:
        pytest.skip("torch's GELU of infinity is NaN or not, by its place")
    first = torch.tensor([math.nan, math.inf, -math.inf, 1e4, 1.0, 1.0, -1e4, math.inf, 3.0])
    second = torch.tensor([1.0, 1.0, 1.0, 2.0, math.nan, -math.inf, 2.0, 0.0, 0.0])
    expected = torch.tensor([math.nan, math.inf, math.nan, 2e4, math.nan, -math.inf, 0.0, math.nan, 0.0]).to(dtype)
    for copies in (1, 10):  # in what is left beyond whole vectors, and in these
        x = torch.cat((first.repeat(copies), second.repeat(copies)))[None].to(dtype)
        found = ops.gated_activation(x, activation=activation)[0]
        torch.testing.assert_close(found, expected.repeat(copies), equal_nan=True, rtol=0, atol=0)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_opcheck(activation):
    torch.library.opcheck(torch.ops.sentcore.gated_activation.default, (draw(4, 10).float(), activation))


def test_compiles_as_one_graph():
    x = draw(4, 10).float()
    function = torch.compile(lambda x: ops.gated_activation(x, activation="swiglu"), fullgraph=True)
    torch.testing.assert_close(function(x), ops.reference.gated_activation(x, activation="swiglu"))


def test_wrong_arguments_are_named():
    x = torch.ones(3, 4)
    with pytest.raises(ArgumentValueError, match="activation is 'relu'; accepted: 'geglu'"):
        ops.gated_activation(x, activation="relu")
    with pytest.raises(ArgumentValueError, match=r"x has shape \[3, 5\]; accepted: \[T, 2F\], an even number"):
        ops.gated_activation(torch.ones(3, 5), activation="geglu")
    with pytest.raises(ArgumentValueError, match=r"x has shape \[4\]; accepted: \[T, 2F\]"):
        ops.gated_activation(torch.ones(4), activation="geglu")
    with pytest.raises(ArgumentTypeError, match=r"x has dtype torch\.int64"):
        ops.gated_activation(x.long(), activation="geglu")
    with pytest.raises(ArgumentValueError, match="x requires a gradient; accepted: inference"):
        ops.gated_activation(x.requires_grad_(), activation="geglu")
    with torch.no_grad():
        ops.gated_activation(x, activation="geglu")


def test_the_kernel_refuses_what_it_cannot_run():
    if _extension.extension() is None:
        pytest.skip(_extension.WHY_ABSENT)
    run = torch.ops.sentcore.gated_activation.default
    with pytest.raises(RuntimeError, match="gated_activation: x has 5 columns; accepted: an even number"):
        run(torch.ones(3, 5), "geglu")
    with pytest.raises(RuntimeError, match="gated_activation: activation is 'relu'; accepted: geglu or swiglu"):
        run(torch.ones(3, 4), "relu")
    with pytest.raises(RuntimeError, match="x has"):
        run(torch.ones(4), "geglu")
