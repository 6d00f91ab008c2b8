"""Packing ahead and copying beside the computing, on streams that threads stand in for: nothing is lost, mixed up or raced."""

from __future__ import annotations

import random
import threading
import time
import warnings

import numpy as np
import pytest
import torch

from folders import make_bert_folder
from sentcore import SentenceEncoder, build_info
from sentcore.packed import TokenizedTexts
from sentcore.pipeline import TokenBudget, call, run_batches, windows
from sentcore.pipeline.batches import FIRST_WINDOW, first_window
from sentcore.pipeline.in_flight import run_in_flight
from sentcore.pipeline.lane import IN_FLIGHT, Lane
from sentcore.pipeline.memory import RESTORE_AFTER
from sentcore.pipeline.streams import ThreadStreams

CPU = torch.device("cpu")
TEXTS = [f"the cat sat on {'the dog ' * (i % 7)}" for i in range(300)]


def tokens_of(lengths):
    offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
    ids = np.random.default_rng(0).integers(1, 1000, offsets[-1]).astype(np.int32)
    return TokenizedTexts(ids, offsets, None, np.zeros(len(lengths), bool))


LENGTHS = np.random.default_rng(1).integers(0, 40, 500)
TOKENS = tokens_of(LENGTHS)


def features(batch):
    """[b, 3]: what shows every id, bound and position of a batch."""
    bounds = batch.cu_seqlens.long()
    sums = torch.cat((torch.zeros(1), (batch.token_ids * (1 + batch.position_ids)).cumsum(0).float()))
    lengths = bounds.diff().float()
    return torch.stack((sums[bounds[1:]] - sums[bounds[:-1]], lengths, batch.position_ids.sum() + 0 * lengths), dim=1)


def slow(seed=0, longest=0.004):
    """A pause before every copy, so that the host runs ahead of it."""
    chosen = random.Random(seed)
    return lambda name: time.sleep(chosen.random() * longest)


@pytest.fixture
def lane():
    streams = ThreadStreams(slow())
    yield Lane(streams)
    streams.close()  # raises where there were races


def collected(lane, compute=features, tokens=TOKENS, budget=None):
    budget = TokenBudget(300) if budget is None else budget
    return [(i.tolist(), n, rows.clone()) for i, n, rows in run_in_flight(tokens, budget, lane, compute)]


def expected(compute=features, tokens=TOKENS, budget=None):
    budget = TokenBudget(300) if budget is None else budget
    return [(i.tolist(), b.num_tokens, rows) for i, b, rows in run_batches(tokens, budget, CPU, compute)]


def assert_same(found, wanted):
    assert [each[:2] for each in found] == [each[:2] for each in wanted]
    assert all(torch.equal(a[2], b[2]) for a, b in zip(found, wanted, strict=True))


# ---- run_in_flight beside run_batches ----


def test_the_batches_and_rows_of_run_batches_in_their_order(lane):
    wanted = expected()
    assert len(wanted) > 20
    assert_same(collected(lane), wanted)
    assert_same(collected(lane), wanted)  # buffers of the call before are used again


@pytest.mark.parametrize("lengths", [[], [0], [5], [0, 0, 0], [400, 1, 1], [301, 302, 303, 304]])
def test_few_and_empty_and_long_ones(lane, lengths):
    tokens = tokens_of(np.array(lengths, dtype=np.int64))
    assert_same(collected(lane, tokens=tokens), expected(tokens=tokens))


def test_buffers_grow(lane, monkeypatch):
    monkeypatch.setattr("sentcore.pipeline.lane._LEAST_WORDS", 4)
    tokens = tokens_of(np.concatenate((LENGTHS[:50], [2000, 3000])))
    for each in (TOKENS, tokens, TOKENS):
        assert_same(collected(lane, tokens=each), expected(tokens=each))


def test_the_host_is_never_far_ahead(lane):
    computed, given, ahead = 0, 0, []

    def compute(batch):
        nonlocal computed
        computed += 1
        ahead.append(computed - given)
        return features(batch)

    for _ in run_in_flight(TOKENS, TokenBudget(300), lane, compute):
        given += 1
    assert max(ahead) == IN_FLIGHT + 1
    assert len(lane._rooms) <= IN_FLIGHT + 2


def test_batches_are_packed_in_another_thread_while_one_is_computed(lane, monkeypatch):
    packed, threads = threading.Event(), set()
    pack = lane.pack

    def seen(tokens, indices, uncounted_id):
        threads.add(threading.current_thread())
        if lane._packed == 1:
            packed.set()
        return pack(tokens, indices, uncounted_id)

    monkeypatch.setattr(lane, "pack", seen)
    waited = []
    collected(lane, lambda batch: waited.append(waited or packed.wait(10)) or features(batch))
    assert waited[0] is True
    assert threading.current_thread() not in threads


# ---- queues that really run beside the host ----


def queued(streams):
    """`features`, computed some time after it was asked for."""

    def compute(batch):
        rows = torch.empty(batch.num_sentences, 3)
        streams.submit("compute", lambda: rows.copy_(features(batch)))
        return rows

    return compute


@pytest.mark.parametrize("seed", range(5))
def test_with_a_device_that_lags_behind(seed):
    streams = ThreadStreams(slow(seed), computes=True)
    lane = Lane(streams)
    for _ in range(2):
        assert_same(collected(lane, queued(streams)), expected())
    streams.close()


def test_packing_before_a_copy_has_left_is_found_out(monkeypatch):
    streams = ThreadStreams(slow(longest=0.02), computes=True)
    lane = Lane(streams)
    wait = streams.wait
    main = threading.current_thread()
    monkeypatch.setattr(streams, "wait", lambda mark: threading.current_thread() is main and wait(mark))
    monkeypatch.setattr("sentcore.pipeline.in_flight.IN_FLIGHT", 10)
    collected(lane, queued(streams))
    with pytest.raises(RuntimeError, match="found their source changed"):
        streams.close()


def test_copying_before_a_batch_was_computed_would_be_seen(monkeypatch):
    streams = ThreadStreams(lambda name: time.sleep(0.02 * (name == "compute")), computes=True)
    monkeypatch.setattr(Lane, "used", lambda self, packed: None)
    monkeypatch.setattr("sentcore.pipeline.in_flight.IN_FLIGHT", 10)
    found = collected(Lane(streams), queued(streams))
    streams.close()
    wanted = expected()
    assert not all(torch.equal(a[2], b[2]) for a, b in zip(found, wanted, strict=True))


# ---- memory ----


def failing(compute, tokens, times):
    """Runs out of memory in the first `times` batches of more than so many tokens."""
    left = [times]

    def run(batch):
        if batch.num_tokens > tokens and left[0]:
            left[0] -= 1
            raise torch.OutOfMemoryError("CUDA out of memory")
        return compute(batch)

    return run


@pytest.mark.parametrize("times", [1, 2, 7])
def test_memory_that_runs_out_halves_batches_as_always(lane, times):
    budgets = TokenBudget(300), TokenBudget(300)
    found = collected(lane, failing(features, 60, times), budget=budgets[0])
    assert_same(found, expected(failing(features, 60, times), budget=budgets[1]))
    assert sorted(index for each in found for index in each[0]) == list(range(len(TOKENS)))
    assert (budgets[0].now, budgets[0].lowest) == (budgets[1].now, budgets[1].lowest)
    assert budgets[0].lowest < 300 // 2


def test_the_budget_comes_back(lane):
    tokens = tokens_of(np.full(40 * RESTORE_AFTER, 10))
    budgets = TokenBudget(100), TokenBudget(100)
    found = collected(lane, failing(features, 30, 2), tokens, budgets[0])
    assert_same(found, expected(failing(features, 30, 2), tokens, budgets[1]))
    assert budgets[0].now == 100


def test_memory_of_the_host_that_runs_out(lane, monkeypatch):
    on_host, asked = lane.streams.on_host, []

    def scarce(count, dtype):
        asked.append(count)
        if len(asked) == 2:
            raise MemoryError()
        return on_host(count, dtype)

    monkeypatch.setattr(lane.streams, "on_host", scarce)
    budget = TokenBudget(300)
    found = collected(lane, budget=budget)
    assert sorted(index for each in found for index in each[0]) == list(range(len(TOKENS)))
    assert budget.lowest < 300


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("no more"), ValueError("wrong"), KeyboardInterrupt()])
def test_errors_come_in_their_turn(lane, error):
    """Of a sentence alone; all before it have been given."""
    tokens = tokens_of(np.array([30] * 6 + [20]))

    def compute(batch):
        if batch.num_tokens == 20:
            raise error
        return features(batch)

    found = []
    with pytest.raises(type(error)):
        for indices, _, rows in run_in_flight(tokens, TokenBudget(30), lane, compute):
            found.append((indices.tolist(), rows.clone()))
    before = [[i] for i in range(6)]
    assert [each[0] for each in found] == before[: len(found)]
    assert len(found) == 6 or isinstance(error, KeyboardInterrupt)  # which does not wait for the device
    assert not [t for t in threading.enumerate() if t.name.startswith("sentcore-ahead")]


def test_a_consumer_that_stops(lane):
    for _ in run_in_flight(TOKENS, TokenBudget(300), lane, features):
        break
    assert not [t for t in threading.enumerate() if t.name.startswith("sentcore-ahead")]
    assert_same(collected(lane), expected())


# ---- encode ----


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
    bar = type("Bar", (), {"advance": lambda self, sentences, tokens: done.append(sentences)})()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        blocks = list(encoder.encode_iter([*TEXTS, "the dog " * 100], batch_tokens=200, window=100))
        encoder.model.sentence_embedding = failing(encoder.model.sentence_embedding, 60, 1)
    assert [len(index) for index, _ in blocks] == [100, 100, 100, 1]
    assert [w.category.__name__ for w in said] == ["TruncationWarning"]
    assert bar is not None and not done


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
