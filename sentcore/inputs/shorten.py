"""Cuts the far end off a very long text before it is tokenized, where that cannot change the tokens that are kept.

Tokenizing a line of a megabyte makes a quarter of a million tokens to keep 256. BERT's tokenizer works on one word at a
time, so the tokens of a text cut between two words are the first tokens of the whole text.
"""

from __future__ import annotations

import json
import re

from tokenizers import Tokenizer as RustTokenizer

CHARACTERS_A_TOKEN = 16  # a first guess; the prefix is doubled until it holds enough tokens

# Characters BERT's normalizer sets apart as words of their own when handle_chinese_chars is on.
CJK = (
    "[\u4e00-\u9fff\u3400-\u4dbf\U00020000-\U0002a6df\U0002a700-\U0002b73f\U0002b740-\U0002b81f"
    "\U0002b920-\U0002ceaf\uf900-\ufaff\U0002f800-\U0002fa1f]"
)
_CJK = re.compile(CJK)


class Shortener:
    """Shortens long texts for one tokenizer; leaves them whole for a tokenizer that does not split at white space."""

    def __init__(self, rust: RustTokenizer) -> None:
        self._rust = rust
        settings = json.loads(rust.to_str())
        splitter = (settings.get("pre_tokenizer") or {}).get("type")
        normalizer = settings.get("normalizer") or {}
        # An added token with a space inside could be cut in two.
        whole = all(" " not in token["content"] for token in settings.get("added_tokens", ()))
        plain = normalizer.get("type") in (None, "BertNormalizer", "Lowercase")
        self._works = splitter == "BertPreTokenizer" and plain and whole
        self._cjk = bool(normalizer.get("handle_chinese_chars"))

    def __call__(self, text: str, max_length: int) -> str:
        """`text`, or a prefix of it whose first max_length tokens are the same and which has more than that."""
        size = CHARACTERS_A_TOKEN * max_length
        while self._works and size < len(text):
            prefix = text[: self._boundary(text, size)]
            # Not one token too few: a text must still be seen to be longer than max_length.
            if len(self._rust.encode(prefix, add_special_tokens=False).ids) > max_length:
                return prefix
            size *= 2
        return text

    def pair(self, first: str, second: str, max_length: int) -> tuple[str, str]:
        """The two texts of a pair, whose first max_length tokens by "longest_first" stay the same.

        Which of the two is longer decides who keeps an odd token, so only one is shortened, and only beside a text of at
        most max_length tokens: what is left of it is longer still.
        """
        size = CHARACTERS_A_TOKEN * max_length
        if not self._works or max(len(first), len(second)) <= size:
            return first, second
        if len(first) > len(second):
            return (self(first, max_length) if self._fits(second, max_length) else first), second
        return first, (self(second, max_length) if self._fits(first, max_length) else second)

    def _fits(self, text: str, max_length: int) -> bool:
        return len(self._rust.encode(text, add_special_tokens=False).ids) <= max_length

    def _boundary(self, text: str, size: int) -> int:
        """Where the text may be cut at or before `size`: before a space, or beside a CJK character; else 0."""
        space = max(text.rfind(character, 0, size) for character in " \t\n\r")
        if not self._cjk:
            return max(space, 0)
        for position in range(size, max(space, 0), -1):
            if _CJK.match(text, position - 1):
                return position
        return max(space, 0)
