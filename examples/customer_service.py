"""Customer service: the entry of a FAQ that answers a question, or none where no entry is near enough.

    python examples/customer_service.py --data faq.jsonl "where is my parcel"

A row of the file is an entry with what people asked who wanted it, {"question": ..., "answer": ..., "asked": [...]}, or, without
question and answer, what no entry answers. Half of what was asked chooses the threshold below which nothing is answered, the
other half is reported. Without --data a sample in English and one in Chinese are used, each with a threshold of its own.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from arguments import existing_file

import sentcore

SAMPLES = [Path(__file__).parent / "data" / name for name in ("faq_en.jsonl", "faq_zh.jsonl")]


def read_faq(path: Path) -> tuple[list[dict], list[tuple[str, int]]]:
    """(entries, what was asked: text and the number of its entry, -1 for none); an error names the line."""
    entries, asked = [], []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            texts = row.get("asked", [])
            entry = [row[name] for name in ("question", "answer") if name in row]
        except (ValueError, AttributeError) as error:
            sys.exit(f"{path}, line {number}: no JSON object ({error})")
        if (
            len(entry) == 1
            or not isinstance(texts, list)
            or not all(isinstance(text, str) for text in [*entry, *texts])
        ):
            sys.exit(f"{path}, line {number}: accepted: question and answer, or neither, and asked, a list; all texts")
        if entry:
            entries.append(row)
        asked += [(text, len(entries) - 1 if entry else -1) for text in texts]
    if not entries or len(asked) < 4:
        sys.exit(f"{path}: {len(entries)} entries and {len(asked)} questions asked; accepted: at least 1 and 4")
    return entries, asked


def outcomes(scores: np.ndarray, found: np.ndarray, wanted: np.ndarray, threshold: float) -> dict[str, int]:
    """How many of the questions were treated how, where an entry is shown from `threshold` on."""
    shown = scores >= threshold
    return {
        "answered right": int(np.sum(shown & (found == wanted))),
        "answered wrong": int(np.sum(shown & (found != wanted))),
        "rightly not answered": int(np.sum(~shown & (wanted < 0))),
        "wrongly not answered": int(np.sum(~shown & (wanted >= 0))),
    }


def choose(scores: np.ndarray, found: np.ndarray, wanted: np.ndarray, wrong_costs: float) -> float:
    """The threshold with the most right, where a wrong answer costs `wrong_costs` right ones; halfway between two scores."""
    edges = np.concatenate([[-1.0], np.sort(scores), [1.0]])
    candidates = (edges[1:] + edges[:-1]) / 2

    def worth(threshold: float) -> float:
        got = outcomes(scores, found, wanted, threshold)
        return got["answered right"] + got["rightly not answered"] - wrong_costs * got["answered wrong"]

    return float(max(candidates, key=worth))


def draw(parts: list[tuple[str, np.ndarray, np.ndarray, np.ndarray, float]], path: Path) -> None:
    """The scores of each file's questions by what they should get, and the threshold."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(parts), figsize=(4.5 * len(parts), 3.2), squeeze=False)
    for axis, (name, scores, found, wanted, threshold) in zip(axes[0], parts, strict=True):
        groups = {"right entry": found == wanted, "wrong entry": (found != wanted) & (wanted >= 0)}
        groups["no entry answers it"] = wanted < 0
        bins = np.linspace(min(0.0, scores.min()), 1, 21)
        axis.hist([scores[group] for group in groups.values()], bins, stacked=True, label=list(groups))
        axis.axvline(threshold, color="black", linestyle="--", label=f"threshold {threshold:.2f}")
        axis.set(title=name, xlabel="cosine with the nearest entry", ylabel="questions asked")
        axis.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    print(f"saved {path}")


def main(arguments: list[str] | None = None) -> dict[str, dict[str, int]]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("question", nargs="*", help="questions to answer, from the first file")
    parser.add_argument("--data", type=existing_file, action="append", help=".jsonl, a FAQ; repeatable, each its own")
    parser.add_argument("--model", default="minilm", help='"minilm", a folder or a hub id')
    parser.add_argument("--wrong-costs", type=float, default=1.0, help="right answers that a wrong one is as bad as")
    parser.add_argument("--threshold", type=float, help="cosine from which an entry is shown, instead of choosing one")
    parser.add_argument("--seed", type=int, default=0, help="draws which questions choose the threshold")
    parser.add_argument("--out", type=Path, help="folder for the picture (needs matplotlib)")
    options = parser.parse_args(arguments)

    files = options.data or SAMPLES
    faqs = [read_faq(path) for path in files]
    model = sentcore.SentenceEncoder(options.model)
    results, parts = {}, []
    for path, (entries, asked) in zip(files, faqs, strict=True):
        index = sentcore.SearchIndex.build(model, [entry["question"] for entry in entries], show_progress_bar=True)
        hits = [hit[0] for hit in index.search([text for text, _ in asked], k=1)]
        scores = np.array([hit["score"] for hit in hits])
        found = np.array([hit["corpus_id"] for hit in hits])
        wanted = np.array([entry for _, entry in asked])
        order = np.random.default_rng(options.seed).permutation(len(asked))
        order = order[np.argsort(wanted[order] < 0, kind="stable")]  # as many without an answer in both halves
        half, other = order[1::2], order[::2]
        threshold = options.threshold
        if threshold is None:
            threshold = choose(scores[half], found[half], wanted[half], options.wrong_costs)
        got = outcomes(scores[other], found[other], wanted[other], threshold)
        results[path.stem] = got
        parts.append((path.stem, scores, found, wanted, threshold))
        right = got["answered right"] + got["rightly not answered"]
        print(f"{path.name}: {len(entries)} entries; threshold {threshold:.3f} by {len(half)} questions;")
        print(
            f"  of the {len(other)} others {right} were treated right: " + ", ".join(f"{n} {k}" for k, n in got.items())
        )
        for question in options.question if path == files[0] else []:
            hit = index.search(question, k=1)[0]
            answer = entries[hit["corpus_id"]]["answer"] if hit["score"] >= threshold else "(no entry answers this)"
            print(f"{question}\n  {hit['score']:.3f}  {answer}")
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        draw(parts, options.out / "customer_service.png")
    return results


if __name__ == "__main__":
    main()
