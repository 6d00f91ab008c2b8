"""Texts to token ids, by the Rust tokenizers library, exactly as transformers and sentence-transformers get them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer as RustTokenizer
from tokenizers import normalizers
from tokenizers.implementations import BertWordPieceTokenizer

from sentcore.errors import ArgumentValueError, CheckpointError, MissingFileError
from sentcore.inputs.shorten import Shortener
from sentcore.inputs.words import Words
from sentcore.packed import TokenizedTexts

CHUNK = 1024  # texts handed to Rust at once; its results are large until their ids are copied out
CHARACTERS = 2_000_000  # the same of whole texts, of which a single one may have more


class Tokenizer:
    """The tokenizer of a model folder.

    Args:
        rust: the tokenizers library's object; its own padding and truncation are switched off.
        max_length: tokens a text is cut at, special tokens included.
        words: a callable that cuts runs of CJK characters into words, for vocabularies that hold words (see `inputs.words`);
            None for the model's own tokenization.

    Raises:
        ArgumentValueError: words for a tokenizer that is not of BERT's kind.
    """

    def __init__(
        self, rust: RustTokenizer, max_length: int, words: Callable[[str], Iterable[str]] | None = None
    ) -> None:
        rust.no_padding()
        rust.no_truncation()
        self._rust = rust
        self.max_length = max_length
        self._shortener = Shortener(rust)
        self._words = None if words is None else Words(rust, self._shortener, words)

    @classmethod
    def from_folder(
        cls,
        folder: str | Path,
        max_length: int,
        do_lower_case: bool = False,
        words: Callable[[str], Iterable[str]] | None = None,
    ) -> Tokenizer:
        """Reads tokenizer.json, or makes BERT's tokenizer from vocab.txt and tokenizer_config.json.

        Raises:
            MissingFileError: neither is there.
            CheckpointError: the file is damaged.
        """
        folder = Path(folder)
        path, vocabulary = folder / "tokenizer.json", folder / "vocab.txt"
        if path.is_file():
            try:
                rust = RustTokenizer.from_file(str(path))
            except Exception as error:  # the Rust library raises nothing narrower
                raise CheckpointError(f"{path} is no tokenizer ({error}); download it again") from error
        elif vocabulary.is_file():
            rust = _bert_tokenizer(vocabulary, folder / "tokenizer_config.json")
        else:
            raise MissingFileError(
                f"{folder} holds no tokenizer; accepted: tokenizer.json, or BERT's vocab.txt. Copy it from the model's "
                "origin"
            )
        if do_lower_case:
            _lower_case_first(rust)
        return cls(rust, max_length, words)

    def describe(self) -> str:
        """All that decides which ids a text gets, as a text that is the same for the same tokenizer."""
        words = None if self._words is None else self._words.name
        return f"{words}\n{self._rust.to_str()}"

    def encode(self, texts: list[str], max_length: int | None = None) -> TokenizedTexts:
        """Token ids of B texts with special tokens, each text cut at max_length tokens."""
        limit = self.max_length if max_length is None else max_length
        if self._words is not None:
            return self._encode_by_words(texts, limit)
        ids, lengths, truncated = [], [], []
        # Before truncation is on: the shortener counts the tokens of whole prefixes.
        texts = [self._shortener(text, limit) for text in texts]
        self._rust.enable_truncation(limit)
        try:
            for first in range(0, len(texts), CHUNK):
                encodings = self._rust.encode_batch_fast(texts[first : first + CHUNK])
                rows = [encoding.ids for encoding in encodings]
                lengths.extend(map(len, rows))
                truncated.extend(
                    len(row) == limit and bool(encoding.overflowing)
                    for row, encoding in zip(rows, encodings, strict=True)
                )
                ids.append(np.fromiter(chain.from_iterable(rows), np.int32))
        finally:
            self._rust.no_truncation()
        offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
        np.cumsum(lengths, out=offsets[1:])
        return TokenizedTexts(
            token_ids=np.concatenate(ids) if ids else np.zeros(0, np.int32),
            offsets=offsets,
            token_type_ids=None,
            truncated=np.array(truncated, dtype=np.bool_),
        )

    def encode_pairs(
        self, pairs: list[tuple[str, str]], max_length: int | None = None, token_types: bool = True
    ) -> TokenizedTexts:
        """Token ids of B pairs of texts, each pair in one row, with special tokens.

        Args:
            pairs: the two texts of each.
            max_length: tokens a pair is cut at: the longer text loses the tokens at its end, and where both are long each
                keeps half (transformers' "longest_first").
            token_types: whether token_type_ids tells the second text from the first.

        Raises:
            ArgumentValueError: max_length leaves no room beside the special tokens.
        """
        limit = self.max_length if max_length is None else max_length
        special = self._rust.num_special_tokens_to_add(is_pair=True)
        if limit <= special:
            raise ArgumentValueError(
                f"max_length is {limit}; accepted for pairs: more than {special}, the special tokens of one"
            )
        ids, types, lengths, truncated = [], [], [], []
        # Before truncation is on: the shortener counts the tokens of whole prefixes.
        pairs = [self._shortener.pair(first, second, limit) for first, second in pairs]
        self._rust.enable_truncation(limit, strategy="longest_first")
        try:
            for first in range(0, len(pairs), CHUNK):
                encodings = self._rust.encode_batch_fast(pairs[first : first + CHUNK])
                rows = [encoding.ids for encoding in encodings]
                lengths.extend(map(len, rows))
                truncated.extend(bool(encoding.overflowing) for encoding in encodings)
                ids.append(np.fromiter(chain.from_iterable(rows), np.int32))
                if token_types:
                    kinds = chain.from_iterable(encoding.type_ids for encoding in encodings)
                    types.append(np.fromiter(kinds, np.int32))
        finally:
            self._rust.no_truncation()
        offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
        np.cumsum(lengths, out=offsets[1:])
        none = np.zeros(0, np.int32)
        return TokenizedTexts(
            token_ids=np.concatenate(ids) if ids else none,
            offsets=offsets,
            token_type_ids=(np.concatenate(types) if types else none) if token_types else None,
            truncated=np.array(truncated, dtype=np.bool_),
        )

    def encode_whole(self, texts: list[str]) -> Iterator[np.ndarray]:
        """[n] int32 ids of every text with special tokens, however many; few texts are held at once."""
        held: list[str] = []
        for text in texts:
            if held and (len(held) == CHUNK or sum(map(len, held)) + len(text) > CHARACTERS):
                yield from self._whole(held)
                held = []
            held.append(text)
        yield from self._whole(held)

    def special_tokens(self) -> tuple[int, int]:
        """How many special tokens are put before a text and behind it."""
        before, behind = self._special_ids()
        return len(before), len(behind)

    def _special_ids(self) -> tuple[list[int], list[int]]:
        encoding = self._rust.encode("a")
        ids, mask = encoding.ids, encoding.special_tokens_mask
        if 0 not in mask:  # a vocabulary without "a"
            return ids[:1], ids[1:]
        return ids[: mask.index(0)], ids[len(ids) - mask[::-1].index(0) :]

    def _encode_by_words(self, texts: list[str], limit: int) -> TokenizedTexts:
        before, behind = self._special_ids()
        room = limit - len(before) - len(behind)
        bodies = [self._words.ids(text, room) for text in texts]
        rows = [[*before, *body[:room], *behind] for body in bodies]
        offsets = np.zeros(len(rows) + 1, dtype=np.int64)
        np.cumsum([len(row) for row in rows], out=offsets[1:])
        return TokenizedTexts(
            token_ids=np.fromiter(chain.from_iterable(rows), np.int32),
            offsets=offsets,
            token_type_ids=None,
            truncated=np.array([len(body) > room for body in bodies], dtype=np.bool_),
        )

    def _whole(self, texts: list[str]) -> list[np.ndarray]:
        if self._words is not None:
            before, behind = self._special_ids()
            return [np.array([*before, *self._words.ids(text), *behind], dtype=np.int32) for text in texts]
        return [np.array(encoding.ids, dtype=np.int32) for encoding in self._rust.encode_batch_fast(texts)]

    def __call__(self, texts: str | list[str], max_length: int | None = None) -> TokenizedTexts:
        """`encode`, for one text too."""
        return self.encode([texts] if isinstance(texts, str) else texts, max_length)

    def prompt_length(self, prompt: str) -> int:
        """Tokens a prompt takes at the start of a text: its own with special tokens, less a closing one."""
        if self._words is not None:
            return len(self._special_ids()[0]) + len(self._words.ids(prompt))
        encoding = self._rust.encode(prompt)
        closes = bool(encoding.special_tokens_mask) and encoding.special_tokens_mask[-1] == 1
        return len(encoding.ids) - int(closes and len(encoding.ids) > 1)

    def decode(self, token_ids: list[int], skip_special_tokens: bool = True) -> str:
        """The text of token ids."""
        return self._rust.decode(list(token_ids), skip_special_tokens=skip_special_tokens)

    def tokens(self, token_ids: list[int]) -> list[str]:
        """The word pieces of token ids; "[id 7]" for an id that the vocabulary has no token for."""
        found = ((int(token_id), self._rust.id_to_token(int(token_id))) for token_id in token_ids)
        return [f"[id {token_id}]" if token is None else token for token_id, token in found]

    def special_ids(self, names: Iterable[str]) -> list[int]:
        """Ids of what this tokenizer puts around a text, of its unknown token, and of the special tokens in `names`."""
        model = json.loads(self._rust.to_str())["model"]  # Unigram tells of its unknown token nowhere else
        named = {self._rust.token_to_id(name) for name in (*names, model.get("unk_token")) if name}
        return sorted({*named, model.get("unk_id"), *self._rust.encode("").ids} - {None})

    @property
    def vocab_size(self) -> int:
        """Token ids, added ones included."""
        return self._rust.get_vocab_size()


def _bert_tokenizer(vocabulary: Path, config: Path) -> RustTokenizer:
    try:
        settings = json.loads(config.read_bytes()) if config.is_file() else {}
        lines = vocabulary.read_text(encoding="utf-8").split("\n")
    except ValueError as error:
        raise CheckpointError(
            f"{vocabulary.parent}: vocab.txt or tokenizer_config.json is damaged ({error}); download them again"
        ) from error
    if lines and not lines[-1]:
        lines.pop()
    tokens = {token.rstrip("\r"): index for index, token in enumerate(lines)}
    needed = [token for token in ("[UNK]", "[CLS]", "[SEP]") if token not in tokens]
    if needed:
        raise CheckpointError(f"{vocabulary} lacks {', '.join(needed)}; accepted: a BERT vocabulary, one token a line")
    return BertWordPieceTokenizer(
        tokens,
        handle_chinese_chars=settings.get("tokenize_chinese_chars", True),
        strip_accents=settings.get("strip_accents"),
        lowercase=settings.get("do_lower_case", True),
    )._tokenizer


def _lower_case_first(rust: RustTokenizer) -> None:
    normalizer = rust.normalizer
    if normalizer is not None and getattr(normalizer, "lowercase", False):
        return
    parts = [normalizers.Lowercase()] + ([normalizer] if normalizer is not None else [])
    rust.normalizer = normalizers.Sequence(parts)
