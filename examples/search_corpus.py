"""Embed a corpus in bounded memory and answer queries over it, in English and Chinese.

    python examples/search_corpus.py --corpus corpus.txt "how do I get my money back" "如何退款"

The corpus is a text a line; without one, a few built-in lines are searched.
"""

from __future__ import annotations

import argparse

import numpy as np
from arguments import existing_file

import sentcore

LINES = [
    "Refunds are paid within five working days.",
    "Parcels can be returned free of charge for 30 days.",
    "The library opens at nine in the morning.",
    "Our support team answers on weekdays.",
    "退款将在五个工作日内到账。",
    "图书馆早上九点开门。",
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", type=existing_file, help="a file with a text a line")
    parser.add_argument("query", nargs="*", default=["how do I get my money back", "图书馆什么时候开门"])
    parser.add_argument("-m", "--model", default="minilm")
    parser.add_argument("-k", type=int, default=2, help="answers a query")
    options = parser.parse_args()

    lines = options.corpus.read_text(encoding="utf-8").splitlines() if options.corpus else LINES
    model = sentcore.SentenceEncoder(options.model)
    # Blocks come in order; a corpus larger than memory would go to a memory-mapped file here.
    blocks = [rows for _, rows in model.encode_iter(lines, normalize_embeddings=True)]
    corpus = np.concatenate(blocks)
    queries = model.encode(options.query, normalize_embeddings=True)
    for query, scores in zip(options.query, queries @ corpus.T, strict=True):
        print(query)
        for place in np.argsort(-scores)[: options.k]:
            print(f"  {scores[place]:.3f}  {lines[place]}")


if __name__ == "__main__":
    main()
