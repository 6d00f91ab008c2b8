"""Search and rerank: a sentence encoder finds candidates in a file, a cross-encoder reads each with the query and sorts them.

    python examples/rerank.py --reranker cross-encoder/ms-marco-MiniLM-L6-v2 --data corpus.txt "how do I get my money back"

The file holds a text a line. Without --data a small sample in English and Chinese is searched. Nothing is trained here, and the
extra `[train]` is not needed.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from arguments import existing_file

import sentcore

SAMPLE = Path(__file__).parent / "data" / "lines.txt"


def read_texts(path: Path) -> list[str]:
    """The lines of a file that are not empty; an error names the line."""
    texts = []
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        try:
            text = line.decode("utf-8").strip()
        except UnicodeDecodeError as error:
            sys.exit(f"{path}, line {number}: no UTF-8 ({error})")
        if text:
            texts.append(text)
    return texts


def main(arguments: list[str] | None = None) -> list[dict]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("query", nargs="*", default=["how do I get my money back", "怎么退货"])
    parser.add_argument("--data", type=existing_file, default=SAMPLE, help="a text a line")
    parser.add_argument("--model", default="minilm", help='the sentence encoder: "minilm", a folder or a hub id')
    parser.add_argument("--reranker", required=True, help="the cross-encoder with one label: a folder or a hub id")
    parser.add_argument("--candidates", type=int, default=20, help="texts that the encoder finds for each query")
    parser.add_argument("--top-k", type=int, default=3, help="of them, how many are printed")
    parser.add_argument("--out", type=Path, help="a .jsonl file for the results")
    options = parser.parse_args(arguments)

    texts = read_texts(options.data)
    if not texts:
        sys.exit(f"{options.data}: no line with text; accepted: a text a line")
    model = sentcore.SentenceEncoder(options.model)
    reranker = sentcore.CrossEncoder(options.reranker)
    corpus = model.encode(texts, convert_to_tensor=True, show_progress_bar=True)
    results = []
    for query in options.query:
        scores = model.similarity(model.encode(query, convert_to_tensor=True), corpus)[0]
        found = scores.topk(min(options.candidates, len(texts)))
        places = found.indices.tolist()
        ranked = reranker.rank(query, [texts[place] for place in places], top_k=options.top_k)
        print(query)
        print("   rerank    cosine  (place in the search)")
        for entry in ranked:
            rank = entry["corpus_id"]
            result = {"query": query, "text": texts[places[rank]], "score": entry["score"]}
            result |= {"cosine": found.values[rank].item(), "searched_rank": rank + 1}
            results.append(result)
            print(f"{result['score']:>9.3f} {result['cosine']:>9.3f}  ({rank + 1})  {result['text']}")
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        lines = [json.dumps(result, ensure_ascii=False) + "\n" for result in results]
        options.out.write_text("".join(lines), encoding="utf-8")
        print(f"saved {options.out}")
    return results


if __name__ == "__main__":
    main()
