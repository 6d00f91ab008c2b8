"""Packing ahead and copying beside the computing, on streams that threads stand in for: nothing is lost, mixed up or raced."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
import torch

from lanes import LENGTHS, TOKENS, assert_same, collected, expected, failing, features, slow, tokens_of
from sentcore.pipeline import TokenBudget
from sentcore.pipeline.in_flight import run_in_flight
from sentcore.pipeline.lane import IN_FLIGHT, Lane
from sentcore.pipeline.memory import RESTORE_AFTER
from sentcore.pipeline.streams import ThreadStreams

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
