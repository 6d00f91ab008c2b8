"""Tokens by words where a vocabulary holds words: 我爱北京天安门 as 我, 爱, 北京, 天安门.

BERT's tokenizer takes every Chinese character for a word of its own, so a vocabulary's longer words are never reached
(Su 2020, WoBERT, https://github.com/ZhuiyiTechnology/WoBERT). Here runs of CJK characters are cut by a callable; the text
between them, special tokens included, is tokenized by the model as ever.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator

from tokenizers import Tokenizer as RustTokenizer

from sentcore.errors import ArgumentValueError
from sentcore.inputs.shorten import CJK, Shortener

REMEMBERED = 65_536  # words of which the ids are kept


class Words:
    """Ids of texts by words.

    Args:
        rust: a tokenizer that splits words as BERT's does, so that text may be handed over in parts.
        shortener: of the same tokenizer.
        cut: a run of CJK characters -> its words, which joined are the run.

    Raises:
        ArgumentValueError: a tokenizer of another kind.
    """

    def __init__(self, rust: RustTokenizer, shortener: Shortener, cut: Callable[[str], Iterable[str]]) -> None:
        settings = json.loads(rust.to_str())
        splitter = (settings.get("pre_tokenizer") or {}).get("type")
        if splitter != "BertPreTokenizer":
            raise ArgumentValueError(
                f"words are given for a tokenizer whose pre-tokenizer is {splitter}; accepted: BertPreTokenizer, which takes "
                "words apart from each other. Leave out words"
            )
        self._rust, self._shortener, self._cut = rust, shortener, cut
        self.name = f"{cut.__module__}.{cut.__qualname__}" if hasattr(cut, "__qualname__") else repr(type(cut))
        added = [token["content"] for token in settings.get("added_tokens", ()) if re.search(CJK, token["content"])]
        whole = "|".join(map(re.escape, sorted(added, key=len, reverse=True)))
        # An added token that holds such characters is no run to be cut.
        self._run = re.compile(f"{f'(?:{whole})|' if added else ''}(?P<run>{CJK}+)")
        self._known: dict[str, list[int]] = {}

    def ids(self, text: str, limit: int | None = None) -> list[int]:
        """The text's ids without special tokens: all, or where there are more than `limit`, at least limit + 1 of them."""
        ids: list[int] = []
        for part, is_run in self._parts(text):
            if is_run:
                for word in self._words_of(part):
                    ids.extend(self._ids_of(word))
            else:
                part = part if limit is None else self._shortener(part, limit)
                ids.extend(self._rust.encode(part, add_special_tokens=False).ids)
            if limit is not None and len(ids) > limit:
                break
        return ids

    def _parts(self, text: str) -> Iterator[tuple[str, bool]]:
        """(part, whether it is a run of CJK characters), in order."""
        begin = 0
        for found in self._run.finditer(text):
            if found["run"] is None:
                continue
            if found.start() > begin:
                yield text[begin : found.start()], False
            yield found["run"], True
            begin = found.end()
        if begin < len(text):
            yield text[begin:], False

    def _words_of(self, run: str) -> list[str]:
        words = list(self._cut(run))
        if not all(isinstance(word, str) for word in words) or "".join(words) != run:
            raise ArgumentValueError(
                f"words gave {words[:8]!r}{' and more' if len(words) > 8 else ''} for {run[:40]!r}; accepted: texts that "
                "joined are the text it was given"
            )
        return words

    def _ids_of(self, word: str) -> list[int]:
        ids = self._known.get(word)
        if ids is None:
            token_id = self._rust.token_to_id(word)
            ids = self._rust.encode(word, add_special_tokens=False).ids if token_id is None else [token_id]
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            self._known[word] = ids
        return ids
