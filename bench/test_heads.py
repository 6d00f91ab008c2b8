"""What features cost beside the encoder: sparse and ColBERT from the dense ones' pass, and a last layer of the rows read alone.

MiniLM's encoder, with random heads in bge-m3's form, and with the pooling "cls" in its own's place.
"""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch

import sentcore
from sentcore.checkpoint import resolve

ALL = ["sentence_embedding", "sparse", "colbert"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("heads") / "model"
    shutil.copytree(resolve("minilm"), folder)
    torch.manual_seed(0)
    for name, rows in (("sparse_linear.pt", 1), ("colbert_linear.pt", 384)):
        torch.save({"weight": torch.randn(rows, 384) / 20, "bias": torch.zeros(rows)}, folder / name)
    return sentcore.SentenceEncoder(folder, device="cpu")


@pytest.mark.benchmark(group="heads, MiniLM")
@pytest.mark.parametrize("wanted", ["sentence_embedding", ALL], ids=["dense alone", "dense, sparse and ColBERT"])
def test_one_pass(benchmark, model, texts, wanted):
    found = benchmark.pedantic(model.encode, args=(texts,), kwargs={"output_value": wanted}, rounds=5, warmup_rounds=1)
    dense = found if wanted == "sentence_embedding" else found["sentence_embedding"]
    assert np.array_equal(dense, model.encode(texts))


@pytest.fixture(scope="module")
def cls_model():
    return sentcore.SentenceEncoder("minilm", device="cpu", pooling="cls")


@pytest.mark.benchmark(group="cls pooling, MiniLM")
@pytest.mark.parametrize("rows", ["all rows", "rows read"])
def test_last_layer(benchmark, cls_model, texts, rows, monkeypatch):
    read = cls_model.encode(texts)
    if rows == "all rows":
        monkeypatch.setattr(type(cls_model.model.encoder), "reads_rows", lambda encoder: False)
    found = benchmark.pedantic(cls_model.encode, args=(texts,), rounds=5, warmup_rounds=1)
    assert np.abs(found - read).max() <= 1e-6
