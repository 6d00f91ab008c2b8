"""Recommend: items ranked by what a user has read so far, measured against what is popular.

    python examples/recommend.py --items books.jsonl --users readers.jsonl --user reader7 --out report

--items holds {"id": ..., "text": ...} a line, --users {"user": ..., "items": [ids, oldest first]}. The last item of every user is
hidden; the others rank all items that the user does not have: by the mean of their features, by how many other users have an
item (popularity), and by both, each scaled to 0..1. Half of the users choose how much popularity counts in that mix, the other
half is reported: recall@k and nDCG@k of the hidden item.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections import Counter
from pathlib import Path

import numpy as np
from arguments import existing_file
from tqdm import tqdm

import sentcore

DATA = Path(__file__).parent / "data"
SHARES = [0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0]  # of popularity in the mix


def read_rows(path: Path, names: tuple[str, str], kind: type) -> dict[str, str | list[str]]:
    """{first field: second field} of a .jsonl file; an error names the line."""
    rows = {}
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            key, value = row[names[0]], row[names[1]]
        except (ValueError, KeyError, TypeError) as error:
            sys.exit(f"{path}, line {number}: no JSON object with {names[0]} and {names[1]} ({error!r})")
        if not isinstance(key, str) or not isinstance(value, kind) or key in rows:
            sys.exit(
                f"{path}, line {number}: accepted: {names[0]}, a text of its own, and {names[1]}, a {kind.__name__}"
            )
        rows[key] = value
    return rows


def scaled(scores: np.ndarray) -> np.ndarray:
    """To 0..1; all 0 where they are equal."""
    width = scores.max() - scores.min()
    return (scores - scores.min()) / width if width else np.zeros_like(scores)


def profile(features: np.ndarray, history: list[int]) -> np.ndarray:
    """[E]: the mean feature of what a user has."""
    return features[history].mean(axis=0)


def rank_of(scores: np.ndarray, history: list[int], hidden: int) -> int:
    """The hidden item's place, 0 is best, among items that the user does not have; equal scores count against it."""
    others = np.ones(len(scores), dtype=bool)
    others[[*history, hidden]] = False
    return int(np.sum(scores[others] >= scores[hidden]))


def measure(ranks: list[int], k: int) -> dict[str, float]:
    """Recall and nDCG at k where one item is wanted."""
    gains = [1 / math.log2(rank + 2) if rank < k else 0.0 for rank in ranks]
    return {f"recall@{k}": sum(rank < k for rank in ranks) / len(ranks), f"ndcg@{k}": sum(gains) / len(gains)}


def draw(figures: dict[str, dict[str, float]], path: Path) -> None:
    """The ways side by side."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(5.6, 3.2))
    for place, (way, values) in enumerate(figures.items()):
        bars = axis.bar(np.arange(len(values)) + 0.2 * place, list(values.values()), 0.19, label=way)
        axis.bar_label(bars, fmt="%.2f", fontsize=8)
    axis.set_xticks(np.arange(len(values)) + 0.2, list(values))
    axis.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    print(f"saved {path}")


def main(arguments: list[str] | None = None) -> dict[str, dict[str, float]]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=existing_file, default=DATA / "books.jsonl", help=".jsonl: id, text")
    parser.add_argument("--users", type=existing_file, default=DATA / "readers.jsonl", help=".jsonl: user, items")
    parser.add_argument("--user", help="print what is recommended to this one, by the whole history")
    parser.add_argument("--model", default="minilm", help='"minilm", a folder or a hub id')
    parser.add_argument("-k", type=int, default=10, help="items recommended")
    parser.add_argument("--seed", type=int, default=0, help="draws the half of the users that is reported")
    parser.add_argument("--out", type=Path, help="folder for the picture (needs matplotlib)")
    options = parser.parse_args(arguments)

    items = read_rows(options.items, ("id", "text"), str)
    users = read_rows(options.users, ("user", "items"), list)
    place = {item: index for index, item in enumerate(items)}
    for user, history in users.items():
        unknown = [item for item in history if item not in place]
        if unknown or len(set(history)) != len(history):
            sys.exit(
                f"{options.users}, user {user!r}: accepted: ids of {options.items}, each once; found {unknown or history}"
            )
    histories = {user: [place[item] for item in history] for user, history in users.items()}
    split = [(history[:-1], history[-1]) for history in histories.values() if len(history) >= 2]
    if len(split) < 4:
        sys.exit(f"{options.users}: {len(split)} users with two items and more; accepted: at least 4")
    if options.user is not None and options.user not in users:
        sys.exit(f"--user is {options.user!r}; accepted: a user in {options.users}")

    model = sentcore.SentenceEncoder(options.model)
    features = model.encode(list(items.values()), normalize_embeddings=True, show_progress_bar=True)
    counts = Counter(item for history, _ in split for item in history)
    popular = np.array([counts[index] for index in range(len(items))], dtype=np.float64)

    def score(history: list[int], share: float) -> np.ndarray:
        """[items]: the mix with that share of popularity, where the user's own vote does not count."""
        others = popular.copy()
        others[history] -= 1
        return (1 - share) * scaled(features @ profile(features, history)) + share * scaled(others)

    order = np.random.default_rng(options.seed).permutation(len(split))
    chosen_by, reported = order[: len(order) // 2], order[len(order) // 2 :]

    def figures(users_of: np.ndarray, share: float) -> dict[str, float]:
        ranks = [rank_of(score(split[user][0], share), *split[user]) for user in users_of]
        return measure(ranks, 5) | measure(ranks, options.k)

    tried = {share: figures(chosen_by, share)[f"ndcg@{options.k}"] for share in tqdm(SHARES, desc="mix")}
    best = max(tried, key=tried.get)
    chance = [1 / (len(items) - len(split[user][0])) for user in reported]
    table = {
        "history": figures(reported, 0.0),
        "popularity": figures(reported, 1.0),
        f"mix, {best:.0%} popularity": figures(reported, best),
    }
    print(f"{len(items)} items; {len(reported)} users reported, {len(chosen_by)} chose the mix")
    print(f"recall@{options.k} by chance {options.k * sum(chance) / len(chance):.3f}")
    for way, values in table.items():
        print(f"{way:<24}" + "  ".join(f"{name} {value:.3f}" for name, value in values.items()))
    if options.user is not None:
        history = histories[options.user]
        names = list(items.values())
        print(f"{options.user} has: " + "; ".join(names[item] for item in history))
        scores = score(history, best)
        scores[history] = -np.inf
        for item in np.argsort(-scores)[: min(options.k, len(items) - len(history))]:
            print(f"  {scores[item]:.3f}  {names[item]}")
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        draw(table, options.out / "recommend.png")
    return table


if __name__ == "__main__":
    main()
