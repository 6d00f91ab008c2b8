"""What the CPU kernels of the row-wise ops share: any width, any layout, a row's bits, NaN, and rounding to 16 bits."""

from __future__ import annotations

import pytest
import torch

from compare import assert_as_accurate
from sentcore import _extension, ops
from sentcore.errors import ArgumentValueError

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
WIDTHS = [3, 7, 8, 15, 16, 17, 31, 33, 63, 64, 65, 130, 384]
ROWS = 70  # more than a group of the sums over rows has


def draw(*shape, dtype=torch.float64, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


# name -> (op in either room, x [T, H] and the [H] that go with it); out is [T, H].
def _ids(x):
    return torch.arange(x.shape[0])


OPS = {
    "add_layer_norm": lambda room, x, a, b, c: room.add_layer_norm(x, x * 0.5, a, b, x_bias=c, eps=1e-5),
    "bias_gelu": lambda room, x, a, b, c: room.bias_gelu(x, a),
    "bias_gelu_tanh": lambda room, x, a, b, c: room.bias_gelu(x, a, approximate="tanh"),
    "bias_gelu_layer_norm": lambda room, x, a, b, c: room.bias_gelu_layer_norm(x, c, a, b, 1e-5),
    "embedding_layer_norm": lambda room, x, a, b, c: room.embedding_layer_norm(
        _ids(x), _ids(x) % 3, None, x, c.expand(3, -1), None, a, b, eps=1e-5
    ),
}


def arguments(tokens, width, dtype):
    return [draw(tokens, width, dtype=dtype), *(draw(width, dtype=dtype, seed=s) for s in (1, 2, 3))]


def results(name, room, values, grad_out):
    leaves = [v.clone().requires_grad_() for v in values]
    out = OPS[name](room, *leaves)
    out.backward(grad_out.to(out.dtype))
    return [out, *(torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in leaves)]


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    "op", ["add_layer_norm", "bias_gelu", "bias_gelu_layer_norm", "embedding_layer_norm", "segment_pooling"]
)
def test_cpus_run_a_kernel_of_ours(op):
    if _extension.extension() is None:
        pytest.skip(_extension.WHY_ABSENT)
    assert _extension.build_info()["ops"][op]["cpu"]["runs"] == _extension.NATIVE


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", OPS)
def test_every_width(dtype, name):
    for width in WIDTHS:
        rows = ROWS if width > 3 else 3  # a sum of many that cancels, alone, says nothing of its order
        values, grad_out = arguments(rows, width, dtype), draw(rows, width, seed=9).to(dtype)
        ours, plain = (results(name, room, values, grad_out) for room in (ops, ops.reference))
        exact = results(name, ops.reference, [v.double() for v in values], grad_out.double())
        for index, value in enumerate(exact):
            assert_as_accurate(ours[index], plain[index], value, f"width {width}, result {index}")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", OPS)
def test_a_rows_bits_depend_on_the_row_alone(dtype, name, threads):
    values, grad_out = arguments(ROWS, 384, dtype), draw(ROWS, 384, seed=9).to(dtype)
    threads(1)
    together = results(name, ops, values, grad_out)
    threads(4)
    assert all(torch.equal(a, b) for a, b in zip(together, results(name, ops, values, grad_out), strict=True))
    if name == "embedding_layer_norm":
        return  # rows are drawn by their place
    for row in (0, 1, 37, ROWS - 1):
        alone = results(name, ops, [values[0][row : row + 1], *values[1:]], grad_out[row : row + 1])
        assert torch.equal(alone[0][0], together[0][row])
        assert torch.equal(alone[1][0], together[1][row])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", OPS)
def test_any_layout(dtype, name):
    values, grad_out = arguments(5, 33, dtype), draw(5, 33, seed=9).to(dtype)
    expected = OPS[name](ops, *values)
    strided = [v.t().contiguous().t() if v.dim() == 2 else torch.stack((v, v), 1)[:, 0] for v in values]
    # One element behind where an allocation begins, so that no address is a multiple of a vector.
    shifted = [torch.cat((v.new_zeros(1), v.flatten()))[1:].view(v.shape) for v in values]
    for same in (strided, shifted):
        assert torch.equal(OPS[name](ops, *same), expected)
        leaf = same[0].requires_grad_()
        OPS[name](ops, leaf, *same[1:]).backward(grad_out.t().contiguous().t())
        assert torch.equal(leaf.grad, results(name, ops, values, grad_out)[1])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", OPS)
def test_nan_stays_in_its_row(dtype, name):
    values = arguments(5, 33, dtype)
    values[0][3, 32] = torch.nan
    out, grad_x, *_ = results(name, ops, values, draw(5, 33, seed=9))
    assert out[3, 32].isnan()
    assert grad_x[3, 32].isnan()
    assert not out[[0, 1, 2, 4]].isnan().any()
    assert not grad_x[[0, 1, 2, 4]].isnan().any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_every_value_of_16_bits_is_read_and_every_rounding_is_to_nearest_even(dtype):
    x = torch.arange(-(1 << 15), 1 << 15).to(torch.int16).view(dtype).view(-1, 64)
    cu_seqlens = torch.arange(x.shape[0] + 1, dtype=torch.int32)
    out = ops.segment_pooling(x, cu_seqlens, mode="cls")
    assert torch.equal(out.nan_to_num(0.5), x.float().nan_to_num(0.5))
    assert torch.equal(out.isnan(), x.isnan())
    # What is between two neighbours, in the middle, and just beside it; a CPU's bfloat16 knows no subnormal numbers.
    below = x[(x.abs() > 1e-37).all(1) & x.isfinite().all(1)].float()
    step = below.abs() * torch.finfo(dtype).eps
    for share in (0.0, 0.25, 0.4999, 0.5, 0.5001, 0.75):
        grad_out = below + share * step
        leaf = torch.zeros_like(grad_out, dtype=dtype, requires_grad=True)
        cu = torch.arange(len(leaf) + 1, dtype=torch.int32)
        ops.segment_pooling(leaf, cu, mode="cls").backward(grad_out)
        assert torch.equal(leaf.grad, grad_out.to(dtype))


def test_what_a_compiled_graph_would_not_see_is_refused_by_the_kernel():
    if _extension.extension() is None:
        pytest.skip(_extension.WHY_ABSENT)
    weight, table = torch.ones(4), torch.ones(5, 4)
    for bad in (5, -1):
        ids = torch.tensor([0, bad])
        with pytest.raises(RuntimeError, match=rf"token_ids holds {bad}; accepted: 0 to 4, the rows of word"):
            torch.ops.sentcore.embedding_layer_norm.default(
                ids, None, None, table, None, None, weight, None, 1e-5, False
            )
        with pytest.raises(RuntimeError, match=rf"ids holds {bad}; accepted: 0 to 4"):
            torch.ops.sentcore.embedding_gradient.default(torch.ones(2, 4), ids, None, 5)
    with pytest.raises(ArgumentValueError, match="token_ids holds 5"):
        ops.embedding_layer_norm(torch.tensor([5]), None, None, table, None, None, weight, None, eps=1e-5)
    for lengths in ([0, 3, 6], [0, 4, 2, 5], [1, 5]):
        with pytest.raises(RuntimeError, match=r"cu_seqlens goes from .*; accepted: from 0 to 5"):
            ops.segment_pooling(table, torch.tensor(lengths, dtype=torch.int32))
