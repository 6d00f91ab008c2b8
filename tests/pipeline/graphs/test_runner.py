"""When a graph is captured, replayed and dropped, and the encoder around it."""

from __future__ import annotations

import copy
import pickle
import threading

import pytest
import torch
from torch import nn

from compare import SAME_FEATURES_FLOAT32
from folders import make_bert_folder
from graphs_of import BATCH, LARGER, run, warmed_up
from sentcore import PackedBatch, SentenceEncoder
from sentcore.pipeline.graphs import EagerCapture, GraphRunner

# ---- captured, replayed, dropped ----


def test_a_size_is_captured_when_it_is_seen_again(encoder):
    warmed_up(encoder)
    counts = run(encoder, LARGER, times=2)
    assert (counts["eager"], counts["captured"], len(encoder.graphs)) == (2, 2, 2)
    assert run(encoder, times=5)["replayed"] == 6


def test_a_result_is_not_written_over_by_the_next_replay(encoder):
    with torch.inference_mode():
        first = [encoder(BATCH) for _ in range(3)][-1]
        kept = first.clone()
        encoder(PackedBatch.from_sequences([[2, 9, 9, 3], [2, 8, 3]]))
    assert encoder.graphs.counts["replayed"] == 2
    assert torch.equal(first, kept)


@pytest.mark.parametrize("limit", [{"most_graphs": 2}, {"most_bytes": 1}])
def test_the_graph_that_was_not_used_for_longest_goes_first(encoder, limit):
    encoder.graphs = graphs = GraphRunner(EagerCapture, seen_before=0, **limit)
    most = limit.get("most_graphs", 1)
    batches = [PackedBatch.from_sequences([[5] * n]) for n in (5, 18, 35)]
    for batch in (*batches[:2], batches[0], batches[2]):
        run(encoder, batch)
    assert len(graphs) == most
    assert graphs.counts["dropped"] >= 1
    captured = graphs.counts["captured"]
    run(encoder, batches[2])
    assert graphs.counts["captured"] == captured  # still there
    if most == 2:
        run(encoder, batches[0])
        assert graphs.counts["captured"] == captured
    run(encoder, batches[1])
    assert graphs.counts["captured"] == captured + 1


CHANGES = {
    "a write": lambda e: e.model.encoder.layers[0].attention.query.weight.mul_(1.5),
    "a write to a bias": lambda e: e.model.encoder.layers[1].feed_forward.down.bias[:9].add_(0.5),
    "another tensor": lambda e: setattr(
        e.model.encoder.layers[0].attention.output, "weight", nn.Parameter(torch.randn(32, 32) / 6)
    ),
    "other data": lambda e: setattr(e.model.encoder.layers[0].attention.output.weight, "data", torch.randn(32, 32) / 6),
    "loaded weights": lambda e: e.model.load_state_dict(
        {k: v * 1.25 if v.is_floating_point() else v for k, v in e.model.state_dict().items()}
    ),
    "another dtype and back": lambda e: e.bfloat16().float(),
    "another layer norm": lambda e: setattr(
        e.model.encoder.layers[0].attention, "layer_norm", nn.LayerNorm(32, eps=0.1)
    ),
    "a layer fewer": lambda e: setattr(e.model.encoder, "layers", e.model.encoder.layers[:1]),
    "another epsilon": lambda e: setattr(e.model.encoder.layers[0].attention.layer_norm, "eps", 0.5),
    "a pooling": lambda e: setattr(
        e.model.outputs[0], "spec", type(e.model.outputs[0].spec)(("max",), include_prompt=True)
    ),
    "an optimizer's step": lambda e: _step(e),
}


def _step(encoder):
    with torch.enable_grad():
        encoder.train()
        optimizer = torch.optim.AdamW(encoder.parameters(), lr=0.05, fused=True)
        encoder(BATCH).square().sum().backward()
        optimizer.step()
        encoder.eval()


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_model_is_captured_anew(encoder, change):
    counts = warmed_up(encoder)
    with torch.no_grad():
        before = encoder(BATCH)
        CHANGES[change](encoder)
        encoder.eval()  # a new module is in training mode
    counts = run(encoder)
    assert counts["dropped"] == 1
    assert not torch.allclose(before, encoder.model(BATCH).sentence_embedding, atol=1e-4)
    counts = run(encoder, times=2)
    assert (counts["captured"], len(encoder.graphs)) == (2, 1)


def test_a_move_lets_go_of_the_old_weights_at_once(encoder):
    warmed_up(encoder)
    encoder.to("cpu").float()  # moves nothing
    assert run(encoder)["dropped"] == 0
    encoder.bfloat16()
    assert encoder.graphs.counts["dropped"] == 1
    assert encoder.graphs._state is None  # which holds them


# ---- the encoder around it ----


def test_encode_goes_by_graphs(encoder):
    texts = ["the cat", "dog", "the dog sat on the cat", ""]
    graphs, encoder.graphs = encoder.graphs, None
    wanted = encoder.encode(texts)
    encoder.graphs = graphs
    for _ in range(3):
        assert abs(encoder.encode(texts) - wanted).max() <= SAME_FEATURES_FLOAT32
    assert (graphs.counts["captured"], graphs.counts["replayed"]) == (1, 1)
    encoder.encode(texts, output_value="token_embeddings")
    encoder.encode(texts, output_value=None)
    assert graphs.counts["replayed"] == 1
    long = "the cat sat on the dog " * 30
    for _ in range(3):
        assert encoder.encode([long], chunk="mean").shape == (1, 32)
    assert graphs.counts["replayed"] >= 2  # windows of a text are sentences like others


def test_values_that_are_no_numbers_are_retried_without_graphs(tmp_path):
    encoder = SentenceEncoder(make_bert_folder(tmp_path), device="cpu", dtype="bfloat16")
    encoder.graphs = GraphRunner(EagerCapture, seen_before=0)
    with torch.no_grad():
        encoder.model.encoder.embeddings.word_embeddings.weight[5] = float("nan")
    with pytest.warns(RuntimeWarning, match="NaN or infinite"):
        encoder.encode(["the cat", "dog"])
    assert encoder.graphs.counts["captured"] == 1
    assert encoder.graphs._state.model is encoder.model


def test_copies_capture_anew(encoder):
    warmed_up(encoder)
    for other in (copy.deepcopy(encoder), pickle.loads(pickle.dumps(encoder))):
        assert len(other.graphs) == 0
        warmed_up(other)
    assert len(encoder.graphs) == 1


def test_threads_share_graphs(encoder):
    texts = [["the cat"], ["dog sat", "a"], ["the dog sat on the cat"] * 3]
    wanted = [encoder.encode(each) for each in texts]
    wrong = []

    def work(i):
        for _ in range(30):
            if abs(encoder.encode(texts[i]) - wanted[i]).max() > SAME_FEATURES_FLOAT32:
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert encoder.graphs.counts["replayed"] > 50
