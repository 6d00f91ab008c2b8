"""segment_pooling_quantized's CUDA kernel: the bits of segment_pooling's kernels followed by the stages one by one."""

from __future__ import annotations

from itertools import accumulate

import numpy as np
import pytest
import torch

from kernels.emulated import SEED_VARIABLE
from sentcore.ops.segment_pooling import reference
from sentcore.ops.segment_pooling.reference import MODES, PRECISIONS
from sentcore.outputs.quantize import quantize

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
RAGGED = [17, 0, 65, 1, 2, 64, 0, 5]
ROOM = 8192  # columns a block keeps in shared memory


def draw(lengths, hidden, dtype=torch.float32):
    generator = torch.Generator().manual_seed(sum(lengths) + hidden)
    x = torch.randn(sum(lengths), hidden, generator=generator, dtype=torch.float64).to(dtype)
    return x, torch.tensor([0, *accumulate(lengths)], dtype=torch.int32)


def ranges_for(precision, width):
    if precision not in ("int8", "uint8"):
        return None
    ends = torch.rand(2, width, generator=torch.Generator().manual_seed(width)) * 0.2
    ends[0] *= -1
    ends[:, 0] = ends[0, 0]
    return ends


def scaled(ops, rows):
    """Rows [B, W] to length 1, by segment_pooling's kernel."""
    each = torch.arange(len(rows) + 1, dtype=torch.int32)
    return ops.segment_pooling(rows.contiguous(), each, "cls", 0, True)[0]


def one_by_one(ops, x, cu, mode, skip, before, width, normalize, precision, ranges):
    rows = ops.segment_pooling(x, cu, mode, skip, before)[0][:, :width]
    if normalize:
        rows = scaled(ops, rows)
    stored = quantize(rows.numpy(), precision, None if ranges is None else ranges.numpy())
    return torch.from_numpy(np.ascontiguousarray(stored)), torch.isfinite(rows).all(1)


def check(ops, x, cu, mode="mean", skip=0, before=False, width=None, normalize=False, precision="float32"):
    width = width or x.shape[1]
    arguments = (x, cu, mode, skip, before, width, normalize, precision, ranges_for(precision, width))
    found, expected = ops.segment_pooling_quantized(*arguments), one_by_one(ops, *arguments)
    assert found[0].dtype == expected[0].dtype
    torch.testing.assert_close(found[0], expected[0], rtol=0, atol=0, equal_nan=True)
    assert torch.equal(found[1], expected[1])
    return found


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("before", [False, True])
def test_every_precision(ops, precision, dtype, normalize, before):
    check(ops, *draw(RAGGED, 40, dtype), "mean", 0, before, 40, normalize, precision)
    check(ops, *draw(RAGGED, 40, dtype), "mean", 0, before, 13, normalize, precision)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("skip", [0, 3, 100])
def test_every_mode(ops, mode, skip):
    check(ops, *draw(RAGGED, 9, torch.bfloat16), mode, skip, True, 9, False, "ubinary")
    check(ops, *draw(RAGGED, 24, torch.bfloat16), mode, skip, False, 17, True, "int8")


@pytest.mark.parametrize("lengths", [[], [0], [0, 0], [1], [3, 3]], ids=str)
@pytest.mark.parametrize("hidden", [1, 7, 384, 700])
def test_sizes(ops, lengths, hidden):
    for width in {1, hidden // 2 + 1, hidden}:
        check(ops, *draw(lengths, hidden, torch.bfloat16), "mean", 0, True, width, True, "binary")
        check(ops, *draw(lengths, hidden), "max", 0, False, width, False, "uint8")


def test_rows_scaled_alone_have_the_same_bits(ops):
    """As outputs/normalize.py scales them on a GPU."""
    for hidden in (9, 384, 700):
        rows = ops.segment_pooling(*draw(RAGGED, hidden, torch.bfloat16), "mean", 0, False)[0]
        each = torch.arange(len(rows) + 1, dtype=torch.int32)
        alone = ops.segment_pooling_quantized(rows, each, "cls", 0, False, hidden, True, "float32", None)[0]
        assert torch.equal(alone, scaled(ops, rows))
        assert torch.equal(alone, check(ops, *draw(RAGGED, hidden, torch.bfloat16), normalize=True)[0])


@pytest.mark.parametrize("hidden", [ROOM, ROOM + 1, ROOM + 8])
def test_rows_that_shared_memory_has_no_room_for(ops, hidden):
    for before in (False, True):
        check(ops, *draw([2, 0, 1], hidden, torch.bfloat16), "mean", 0, before, hidden - 3, True, "ubinary")
        check(ops, *draw([2, 0, 1], hidden, torch.bfloat16), "mean", 0, before, hidden, False, "int8")


def test_bits_are_the_definitions(ops):
    x, cu = draw([5, 40, 3, 0, 1], 33, torch.bfloat16)
    for precision in ("binary", "ubinary"):
        given = {"mode": "cls", "normalize_before": True, "width": 30, "normalize": True, "precision": precision}
        expected = reference.segment_pooling_quantized(x, cu, **given)
        found = ops.segment_pooling_quantized(x, cu, "cls", 0, True, 30, True, precision, None)
        assert all(map(torch.equal, found, expected))


def test_edges_of_levels(ops):
    lows, highs = torch.tensor([-1.0, 0.0, -2.0, 3.0]), torch.tensor([1.0, 2.55, -2.0, 4.0])
    step = (highs - lows) / 255
    x = torch.stack([lows, highs, lows - 100, highs + 100, lows + step * 128, torch.zeros(4), -torch.zeros(4)])
    x = torch.cat([x, torch.nextafter(x, torch.tensor(torch.inf)), torch.nextafter(x, torch.tensor(-torch.inf))])
    cu, ranges = torch.arange(len(x) + 1, dtype=torch.int32), torch.stack((lows, highs))
    for precision in ("int8", "uint8"):
        found, finite = ops.segment_pooling_quantized(x, cu, "cls", 0, False, 4, False, precision, ranges)
        assert torch.equal(found, torch.from_numpy(quantize(x.numpy(), precision, ranges.numpy())))
        assert finite.all()


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf, 3e38])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_rows_that_are_no_numbers_are_told(ops, precision, value):
    for before, width, normalize in ((False, 9, False), (False, 4, True), (True, 9, True), (True, 4, False)):
        x, cu = draw([2, 3, 1], 9)
        x[3, 4] = value
        ends = ranges_for(precision, width)
        found, finite = ops.segment_pooling_quantized(x, cu, "max", 0, before, width, normalize, precision, ends)
        expected = reference.segment_pooling_quantized(
            x, cu, mode="max", normalize_before=before, width=width, normalize=normalize, precision=precision, ranges=ends
        )  # fmt: skip
        assert torch.equal(finite, expected[1])
        assert finite[0] and finite[2]
        if precision == "float32":
            assert torch.equal(found.isnan(), expected[0].isnan())
        else:
            assert torch.equal(found[1], expected[0][1])


def test_a_bit_is_a_value_above_zero(ops):
    tiny = float(np.float32(1e-45))
    x = torch.tensor([[0.0, -0.0, tiny, -tiny, 1.0, -1.0, torch.inf, -torch.inf, torch.nan, 2.0]])
    each = torch.tensor([0, 1], dtype=torch.int32)
    bits, finite = ops.segment_pooling_quantized(x, each, "mean", 0, False, 10, False, "ubinary", None)
    assert bits.tolist() == [[0b00101010, 0b01000000]] and finite.tolist() == [False]


def test_addresses_strides_and_the_order_of_threads_change_no_bit(ops, monkeypatch):
    x, cu = draw(RAGGED, 40, torch.bfloat16)
    shifted = torch.full((x.numel() + 1,), torch.nan, dtype=x.dtype)
    shifted[1:] = x.flatten()
    given = ("mean", 1, True, 21, True, "int8", ranges_for("int8", 21))
    first = ops.segment_pooling_quantized(x, cu, *given)
    for other in (shifted[1:].view(x.shape), x.t().contiguous().t()):
        assert all(map(torch.equal, first, ops.segment_pooling_quantized(other, cu, *given)))
    for seed in ("1", "2", "3"):
        monkeypatch.setenv(SEED_VARIABLE, seed)
        assert all(map(torch.equal, first, ops.segment_pooling_quantized(x, cu, *given)))


def test_a_sentence_has_the_same_bits_in_any_batch(ops):
    x, cu = draw([5, 40, 3], 33, torch.bfloat16)
    given = ("weightedmean", 1, True, 30, True)
    for last in (("float32", None), ("int8", ranges_for("int8", 30))):
        whole = ops.segment_pooling_quantized(x, cu, *given, *last)[0]
        alone = ops.segment_pooling_quantized(x[5:45], torch.tensor([0, 40], dtype=torch.int32), *given, *last)[0]
        assert torch.equal(alone[0], whole[1])


def test_refusals_name_argument_value_and_remedy(ops):
    x, cu = draw([3, 2], 8)
    given = ("mean", 0, False)
    for arguments, says in (
        ((*given, 9, False, "float32", None), "width is 9; accepted: 1 to 8"),
        ((*given, 8, False, "int4", None), "precision is 'int4'; accepted: float32, int8"),
        ((*given, 8, False, "int8", None), "ranges are None with precision 'int8'"),
        ((*given, 8, False, "float32", torch.zeros(2, 8)), "ranges are given with precision 'float32'"),
        ((*given, 8, False, "int8", torch.zeros(2, 7)), r"ranges has shape \[2, 7\]; accepted: \[2, 8\]"),
        ((*given, 8, False, "int8", torch.zeros(2, 8).double()), "ranges is of dtype float64; accepted: float32"),
    ):
        with pytest.raises(RuntimeError, match=f"^segment_pooling_quantized: {says}"):
            ops.segment_pooling_quantized(x, cu, *arguments)
