"""Embedding texts: sentence-transformers with its defaults beside sentcore's backends and dtypes, in one group."""

from __future__ import annotations

import numpy as np
import pytest

import sentcore
from sentcore.checkpoint import resolve

LARGEST_DIFFERENCE = 2e-6  # float32
LEAST_COSINE = 0.9999  # bfloat16


@pytest.fixture(scope="module")
def encoders():
    from sentence_transformers import SentenceTransformer

    return {
        "sentence-transformers": SentenceTransformer(str(resolve("minilm")), device="cpu"),
        "sentcore auto": sentcore.SentenceEncoder("minilm", device="cpu"),
        "sentcore reference": sentcore.SentenceEncoder("minilm", device="cpu", backend="reference"),
        "sentcore bfloat16": sentcore.SentenceEncoder("minilm", device="cpu", dtype="bfloat16"),
    }


@pytest.fixture(scope="module")
def expected(encoders, texts):
    return encoders["sentence-transformers"].encode(texts)


@pytest.mark.benchmark(group="encode, MiniLM")
@pytest.mark.parametrize("name", ["sentence-transformers", "sentcore auto", "sentcore reference", "sentcore bfloat16"])
def test_encode(benchmark, encoders, expected, texts, name):
    rows = benchmark.pedantic(encoders[name].encode, args=(texts,), rounds=5, warmup_rounds=1)
    difference = float(np.abs(rows - expected).max())
    benchmark.extra_info["texts"] = len(texts)
    benchmark.extra_info["sentences_per_second"] = len(texts) / benchmark.stats.stats.median
    benchmark.extra_info["max_abs_difference"] = difference
    benchmark.extra_info["min_cosine"] = cosine = float((rows * expected).sum(axis=1).min())
    if "bfloat16" in name:
        assert cosine >= LEAST_COSINE
    else:
        assert difference <= LARGEST_DIFFERENCE
