"""cls and last-token pooling compute only the rows they read in the last layer, to the same bits."""

from __future__ import annotations

import pytest
import torch

from folders import make_bert_folder
from sentcore import SentenceEncoder

TEXTS = ["the cat sat on the dogs", "cat", "", "我爱北京天安门 the dog", "a b c d e f g " * 9]
POOLING = {
    "cls": {"word_embedding_dimension": 32, "pooling_mode_cls_token": True},
    "lasttoken": {"word_embedding_dimension": 32, "pooling_mode_lasttoken": True},
}


@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize("mode", POOLING)
def test_the_same_as_through_all_rows(tmp_path, mode, backend, monkeypatch):
    model = SentenceEncoder(make_bert_folder(tmp_path, pooling=POOLING[mode], normalize=True), backend=backend)
    calls = []
    of_rows = type(model.model.encoder).encode_rows
    monkeypatch.setattr(
        type(model.model.encoder), "encode_rows", lambda *args: calls.append(args[2].tolist()) or of_rows(*args)
    )
    found = model.encode(TEXTS)
    assert len(calls) == 1 and len(calls[0]) == len(TEXTS)
    whole = torch.stack([item["sentence_embedding"] for item in model.encode(TEXTS, output_value=None)]).numpy()
    assert len(calls) == 1  # with token embeddings every row is wanted
    assert abs(found - whole).max() <= (0 if backend == "auto" else 1e-6)


def test_pooling_of_all_tokens_reads_all_rows(tmp_path, monkeypatch):
    model = SentenceEncoder(make_bert_folder(tmp_path))
    monkeypatch.delattr(type(model.model.encoder), "encode_rows")
    assert model.encode(TEXTS).shape == (5, 32)


def test_a_prompt_that_is_left_out_reads_all_rows(tmp_path, monkeypatch):
    pooling = POOLING["cls"] | {"include_prompt": False}
    model = SentenceEncoder(make_bert_folder(tmp_path, pooling=pooling))
    monkeypatch.delattr(type(model.model.encoder), "encode_rows")
    assert model.encode(TEXTS, prompt="dog ").shape == (5, 32)
