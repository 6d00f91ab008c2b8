"""PackedBatch from sequences of ids."""

import pytest
import torch

from sentcore import PackedBatch
from sentcore.errors import ArgumentTypeError


def test_five_tokens_of_three_sequences():
    batch = PackedBatch.from_sequences([[101, 7632, 102], [], torch.tensor([101, 102], dtype=torch.int32)])
    assert batch.token_ids.tolist() == [101, 7632, 102, 101, 102]
    assert batch.position_ids.tolist() == [0, 1, 2, 0, 1]
    assert batch.cu_seqlens.tolist() == [0, 3, 3, 5]
    assert batch.cu_seqlens.dtype == torch.int32
    assert batch.token_type_ids.tolist() == [0] * 5
    assert (batch.num_tokens, batch.num_sentences, batch.max_seqlen) == (5, 3, 3)


def test_nothing():
    batch = PackedBatch.from_sequences([])
    assert (batch.num_tokens, batch.num_sentences, batch.max_seqlen) == (0, 0, 0)
    assert batch.token_ids.dtype == torch.int64


@pytest.mark.parametrize("bad", [[[1, 2]], [1.5], 7, torch.ones(2)])
def test_what_is_no_row_of_ids_is_named(bad):
    with pytest.raises(ArgumentTypeError, match=r"sequences\[1\] is of shape"):
        PackedBatch.from_sequences([[1], bad])
