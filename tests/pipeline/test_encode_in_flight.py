"""encode over a lane to a device: rows, progress, notes and errors as without one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cross_encoders import PAIRS, maker
from folders import make_bert_folder
from lanes import CPU, failing
from sentcore import CrossEncoder, SentenceEncoder, build_info, cross_encoder
from sentcore.errors import TruncationWarning
from sentcore.pipeline import Progress, call, windows
from sentcore.pipeline.batches import FIRST_WINDOW, first_window

TEXTS = [f"the cat sat on {'the dog ' * (i % 7)}" for i in range(300)]


@pytest.fixture
def by_lane(monkeypatch, lane):
    monkeypatch.setattr(call, "lane_to", lambda device: lane)
    return lane


@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_encode(tmp_path, backend, monkeypatch, lane):
    encoder = SentenceEncoder(make_bert_folder(tmp_path), device="cpu", backend=backend)
    texts = [*TEXTS, "", "the", ""]
    wanted = encoder.encode(texts, batch_tokens=200)
    monkeypatch.setattr(call, "lane_to", lambda device: lane)
    for options in ({}, {"normalize_embeddings": True, "truncate_dim": 8}, {"precision": "int8"}):
        monkeypatch.setattr(call, "lane_to", lambda device: None)
        wanted = encoder.encode(texts, batch_tokens=200, **options)
        monkeypatch.setattr(call, "lane_to", lambda device: lane)
        found = encoder.encode(texts, batch_tokens=200, **options)
        assert found.dtype == wanted.dtype and np.array_equal(found, wanted)
    assert lane._packed > 10
    long = ["the cat sat on the dog " * 40, *texts]
    monkeypatch.setattr(call, "lane_to", lambda device: None)
    wanted = encoder.encode(long, batch_tokens=200, chunk="mean")
    monkeypatch.setattr(call, "lane_to", lambda device: lane)
    assert np.array_equal(encoder.encode(long, batch_tokens=200, chunk="mean"), wanted)


def test_rows_may_be_trained_on(tmp_path, by_lane):
    encoder = SentenceEncoder(make_bert_folder(tmp_path), device="cpu")
    rows = encoder.encode(TEXTS, batch_tokens=200, convert_to_tensor=True)
    assert not rows.is_inference()
    weight = torch.ones(rows.shape[1], requires_grad=True)
    (rows @ weight).sum().backward()


def test_progress_notes_and_iteration(tmp_path, by_lane):
    encoder = SentenceEncoder(make_bert_folder(tmp_path), device="cpu")
    done = []
    bar = Progress(None)
    bar.advance = lambda sentences, tokens: done.append((sentences, tokens))
    with pytest.warns(TruncationWarning, match="1 of 301 texts"):
        blocks = list(
            encoder.encode_iter([*TEXTS, "the dog " * 100], batch_tokens=200, show_progress_bar=bar, window=100)
        )
    assert [len(index) for index, _ in blocks] == [100, 100, 100, 1]
    assert np.array_equal(np.concatenate([rows for _, rows in blocks])[:300], encoder.encode(TEXTS))
    assert sum(sentences for sentences, _ in done) == 301
    assert len(done) > 10 and max(tokens for _, tokens in done) <= 200


def test_memory_that_runs_out(tmp_path, by_lane):
    encoder = SentenceEncoder(make_bert_folder(tmp_path), device="cpu")
    wanted = encoder.encode(TEXTS, batch_tokens=200)
    encoder.model.sentence_embedding = failing(encoder.model.sentence_embedding, 60, 3)
    with pytest.warns(RuntimeWarning, match="memory ran out; batches of 200 tokens were made smaller"):
        assert np.array_equal(encoder.encode(TEXTS, batch_tokens=200), wanted)


def test_values_that_are_no_numbers_are_computed_again(tmp_path, by_lane):
    encoder = SentenceEncoder(make_bert_folder(tmp_path), device="cpu", dtype="bfloat16")
    with torch.no_grad():
        encoder.model.encoder.embeddings.word_embeddings.weight[7] = float("inf")  # "dog"
    with pytest.warns(RuntimeWarning, match=r"NaN or infinite \(sentences 1, 2, 3, 4, 5, ...\)"):
        rows = encoder.encode(TEXTS, batch_tokens=200)
    assert np.isfinite(rows[0]).all() and not np.isfinite(rows[1]).all()


# ---- windows ----


def test_windows_grow():
    sizes = [len(window) for window in windows(map(str, range(100)), 32, 4)]
    assert sizes == [4, 8, 16, 32, 32, 8]
    assert [len(w) for w in windows(["a"] * 7, 3)] == [3, 3, 1]
    assert [len(w) for w in windows(["a"] * 7, 3, 100)] == [3, 3, 1]
    assert first_window(CPU) is None and first_window(torch.device("cuda")) == FIRST_WINDOW


@pytest.mark.skipif(not build_info()["extension"]["cpu"], reason="needs the compiled kernels")
def test_rows_do_not_depend_on_windows(tmp_path, monkeypatch):
    encoder = SentenceEncoder(make_bert_folder(tmp_path), device="cpu")
    wanted = encoder.encode(TEXTS, precision="uint8"), encoder.encode(TEXTS)
    monkeypatch.setattr("sentcore.sentence_encoder.window_sizes", lambda *args: (128, 5))
    assert np.array_equal(encoder.encode(TEXTS), wanted[1])
    assert np.array_equal(encoder.encode(TEXTS, precision="uint8"), wanted[0])


@pytest.mark.parametrize("labels", [1, 3])
def test_scores_of_pairs(tmp_path, monkeypatch, lane, labels):
    model = CrossEncoder(maker(tmp_path)(labels), device="cpu")
    pairs, done = PAIRS * 20, []
    bar = Progress(None)
    bar.advance = lambda sentences, tokens: done.append((sentences, tokens))
    wanted = model.predict(pairs, batch_tokens=100)
    monkeypatch.setattr(cross_encoder, "lane_to", lambda device: lane)
    found = model.predict(pairs, batch_tokens=100, show_progress_bar=bar)
    assert np.array_equal(found, wanted) and lane._packed > 10
    assert sum(sentences for sentences, _ in done) == len(pairs) and max(tokens for _, tokens in done) <= 100
