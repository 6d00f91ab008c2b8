"""Embedding texts in float32: sentence-transformers with its defaults beside both backends, in one group."""

from __future__ import annotations

import numpy as np
import pytest

import sentcore
from sentcore.checkpoint import resolve

LARGEST_DIFFERENCE = 2e-6


@pytest.fixture(scope="module")
def encoders():
    from sentence_transformers import SentenceTransformer

    return {
        "sentence-transformers": SentenceTransformer(str(resolve("minilm")), device="cpu"),
        "sentcore auto": sentcore.SentenceEncoder("minilm", device="cpu"),
        "sentcore reference": sentcore.SentenceEncoder("minilm", device="cpu", backend="reference"),
    }


@pytest.fixture(scope="module")
def expected(encoders, texts):
    return encoders["sentence-transformers"].encode(texts)


@pytest.mark.benchmark(group="encode, MiniLM, float32")
@pytest.mark.parametrize("name", ["sentence-transformers", "sentcore auto", "sentcore reference"])
def test_encode(benchmark, encoders, expected, texts, name):
    rows = benchmark.pedantic(encoders[name].encode, args=(texts,), rounds=3, warmup_rounds=1)
    difference = float(np.abs(rows - expected).max())
    benchmark.extra_info["texts"] = len(texts)
    benchmark.extra_info["sentences_per_second"] = len(texts) / benchmark.stats.stats.median
    benchmark.extra_info["max_abs_difference"] = difference
    assert difference <= LARGEST_DIFFERENCE
