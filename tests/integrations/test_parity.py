"""parity: agrees on the real model, and notices whatever differs."""

import sys

import pytest
import torch

import sentcore.integrations.parity as integration
from sentcore import SentenceEncoder
from sentcore.errors import ArgumentTypeError, MissingPackageError
from sentcore.integrations.padded_outputs import padded_features
from sentcore.integrations.parity import DEFAULT_TEXTS, parity
from sentcore.outputs import Dense, DenseSpec, Normalize, NormalizeSpec, Pooling, PoolingSpec
from sentcore.outputs.specs import ACTIVATIONS, POOLING_MODES
from sentcore.packed import PackedBatch


@pytest.fixture
def model():
    return SentenceEncoder("minilm", device="cpu")


@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_the_default_model_agrees(backend):
    report = parity(SentenceEncoder("minilm", device="cpu", backend=backend))
    assert report.passed, report.verdict
    assert report.texts == len(DEFAULT_TEXTS)
    assert report.sentence_max_abs_diff <= 2e-6
    assert report.token_max_abs_diff <= 2e-5
    assert report.token_min_cosine > 0.99999
    assert report.nan_count == report.reference_nan_count == 0
    assert report.other_tokens == ()
    assert "agrees" in str(report)


def test_the_built_in_texts_hold_what_is_hard():
    assert "" in DEFAULT_TEXTS
    assert any(text and not text.strip() for text in DEFAULT_TEXTS)
    assert max(map(len, DEFAULT_TEXTS)) > 4000  # cut at any model's limit
    assert any(ord(char) > 0x1F000 for text in DEFAULT_TEXTS for char in text)


def test_a_changed_weight_is_noticed(model):
    with torch.no_grad():
        model.model.encoder.layers[3].feed_forward.down.bias[5] += 0.5
    report = parity(model, ["hello there", "second"])
    assert not report.passed
    assert "token embeddings differ" in report.verdict


def test_changed_sentence_features_alone_are_noticed(model):
    model.model.outputs = model.model.outputs[:1]  # without Normalize
    report = parity(model, ["hello there", "second"])
    assert not report.passed
    assert report.token_max_abs_diff < 2e-5
    assert "sentence embeddings differ" in report.verdict


def test_nan_is_counted_and_fails(model):
    with torch.no_grad():
        model.model.encoder.layers[5].feed_forward.layer_norm.bias[0] = float("nan")
    report = parity(model, ["hello there", "second"])
    assert not report.passed
    assert report.nan_count > 0
    assert report.reference_nan_count == 0
    assert "NaN" in report.verdict


def test_other_tokens_are_noticed(model, monkeypatch):
    honest = integration._reference

    def other(transformers, model, texts):
        found = honest(transformers, model, texts)
        found[1]["input_ids"] = found[1]["input_ids"] + 1
        return found

    monkeypatch.setattr(integration, "_reference", other)
    report = parity(model, ["a", "b", "c"])
    assert report.other_tokens == (1,)
    assert not report.passed
    assert report.token_max_abs_diff < 2e-5  # of the texts that can be compared


def test_no_texts_is_no_agreement(model):
    report = parity(model, [])
    assert not report.passed
    assert "nothing was compared" in report.verdict


def test_truncate_dim_and_max_length_are_the_models(model):
    model.truncate_dim = 17
    model.max_seq_length = 12
    report = parity(model)
    assert report.passed, report.verdict


def test_bfloat16_is_held_to_its_own_limits():
    model = SentenceEncoder("minilm", device="cpu", dtype="bfloat16")
    report = parity(model)
    assert report.passed, report.verdict
    assert report.dtype == "bfloat16"
    assert report.sentence_max_abs_diff > 1e-5


def test_without_transformers_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingPackageError, match="pip install transformers"):
        parity("minilm")


def test_something_else_is_refused():
    with pytest.raises(ArgumentTypeError, match="model_or_folder is of type int"):
        parity(3)


@pytest.mark.parametrize("mode", POOLING_MODES)
def test_padded_pooling_against_packed(mode):
    generator = torch.Generator().manual_seed(5)
    lengths = [3, 1, 6]
    x = torch.randn(len(lengths), max(lengths), 4, generator=generator)
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
    spec = PoolingSpec((mode, "mean"))
    packed = x[mask.bool()]
    zeros = torch.zeros(sum(lengths), dtype=torch.int64)
    offsets = torch.tensor([0, 3, 4, 10], dtype=torch.int32)
    batch = PackedBatch(zeros, zeros, zeros, offsets, max(lengths))
    torch.testing.assert_close(padded_features(x, mask, [spec]), Pooling(spec)(packed, batch))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_padded_dense_and_normalize_against_packed(activation):
    generator = torch.Generator().manual_seed(6)
    x = torch.randn(2, 4, generator=generator)
    dense = DenseSpec(torch.randn(3, 4, generator=generator), torch.ones(3), activation)
    wanted = Normalize()(Dense(dense)(x))
    found = padded_features(x, torch.ones(2, 1), [dense, NormalizeSpec()])
    torch.testing.assert_close(found, wanted)
