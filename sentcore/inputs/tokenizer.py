"""Texts to token ids, by the Rust tokenizers library, exactly as transformers and sentence-transformers get them."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from functools import wraps
from itertools import chain
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer as RustTokenizer

from sentcore.errors import ArgumentValueError, CheckpointError
from sentcore.inputs.foreign import check_ids, check_template, check_vocabulary, named_errors
from sentcore.inputs.labels import readable
from sentcore.inputs.rust_tokenizer import read_rust_tokenizer
from sentcore.inputs.shorten import Shortener
from sentcore.inputs.words import Words
from sentcore.packed import TokenizedTexts

CHUNK = 1024  # texts handed to Rust at once; its results are large until their ids are copied out
CHARACTERS = 2_000_000  # the same of whole texts, of which a single one may have more


def _alone(method: Callable) -> Callable:
    """The method, in one thread at a time: truncation is a state of the Rust object, on in the middle of some of them."""

    @wraps(method)
    def locked(self: Tokenizer, *args, **kwargs):
        with self._lock():
            return method(self, *args, **kwargs)

    return locked


class Tokenizer:
    """The tokenizer of a model folder; threads may share it.

    Args:
        rust: the tokenizers library's object; its own padding and truncation are switched off.
        max_length: tokens a text is cut at, special tokens included.
        words: a callable that cuts runs of CJK characters into words, for vocabularies that hold words (see `inputs.words`);
            None for the model's own tokenization.
        vocab_size: rows of the model's word embeddings, which no id may exceed; None to let every id through.
        source: the tokenizer's file, for messages.

    Raises:
        ArgumentValueError: words for a tokenizer that is not of BERT's kind.
        CheckpointError: the special tokens alone are more than max_length.
    """

    def __init__(
        self,
        rust: RustTokenizer,
        max_length: int,
        words: Callable[[str], Iterable[str]] | None = None,
        vocab_size: int | None = None,
        source: Path | str = "the tokenizer",
    ) -> None:
        self._rust, self._vocab_size, self._source = rust, vocab_size, source
        self.max_length = max_length
        with named_errors(source, "reading it"):
            rust.no_padding()
            rust.no_truncation()
            check_vocabulary(rust, source)
            self._shortener = Shortener(rust)
            check_template(rust, source)
            special = rust.num_special_tokens_to_add(is_pair=False)
        if special > max_length:
            raise CheckpointError(
                f"{source} puts {special} special tokens around a text, and a text is cut at {max_length} tokens; accepted: fewer "
                "of them. Raise max_length, or download the folder again"
            )
        self._words = None if words is None else Words(rust, self._shortener, words)
        self._locks: dict[int, threading.RLock] = {}

    def _lock(self) -> threading.RLock:
        pid = os.getpid()
        if pid not in self._locks:
            # In a forked process a lock stays as it was, held by a thread that is not there, and truncation may be on.
            if self._locks:
                self._rust.no_truncation()
            self._locks = {**self._locks, pid: self._locks.get(pid) or threading.RLock()}
        return self._locks[pid]

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_locks": {}}

    @classmethod
    def from_folder(
        cls,
        folder: str | Path,
        max_length: int,
        do_lower_case: bool = False,
        words: Callable[[str], Iterable[str]] | None = None,
        vocab_size: int | None = None,
    ) -> Tokenizer:
        """Reads tokenizer.json, or makes BERT's tokenizer from vocab.txt and tokenizer_config.json.

        Raises:
            MissingFileError: neither is there.
            CheckpointError: the file is damaged.
        """
        rust, path = read_rust_tokenizer(Path(folder), do_lower_case)
        return cls(rust, max_length, words, vocab_size, path)

    @_alone
    def describe(self) -> str:
        """All that decides which ids a text gets, as a text that is the same for the same tokenizer."""
        words = None if self._words is None else self._words.name
        return f"{words}\n{self._rust.to_str()}"

    @_alone
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
                encodings = self._batch(texts[first : first + CHUNK])
                rows = [encoding.ids for encoding in encodings]
                lengths.extend(map(len, rows))
                truncated.extend(
                    len(row) == limit and bool(encoding.overflowing)
                    for row, encoding in zip(rows, encodings, strict=True)
                )
                ids.append(self._ids(rows))
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

    @_alone
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
                encodings = self._batch(pairs[first : first + CHUNK])
                rows = [encoding.ids for encoding in encodings]
                lengths.extend(map(len, rows))
                truncated.extend(bool(encoding.overflowing) for encoding in encodings)
                ids.append(self._ids(rows))
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

    @_alone
    def _special_ids(self) -> tuple[list[int], list[int]]:
        with named_errors(self._source, "tokenizing"):
            encoding = self._rust.encode("a")
        ids, mask = encoding.ids, encoding.special_tokens_mask
        if 0 not in mask:  # a vocabulary without "a"
            return ids[:1], ids[1:]
        return ids[: mask.index(0)], ids[len(ids) - mask[::-1].index(0) :]

    @_alone
    def _encode_by_words(self, texts: list[str], limit: int) -> TokenizedTexts:
        before, behind = self._special_ids()
        room = limit - len(before) - len(behind)
        bodies = [self._words.ids(text, room) for text in texts]
        rows = [[*before, *body[:room], *behind] for body in bodies]
        offsets = np.zeros(len(rows) + 1, dtype=np.int64)
        np.cumsum([len(row) for row in rows], out=offsets[1:])
        return TokenizedTexts(
            token_ids=self._ids(rows),
            offsets=offsets,
            token_type_ids=None,
            truncated=np.array([len(body) > room for body in bodies], dtype=np.bool_),
        )

    @_alone
    def _whole(self, texts: list[str]) -> list[np.ndarray]:
        if self._words is not None:
            before, behind = self._special_ids()
            return [self._ids([[*before, *self._words.ids(text), *behind]]) for text in texts]
        return [self._ids([encoding.ids]) for encoding in self._batch(texts)]

    def _batch(self, texts: list) -> list:
        """The Rust library's encodings of texts, or of pairs of them."""
        with named_errors(self._source, "tokenizing"):
            return self._rust.encode_batch_fast(texts)

    def _ids(self, rows: Iterable[Iterable[int]]) -> np.ndarray:
        """[T] int32, the ids of the rows one after the other."""
        with named_errors(self._source, "tokenizing"):  # ids of 32 bits without a sign
            return check_ids(np.fromiter(chain.from_iterable(rows), np.int32), self._vocab_size, self._source)

    def __call__(self, texts: str | list[str], max_length: int | None = None) -> TokenizedTexts:
        """`encode`, for one text too."""
        return self.encode([texts] if isinstance(texts, str) else texts, max_length)

    @_alone
    def prompt_length(self, prompt: str) -> int:
        """Tokens a prompt takes at the start of a text: its own with special tokens, less a closing one."""
        if self._words is not None:
            return len(self._special_ids()[0]) + len(self._words.ids(prompt))
        with named_errors(self._source, "tokenizing"):
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

    def labels(self, token_ids: list[int]) -> list[str]:
        """The word pieces as a reader would write them: of a vocabulary of bytes their characters, "␣" for a space, or
        "<E6 88>" for bytes that are no whole character."""
        pieces = self.tokens(token_ids)
        decoder = json.loads(self._rust.to_str())["decoder"]
        if "ByteLevel" not in json.dumps(decoder):
            return pieces
        decoded = (self._rust.decode([int(token_id)], skip_special_tokens=False) for token_id in token_ids)
        return [readable(text, piece) for text, piece in zip(decoded, pieces, strict=True)]

    @_alone
    def special_ids(self, names: Iterable[str]) -> list[int]:
        """Ids of what this tokenizer puts around a text, of its unknown token, and of the special tokens in `names`."""
        model = json.loads(self._rust.to_str())["model"]  # Unigram tells of its unknown token nowhere else
        named = {self._rust.token_to_id(name) for name in (*names, model.get("unk_token")) if name}
        with named_errors(self._source, "tokenizing"):
            around = self._rust.encode("").ids
        return sorted({*named, model.get("unk_id"), *around} - {None})

    @property
    def vocab_size(self) -> int:
        """Token ids, added ones included."""
        return self._rust.get_vocab_size()
