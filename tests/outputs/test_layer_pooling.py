"""Pooling over two layers, and any pooling in the folder's place, against transformers' padded hidden states and masks."""

from __future__ import annotations

import weakref

import numpy as np
import pytest
import torch

from families import make_model, ragged, save
from folders import make_bert_folder
from sentcore import Encoder, PackedBatch, SentenceEncoder
from sentcore.checkpoint import load_checkpoint
from sentcore.errors import ArgumentTypeError, ArgumentValueError
from sentcore.model import SentenceModel
from sentcore.outputs import PoolingSpec

SENTENCES = ["the cat sat on the dogs", "cat", "", "我爱北京天安门 the dog", "a b c d e f g", "slowly"]
PAIRS = {"first_last_avg": (1, -1), "avg_top2": (-2, -1)}


def expected_rows(states, mask, mode):
    """states: all hidden states [B, S, H], padding in them; mask [B, S]."""
    first, last = PAIRS[mode]
    tokens = (states[first] + states[last]) / 2
    weights = mask[:, :, None].to(tokens.dtype)
    return (tokens * weights).sum(1) / weights.sum(1)


@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize("mode", PAIRS)
@pytest.mark.parametrize("family", ["bert", "roberta", "albert", "modernbert", "gte"])
def test_packed_equals_padded_and_masked(tmp_path, family, mode, backend):
    model = make_model(family)
    checkpoint = load_checkpoint(save(model, tmp_path))
    ours = SentenceModel(checkpoint.config, [PoolingSpec((mode,))], backend).eval()
    ours.encoder.load_state_dict(checkpoint.state_dict)
    ids, mask = ragged(model, (1, 2, 17, 64, 3))
    with torch.inference_mode():
        found = model(input_ids=ids, attention_mask=mask, output_hidden_states=True)
        states = [*found.hidden_states[:-1], found.last_hidden_state]
        batch = PackedBatch.from_sequences([row[real.bool()] for row, real in zip(ids, mask, strict=True)])
        rows = ours(batch).sentence_embedding
    expected = expected_rows(states, mask, mode)
    assert (rows - expected).abs().max() <= 1e-5 * max(1.0, float(expected.abs().max()))


@pytest.fixture
def folder(tmp_path):
    return make_bert_folder(tmp_path / "model", num_hidden_layers=4)


@pytest.mark.parametrize("mode", PAIRS)
def test_in_encode(folder, mode):
    from transformers import AutoModel, AutoTokenizer

    encoder = SentenceEncoder(folder, device="cpu", pooling=mode)
    inputs = AutoTokenizer.from_pretrained(folder)(SENTENCES, padding=True, return_tensors="pt")
    with torch.inference_mode():
        states = AutoModel.from_pretrained(folder)(**inputs, output_hidden_states=True).hidden_states
    expected = expected_rows(states, inputs["attention_mask"], mode).numpy()
    np.testing.assert_allclose(encoder.encode(SENTENCES), expected, atol=2e-5)
    plain = SentenceEncoder(folder, device="cpu").encode(SENTENCES)
    both = SentenceEncoder(folder, device="cpu", pooling=["mean", mode])
    np.testing.assert_allclose(both.encode(SENTENCES), np.concatenate((plain, expected), axis=1), atol=2e-5)
    assert both.get_sentence_embedding_dimension() == 64
    assert np.abs(plain - expected).max() > 1e-2
    with pytest.raises(ArgumentValueError, match=f"no pooling config of a folder has a name for '{mode}'"):
        encoder.save_pretrained(folder.parent / "saved")
    assert not (folder.parent / "saved").exists()


def test_prompts_are_left_out_where_the_folder_says_so(tmp_path):
    pooling = {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True, "include_prompt": False}
    encoder = SentenceEncoder(make_bert_folder(tmp_path / "model", pooling=pooling), device="cpu", pooling="avg_top2")
    found = encoder.encode("sat on a dog", prompt="the cat ")
    batch = PackedBatch.from_sequences([encoder.tokenizer("the cat sat on a dog").token_ids])
    with torch.inference_mode():
        states = encoder.model.encoder.hidden_states(batch)
    expected = ((states[-1] + states[-2]) / 2)[3:].mean(0)
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)


@pytest.mark.parametrize("mode", ["cls", "lasttoken", ["cls", "max"]])
def test_other_modes_in_the_folders_place(folder, tmp_path, mode):
    from sentence_transformers import SentenceTransformer

    encoder = SentenceEncoder(folder, device="cpu", pooling=mode)
    encoder.save_pretrained(tmp_path / "saved")
    theirs = SentenceTransformer(str(tmp_path / "saved"), device="cpu").encode(SENTENCES)
    np.testing.assert_allclose(encoder.encode(SENTENCES), theirs, atol=2e-5)
    assert encoder.get_sentence_embedding_dimension() == theirs.shape[1]


def test_what_follows_stays(tmp_path):
    dense = (20, "torch.nn.modules.activation.Tanh")
    folder = make_bert_folder(tmp_path / "model", dense=dense, normalize=True)
    encoder = SentenceEncoder(folder, device="cpu", pooling="first_last_avg")
    rows = encoder.encode(SENTENCES)
    assert rows.shape == (6, 20) and encoder.get_sentence_embedding_dimension() == 20
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
    with pytest.raises(ArgumentValueError, match="which is 64 wide; accepted: what the folder's Dense takes, 32"):
        SentenceEncoder(folder, device="cpu", pooling=["mean", "avg_top2"])


def test_only_the_layers_asked_for_stay_alive(folder):
    checkpoint = load_checkpoint(make_bert_folder(folder.parent / "deep", num_hidden_layers=8))
    encoder = Encoder(checkpoint.config).eval()
    made, most = [], 0

    def count(module, inputs, output):
        nonlocal most
        made.append(weakref.ref(output))
        most = max(most, sum(ref() is not None for ref in made))

    for layer in encoder.layers:
        layer.register_forward_hook(count)
    encoder.embeddings.register_forward_hook(count)
    batch = PackedBatch.from_sequences([[1, 5, 6, 2], [1, 2]])
    with torch.inference_mode():
        everything = encoder.hidden_states(batch)
        assert most == len(made) == 9
        made, most = [], 0
        kept = encoder.hidden_states(batch, [1, 8])
    assert most <= 3  # the first, the layer at work and its input
    assert torch.equal(kept[0], everything[1]) and torch.equal(kept[1], everything[8]) and len(kept) == 2
    with pytest.raises(ArgumentValueError, match=r"layers is \[9\]; accepted: from 0, the embeddings, to 8"):
        encoder.hidden_states(batch, [9])


def test_gradients_reach_both_layers(folder):
    encoder = SentenceEncoder(folder, device="cpu", pooling="first_last_avg")
    encoder.train()
    encoder(PackedBatch.from_sequences([[2, 5, 6, 3], [2, 7, 3]])).sum().backward()
    assert all(layer.attention.query.weight.grad.abs().sum() > 0 for layer in encoder.model.encoder.layers)


@pytest.mark.parametrize(
    ("pooling", "says"),
    [
        ("median", "pooling is 'median'; accepted: one or more of cls, .*avg_top2"),
        ([], r"pooling is \[\]"),
        (3, "pooling is 3 of type int"),
    ],
)
def test_wrong_modes_are_named(folder, pooling, says):
    with pytest.raises((ArgumentValueError, ArgumentTypeError), match=says):
        SentenceEncoder(folder, device="cpu", pooling=pooling)


def test_too_few_layers_are_refused(tmp_path):
    folder = make_bert_folder(tmp_path / "shallow", num_hidden_layers=1)
    with pytest.raises(
        ArgumentValueError, match="pooling mode is 'avg_top2' in a model of 1 layers; accepted: at least 2"
    ):
        SentenceEncoder(folder, device="cpu", pooling="avg_top2")
