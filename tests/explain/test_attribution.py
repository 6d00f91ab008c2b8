"""attribution: the pairs add up to the cosine, by parts that are what they are said to be."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import sentcore
from folders import make_bert_folder
from sentcore.errors import ArgumentTypeError, ArgumentValueError
from sentcore.explain.integrated import integrated_parts
from sentcore.explain.passes import prepare

PAIRS = [
    ("How do I send a parcel back?", "Where can I return an item?"),
    ("The bridge was closed after the storm.", "Heavy winds shut the crossing over the river."),
    ("She plays the violin in an orchestra.", "He repairs old bicycles."),
    ("A recipe for bread without yeast", "Baking soda loaf, quick and simple"),
    ("北京的冬天很冷", "Winters in Beijing are cold"),
    ("The train leaves at nine.", "The train leaves at nine."),
    ("x", "An unusually long sentence, by comparison, about nothing in particular but commas, clauses and the sea."),
    ("naïve café", "coffee house"),
    ("Interest rates rise again", "The central bank raised its key rate"),
    ("", "an empty text against this one"),
]


@pytest.fixture
def cls_model(tmp_path):
    """A model that pools its first token and has a Dense with tanh behind it."""
    pooling = {"word_embedding_dimension": 32, "pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
    return sentcore.SentenceEncoder(
        make_bert_folder(
            tmp_path / "cls", pooling=pooling, dense=(20, "torch.nn.modules.activation.Tanh"), normalize=True
        ),
        device="cpu",
    )


@pytest.mark.parametrize("pair", PAIRS, ids=range(len(PAIRS)))
def test_exact_pairs_add_up_to_the_score(minilm, pair):
    found = sentcore.attribution(minilm, *pair)
    rows = minilm.encode(list(pair))
    assert found.method == "exact"
    assert found.score == pytest.approx(float(rows[0] @ rows[1]), abs=1e-5)
    assert float(found.matrix.sum()) == pytest.approx(found.score, rel=0.01, abs=1e-6)
    assert abs(found.delta) <= 1e-6 and found.shared == (0.0, 0.0)
    for sums in found.token_sums:
        assert float(sums.sum()) == pytest.approx(found.score, rel=0.01, abs=1e-6)
    # A mean: every pair is the product of two of the last rows.
    a, b = (sentcore.trace(minilm, text).hidden_states[-1] for text in pair)
    by_hand = a @ b.T / (len(a) * len(b) * a.mean(0).norm() * b.mean(0).norm())
    torch.testing.assert_close(found.matrix, by_hand, rtol=1e-4, atol=1e-6)


def test_integrated_gradients_add_up_too(minilm):
    found = sentcore.attribution(
        minilm, "北京很冷", "cold in Beijing", method="integrated_gradients", show_progress_bar=False
    )
    assert found.method == "integrated_gradients"
    assert float(found.matrix.sum()) == pytest.approx(found.score, rel=0.01)
    for sums, labels in zip(found.token_sums, found.labels, strict=True):
        assert float(sums.sum()) == pytest.approx(found.score, rel=0.01)
        # The baseline has the special tokens too, so they carry nothing.
        assert labels[0] == "[CLS]" and labels[-1] == "[SEP]" and sums[0] == sums[-1] == 0


def test_integrated_gradients_where_nothing_is_linear(cls_model):
    found = sentcore.attribution(cls_model, "the cat sat", "the dog sat on a cat")
    assert found.method == "integrated_gradients"
    rows = cls_model.encode(["the cat sat", "the dog sat on a cat"])
    assert found.score == pytest.approx(float(rows[0] @ rows[1]), abs=1e-5)
    assert found.delta == pytest.approx(float(found.matrix.double().sum()) - found.score, abs=1e-6)
    assert abs(found.delta) <= 0.01 * abs(found.score)
    assert found.shared[0] != 0


def test_integrated_gradients_are_the_integral_of_gradients(cls_model):
    """Against torch's own Jacobian of plain PyTorch, on the same line and with other steps."""
    model = cls_model
    text = prepare(model, "the cat sat", "text", None, None)
    with torch.no_grad():
        parts, rest = integrated_parts(model, text, lambda *_: None)
    model.model.encoder.backend = "reference"
    for module in model.modules():
        if hasattr(module, "backend"):
            module.backend = "reference"
    model.double()
    batch, encoder = text.batch, model.model.encoder
    ids = batch.token_ids.clone()
    ids[1:-1] = encoder.config.pad_token_id
    with torch.no_grad():
        end = encoder.embeddings(batch)
        start = encoder.embeddings(
            sentcore.PackedBatch(ids, batch.position_ids, batch.token_type_ids, batch.cu_seqlens, batch.max_seqlen)
        )

    def feature(x):
        for layer in encoder.layers:
            x = layer(x, batch)
        x = model.model.outputs[0](x, batch)
        return model.model.outputs[1](x)[0]

    nodes, weights = np.polynomial.legendre.leggauss(48)
    expected = torch.zeros_like(parts)
    for node, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
        jacobian = torch.autograd.functional.jacobian(feature, start + node * (end - start))  # [E, T, H]
        expected += weight * torch.einsum("eth,th->te", jacobian, end - start)
    torch.testing.assert_close(parts, expected, rtol=0, atol=2e-3 * float(parts.sum(0).add(rest).norm()))
    torch.testing.assert_close(rest, feature(start).detach(), rtol=1e-5, atol=1e-5)


def test_dense_with_a_bias_is_exact(tmp_path):
    folder = make_bert_folder(tmp_path / "dense", dense=(20, "torch.nn.modules.linear.Identity"), normalize=True)
    model = sentcore.SentenceEncoder(folder, device="cpu")
    found = sentcore.attribution(model, "the cat", "dog on the cat")
    assert found.method == "exact" and abs(found.delta) < 1e-6 and found.shared[0] != 0


@pytest.mark.parametrize("mode", ["max", "cls", ["mean", "max"], "first_last_avg"])
def test_exact_for_every_pooling(tmp_path, mode):
    model = sentcore.SentenceEncoder(make_bert_folder(tmp_path / "m"), device="cpu", pooling=mode)
    found = sentcore.attribution(model, "the cat sat", "a dog", method="exact")
    assert abs(found.delta) < 1e-6
    if mode == "cls":
        assert found.matrix[0, 0] == pytest.approx(found.score, abs=1e-6) and found.matrix[1:].abs().max() == 0


def test_truncated_features(minilm_folder):
    model = sentcore.SentenceEncoder(minilm_folder, device="cpu")
    model.truncate_dim = 64
    found = sentcore.attribution(model, *PAIRS[0])
    rows = model.encode(list(PAIRS[0]), normalize_embeddings=True)
    assert rows.shape == (2, 64)
    assert found.score == pytest.approx(float(rows[0] @ rows[1]), abs=1e-5) and abs(found.delta) < 1e-6


def test_a_text_that_is_its_own_baseline(cls_model):
    found = sentcore.attribution(cls_model, "", "the cat", show_progress_bar=False)
    assert torch.isfinite(found.matrix).all() and abs(found.delta) <= 0.01 * abs(found.score)


def test_what_is_refused(minilm, minilm_folder, cls_model):
    with pytest.raises(ArgumentValueError, match="method is 'lime'; accepted: auto, exact, integrated_gradients"):
        sentcore.attribution(minilm, "a", "b", method="lime")
    with pytest.raises(ArgumentValueError, match="method is 'exact', but a stage behind the pooling is not linear"):
        sentcore.attribution(cls_model, "a", "b", method="exact")
    with pytest.raises(ArgumentTypeError, match="second is None"):
        sentcore.attribution(minilm, "a", None)
    rounded = sentcore.SentenceEncoder(minilm_folder, device="cpu", dtype="bfloat16")
    assert sentcore.attribution(rounded, "a", "b").method == "exact"
    with pytest.raises(ArgumentValueError, match="whose roundings drown"):
        sentcore.attribution(rounded, "a", "b", method="integrated_gradients")
