"""CrossEncoder against sentence-transformers on the same folders: predict, rank, settings, saved folders, training."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from sentence_transformers import CrossEncoder as TheirCrossEncoder
from torch import nn
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import sentcore
from compare import SAME_FEATURES_FLOAT32
from cross_encoders import DOCUMENTS, PAIRS, maker
from folders import change, write
from sentcore import CrossEncoder, PackedBatch
from sentcore.errors import ArgumentValueError, CheckpointError

SIGMOID, IDENTITY = "torch.nn.modules.activation.Sigmoid", "torch.nn.modules.linear.Identity"


@pytest.fixture
def make(tmp_path):
    return maker(tmp_path)


def both(folder, device="cpu", **settings):
    """Ours on the device, theirs on the CPU."""
    return CrossEncoder(folder, device=device, **settings), TheirCrossEncoder(str(folder), device="cpu", **settings)


def assert_same(ours, theirs):
    assert type(ours) is type(theirs) and ours.shape == theirs.shape and ours.dtype == theirs.dtype
    ours = ours.cpu() if isinstance(ours, torch.Tensor) else ours
    np.testing.assert_allclose(np.asarray(ours), np.asarray(theirs), rtol=0, atol=5 * SAME_FEATURES_FLOAT32)


@pytest.mark.parametrize("st", [False, True])
@pytest.mark.parametrize("labels", [1, 3])
def test_predict_is_that_of_sentence_transformers(make, labels, st, device):
    ours, theirs = both(make(labels, st), device)
    assert (ours.num_labels, ours.max_seq_length) == (labels, theirs.max_seq_length)
    assert ours.id2label == theirs.config.id2label
    expected = theirs.predict(PAIRS)
    assert expected.std(0).min() > 1e-3
    assert_same(ours.predict(PAIRS), expected)
    # Over one label it has no effect; sentence-transformers before 6.2 gives 1.0 there whatever the pair.
    assert_same(ours.predict(PAIRS, apply_softmax=True), theirs.predict(PAIRS, apply_softmax=labels > 1))
    assert_same(ours.predict(PAIRS, activation_fn=torch.tanh), theirs.predict(PAIRS, activation_fn=torch.tanh))
    assert_same(ours.predict(PAIRS, convert_to_tensor=True), theirs.predict(PAIRS, convert_to_tensor=True))
    a, b = (m.predict(PAIRS, convert_to_numpy=False) for m in (ours, theirs))
    assert len(a) == len(b)
    for mine, their in zip(a, b, strict=True):
        assert_same(mine, their)


@pytest.mark.parametrize("labels", [1, 3])
@pytest.mark.parametrize("options", [{}, {"convert_to_numpy": False}, {"convert_to_tensor": True}])
def test_one_pair_and_none(make, labels, options, device):
    ours, theirs = both(make(labels), device)
    assert_same(ours.predict(PAIRS[0], **options), theirs.predict(PAIRS[0], **options))
    assert_same(ours.predict(list(PAIRS[0]), **options), theirs.predict(list(PAIRS[0]), **options))
    a, b = ours.predict([], **options), theirs.predict([], **options)
    if options != {"convert_to_numpy": False}:
        assert_same(a, b)
    assert len(a) == len(b) == 0


@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_any_batch_size_gives_the_same(make, backend, device):
    model = CrossEncoder(make(3), device=device, backend=backend)
    whole = model.predict(PAIRS)
    for budget in (1, 60):
        np.testing.assert_allclose(model.predict(PAIRS, batch_tokens=budget), whole, rtol=0, atol=SAME_FEATURES_FLOAT32)


def test_windows_keep_the_order(make, monkeypatch):
    model = CrossEncoder(make(), device="cpu")
    whole = model.predict(PAIRS)
    inner = sentcore.cross_encoder.windows
    monkeypatch.setattr(sentcore.cross_encoder, "windows", lambda pairs: inner(pairs, 2))
    np.testing.assert_allclose(model.predict(iter(PAIRS)), whole, rtol=0, atol=SAME_FEATURES_FLOAT32)


@pytest.mark.parametrize("options", [{}, {"top_k": 3}, {"return_documents": True}, {"activation_fn": nn.Identity()}])
def test_rank_is_that_of_sentence_transformers(make, options, device):
    ours, theirs = both(make(), device)
    a, b = (model.rank("the cat", DOCUMENTS, **options) for model in (ours, theirs))
    assert [entry["corpus_id"] for entry in a] == [entry["corpus_id"] for entry in b]
    assert [entry.get("text") for entry in a] == [entry.get("text") for entry in b]
    for mine, their in zip(a, b, strict=True):
        assert type(mine["score"]) is float and mine["score"] == pytest.approx(their["score"], abs=1e-5)
    assert ours.rank("the cat", []) == theirs.rank("the cat", []) == []


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ({}, 1),
        ({}, 3),
        ({"sentence_transformers": {"activation_fn": IDENTITY}}, 1),
        ({"sentence_transformers": {"activation_fn": SIGMOID}}, 3),
        ({"sbert_ce_default_activation_function": IDENTITY}, 1),
        ({"sbert_ce_default_activation_function": IDENTITY, "sentence_transformers": {"activation_fn": SIGMOID}}, 1),
        ({"sentence_transformers": {"activation_fn": "torch.nn.Tanh"}}, 1),
    ],
)
def test_the_folders_activation(make, values, labels):
    ours, theirs = both(make(labels, **values))
    assert type(ours.activation_fn) is type(theirs.activation_fn)
    assert_same(ours.predict(PAIRS), theirs.predict(PAIRS))


def test_the_activation_of_a_folder_that_sentence_transformers_wrote(make):
    folder = make(st=True)
    change(folder / "config_sentence_transformers.json", activation_fn=IDENTITY)
    ours, theirs = both(folder)
    assert type(ours.activation_fn) is type(theirs.activation_fn) is nn.Identity
    assert_same(ours.predict(PAIRS), theirs.predict(PAIRS))
    given, _ = both(folder, activation_fn=nn.Tanh())
    assert type(given.activation_fn) is nn.Tanh


def test_an_activation_is_never_imported(make):
    folder = make(sentence_transformers={"activation_fn": "os.getcwd"})
    with pytest.raises(
        CheckpointError, match=r"config\.json: the activation of the scores is 'os\.getcwd'.*activation_fn"
    ):
        CrossEncoder(folder, device="cpu")
    model = CrossEncoder(folder, device="cpu", activation_fn=torch.sigmoid)
    assert_same(model.predict(PAIRS), TheirCrossEncoder(str(folder), device="cpu").predict(PAIRS))
    model.activation_fn = nn.Tanh()
    model.activation_fn = torch.sin  # a plain function after a module
    assert "activation_fn" not in dict(model.named_modules())


@pytest.mark.parametrize("max_length", [7, 24])
def test_max_length_cuts_pairs_alike(make, max_length):
    ours, theirs = both(make(3), max_length=max_length)
    assert_same(ours.predict(PAIRS), theirs.predict(PAIRS))
    ours.max_seq_length = theirs.max_seq_length = max_length + 4
    assert_same(ours.predict(PAIRS), theirs.predict(PAIRS))


@pytest.mark.parametrize(
    "tokenizer",
    [
        {"tokenizer_class": "BertTokenizerFast"},
        {"tokenizer_class": "ElectraTokenizer"},
        {"tokenizer_class": "PreTrainedTokenizerFast"},
        {"tokenizer_class": "DistilBertTokenizer"},
        {"tokenizer_class": "BertTokenizer", "model_input_names": ["input_ids", "attention_mask"]},
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
        },
        {"tokenizer_class": None},
    ],
)
def test_token_types_are_used_where_transformers_uses_them(make, tokenizer):
    folder = make(3, st=True)
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text()) | tokenizer
    write(path, {key: value for key, value in settings.items() if value is not None})
    ours, theirs = both(folder)
    assert ours.checkpoint.token_types == ("token_type_ids" in AutoTokenizer.from_pretrained(folder)("a", "b"))
    assert_same(ours.predict(PAIRS[:3]), theirs.predict(PAIRS[:3]))


@pytest.mark.parametrize("labels", [1, 3])
def test_saved_folders_are_read_by_all_three(make, tmp_path, labels):
    folder = make(labels, id2label={str(i): f"name {i}" for i in range(labels)})
    model = CrossEncoder(folder, device="cpu", max_length=15, activation_fn=nn.Tanh())
    model.save_pretrained(tmp_path / "saved")
    expected = model.predict(PAIRS)
    ours, theirs = both(tmp_path / "saved")
    assert_same(ours.predict(PAIRS), expected)
    assert_same(theirs.predict(PAIRS), expected)
    assert ours.max_seq_length == theirs.max_seq_length == 15 and ours.id2label == model.id2label
    read, report = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved", output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    tokens = AutoTokenizer.from_pretrained(tmp_path / "saved")(*map(list, zip(*PAIRS, strict=True)), truncation=True,
                                                               padding=True, return_tensors="pt")  # fmt: skip
    with torch.inference_mode():
        logits = read.eval()(**tokens).logits
    assert_same(np.tanh(logits.numpy()).reshape(expected.shape), expected)
    assert read.config.id2label == model.id2label
    model.save_pretrained(folder)  # over the folder it came from
    assert_same(CrossEncoder(folder, device="cpu").predict(PAIRS), expected)


def test_training_and_the_mode_it_leaves(make):
    model = CrossEncoder(make(), device="cpu").train()
    tokens = model.tokenizer.encode_pairs(PAIRS)
    ids = np.split(tokens.token_ids, tokens.offsets[1:-1])
    logits = model(PackedBatch.from_sequences([row.tolist() for row in ids]))
    assert logits.shape == (len(PAIRS), 1)
    nn.functional.binary_cross_entropy_with_logits(logits[:, 0], torch.ones(len(PAIRS))).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())
    before = model.predict(PAIRS)
    assert np.array_equal(before, model.predict(PAIRS)) and all(m.training for m in model.modules())
    with torch.no_grad():
        model.model.head.output.bias += 1.0
    assert (model.predict(PAIRS) > before).all()


def test_other_dtypes_are_close(make):
    folder = make(3)
    expected = CrossEncoder(folder, device="cpu").predict(PAIRS)
    for dtype in ("bfloat16", "int8"):
        model = CrossEncoder(folder, device="cpu", dtype=dtype)
        found = model.predict(PAIRS)
        assert found.dtype == np.float32 and str(model.dtype) == f"torch.{dtype}"
        assert 0 < np.abs(found - expected).max() < 0.1 * np.abs(expected).max()
    with pytest.raises(ArgumentValueError, match="save_pretrained of an int8 model"):
        model.save_pretrained("nowhere")
    with pytest.raises(ArgumentValueError, match="dtype is 'fp8' on cpu"):
        CrossEncoder(folder, device="cpu", dtype="fp8")
    model = CrossEncoder(folder, device="cpu", dtype="fp8", backend="reference")
    found = model.predict(PAIRS)
    assert model.dtype == torch.float8_e4m3fn and model.model.head.output.weight.dtype == torch.float32
    assert 0 < np.abs(found - expected).max() < 0.1 * np.abs(expected).max()
