"""Dense behind the pooling: a row the same bits in any batch."""

from __future__ import annotations

import pytest
import torch

from sentcore.outputs.dense import ACTIVATE, Dense
from sentcore.outputs.specs import DenseSpec


@pytest.mark.parametrize("width", [33, 64])
@pytest.mark.parametrize("activation", ACTIVATE)
def test_a_row_has_the_same_bits_alone_and_in_any_batch(activation, width):
    generator = torch.Generator().manual_seed(0)
    weight, bias = torch.randn(width, 48, generator=generator), torch.randn(width, generator=generator)
    dense = Dense(DenseSpec(weight, bias, activation))
    x = torch.randn(300, 48, generator=generator)
    before = torch.get_num_threads()
    try:
        with torch.no_grad():
            alone = torch.cat([dense(row[None]) for row in x])
            for threads, first in ((1, 0), (2, 0), (2, 7), (3, 1)):
                torch.set_num_threads(threads)
                assert torch.equal(dense(x[first:]), alone[first:])
            assert dense(x[:0]).shape == (0, width)
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(dense(x), alone)  # with gradients
