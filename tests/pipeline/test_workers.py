"""Worker processes: the bits of one process, in order, and a dead one's work is done again."""

import os
import signal
import sys
import threading

import numpy as np
import pytest

import sentcore
from folders import make_bert_folder
from sentcore.errors import ArgumentTypeError, ArgumentValueError, WorkerError

TEXTS = [f"the cat {i} sat on {'the dog ' * (i % 7)}" for i in range(400)]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    folder = make_bert_folder(tmp_path_factory.mktemp("workers") / "model", prompts={"query": "the dog "})
    invariant = sentcore.build_info()["extension"]["cpu"]
    return sentcore.SentenceEncoder(folder, device="cpu", batch_invariant=invariant)


@pytest.fixture(scope="module")
def wanted(encoder):
    return encoder.encode(TEXTS)


@pytest.fixture(scope="module")
def pool(encoder):
    with encoder.start_workers(["cpu", "cpu"]) as pool:
        yield pool


def same(encoder, found, wanted):
    if not sentcore.build_info()["extension"]["cpu"]:
        np.testing.assert_allclose(found, wanted, atol=2e-6)
    else:
        np.testing.assert_array_equal(found, wanted)


def test_the_bits_of_one_process(encoder, pool, wanted):
    same(encoder, encoder.encode(TEXTS, devices=pool), wanted)
    rows = np.concatenate([rows for _, rows in encoder.encode_iter(TEXTS, window=7, devices=pool)])
    same(encoder, rows, wanted)
    options = {"prompt_name": "query", "truncate_dim": 8, "normalize_embeddings": True}
    same(encoder, encoder.encode(TEXTS, devices=pool, **options), encoder.encode(TEXTS, **options))
    assert encoder.encode([], devices=pool).shape == (0, 32)
    assert encoder.encode(TEXTS[0], devices=pool).shape == (32,)


def test_lists_of_any_length_stay_in_order(encoder, pool, wanted):
    lists = [TEXTS[:3], [], TEXTS[3:200], TEXTS[200:201], [], TEXTS[201:]]
    found = list(encoder.encode_windows(lists, devices=pool))
    assert [len(rows) for rows in found] == [len(texts) for texts in lists]
    same(encoder, np.concatenate(found), wanted)


def test_a_bad_text_is_raised_in_its_turn(encoder, pool, wanted):
    given = []

    def collect():
        for _, rows in encoder.encode_iter([*TEXTS[:20], None], window=7, devices=pool):
            given.append(rows)

    with pytest.raises(ArgumentTypeError, match=r"sentences\[20\]"):
        collect()
    same(encoder, np.concatenate(given), wanted[:14])
    same(encoder, encoder.encode(TEXTS, devices=pool), wanted)  # answers to what was given up are dropped


def test_what_workers_have_to_say_is_said_once(encoder, pool):
    long = ["the cat " * 50] * 5 + TEXTS[:20]
    with pytest.warns(sentcore.errors.TruncationWarning, match=r"of 25 texts are longer") as said:
        encoder.encode(long, devices=pool)
    assert len(said) == 1


def test_a_killed_worker_is_said_and_its_work_done_again(encoder, pool, wanted):
    def lists():
        for k in range(0, len(TEXTS), 20):
            if k == 100:
                os.kill(pool._workers[0].process.pid, signal.SIGKILL)
            yield TEXTS[k : k + 20]

    with pytest.warns(RuntimeWarning, match="was ended by signal 9"):
        found = np.concatenate(list(encoder.encode_windows(lists(), devices=pool)))
    same(encoder, found, wanted)


def test_refusals(encoder, pool):
    with pytest.raises(ArgumentTypeError, match="devices is 'cpu'"):
        encoder.encode(TEXTS, devices="cpu")
    with pytest.raises(ArgumentValueError, match="devices is empty"):
        encoder.encode(TEXTS, devices=[])
    with pytest.raises(ArgumentValueError, match="'sentence_embedding' alone"):
        encoder.encode(TEXTS, devices=pool, output_value="token_embeddings")
    running = encoder.encode_iter(TEXTS, window=5, devices=pool)
    next(running)
    with pytest.raises(ArgumentValueError, match="another call is using"):
        encoder.encode(TEXTS, devices=pool)
    running.close()


def test_a_worker_that_cannot_start_is_an_error_and_nothing_is_left(encoder, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(WorkerError, match="ended with exit status 1 before it was ready"):
        encoder.encode(TEXTS, devices=["cpu"])
    assert threading.active_count() < 20


def test_a_closed_pool_is_refused(encoder, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/cat")
    pool = encoder.start_workers(["cpu"])
    process = pool._workers[0].process
    pool.close()
    assert process.poll() is not None
    with pytest.raises(ArgumentValueError, match="was closed"):
        encoder.encode(TEXTS, devices=pool)


def test_what_cannot_be_copied_is_refused(tmp_path):
    folder = make_bert_folder(tmp_path / "model")
    encoder = sentcore.SentenceEncoder(folder, device="cpu", words=lambda text: [text])
    with pytest.raises(ArgumentValueError, match="cannot be copied to other processes"):
        encoder.encode(TEXTS, devices=["cpu"])
