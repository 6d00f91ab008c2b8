"""What stands in for CUDA elsewhere, as it is: streams, events, captured graphs. Only where there is a GPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from folders import make_bert_folder
from graphs_of import BATCH, LARGER
from lanes import TOKENS, assert_same, expected, features
from sentcore import SentenceEncoder
from sentcore.pipeline import TokenBudget
from sentcore.pipeline.in_flight import run_in_flight
from sentcore.pipeline.lane import lane_to

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
TEXTS = [f"the cat sat on {'the dog ' * (i % 7)}" for i in range(3000)]


def on_gpu(batch):
    """`features`, by ops on the batch's device."""
    bounds = batch.cu_seqlens.long()
    zero = torch.zeros(1, device=bounds.device)
    sums = torch.cat((zero, (batch.token_ids * (1 + batch.position_ids)).cumsum(0).float()))
    lengths = bounds.diff().float()
    return torch.stack((sums[bounds[1:]] - sums[bounds[:-1]], lengths, batch.position_ids.sum() + 0 * lengths), dim=1)


def test_batches_in_flight():
    lane = lane_to(torch.device("cuda", 0))
    for budget in (300, 2000):
        wanted = expected(features, TOKENS, TokenBudget(budget))
        found = [
            (i.tolist(), n, rows.clone()) for i, n, rows in run_in_flight(TOKENS, TokenBudget(budget), lane, on_gpu)
        ]
        assert_same(found, wanted)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_graphs_and_flight_give_the_same_bits(tmp_path, dtype):
    folder = make_bert_folder(tmp_path, normalize=True)
    plain = SentenceEncoder(folder, device="cuda", dtype=dtype)
    graphs = SentenceEncoder(folder, device="cuda", dtype=dtype, cuda_graphs=True)
    for batch in (BATCH.to("cuda"), LARGER.to("cuda")) * 4:
        with torch.inference_mode():
            assert torch.equal(graphs(batch), plain(batch))
    assert graphs.graphs.counts["replayed"] >= 4
    wanted = plain.encode(TEXTS, batch_tokens=10**6)  # at once
    for batch_tokens in (500, 5000):
        assert np.array_equal(plain.encode(TEXTS, batch_tokens=batch_tokens), wanted)
        assert np.array_equal(graphs.encode(TEXTS, batch_tokens=batch_tokens), wanted)
    with torch.no_grad():
        graphs.model.encoder.layers[0].attention.query.weight.mul_(1.5)
        plain.model.encoder.layers[0].attention.query.weight.mul_(1.5)
    for _ in range(3):
        assert np.array_equal(graphs.encode(TEXTS[:3]), plain.encode(TEXTS[:3]))
    assert graphs.graphs.counts["dropped"] >= 1
