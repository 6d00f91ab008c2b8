"""segment_pooling_quantized: its definition is the chain of stages one by one, to the bit."""

from __future__ import annotations

from itertools import accumulate

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from sentcore import ops
from sentcore.errors import ArgumentTypeError, ArgumentValueError
from sentcore.ops.segment_pooling.reference import MODES, PRECISIONS
from sentcore.outputs import quantize

LENGTHS = [3, 0, 17, 1, 2, 65, 0]
TINY = float(np.float32(1e-45))


def draw(lengths, hidden, dtype=torch.float32, seed=0):
    x = torch.randn(sum(lengths), hidden, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)
    return x, torch.tensor([0, *accumulate(lengths)], dtype=torch.int32)


def ranges_for(precision, width, seed=0):
    """[2, W] float32 within the values, so that some lie outside; one column has no width."""
    if precision not in ("int8", "uint8"):
        return None
    ends = torch.rand(2, width, generator=torch.Generator().manual_seed(seed)) * 0.2
    ends[0] *= -1
    ends[:, 0] = ends[0, 0]
    return ends


def one_by_one(room, x, cu, mode, skip, before, width, normalize, precision, ranges):
    """(rows, finite) by the functions that `encode` calls where nothing is fused."""
    rows = room.segment_pooling(x, cu, mode=mode, skip=skip)
    if before:
        rows = F.normalize(rows, p=2.0, dim=1)
    rows = rows[:, :width]
    if normalize:
        rows = F.normalize(rows, p=2.0, dim=1)
    rows = rows.float()
    stored = quantize(rows.numpy(), precision, None if ranges is None else ranges.numpy())
    return torch.from_numpy(stored), torch.isfinite(rows).all(1)


def assert_same(found, expected):
    assert found[0].dtype == expected[0].dtype
    torch.testing.assert_close(found[0], expected[0], rtol=0, atol=0, equal_nan=True)
    assert torch.equal(found[1], expected[1])


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("width", [1, 7, 8, 21])
def test_every_stage_one_by_one(precision, mode, width):
    for seed, dtype in enumerate((torch.float32, torch.bfloat16, torch.float16, torch.float64)):
        x, cu = draw(LENGTHS, 21, dtype, seed)
        ranges = ranges_for(precision, width, seed)
        for room in (ops, ops.reference):
            for before in (False, True):
                for normalize in (False, True):
                    found = room.segment_pooling_quantized(
                        x, cu, mode=mode, skip=1, normalize_before=before, width=width, normalize=normalize,
                        precision=precision, ranges=ranges,
                    )  # fmt: skip
                    assert_same(found, one_by_one(room, x, cu, mode, 1, before, width, normalize, precision, ranges))
                    assert found[1].all()


@pytest.mark.parametrize("room", [ops, ops.reference], ids=["op", "reference"])
def test_edges_of_levels(room):
    lows, highs = torch.tensor([-1.0, 0.0, -2.0, 3.0]), torch.tensor([1.0, 2.55, -2.0, 4.0])
    step = (highs - lows) / 255
    x = torch.stack([lows, highs, lows - 100, highs + 100, lows + step * 128, torch.zeros(4), -torch.zeros(4)])
    x = torch.cat([x, torch.nextafter(x, torch.tensor(torch.inf)), torch.nextafter(x, torch.tensor(-torch.inf))])
    cu, ranges = torch.arange(len(x) + 1, dtype=torch.int32), torch.stack((lows, highs))
    for precision in ("int8", "uint8"):
        found, finite = room.segment_pooling_quantized(x, cu, mode="cls", precision=precision, ranges=ranges)
        assert torch.equal(found, torch.from_numpy(quantize(x.numpy(), precision, ranges.numpy())))
        assert finite.all()
        low = torch.iinfo(found.dtype).min
        assert (found[2] == low).all() and (found[3, [0, 1, 3]] == low + 255).all()


@pytest.mark.parametrize("room", [ops, ops.reference], ids=["op", "reference"])
def test_a_bit_is_a_value_above_zero(room):
    x = torch.tensor([[0.0, -0.0, TINY, -TINY, 1.0, -1.0, torch.inf, -torch.inf, torch.nan, 2.0]])
    bits, finite = room.segment_pooling_quantized(x, torch.tensor([0, 1], dtype=torch.int32), precision="ubinary")
    # The two last ones begin another byte, the first of them in its highest bit.
    assert bits.tolist() == [[0b00101010, 0b01000000]] and finite.tolist() == [False]
    assert np.array_equal(bits.numpy(), np.packbits(x.numpy() > 0, axis=-1))


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_rows_that_are_no_numbers_are_told(precision, value):
    x, cu = draw([2, 3, 1], 9)
    x[3, 4] = value
    for before, width, told in ((False, 9, True), (False, 4, False), (True, 9, True), (True, 4, value != value)):
        # A column that is cut away is not seen, unless its length went into the others.
        given = {"normalize_before": before, "width": width, "precision": precision}
        for room in (ops, ops.reference):
            rows, finite = room.segment_pooling_quantized(x, cu, **given, ranges=ranges_for(precision, width))
            assert finite.tolist() == [True, not told, True]
            if precision == "float32":
                assert torch.isfinite(rows).all(1).tolist() == finite.tolist()


@pytest.mark.parametrize("lengths", [[], [0], [0, 0], [1]], ids=str)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_nothing_and_next_to_nothing(lengths, precision):
    x, cu = draw(lengths, 9)
    ranges = ranges_for(precision, 9)
    for room in (ops, ops.reference):
        rows, finite = room.segment_pooling_quantized(x, cu, normalize=True, precision=precision, ranges=ranges)
        assert rows.shape == (len(lengths), 2 if "binary" in precision else 9)
        assert finite.tolist() == [True] * len(lengths)


def test_strided_input():
    x, cu = draw(LENGTHS, 12)
    ends = ranges_for("int8", 12)
    for given in ({"precision": "binary"}, {"precision": "int8", "ranges": ends}):
        expected = ops.segment_pooling_quantized(x, cu, **given)
        if "ranges" in given:
            given["ranges"] = ends.t().contiguous().t()
        assert_same(ops.segment_pooling_quantized(x.t().contiguous().t(), cu, **given), expected)


def test_opcheck_and_compile():
    x, cu = draw([3, 4], 10)
    for precision in PRECISIONS:
        arguments = (x, cu, "mean", 1, True, 9, True, precision, ranges_for(precision, 9))
        torch.library.opcheck(torch.ops.sentcore.segment_pooling_quantized.default, arguments)
    function = torch.compile(lambda x, cu: ops.segment_pooling_quantized(x, cu, precision="ubinary"), fullgraph=True)
    assert_same(function(x, cu), ops.segment_pooling_quantized(x, cu, precision="ubinary"))


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"mode": "sum"}, "mode is 'sum'; accepted: cls, max, mean"),
        ({"skip": -1}, "skip is -1; accepted: at least 0"),
        ({"width": 0}, "width is 0; accepted: 1 to 5"),
        ({"width": 6}, "width is 6; accepted: 1 to 5"),
        ({"width": True}, "width is True; accepted: 1 to 5"),
        ({"precision": "int4"}, "precision is 'int4'; accepted: float32, int8"),
        ({"precision": "int8"}, "ranges are None with precision 'int8'"),
        ({"ranges": torch.zeros(2, 5)}, "ranges are given with precision 'float32'"),
        ({"precision": "uint8", "ranges": torch.zeros(2, 4)}, r"ranges has shape \[2, 4\]; accepted: \[2, 5\]"),
        ({"precision": "uint8", "ranges": torch.zeros(2, 5).double()}, r"ranges are of torch\.float64; accepted: a float32"),
    ],
)  # fmt: skip
def test_wrong_arguments_are_named(given, says):
    with pytest.raises((ArgumentValueError, ArgumentTypeError), match=says):
        ops.segment_pooling_quantized(*draw([3, 4], 5), **given)


def test_there_is_no_gradient():
    x, cu = draw([3, 4], 5)
    with pytest.raises(ArgumentValueError, match="x requires a gradient; accepted: inference"):
        ops.segment_pooling_quantized(x.requires_grad_(), cu)
    with torch.no_grad():
        assert not ops.segment_pooling_quantized(x, cu)[0].requires_grad
