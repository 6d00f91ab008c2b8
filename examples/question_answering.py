"""Question answering: train a head that finds the answer to a question in a text, then answer.

    python examples/question_answering.py --data answers.jsonl --out my-reader

A row of the file is {"question": ..., "context": ..., "answer": a part of the context}. The head gives every token a score as the
answer's first and as its last; the best pair inside the context is the answer. Without --data a small sample in English and
Chinese is used. Needs the extra `[train]`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from pathlib import Path

import torch
from arguments import existing_file
from sentence_transformers import SentenceTransformer
from tqdm import tqdm
from transformers import AutoModelForQuestionAnswering, AutoTokenizer

import sentcore
from sentcore.checkpoint import resolve

SAMPLE = Path(__file__).parent / "data" / "questions_answers.jsonl"


def read_rows(path: Path) -> list[dict[str, str]]:
    """Rows with question, context and answer; an error names the line."""
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = {name: json.loads(line)[name] for name in ("question", "context", "answer")}
        except (ValueError, KeyError, TypeError) as error:
            sys.exit(f"{path}, line {number}: no JSON object with question, context and answer ({error!r})")
        if not all(isinstance(text, str) and text for text in row.values()) or row["answer"] not in row["context"]:
            sys.exit(f"{path}, line {number}: accepted: three texts, and an answer that stands in the context as it is")
        rows.append(row)
    return rows


def tokenize(tokenizer, rows: list[dict[str, str]], max_length: int):
    """Pairs of question and context as one padded batch, whose contexts are cut; with offsets."""
    return tokenizer(
        [row["question"] for row in rows], [row["context"] for row in rows],
        truncation="only_second", max_length=max_length, padding=True, return_offsets_mapping=True, return_tensors="pt",
    )  # fmt: skip


def spans(batch, rows: list[dict[str, str]]) -> tuple[torch.Tensor, torch.Tensor]:
    """First and last token [B] of each answer; -100 where it lies behind the cut."""
    firsts, lasts = [], []
    for index, row in enumerate(rows):
        begin = row["context"].index(row["answer"])
        end = begin + len(row["answer"])
        tokens = [
            place
            for place, (first, last) in enumerate(batch["offset_mapping"][index].tolist())
            if batch.sequence_ids(index)[place] == 1 and first < end and last > begin
        ]
        whole = tokens and batch["offset_mapping"][index][tokens[-1]][1] >= end
        firsts.append(tokens[0] if whole else -100)
        lasts.append(tokens[-1] if whole else -100)
    return torch.tensor(firsts), torch.tensor(lasts)


@torch.inference_mode()
def answer(model, tokenizer, rows: list[dict[str, str]], max_length: int, longest: int = 30) -> list[str]:
    """The best span of each context: the highest sum of scores of a first and a last token, at most `longest` apart."""
    model.eval()
    found = []
    for first in range(0, len(rows), 32):
        part = rows[first : first + 32]
        batch = tokenize(tokenizer, part, max_length)
        given = {name: batch[name].to(model.device) for name in tokenizer.model_input_names if name in batch}
        scores = model(**given)
        for index, row in enumerate(part):
            inside = torch.tensor([kind == 1 for kind in batch.sequence_ids(index)])
            starts = scores.start_logits[index].cpu().masked_fill(~inside, -torch.inf)
            ends = scores.end_logits[index].cpu().masked_fill(~inside, -torch.inf)
            pairs = starts[:, None] + ends[None, :]
            allowed = torch.ones_like(pairs, dtype=torch.bool).triu().tril(longest - 1)
            start, end = divmod(int(pairs.masked_fill(~allowed, -torch.inf).argmax()), len(inside))
            offsets = batch["offset_mapping"][index]
            found.append(row["context"][offsets[start][0] : offsets[end][1]])
    return found


def measure(found: list[str], rows: list[dict[str, str]]) -> dict[str, float]:
    """Exact matches, and F1 of the characters that found and wanted answers share."""
    exact, overlap = 0, 0.0
    for text, row in zip(found, rows, strict=True):
        exact += text == row["answer"]
        shared = sum((Counter(text) & Counter(row["answer"])).values())
        overlap += 2 * shared / (len(text) + len(row["answer"]))
    return {"exact": exact / len(rows), "f1": overlap / len(rows)}


def main(arguments: list[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=existing_file, default=SAMPLE, help=".jsonl: question, context, answer")
    parser.add_argument("--model", default="minilm", help='"minilm", a folder or a hub id')
    parser.add_argument("--out", type=Path, default=Path("reader"), help="folder to save")
    parser.add_argument("--held-out", type=float, default=0.25, help="share of the contexts that is kept to test on")
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=3e-4)
    parser.add_argument("--max-length", type=int, default=256, help="word pieces a question and its context are cut at")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-accelerate", action="store_true", help="compute padding, as transformers does")
    options = parser.parse_args(arguments)

    torch.manual_seed(options.seed)
    rows = read_rows(options.data)
    contexts = list(dict.fromkeys(row["context"] for row in rows))
    order = torch.randperm(len(contexts)).tolist()  # questions on one context must not be on both sides
    kept = {contexts[place] for place in order[: max(1, round(options.held_out * len(contexts)))]}
    test, train = [row for row in rows if row["context"] in kept], [row for row in rows if row["context"] not in kept]
    if not train:
        sys.exit(f"{options.data}: {len(contexts)} contexts leave none to train on; accepted: at least 2")

    base = resolve(options.model)
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForQuestionAnswering.from_pretrained(base)
    if not options.no_accelerate:
        sentcore.accelerate(model)  # computes no padding from here on
    before = measure(answer(model, tokenizer, test, options.max_length), test)
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.learning_rate)
    warmup = max(1, options.steps // 10)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warmup, (options.steps - step) / max(1, options.steps - warmup))
    )
    model.train()
    bar = tqdm(range(options.steps), desc="train")
    for _ in bar:
        drawn = [train[place] for place in torch.randperm(len(train))[: options.batch_size].tolist()]
        batch = tokenize(tokenizer, drawn, options.max_length)
        first, last = (place.to(model.device) for place in spans(batch, drawn))
        given = {name: batch[name].to(model.device) for name in tokenizer.model_input_names if name in batch}
        scores = model(**given)
        loss = torch.nn.functional.cross_entropy(scores.start_logits, first)
        loss = (loss + torch.nn.functional.cross_entropy(scores.end_logits, last)) / 2
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        bar.set_postfix(loss=f"{loss.item():.3f}")

    found = answer(model, tokenizer, test, options.max_length)
    after = measure(found, test)
    learned = measure(answer(model, tokenizer, train, options.max_length), train)
    print(f"{len(train)} questions to train on, {len(test)} on other contexts to test on")
    for name in ("exact", "f1"):
        print(f"{name:<6} before {before[name]:.3f}   after {after[name]:.3f}   (trained on {learned[name]:.3f})")
    for row, text in list(zip(test, found, strict=True))[:4]:
        print(f"  {row['context']}\n    {row['question']}  {text}")
    model.save_pretrained(options.out)
    tokenizer.save_pretrained(options.out)
    encoder = SentenceTransformer(str(base), device="cpu")
    left = encoder[0].auto_model.load_state_dict(model.base_model.state_dict(), strict=False)
    assert not left.unexpected_keys, left
    encoder.save_pretrained(str(options.out / "encoder"))
    print(f"saved {options.out} (transformers) and {options.out / 'encoder'} (SentenceEncoder)")
    return {"exact_before": before["exact"], "exact_after": after["exact"], "exact_learned": learned["exact"]}


if __name__ == "__main__":
    main()
