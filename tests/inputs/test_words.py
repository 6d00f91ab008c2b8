"""Chinese words as tokens, by any callable and by jieba; everything else as the model's own tokenizer has it."""

from __future__ import annotations

import pickle
import sys

import numpy as np
import pytest
import tokenizers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from folders import WORDS, make_bert_folder
from sentcore import SentenceEncoder
from sentcore.errors import ArgumentTypeError, ArgumentValueError, MissingPackageError
from sentcore.inputs.tokenizer import Tokenizer
from sentcore.word_cutters import word_cutter

LONGER = ["北京", "天安门", "京天"]  # 京天 crosses two words: only a cut in the right places avoids it
DICTIONARY = ("天安门", "北京", "数据库")
NASTY = st.text(
    st.one_of(
        st.characters(exclude_categories=("Cs",)),
        st.sampled_from(" \t\n\x00\u3000\u0301\ufeff我爱北京天安门数据库。，[]MASK#'-\uf900"),
    ),
    max_size=40,
)


def cut(run):
    """Words of DICTIONARY from the left, the longest first; single characters elsewhere."""
    while run:
        word = next((word for word in DICTIONARY if run.startswith(word)), run[0])
        yield word
        run = run[len(word) :]


def as_tokens(tokenizer, text, **options):
    return tokenizer.tokens(tokenizer.encode([text], **options).token_ids)


@pytest.fixture
def folder(tmp_path):
    folder = make_bert_folder(tmp_path / "model", vocab_size=len(WORDS) + len(LONGER))
    (folder / "vocab.txt").write_text("\n".join([*WORDS, *LONGER]) + "\n", encoding="utf-8")
    return folder


@pytest.fixture
def by_words(folder):
    return Tokenizer.from_folder(folder, 24, words=cut)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("我爱北京天安门", "我 爱 北京 天安门"),
        ("the cats爱北京dog", "the cat ##s 爱 北京 dog"),
        ("北京 天安门，北 京", "北京 天安门 [UNK] 北 京"),
        ("天安北门", "天 安 北 门"),
        ("[MASK]北京[SEP]", "[MASK] 北京 [SEP]"),
        ("数据库北京", "[UNK] [UNK] [UNK] 北京"),  # a word that is not in the vocabulary is tokenized as by the model
        ("", ""),
        ("  ", ""),
    ],
)
def test_words_of_the_vocabulary_are_one_token(by_words, text, tokens):
    assert as_tokens(by_words, text) == ["[CLS]", *tokens.split(), "[SEP]"]


def test_bert_splits_into_characters_by_default(folder):
    assert as_tokens(Tokenizer.from_folder(folder, 24), "我爱北京天安门") == ["[CLS]", *"我爱北京天安门", "[SEP]"]


def test_jieba(folder):
    pytest.importorskip("jieba")
    encoder = SentenceEncoder(folder, device="cpu", words="jieba")
    assert as_tokens(encoder.tokenizer, "我爱北京天安门") == ["[CLS]", "我", "爱", "北京", "天安门", "[SEP]"]
    assert pickle.loads(pickle.dumps(word_cutter("jieba")))("北京") == ["北京"]


@given(st.lists(NASTY, max_size=3), st.integers(3, 20))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_single_characters_give_what_transformers_gives(minilm_folder, texts, limit):
    """Cut into characters, every text must come out as without words: parts handed over lose nothing."""
    theirs = _transformers(minilm_folder)
    tokens = _minilm_by_characters(minilm_folder).encode(texts, max_length=limit)
    rows = [tokens.token_ids[a:b].tolist() for a, b in zip(tokens.offsets[:-1], tokens.offsets[1:], strict=True)]
    assert rows == (theirs(texts, truncation=True, max_length=limit)["input_ids"] if texts else [])
    whole = [len(row) for row in theirs(texts)["input_ids"]] if texts else []
    assert tokens.truncated.tolist() == [length > limit for length in whole]


_made = {}


def _transformers(folder):
    return _made.setdefault("theirs", AutoTokenizer.from_pretrained(folder))


def _minilm_by_characters(folder):
    if "ours" not in _made:
        _made["ours"] = Tokenizer.from_folder(folder, 16, words=list)
    return _made["ours"]


def test_added_tokens_that_hold_chinese_are_not_cut(folder):
    rust = Tokenizer.from_folder(folder, 24)._rust
    rust.add_special_tokens(["[北京]", "<天安门>"])
    seen = []
    tokenizer = Tokenizer(rust, 24, words=lambda run: seen.append(run) or list(cut(run)))
    assert as_tokens(tokenizer, "我[北京]爱<天安门>北京") == [
        "[CLS]",
        "我",
        "[北京]",
        "爱",
        "<天安门>",
        "北京",
        "[SEP]",
    ]
    assert seen == ["我", "爱", "北京"]


def test_without_bert_splitting_characters(tmp_path):
    """A vocabulary for words may switch the characters' split off; then a word's own pieces are its fallback."""
    folder = make_bert_folder(tmp_path / "model", vocab_size=len(WORDS) + 3)
    (folder / "vocab.txt").write_text("\n".join([*WORDS, *LONGER[:2], "##京"]) + "\n", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text('{"tokenize_chinese_chars": false}')
    tokenizer = Tokenizer.from_folder(folder, 24, words=lambda run: [run[:1], run[1:3], run[3:]])
    assert as_tokens(tokenizer, "我北京天安门") == ["[CLS]", "我", "北京", "天安门", "[SEP]"]
    assert as_tokens(tokenizer, "我爱京") == ["[CLS]", "我", "爱", "##京", "[SEP]"]


def test_features_prompts_and_windows_are_by_words(folder):
    encoder = SentenceEncoder(folder, device="cpu", words=cut, max_length=6)
    plain = SentenceEncoder(folder, device="cpu", max_length=6)
    assert np.abs(encoder.encode("北京") - plain.encode("北京")).max() > 1e-3
    np.testing.assert_array_equal(encoder.encode("the cat"), plain.encode("the cat"))
    assert encoder.tokenizer.prompt_length("我爱北京") == 4
    assert encoder.tokenizer(["我爱北京天安门", "我爱北京天安门北京", "北京" * 5]).truncated.tolist() == [
        False,
        True,
        True,
    ]
    whole = next(iter(encoder.tokenizer.encode_whole(["北京" * 5])))
    assert whole.tolist() == encoder.tokenizer.encode(["北京" * 5], max_length=40).token_ids.tolist()
    row = encoder.encode("北京天安门" * 4, chunk="max", chunk_overlap=0)  # two equal windows
    np.testing.assert_allclose(row, encoder.encode("北京天安门" * 2), atol=2e-6)


def test_a_long_text_is_left_as_soon_as_it_is_full(folder):
    seen = []
    tokenizer = Tokenizer.from_folder(folder, 12, words=lambda run: seen.append(run) or list(cut(run)))
    assert tokenizer("我爱北京，" * 100_000).truncated.tolist() == [True]
    assert len(seen) < 10
    assert tokenizer("the cat " * 100_000 + "北京").truncated.tolist() == [True]
    assert len(seen) < 10


def test_wrong_words_are_named(folder, monkeypatch):
    with pytest.raises(ArgumentTypeError, match="words is 'pkuseg'; accepted: 'jieba', a callable"):
        SentenceEncoder(folder, device="cpu", words="pkuseg")
    for bad in (lambda run: [run, run], lambda run: [], lambda run: [run.encode()]):
        with pytest.raises(ArgumentValueError, match=r"words gave .* for '北京'; accepted: texts that joined"):
            SentenceEncoder(folder, device="cpu", words=bad).encode("the 北京")
    monkeypatch.setitem(sys.modules, "jieba", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'sentcore\[chinese\]'"):
        SentenceEncoder(folder, device="cpu", words="jieba")


def test_other_tokenizers_are_refused():
    rust = tokenizers.Tokenizer(tokenizers.models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    rust.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    with pytest.raises(ArgumentValueError, match="pre-tokenizer is Metaspace; accepted: BertPreTokenizer"):
        Tokenizer(rust, 12, words=cut)
