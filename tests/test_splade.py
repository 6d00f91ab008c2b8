"""SPLADE folders against sentence_transformers.SparseEncoder on the same folder."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import sentcore
from folders import change
from heads import TEXTS, make_splade
from sentcore.errors import ArgumentValueError, CheckpointError
from sentcore.outputs import splade

st = pytest.importorskip("sentence_transformers")

FAMILIES = ["bert", "bert-tanh", "distilbert", "roberta", "xlm-roberta", "camembert", "mpnet", "modernbert"]


def dense(rows: list[dict], width: int) -> np.ndarray:
    """[B, V] of dicts."""
    out = np.zeros((len(rows), width), np.float32)
    for row, weights in zip(out, rows, strict=True):
        row[list(weights)] = list(weights.values())
    return out


def compare(folder, texts=TEXTS, **options) -> None:
    ours = sentcore.SentenceEncoder(folder, device="cpu", **options).encode(
        texts, output_value="sparse", batch_tokens=40
    )
    theirs = st.SparseEncoder(str(folder), device="cpu").encode(texts, convert_to_sparse_tensor=False).numpy()
    assert 0.05 < (theirs > 0).mean() < 0.999
    assert all(min(row.values()) > 0 for row in ours)
    np.testing.assert_allclose(dense(ours, theirs.shape[1]), theirs, atol=1e-5 * max(1.0, theirs.max()))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family(tmp_path, family):
    compare(make_splade(tmp_path, family))


@pytest.mark.parametrize("generation", ["first", "second", "third"])
@pytest.mark.parametrize("strategy", ["max", "sum"])
@pytest.mark.parametrize("function", ["relu", "log1p_relu"])
def test_poolings_and_generations(tmp_path, generation, strategy, function):
    pooling = {"pooling_strategy": strategy, "activation_function": function, "embedding_dimension": 100}
    compare(make_splade(tmp_path, "bert", pooling, generation))


def test_plain_pytorch(tmp_path):
    compare(make_splade(tmp_path / "a", "bert"), backend="reference")
    compare(make_splade(tmp_path / "b", "bert-tanh"), backend="reference")


@pytest.mark.parametrize("strategy", ["max", "sum"])
def test_logits_are_bounded(tmp_path, monkeypatch, strategy):
    """With room for five tokens' logits a longer sentence is computed in slices, shorter ones together."""
    folder = make_splade(tmp_path, "roberta", {"pooling_strategy": strategy})
    monkeypatch.setitem(splade.LOGITS, "cpu", 500)
    seen = []
    original = splade.Splade._logits
    monkeypatch.setattr(splade.Splade, "_logits", lambda self, x: seen.append(len(x)) or original(self, x))
    compare(folder)
    assert max(seen) == 5 and len(set(seen)) > 1


def test_a_decoder_of_its_own(tmp_path):
    """Another weight than the word embeddings' is used, though the config says tied: transformers' rule."""
    folder = make_splade(tmp_path, "bert")
    tensors = load_file(folder / "model.safetensors")
    tensors["cls.predictions.decoder.weight"] = torch.randn(100, 48) / 6
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    compare(folder)
    model = sentcore.SentenceEncoder(folder, device="cpu")
    assert not model.model.sparse.tied
    model.save_pretrained(tmp_path / "again")
    compare(tmp_path / "again")


@pytest.mark.parametrize("family", ["bert", "distilbert", "camembert", "mpnet", "modernbert"])
def test_saved_and_read_back(tmp_path, family):
    model = sentcore.SentenceEncoder(make_splade(tmp_path / "one", family, generation="third"), device="cpu")
    model.save_pretrained(tmp_path / "two")
    again = sentcore.SentenceEncoder(tmp_path / "two", device="cpu")
    assert again.encode(TEXTS, output_value="sparse") == model.encode(TEXTS, output_value="sparse")
    compare(tmp_path / "two")
    assert (
        json.loads((tmp_path / "two" / "config_sentence_transformers.json").read_text())["similarity_fn_name"] is None
    )


def test_tied_embeddings_are_shared_and_stay_float32_beside_half(tmp_path):
    folder = make_splade(tmp_path, "bert")
    model = sentcore.SentenceEncoder(folder, device="cpu")
    words = model.model.encoder.embeddings.word_embeddings.weight
    assert model.model.sparse.decoder.weight is words
    half = sentcore.SentenceEncoder(folder, device="cpu", dtype="bfloat16")
    assert torch.equal(half.model.sparse.decoder.weight, words)
    a, b = (dense(m.encode(TEXTS, output_value="sparse"), 100) for m in (model, half))
    cosines = (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    assert cosines.min() > 0.99


def test_what_it_has_not_is_refused(tmp_path):
    model = sentcore.SentenceEncoder(make_splade(tmp_path, "bert"), device="cpu")
    says = "accepted for this model: 'token_embeddings', 'sparse'. Its folder names no Pooling"
    for value in ("sentence_embedding", None, ["sparse", "sentence_embedding"]):
        with pytest.raises(ArgumentValueError, match=says):
            model.encode("the cat", output_value=value)
    with pytest.raises(ArgumentValueError, match=says):
        next(model.encode_iter(["the cat"]))
    with pytest.raises(ArgumentValueError, match=says):
        model.get_sentence_embedding_dimension()
    with pytest.raises(ArgumentValueError, match="no colbert_linear"):
        model.encode("the cat", output_value="colbert")
    assert model.decode_sparse({4: 0.5, 99: 0.25}) == {"the": 0.5, "[id 99]": 0.25}


def test_damaged_folders_are_refused(tmp_path):
    folder = make_splade(tmp_path, "bert")
    pooling = folder / "1_SpladePooling" / "config.json"
    for field, value in (("pooling_strategy", "mean"), ("activation_function", "gelu"), ("embedding_dimension", 99)):
        before = pooling.read_text()
        change(pooling, **{field: value})
        with pytest.raises(CheckpointError, match=f"{field} is {value!r}"):
            sentcore.SentenceEncoder(folder, device="cpu")
        pooling.write_text(before)
    change(folder / "sentence_bert_config.json", transformer_task="feature-extraction")
    with pytest.raises(CheckpointError, match="transformer_task is 'feature-extraction'; accepted: 'fill-mask'"):
        sentcore.SentenceEncoder(folder, device="cpu")
    change(folder / "sentence_bert_config.json", transformer_task="fill-mask")
    torch.save({"weight": torch.zeros(1, 48), "bias": torch.zeros(1)}, folder / "sparse_linear.pt")
    with pytest.raises(CheckpointError, match=r"sparse_linear\.pt beside a SpladePooling"):
        sentcore.SentenceEncoder(folder, device="cpu")
    (folder / "sparse_linear.pt").unlink()
    tensors = load_file(folder / "model.safetensors")
    save_file({k: v for k, v in tensors.items() if "transform.dense" not in k}, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"lacks cls.predictions.transform.dense.weight"):
        sentcore.SentenceEncoder(folder, device="cpu")


def test_a_family_without_a_known_head_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="model_type is 'electra'; accepted under SpladePooling: bert"):
        sentcore.SentenceEncoder(make_splade(tmp_path, "electra"), device="cpu")
