"""Retrieval: contrastive training on pairs of query and document, recall and nDCG before and after.

    python examples/retrieval.py --data pairs.jsonl.gz --query title --document body --out my-retriever

The file is .jsonl or .jsonl.gz; --query and --document name its fields. A field may hold a text, or a list of texts, which are
joined to one. --negative names a field with a document that does not answer the query, or a list of such. The loss is
sentence-transformers' MultipleNegativesRankingLoss: every other document of the batch is a negative. Without --data a small
sample in English and Chinese is used. Needs the extra `[train]`.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import sys
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from arguments import existing_file
from sentence_transformers import SentenceTransformer
from tqdm import tqdm

import sentcore
from sentcore.checkpoint import resolve

SAMPLE = Path(__file__).parent / "data" / "questions.jsonl"


class Row(NamedTuple):
    """A query, the document that answers it, and hard negatives, perhaps none; how alike the first two are, if that is known."""

    query: str
    document: str
    negatives: list[str]
    score: float | None = None


def joined(field: object) -> object:
    """A list of texts as one text; anything else as it is."""
    whole = isinstance(field, list) and all(isinstance(text, str) for text in field)
    return "\n".join(field) if whole else field


def read_rows(path: Path, query: str, document: str, negative: str | None, score: str | None = None) -> list[Row]:
    """Rows of a .jsonl or .jsonl.gz file; an error names the line."""
    rows = []
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                entry = json.loads(line)
                texts = [joined(entry[query]), joined(entry[document])]
                negatives = entry.get(negative) or []
                value = None if score is None else float(entry[score])
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                wanted = f"{query!r} and {document!r}" + (f" and a number in {score!r}" if score else "")
                sys.exit(f"{path}, line {number}: no JSON object with fields {wanted} ({error!r})")
            negatives = [negatives] if isinstance(negatives, str) else negatives
            if not all(isinstance(text, str) for text in [*texts, *negatives]):
                sys.exit(f"{path}, line {number}: a field holds no text; accepted: a string, or a list of strings")
            rows.append(Row(*texts, negatives, value))
    return rows


def evaluate(folder: Path, rows: list[Row], max_length: int, dims: int | None = None) -> dict[str, float]:
    """How well each row's query finds its document among the documents of all rows, by the first `dims` numbers or all."""
    model = sentcore.SentenceEncoder(folder)
    model.truncate_dim = dims or model.truncate_dim
    model.max_seq_length = min(max_length, model.max_seq_length)
    documents = list(dict.fromkeys(row.document for row in rows))
    place = {document: index for index, document in enumerate(documents)}
    found = model.similarity(model.encode([row.query for row in rows]), model.encode(documents))
    wanted = found[torch.arange(len(rows)), [place[row.document] for row in rows]]
    ranks = (found > wanted[:, None]).sum(dim=1)  # 0 is best
    gains = [1 / math.log2(rank + 2) if rank < 10 else 0.0 for rank in ranks.tolist()]  # one document answers a query
    return {
        "recall@1": (ranks < 1).float().mean().item(),
        "recall@10": (ranks < 10).float().mean().item(),
        "ndcg@10": sum(gains) / len(gains),
    }


def embed(model: SentenceTransformer, texts: list[str], max_length: int) -> torch.Tensor:
    """[B, E] features of length 1, with gradient."""
    features = model.tokenizer(texts, padding=True, truncation=True, max_length=max_length, return_tensors="pt")
    return F.normalize(model(dict(features.to(model.device)))["sentence_embedding"], dim=1)


def ranking_loss(queries: torch.Tensor, candidates: torch.Tensor, scale: float) -> torch.Tensor:
    """Cross-entropy of each query [B, E] picking its own document out of candidates [C, E], the first B of which answer."""
    scores = scale * queries @ candidates.T
    return F.cross_entropy(scores, torch.arange(len(queries), device=scores.device))


def main(arguments: list[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=existing_file, default=SAMPLE, help=".jsonl or .jsonl.gz")
    parser.add_argument("--query", default="query", help="the field with the query")
    parser.add_argument("--document", default="document", help="the field with the document")
    parser.add_argument("--negative", help="the field with hard negatives, one of which is drawn each time")
    parser.add_argument("--held-out", type=float, default=0.3, help="share of the rows that is kept to evaluate on")
    parser.add_argument("--model", default="minilm", help='"minilm", a folder or a hub id')
    parser.add_argument("--out", type=Path, default=Path("retriever"), help="folder to save")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--batch-size", type=int, default=16, help="rows a step; more are more negatives")
    parser.add_argument("--learning-rate", type=float, default=2e-5)
    parser.add_argument("--scale", type=float, default=20.0, help="what cosines are multiplied by in the loss")
    parser.add_argument("--max-length", type=int, default=128, help="word pieces a text is cut at")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-accelerate", action="store_true", help="compute padding, as transformers does")
    options = parser.parse_args(arguments)

    torch.manual_seed(options.seed)
    rows = read_rows(options.data, options.query, options.document, options.negative)
    order = torch.randperm(len(rows)).tolist()
    kept = max(1, round(options.held_out * len(rows)))
    test, train = [rows[place] for place in order[:kept]], [rows[place] for place in order[kept:]]
    if len(train) < 2:
        sys.exit(f"{options.data}: {len(rows)} rows leave {len(train)} to train on; accepted: at least 2")

    folder = resolve(options.model)
    before = evaluate(folder, test, options.max_length)
    model = SentenceTransformer(str(folder))
    if not options.no_accelerate:
        sentcore.accelerate(model)  # computes no padding from here on
    max_length = min(options.max_length, model.max_seq_length)

    optimizer = torch.optim.AdamW(model.parameters(), lr=options.learning_rate)
    warmup = max(1, options.steps // 10)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warmup, (options.steps - step) / max(1, options.steps - warmup))
    )
    model.train()
    bar = tqdm(range(options.steps), desc="train")
    for _ in bar:
        # A document twice in a batch would be its own negative.
        drawn = [train[place] for place in torch.randperm(len(train))[: options.batch_size].tolist()]
        batch = list({row.document: row for row in drawn}.values())
        negatives = [row.negatives[int(torch.randint(len(row.negatives), ()))] for row in batch if row.negatives]
        candidates = embed(model, [row.document for row in batch] + negatives, max_length)
        loss = ranking_loss(embed(model, [row.query for row in batch], max_length), candidates, options.scale)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        bar.set_postfix(loss=f"{loss.item():.3f}")

    model.save_pretrained(str(options.out))
    after = evaluate(options.out, test, options.max_length)
    print(f"{len(train)} rows to train on, {len(test)} to evaluate on")
    for name, value in before.items():
        print(f"{name:<9} before {value:.3f}   after {after[name]:.3f}")
    print(f"saved {options.out}")
    return {f"{name}_before": value for name, value in before.items()} | {
        f"{name}_after": value for name, value in after.items()
    }


if __name__ == "__main__":
    main()
