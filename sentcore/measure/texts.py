"""What is measured on: some of a user's texts, or texts made of the sentences that come with the package."""

from __future__ import annotations

import random
from collections.abc import Iterable
from itertools import islice

from sentcore.encode_options import pick_prompt
from sentcore.measure.sentences import CHINESE, ENGLISH
from sentcore.sentence_encoder import SentenceEncoder

LOOKED_AT = (
    100_000  # texts that some are chosen from: enough to meet all sizes, few enough to be read in a second or two
)
_SENTENCES = ((1, 60), (2, 22), (4, 12), (8, 4), (16, 2))  # a text's sentences at most -> how many of 100 texts


def chosen_texts(texts: Iterable[str], count: int) -> tuple[list[str], int]:
    """(`count` of the first LOOKED_AT texts by chance, or all of fewer, in their order; how many were looked at).

    The same texts give the same choice. A file that is sorted by length gives all its lengths.
    """
    draw = random.Random(0)
    kept: list[tuple[int, str]] = []
    seen = 0
    for place, text in enumerate(islice(texts, LOOKED_AT)):
        seen = place + 1
        if place < count:
            kept.append((place, text))
        elif (slot := draw.randrange(seen)) < count:
            kept[slot] = (place, text)
    return [text for _, text in sorted(kept)], seen


def sample_texts(count: int) -> list[str]:
    """`count` texts, English and Chinese in turn, most of them a sentence or two long and some of them a page."""
    draw = random.Random(0)
    texts = []
    for number in range(count):
        sentences, between = ((ENGLISH, " "), (CHINESE, ""))[number % 2]
        most = draw.choices([size for size, _ in _SENTENCES], [share for _, share in _SENTENCES])[0]
        size = draw.randint(most // 2 + 1, most)
        texts.append(between.join(draw.sample(sentences, size)))
    return texts


def tokens_of(encoder: SentenceEncoder, texts: list[str]) -> tuple[int, int]:
    """(tokens that are computed, special ones and the default prompt's included; texts that are cut)."""
    prompt = pick_prompt(encoder, None, None) or ""
    found = encoder.tokenizer.encode([prompt + text for text in texts], encoder.max_seq_length)
    return int(found.offsets[-1]), int(found.truncated.sum())
