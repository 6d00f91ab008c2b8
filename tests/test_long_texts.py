"""Texts longer than the model reads: cut with one note, or encoded in windows, compared with windows made by hand."""

from __future__ import annotations

import io
import sys
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import sentcore.pipeline.chunks
from folders import make_bert_folder
from sentcore import PackedBatch, SentenceEncoder
from sentcore.cli import main
from sentcore.errors import ArgumentTypeError, ArgumentValueError, TruncationWarning

LIMIT = 12  # ten tokens of text
TEXTS = [
    "a b c d e f g h i j k l m n o p q r s t u v w x y z",  # 26
    "the cat",
    "a b c d e f g h i j",  # exactly LIMIT with special tokens
    "a b c d e f g h i j k",  # one more
    "",
    "我爱北京天安门 " * 9,
    "sat on the dog " * 300,
]


@pytest.fixture
def build(tmp_path):
    def make(**settings):
        encoder = SentenceEncoder(make_bert_folder(tmp_path / "model", **settings), device="cpu", max_length=LIMIT)
        return encoder

    return make


def by_hand(encoder, text, mode, overlap, prompt="", normalize=False):
    """The feature of one text from windows of its ids, each a batch of its own."""
    rust = encoder.tokenizer._rust
    ids = rust.encode(prompt + text).ids
    if len(ids) <= LIMIT:
        return encoder.encode([text], prompt=prompt)[0]
    head = ids[: 1 + len(rust.encode(prompt, add_special_tokens=False).ids)]
    body = ids[len(head) : -1]
    room = LIMIT - len(head) - 1
    features, weights, begin, seen = [], [], 0, 0
    while True:
        window = [*head, *body[begin : begin + room], ids[-1]]
        with torch.inference_mode():
            skip = len(head) if prompt else 0
            features.append(encoder.model(PackedBatch.from_sequences([window]), skip).sentence_embedding[0])
        end = min(begin + room, len(body))
        weights.append(end - seen)
        seen = end
        if end == len(body):
            break
        begin += room - overlap
    features = torch.stack(features)
    if mode == "max":
        pooled = features.max(0).values
    else:
        weights = torch.tensor(weights, dtype=torch.float32)
        pooled = (features * weights[:, None]).sum(0) / weights.sum()
    return (F.normalize(pooled, dim=0) if normalize else pooled).numpy()


@pytest.mark.parametrize("mode", ["mean", "max"])
@pytest.mark.parametrize("overlap", [0, 1, 3, 9])
@pytest.mark.parametrize("normalize", [False, True])
def test_windows_by_hand(build, mode, overlap, normalize):
    encoder = build(normalize=normalize)
    found = encoder.encode(TEXTS, chunk=mode, chunk_overlap=overlap)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = np.stack([by_hand(encoder, text, mode, overlap, normalize=normalize) for text in TEXTS])
        cut = encoder.encode(TEXTS)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert [bool(np.abs(a - b).max() > 1e-3) for a, b in zip(found, cut, strict=True)] == [
        *(True, False, False, True, False, True, True)
    ]


@pytest.mark.parametrize("include", [True, False])
def test_the_prompt_stands_on_every_window(build, include):
    pooling = {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True, "include_prompt": include}
    encoder = build(pooling=pooling)
    texts = [text for text in TEXTS if text]
    found = encoder.encode(texts, prompt="the cat ", chunk="mean", chunk_overlap=2)
    expected = np.stack([by_hand(encoder, text, "mean", 2, prompt="the cat ") for text in texts])
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"normalize_embeddings": True, "truncate_dim": 7}], ids=["plain", "finished"])
def test_texts_that_fit_keep_their_bits(minilm, options):
    texts = ["a short one", "", "我爱北京天安门", *("word " * n for n in range(1, 20))]
    alone = minilm.encode(texts, **options)
    np.testing.assert_array_equal(minilm.encode(texts, chunk="mean", **options), alone)
    # Beside long ones the batches are others; where a sentence's bits do not depend on its batch they stay the same.
    beside = minilm.encode([texts[0], "long " * 700, *texts[1:], "longer " * 900], chunk="max", **options)
    np.testing.assert_allclose(np.delete(beside, [1, len(beside) - 1], axis=0), alone, atol=2e-6)


def test_bits_beside_long_texts_where_the_batch_does_not_matter(texts):
    try:
        encoder = SentenceEncoder("minilm", device="cpu", batch_invariant=True)
    except ArgumentValueError as error:
        pytest.skip(str(error))
    beside = encoder.encode(["the cat", "long " * 700, "x"], chunk="mean")
    np.testing.assert_array_equal(beside[[0, 2]], encoder.encode(["the cat", "x"]))
    np.testing.assert_array_equal(beside[1], encoder.encode(["long " * 700, "many " * 2000], chunk="mean")[0])


def test_truncation_and_normalization_come_after_the_windows(build):
    encoder = build()
    full = torch.from_numpy(encoder.encode(TEXTS, chunk="mean"))
    found = encoder.encode(TEXTS, chunk="mean", truncate_dim=8, normalize_embeddings=True)
    np.testing.assert_allclose(found, F.normalize(full[:, :8], dim=1).numpy(), atol=1e-6)


def test_blocks_budgets_and_groups_give_the_same(build, monkeypatch):
    encoder = build(normalize=True)
    expected = encoder.encode(TEXTS, chunk="mean")
    monkeypatch.setattr(sentcore.pipeline.chunks, "WINDOWS", 5)
    np.testing.assert_allclose(encoder.encode(TEXTS, chunk="mean", batch_tokens=30), expected, atol=2e-6)
    blocks = list(encoder.encode_iter(iter(TEXTS), chunk="mean", window=2))
    assert np.concatenate([index for index, _ in blocks]).tolist() == list(range(len(TEXTS)))
    np.testing.assert_allclose(np.concatenate([rows for _, rows in blocks]), expected, atol=2e-6)
    np.testing.assert_allclose(encoder.encode(TEXTS[0], chunk="mean"), expected[0], atol=2e-6)
    assert encoder.encode([], chunk="mean").shape == (0, 32)


def test_the_default_overlap_is_an_eighth(minilm):
    from sentcore.encode_options import EncodeOptions

    def overlap(**options):
        given = {"prompt": None, "output_value": "sentence_embedding", "precision": "float32", "chunk": "mean"}
        given |= {"prompt_name": None, "normalize": False, "truncate_dim": None} | options
        return EncodeOptions.check(minilm, **given).chunking.overlap

    assert overlap() == (minilm.max_seq_length - 2) // 8
    assert overlap(chunk_overlap=0) == 0
    assert overlap(prompt="one two three four " * 60) == (minilm.max_seq_length - 2 - 240) // 8


def test_no_window_is_only_overlap(build):
    encoder = build()
    encoder.max_seq_length = 4  # two tokens of text; the default overlap is one of them
    seen = []
    monkeypatched = encoder.model.forward
    encoder.model.forward = lambda batch, *rest: (seen.extend(batch.token_ids.tolist()), monkeypatched(batch, *rest))[1]
    encoder.encode("a b c d", chunk="mean")
    assert len(seen) == 3 * 4
    encoder.max_seq_length = 3
    seen.clear()
    encoder.encode("a b c d", chunk="mean")
    assert len(seen) == 4 * 3


def test_a_megabyte_stays_within_the_budget(build):
    encoder = build()
    sizes = []
    forward = encoder.model.forward
    encoder.model.forward = lambda batch, *rest: (sizes.append(batch.num_tokens), forward(batch, *rest))[1]
    rows = encoder.encode(["the cat " * 125_000, "x"], chunk="mean", chunk_overlap=1, batch_tokens=4096)
    assert rows.shape == (2, 32) and np.isfinite(rows).all()
    assert max(sizes) <= 4096 and sum(sizes) > 250_000
    # The words repeat and so do the windows: the whole is close to two of them.
    few = encoder.encode("the cat " * 1000, chunk="mean", chunk_overlap=1)
    np.testing.assert_allclose(rows[0], few, atol=1e-2)


def test_progress_counts_texts(build, monkeypatch):
    encoder = build()
    said = io.StringIO()
    monkeypatch.setattr(sys, "stderr", said)
    encoder.encode(TEXTS, chunk="mean", show_progress_bar=True)
    assert f"{len(TEXTS)}/{len(TEXTS)}" in said.getvalue()


def test_one_note_on_what_was_cut(build):
    encoder = build()
    assert encoder.tokenizer(TEXTS).truncated.tolist() == [True, False, False, True, False, True, True]
    with pytest.warns(TruncationWarning, match="4 of 7 texts are longer than 12 tokens .* chunk='mean'") as noted:
        encoder.encode(TEXTS)
    assert len(noted) == 1 and noted[0].filename == __file__
    with pytest.warns(TruncationWarning, match="4 of 7 texts") as noted:
        list(encoder.encode_iter(TEXTS, window=2))
    assert len(noted) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encoder.encode(TEXTS[1:3])
        encoder.encode(TEXTS, chunk="max")


def test_command_line(tmp_path, capsys):
    folder = make_bert_folder(tmp_path / "model")
    arguments = ["encode", *TEXTS, "-m", str(folder), "--max-length", str(LIMIT), "-o"]
    assert main([*arguments, str(tmp_path / "cut.npy")]) == 0
    assert "4 of 7 texts are longer than 12 tokens" in capsys.readouterr().err
    assert main([*arguments, str(tmp_path / "all.npy"), "--chunk", "mean", "--chunk-overlap", "0"]) == 0
    assert "longer" not in capsys.readouterr().err
    encoder = SentenceEncoder(folder, device="cpu", max_length=LIMIT)
    expected = encoder.encode(TEXTS, chunk="mean", chunk_overlap=0)
    np.testing.assert_allclose(np.load(tmp_path / "all.npy"), expected, atol=2e-6)
    assert main([*arguments, str(tmp_path / "no.npy"), "--chunk-overlap", "2"]) == 2
    assert "chunk_overlap is 2 and chunk is None" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"chunk": "sum"}, "chunk is 'sum'; accepted: 'mean', 'max'"),
        ({"chunk_overlap": 3}, "chunk_overlap is 3 and chunk is None"),
        ({"chunk": "mean", "chunk_overlap": 10}, "chunk_overlap is 10; accepted: 0 to 9"),
        ({"chunk": "mean", "chunk_overlap": -1}, "chunk_overlap is -1; accepted: 0 to 9"),
        ({"chunk": "mean", "chunk_overlap": 1.5}, "chunk_overlap is 1.5 of type float"),
        ({"chunk": "mean", "output_value": "token_embeddings"}, "output_value 'token_embeddings'"),
        ({"chunk": "mean", "prompt": "the cat sat on the dog a b c d"}, "the special tokens are 12 tokens"),
    ],
)
def test_wrong_options_are_named(build, options, says):
    with pytest.raises((ArgumentValueError, ArgumentTypeError), match=says):
        build().encode(TEXTS, **options)
