"""A padding token that stands in a text: models that count positions as RoBERTa does do not count it, and nor do we."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from families import make_model, save
from folders import make_bert_folder
from sentcore import Encoder, PackedBatch, SentenceEncoder
from sentcore.checkpoint import load_checkpoint
from sentcore.inputs.packing import pack_batch, pack_batch_numpy
from sentcore.packed import TokenizedTexts

TEXTS = ["a b <pad> c d", "<pad> <pad> a", "a b c d e", "a <pad>", "<pad>", "", "c <pad> d <pad> e " * 4]
ROWS = [[0, 7, 8, 1, 9, 10, 2], [0, 1, 1, 7, 2], [1], [], [0, 5, 6, 7, 8, 9, 2], [0, 1, 2]]
PAD = 1
FAMILIES = ["roberta", "xlm-roberta", "camembert", "mpnet"]


def roberta_folder(path, family):
    """A folder of the family with a tokenizer of single letters that knows <pad> as a special token."""
    model = make_model(family)
    words = ["<s>", "<pad>", "</s>", "<unk>", *"abcdefghijklmnopqrstuvwxyz"]
    rust = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    rust.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    rust.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    names = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=rust, **names, model_max_length=40).save_pretrained(path)
    return save(model, path), model


@pytest.mark.parametrize("family", FAMILIES)
def test_encode_equals_transformers_and_sentence_transformers(tmp_path, family):
    from sentence_transformers import SentenceTransformer

    folder, model = roberta_folder(tmp_path, family)
    encoder = SentenceEncoder(folder, device="cpu")
    found = encoder.encode(TEXTS, output_value=None)
    for text, item in zip(TEXTS, found, strict=True):
        ids = item["input_ids"]
        assert text.split().count("<pad>") == int((ids == PAD).sum())
        with torch.inference_mode():
            expected = model(input_ids=ids[None]).last_hidden_state[0]
        assert (item["token_embeddings"] - expected).abs().max() <= 1e-5 * max(1.0, float(expected.abs().max())), text
    theirs = SentenceTransformer(str(folder), device="cpu").encode(TEXTS)
    np.testing.assert_allclose(encoder.encode(TEXTS), theirs, atol=2e-5)
    # That it matters: the same tokens counted one by one give something else.
    with torch.inference_mode():
        counted = encoder.model.encoder(PackedBatch.from_sequences([found[0]["input_ids"]]))
    assert (counted - found[0]["token_embeddings"]).abs().max() > 1e-2


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("left", [False, True])
def test_padded_and_packed_calls(tmp_path, family, left):
    model = make_model(family)
    checkpoint = load_checkpoint(save(model, tmp_path))
    encoder = Encoder(checkpoint.config).eval()
    encoder.load_state_dict(checkpoint.state_dict)
    rows = [row for row in ROWS if row]
    ids = torch.full((len(rows), 9), PAD)
    mask = torch.zeros_like(ids)
    for index, row in enumerate(rows):
        place = slice(9 - len(row), 9) if left else slice(0, len(row))
        ids[index, place], mask[index, place] = torch.tensor(row), 1
    if family != "mpnet":  # whose distances go by columns too, and those of a packed batch have no holes
        mask[0, 4] = 0  # a real token that is masked still counts
    with torch.inference_mode():
        expected = model(input_ids=ids, attention_mask=mask).last_hidden_state
        assert (encoder(ids, mask) - expected)[mask.bool()].abs().max() <= 1e-5 * float(expected.abs().max())
        batch = PackedBatch.from_sequences(rows[1:], uncounted_id=checkpoint.config.uncounted_id)
        packed = encoder(batch)
    assert (packed - expected[1:][mask[1:].bool()]).abs().max() <= 1e-5 * float(expected.abs().max())


@pytest.mark.parametrize("pack", [pack_batch, pack_batch_numpy])
def test_positions(pack):
    lengths = [len(row) for row in ROWS]
    tokens = TokenizedTexts(
        token_ids=np.array([token for row in ROWS for token in row], dtype=np.int32),
        offsets=np.concatenate(([0], np.cumsum(lengths))).astype(np.int64),
        token_type_ids=None,
        truncated=np.zeros(len(ROWS), bool),
    )
    order = np.array([4, 0, 3, 1, 5, 2], dtype=np.int64)
    batch = pack(tokens, order, device="cpu", uncounted_id=PAD)
    expected = [[0, 1, 2, 3, 4, 5, 6], [0, 1, 2, -1, 3, 4, 5], [], [0, -1, -1, 1, 2], [0, -1, 1], [-1]]
    assert batch.position_ids.tolist() == [place for row in expected for place in row]
    again = PackedBatch.from_sequences([ROWS[index] for index in order], uncounted_id=PAD)
    assert again.position_ids.tolist() == batch.position_ids.tolist()
    plain = pack(tokens, order, device="cpu")
    assert plain.position_ids.tolist() == [place for index in order for place in range(lengths[index])]


def test_bert_counts_every_token(tmp_path):
    from sentence_transformers import SentenceTransformer

    folder = make_bert_folder(tmp_path / "model")
    texts = ["a [PAD] b c", "[PAD] the cat"]
    theirs = SentenceTransformer(str(folder), device="cpu").encode(texts)
    np.testing.assert_allclose(SentenceEncoder(folder, device="cpu").encode(texts), theirs, atol=2e-5)
