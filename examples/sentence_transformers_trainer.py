"""sentence-transformers' own trainer on pairs: ranking, cached ranking, CoSENT or Matryoshka, measured before and after.

    python examples/sentence_transformers_trainer.py --loss matryoshka --data pairs.jsonl.gz --query title --document body

The file is read as by retrieval.py: .jsonl or .jsonl.gz, --query and --document name its fields. CoSENT learns to order pairs by how
alike they are, which --score names the field of; without it a document counts 1, and one that does not answer the query, in the
field --negative, 0. It is measured by Spearman's correlation, the others by recall. Without --data a small sample in English and
Chinese is used. Needs the extra `[train]`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from arguments import existing_file
from datasets import Dataset
from retrieval import SAMPLE, Row, evaluate, read_rows
from scipy.stats import spearmanr
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.losses import (
    CachedMultipleNegativesRankingLoss,
    CoSENTLoss,
    MatryoshkaLoss,
    MultipleNegativesRankingLoss,
)
from torch import nn

import sentcore
from sentcore.checkpoint import resolve

Scored = tuple[str, str, float]  # two texts and how alike they are


def scored_pairs(rows: list[Row]) -> list[Scored]:
    """The pairs with their scores; without scores, 1 for each row's document and 0 for its negatives."""
    pairs = []
    for row in rows:
        pairs.append((row.query, row.document, 1.0 if row.score is None else row.score))
        if row.score is None:
            pairs += [(row.query, negative, 0.0) for negative in row.negatives]
    return pairs


def correlation(folder: Path, pairs: list[Scored], max_length: int) -> float:
    """Spearman's, of the cosines of all pairs with their scores."""
    model = sentcore.SentenceEncoder(folder)
    model.max_seq_length = min(max_length, model.max_seq_length)
    first, second = (model.encode([pair[side] for pair in pairs], convert_to_tensor=True) for side in (0, 1))
    return float(spearmanr(F.cosine_similarity(first, second).tolist(), [pair[2] for pair in pairs]).statistic)


def measure(folder: Path, rows: list[Row], loss: str, dims: list[int], max_length: int) -> dict[str, float]:
    """The figures of a saved folder that `loss` is to improve."""
    if loss == "cosent":
        return {"spearman": correlation(folder, scored_pairs(rows), max_length)}
    if loss == "matryoshka":
        return {f"recall@1 by {width}": evaluate(folder, rows, max_length, width)["recall@1"] for width in dims}
    return {"recall@1": evaluate(folder, rows, max_length)["recall@1"]}


def columns(rows: list[Row], loss: str) -> dict[str, list]:
    """What the loss reads, in the order in which it does."""
    if loss == "cosent":
        first, second, scores = zip(*scored_pairs(rows), strict=True)
        return {"sentence1": list(first), "sentence2": list(second), "score": list(scores)}
    found = {"anchor": [row.query for row in rows], "positive": [row.document for row in rows]}
    if all(row.negatives for row in rows):
        found["negative"] = [row.negatives[0] for row in rows]
    return found


def loss_of(model: SentenceTransformer, name: str, dims: list[int], mini_batch: int) -> nn.Module:
    if name == "cosent":
        return CoSENTLoss(model)
    if name == "cached":  # a batch as large as one likes, in the memory of a small one
        return CachedMultipleNegativesRankingLoss(model, mini_batch_size=mini_batch)
    ranking = MultipleNegativesRankingLoss(model)
    return MatryoshkaLoss(model, ranking, dims) if name == "matryoshka" else ranking


def main(arguments: list[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=existing_file, default=SAMPLE, help=".jsonl or .jsonl.gz")
    parser.add_argument("--query", default="query", help="the field with the query")
    parser.add_argument("--document", default="document", help="the field with the document")
    parser.add_argument("--negative", default="negative", help="the field with hard negatives, if there are any")
    parser.add_argument("--score", help="for cosent: the field that says how alike query and document are")
    parser.add_argument("--held-out", type=float, default=0.3, help="share of the rows that is kept to evaluate on")
    parser.add_argument("--loss", choices=["ranking", "cached", "cosent", "matryoshka"], default="ranking")
    parser.add_argument("--dims", type=int, nargs="+", help="for matryoshka; E, E/4 and E/8 without it")
    parser.add_argument("--mini-batch", type=int, default=8, help="for cached: rows that are computed at once")
    parser.add_argument("--model", default="minilm", help='"minilm", a folder or a hub id')
    parser.add_argument("--out", type=Path, default=Path("sentence-model"), help="folder to save")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=16, help="rows a step; more are more negatives")
    parser.add_argument("--learning-rate", type=float, default=2e-5)
    parser.add_argument("--max-length", type=int, default=128, help="word pieces a text is cut at")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-accelerate", action="store_true", help="compute padding, as transformers does")
    options = parser.parse_args(arguments)

    torch.manual_seed(options.seed)
    rows = read_rows(options.data, options.query, options.document, options.negative, options.score)
    order = torch.randperm(len(rows)).tolist()
    kept = max(1, round(options.held_out * len(rows)))
    test, train = [rows[place] for place in order[:kept]], [rows[place] for place in order[kept:]]
    if len(train) < 2:
        sys.exit(f"{options.data}: {len(rows)} rows leave {len(train)} to train on; accepted: at least 2")
    if options.loss == "cosent" and any(len({pair[2] for pair in scored_pairs(part)}) < 2 for part in (train, test)):
        sys.exit(
            f"{options.data}: all pairs are equally alike; --loss cosent wants --score or --negative to name a field"
        )

    folder = resolve(options.model)
    model = SentenceTransformer(str(folder))
    model.max_seq_length = min(options.max_length, model.max_seq_length)
    if not options.no_accelerate:
        sentcore.accelerate(model)  # computes no padding from here on
    width = model.get_embedding_dimension()
    dims = options.dims or [width, width // 4, width // 8]
    before = measure(folder, test, options.loss, dims, options.max_length)

    trainer = SentenceTransformerTrainer(
        model=model,
        args=SentenceTransformerTrainingArguments(
            output_dir=str(options.out),
            max_steps=options.steps,
            per_device_train_batch_size=options.batch_size,
            learning_rate=options.learning_rate,
            warmup_steps=0.1,  # a share of all steps
            # A document twice in a batch would be its own negative.
            batch_sampler="batch_sampler" if options.loss == "cosent" else "no_duplicates",
            seed=options.seed,
            save_strategy="no",
            report_to="none",
        ),
        train_dataset=Dataset.from_dict(columns(train, options.loss)),
        loss=loss_of(model, options.loss, dims, options.mini_batch),
    )
    trainer.train()

    model.save_pretrained(str(options.out))
    after = measure(options.out, test, options.loss, dims, options.max_length)
    print(f"{len(train)} rows to train on, {len(test)} to evaluate on")
    longest = max(map(len, before))
    for name, value in before.items():
        print(f"{name:<{longest}}  before {value:.3f}   after {after[name]:.3f}")
    print(f"saved {options.out}")
    return {f"{name}_{when}": value[name] for name in before for when, value in (("before", before), ("after", after))}


if __name__ == "__main__":
    main()
