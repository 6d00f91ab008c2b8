"""bge-m3's heads against a plain computation on padded outputs of transformers, and one pass against three."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers as hf

import sentcore
from folders import change
from heads import TEXTS, make_bge, make_splade
from sentcore.errors import ArgumentTypeError, ArgumentValueError, CheckpointError, NonFiniteError
from sentcore.outputs import splade

ALL = ["sentence_embedding", "sparse", "colbert"]
SPECIAL = {0, 1, 2, 3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_bge(tmp_path_factory.mktemp("bge"))


@pytest.fixture(scope="module")
def model(folder):
    return sentcore.SentenceEncoder(folder, device="cpu")


@pytest.fixture(scope="module")
def plain(folder, model):
    """Dense, sparse and ColBERT features by loops over padded hidden states."""
    encoder = hf.AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
    rows = [model.tokenizer.encode([text]).token_ids.tolist() for text in TEXTS]
    longest = max(map(len, rows))
    ids = torch.tensor([row + [1] * (longest - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    with torch.no_grad():
        hidden = encoder(input_ids=ids, attention_mask=mask).last_hidden_state
    sparse_head, colbert_head = (torch.load(folder / f"{name}_linear.pt") for name in ("sparse", "colbert"))
    dense, sparse, colbert = [], [], []
    for row, states in zip(rows, hidden, strict=True):
        dense.append(torch.nn.functional.normalize(states[0], dim=0))
        weights: dict[int, float] = {}
        for token, state in zip(row, states, strict=False):
            weight = float((sparse_head["weight"][0] @ state + sparse_head["bias"][0]).clamp(min=0))
            if token not in SPECIAL and weight > weights.get(token, 0.0):
                weights[token] = weight
        sparse.append(weights)
        vectors = states[1 : len(row)] @ colbert_head["weight"].T + colbert_head["bias"]
        colbert.append(vectors / vectors.norm(dim=1, keepdim=True))
    return torch.stack(dense), sparse, colbert


def same_sparse(ours: list[dict], theirs: list[dict], tolerance: float = 1e-5) -> None:
    assert len(ours) == len(theirs)
    for mine, other in zip(ours, theirs, strict=True):
        largest = max(other.values(), default=1.0)
        for token in mine.keys() | other.keys():
            assert abs(mine.get(token, 0.0) - other.get(token, 0.0)) <= tolerance * max(1.0, largest)


@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize("batch_tokens", [None, 20])
def test_against_a_plain_computation(folder, plain, backend, batch_tokens):
    ours = sentcore.SentenceEncoder(folder, device="cpu", backend=backend)
    found = ours.encode(TEXTS, output_value=ALL, batch_tokens=batch_tokens)
    assert list(found) == ALL
    dense, sparse, colbert = plain
    assert sum(map(bool, sparse)) > 9 and not sparse[1]
    np.testing.assert_allclose(found["sentence_embedding"], dense.numpy(), atol=1e-5)
    same_sparse(found["sparse"], sparse)
    assert [set(row) for row in found["sparse"]] == [set(row) for row in sparse]
    for mine, other in zip(found["colbert"], colbert, strict=True):
        assert mine.dtype == np.float32
        np.testing.assert_allclose(mine, other.numpy(), atol=1e-5)


def test_one_pass_is_exactly_three(model, monkeypatch):
    alone = {name: model.encode(TEXTS, output_value=name, batch_tokens=20) for name in ALL}
    calls = []
    original = model.model.encoder.encode_packed
    monkeypatch.setattr(model.model.encoder, "encode_packed", lambda batch: calls.append(batch) or original(batch))
    model.encode(TEXTS, output_value="token_embeddings", batch_tokens=20)
    batches, calls[:] = len(calls), []
    together = model.encode(TEXTS, output_value=ALL, batch_tokens=20)
    assert len(calls) == batches > 3
    assert np.array_equal(alone["sentence_embedding"], together["sentence_embedding"])
    assert alone["sparse"] == together["sparse"]
    assert all(np.array_equal(a, b) for a, b in zip(alone["colbert"], together["colbert"], strict=True))


def invariant(folder) -> sentcore.SentenceEncoder:
    try:
        return sentcore.SentenceEncoder(folder, device="cpu", batch_invariant=True)
    except ArgumentValueError as error:
        pytest.skip(str(error))


def test_a_text_has_the_same_bits_in_any_batch(folder):
    ours = invariant(folder)
    together = ours.encode(TEXTS, output_value=ALL)
    for index, text in enumerate(TEXTS[:7]):
        alone = ours.encode(text, output_value=ALL)
        assert alone["sparse"] == together["sparse"][index]
        assert np.array_equal(alone["colbert"], together["colbert"][index])


@pytest.mark.parametrize("strategy", ["max", "sum"])
def test_splade_gives_a_text_the_same_bits_in_any_batch(tmp_path, monkeypatch, strategy):
    monkeypatch.setitem(splade.LOGITS, "cpu", 900)  # nine tokens: one text is longer
    ours = invariant(make_splade(tmp_path, "bert", {"pooling_strategy": strategy}))
    together = ours.encode(TEXTS, output_value="sparse")
    assert [ours.encode(text, output_value="sparse") for text in TEXTS[:7]] == together[:7]


def test_one_text_and_forms(model):
    one = model.encode(TEXTS[0], output_value=ALL)
    assert one["sentence_embedding"].shape == (48,) and one["colbert"].shape == (7, 24)
    assert all(type(token) is int and type(weight) is float for token, weight in one["sparse"].items())
    named = model.decode_sparse(one["sparse"])
    assert set(named) <= set(TEXTS[0].split()) and list(named.values()) == list(one["sparse"].values())
    assert model.encode([], output_value=["sparse", "colbert"]) == {"sparse": [], "colbert": []}
    assert model.encode("", output_value="sparse") == {}
    assert model.encode("", output_value="colbert").shape == (1, 24)
    tensors = model.encode(TEXTS[:2], output_value="colbert", convert_to_tensor=True)
    lists = model.encode(TEXTS[:2], output_value="colbert", convert_to_numpy=False)
    for item in (*tensors, *lists):
        assert isinstance(item, torch.Tensor) and item.dtype == torch.float32 and not item.is_inference()


def test_options_concern_the_dense_part(model):
    plain = model.encode(TEXTS, output_value=ALL)
    found = model.encode(TEXTS, output_value=ALL, precision="ubinary", truncate_dim=16)
    assert found["sentence_embedding"].shape == (len(TEXTS), 2) and found["sentence_embedding"].dtype == np.uint8
    assert found["sparse"] == plain["sparse"]
    assert all(np.array_equal(a, b) for a, b in zip(found["colbert"], plain["colbert"], strict=True))


def test_bfloat16_keeps_the_heads_in_float32(folder, model):
    half = sentcore.SentenceEncoder(folder, device="cpu", dtype="bfloat16")
    assert half.model.colbert.linear.weight.dtype == half.model.sparse.linear.weight.dtype == torch.float32
    found, full = (m.encode(TEXTS, output_value="colbert") for m in (half, model))
    assert min(float((a * b).sum(axis=1).min()) for a, b in zip(found, full, strict=True)) > 0.99


def test_similarities(model):
    found = model.encode(TEXTS[:5], output_value=["sparse", "colbert"])
    sparse, colbert = found["sparse"], found["colbert"]
    wanted = [[sum(a[t] * b[t] for t in a.keys() & b.keys()) for b in sparse] for a in sparse]
    assert max(map(max, wanted)) > 0
    np.testing.assert_allclose(model.sparse_similarity(sparse, sparse).numpy(), wanted, rtol=1e-6)
    assert model.sparse_similarity(sparse[0], sparse[3]) == pytest.approx(wanted[0][3])
    wanted = [[float((a @ b.T).max(axis=1).sum() / len(a)) for b in colbert] for a in colbert]
    np.testing.assert_allclose(model.colbert_similarity(colbert, colbert).numpy(), wanted, rtol=1e-5)
    assert model.colbert_similarity(colbert[0], colbert[2]) == pytest.approx(wanted[0][2], rel=1e-5)
    with pytest.raises(ArgumentTypeError, match="a is of type ndarray"):
        model.sparse_similarity(colbert[0], sparse[0])
    with pytest.raises(ArgumentValueError, match="equally wide"):
        model.colbert_similarity(colbert[0], colbert[0][:, :5])
    with pytest.raises(ArgumentValueError, match="shape"):
        model.colbert_similarity(colbert[0][0], colbert[0])


def test_saved_and_read_back(model, tmp_path):
    model.save_pretrained(tmp_path)
    assert (tmp_path / "sparse_linear.pt").is_file() and (tmp_path / "colbert_linear.pt").is_file()
    again = sentcore.SentenceEncoder(tmp_path, device="cpu")
    ours, theirs = model.encode(TEXTS, output_value=ALL), again.encode(TEXTS, output_value=ALL)
    assert ours["sparse"] == theirs["sparse"]
    assert all(np.array_equal(a, b) for a, b in zip(ours["colbert"], theirs["colbert"], strict=True))
    assert {"model.sparse.linear.weight", "model.colbert.linear.weight"} <= set(again.state_dict())


def test_special_tokens_are_known_without_names(folder, model, tmp_path):
    model.save_pretrained(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("{}")
    again = sentcore.SentenceEncoder(tmp_path, device="cpu")
    assert {0, 2, 3} <= set(again.model.sparse.left_out.tolist())
    assert again.encode(TEXTS, output_value="sparse") == model.encode(TEXTS, output_value="sparse")


def test_nan_is_reported(folder):
    ours = sentcore.SentenceEncoder(folder, device="cpu")
    with torch.no_grad():
        ours.model.sparse.linear.bias[0] = torch.nan
        ours.model.colbert.linear.bias[0] = torch.nan
    for name, bad in (("sparse", "2 of 3"), ("colbert", "3 of 3")):
        with pytest.warns(RuntimeWarning, match=f"{bad} features are NaN"):
            ours.encode(["the cat", "", "a dog"], output_value=name)


@pytest.mark.parametrize("value", ["splade", [], ["sparse", "sparse"], ["sparse", None], 3, {"sparse": 1}])
def test_wrong_output_values(model, value):
    with pytest.raises(ArgumentValueError, match="output_value is"):
        model.encode("a", output_value=value)


def test_missing_heads_are_named(folder, tmp_path):
    model = sentcore.SentenceEncoder(folder, device="cpu")
    model.save_pretrained(tmp_path)
    (tmp_path / "sparse_linear.pt").unlink()
    ours = sentcore.SentenceEncoder(tmp_path, device="cpu")
    ours.encode("a", output_value="colbert")
    with pytest.raises(
        ArgumentValueError, match=r"'sparse'; accepted for this model: .*'colbert'.* no sparse_linear.pt"
    ):
        ours.encode("a", output_value=ALL)


@pytest.mark.parametrize(
    ("tensors", "error", "says"),
    [
        ({"weight": torch.zeros(1, 47), "bias": torch.zeros(1)}, CheckpointError, r"weight has shape \[1, 47\]"),
        ({"weight": torch.zeros(2, 48), "bias": torch.zeros(2)}, CheckpointError, r"weight has shape \[2, 48\]"),
        ({"weight": torch.zeros(1, 48)}, CheckpointError, "accepted: weight and bias"),
        ({"weight": torch.full((1, 48), torch.nan), "bias": torch.zeros(1)}, NonFiniteError, "NaN"),
        ([1], CheckpointError, "sparse_linear.pt holds a list"),
    ],
)
def test_damaged_heads_are_refused(model, tmp_path, tensors, error, says):
    model.save_pretrained(tmp_path)
    torch.save(tensors, tmp_path / "sparse_linear.pt")
    with pytest.raises(error, match=says):
        sentcore.SentenceEncoder(tmp_path, device="cpu")


def test_a_transformer_that_gives_logits_is_refused(model, tmp_path):
    model.save_pretrained(tmp_path)
    change(tmp_path / "sentence_bert_config.json", transformer_task="fill-mask")
    with pytest.raises(CheckpointError, match="transformer_task is 'fill-mask'; accepted: 'feature-extraction'"):
        sentcore.SentenceEncoder(tmp_path, device="cpu")
