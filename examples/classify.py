"""Topic or sentiment: train a text classifier with transformers' Trainer on a file of texts and labels.

    python examples/classify.py --data reviews.tsv --epochs 3 --out my-classifier

The file is .jsonl, with fields text and label, or .tsv, with a header that names these two columns. Without --data a small
sample in English and Chinese is used. Needs the extra `[train]`.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch
from arguments import existing_file
from sentence_transformers import SentenceTransformer
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
)

import sentcore
from sentcore.checkpoint import resolve

SAMPLE = Path(__file__).parent / "data" / "topics.jsonl"


def read_rows(path: Path) -> list[tuple[str, str]]:
    """(text, label) of every row of a .jsonl or .tsv file; an error names the line."""
    lines = path.read_text(encoding="utf-8-sig").split("\n")
    header = lines[0].rstrip("\r").split("\t") if path.suffix == ".tsv" else None
    if header is not None and not {"text", "label"} <= set(header):
        sys.exit(f"{path}, line 1: columns {header}; accepted: a header with text and label, parted by tabs")
    rows = []
    for number, line in enumerate(lines[1:] if header else lines, start=2 if header else 1):
        if not line.strip():
            continue
        try:
            row = dict(zip(header, line.rstrip("\r").split("\t"), strict=True)) if header else json.loads(line)
            text, label = row["text"], str(row["label"])
        except (ValueError, KeyError, TypeError) as error:
            sys.exit(f"{path}, line {number}: {line[:80]!r} is no row with text and label ({error!r})")
        if not isinstance(text, str):
            sys.exit(f"{path}, line {number}: text is {text!r}; accepted: a string")
        rows.append((text, label))
    return rows


def accuracy(prediction) -> dict[str, float]:
    """Accuracy, and F1 averaged over the labels, as scikit-learn defines them."""
    guesses, labels = np.argmax(prediction.predictions, axis=-1), prediction.label_ids
    scores = []
    for label in np.unique(np.concatenate((labels, guesses))):
        hits = np.sum((guesses == label) & (labels == label))
        scores.append(2 * hits / (np.sum(guesses == label) + np.sum(labels == label)))
    return {"accuracy": float(np.mean(guesses == labels)), "macro_f1": float(np.mean(scores))}


def save(model, tokenizer, base: Path, folder: Path) -> None:
    """transformers' folder of the whole model, and in it `encoder`, which SentenceEncoder reads, with the base's pooling."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    encoder = SentenceTransformer(str(base), device="cpu")
    left = encoder[0].auto_model.load_state_dict(model.base_model.state_dict(), strict=False)
    assert not left.unexpected_keys, left
    encoder.save_pretrained(str(folder / "encoder"))


def main(arguments: list[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=existing_file, default=SAMPLE, help=".jsonl or .tsv with text and label")
    parser.add_argument(
        "--test", type=existing_file, help="such a file to evaluate on; without it a fifth of --data is kept aside"
    )
    parser.add_argument("--model", default="minilm", help='"minilm", a folder or a hub id')
    parser.add_argument("--out", type=Path, default=Path("classifier"), help="folder to save")
    parser.add_argument("--epochs", type=float, default=10)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=2e-4)
    parser.add_argument("--max-length", type=int, default=128, help="word pieces a text is cut at")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-accelerate", action="store_true", help="compute padding, as transformers does")
    options = parser.parse_args(arguments)

    torch.manual_seed(options.seed)
    rows = read_rows(options.data)
    order = torch.randperm(len(rows)).tolist()
    kept = 0 if options.test else max(1, len(rows) // 5)
    test = read_rows(options.test) if options.test else [rows[place] for place in order[:kept]]
    train = [rows[place] for place in order[kept:]]
    names = sorted({label for _, label in rows})
    label2id = {name: index for index, name in enumerate(names)}
    unknown = {label for _, label in test} - set(names)
    if unknown:
        sys.exit(f"{options.test}: labels {sorted(unknown)} are not in {options.data}, which has {names}")

    folder = resolve(options.model)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(
        folder, num_labels=len(names), label2id=label2id, id2label=dict(enumerate(names))
    )
    if not options.no_accelerate:
        sentcore.accelerate(model)  # computes no padding from here on

    def tokenized(part: list[tuple[str, str]]) -> list[dict]:
        return [
            {**tokenizer(text, truncation=True, max_length=options.max_length), "labels": label2id[label]}
            for text, label in part
        ]

    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(options.out),
            num_train_epochs=options.epochs,
            per_device_train_batch_size=options.batch_size,
            per_device_eval_batch_size=options.batch_size,
            learning_rate=options.learning_rate,
            warmup_steps=0.1,  # a share of all steps
            seed=options.seed,
            save_strategy="no",
            report_to="none",
        ),
        train_dataset=tokenized(train),
        eval_dataset=tokenized(test),
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_metrics=accuracy,
    )
    before = trainer.evaluate()
    trainer.train()
    after = trainer.evaluate()
    print(f"{len(train)} texts to train on, {len(test)} to test on; labels {', '.join(names)}")
    for name in ("accuracy", "macro_f1", "loss"):
        print(f"{name:<9} before {before[f'eval_{name}']:.3f}   after {after[f'eval_{name}']:.3f}")
    save(model, tokenizer, folder, options.out)
    print(f"saved {options.out} (transformers) and {options.out / 'encoder'} (SentenceEncoder)")
    return {"accuracy_before": before["eval_accuracy"], "accuracy_after": after["eval_accuracy"]}


if __name__ == "__main__":
    main()
