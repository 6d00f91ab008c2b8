"""Named entities: train a token classifier on a CoNLL-like file, report it with seqeval, save model and encoder.

    python examples/ner.py --data mine.conll --epochs 5 --out my-ner

The file holds a token and its BIO label a line (`Paris B-LOC`), and an empty line between sentences. In Chinese a token is a
character. Without --data a small sample in English and Chinese is used. Needs the extras `[train]` and `[ner]`, which is seqeval.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from arguments import existing_file
from sentence_transformers import SentenceTransformer
from torch.utils.data import DataLoader
from tqdm import tqdm
from transformers import AutoModelForTokenClassification, AutoTokenizer, DataCollatorForTokenClassification

import sentcore
from sentcore.checkpoint import resolve

SAMPLE = Path(__file__).parent / "data" / "entities.conll"
IGNORED = -100  # the label that transformers' loss leaves out

Sentence = tuple[list[str], list[str]]  # tokens, and a label for each


def read_conll(path: Path) -> list[Sentence]:
    """Sentences of a two-column file; an error names the line."""
    sentences: list[Sentence] = [([], [])]
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), start=1):
        fields = line.split()
        if not fields:
            sentences.append(([], []))
        elif len(fields) != 2:
            sys.exit(
                f"{path}, line {number}: {line!r} has {len(fields)} columns; accepted: a token, a space, its label"
            )
        elif fields[1] != "O" and fields[1][:2] not in ("B-", "I-"):
            sys.exit(f"{path}, line {number}: label {fields[1]!r}; accepted: O, B-NAME or I-NAME")
        else:
            sentences[-1][0].append(fields[0])
            sentences[-1][1].append(fields[1])
    return [sentence for sentence in sentences if sentence[0]]


def seqeval_metrics():
    """seqeval.metrics, or an end that names what to install."""
    try:
        from seqeval import metrics
    except ImportError:
        sys.exit("ner.py reports with seqeval, which is not installed; accepted: pip install 'sentcore[ner]'")
    return metrics


def align(tokenizer, sentence: Sentence, label2id: dict[str, int], max_length: int) -> dict[str, list[int]]:
    """Word pieces of a sentence. The first piece of a token carries its label; later pieces and [CLS], [SEP] are ignored."""
    tokens, labels = sentence
    pieces = tokenizer(tokens, is_split_into_words=True, truncation=True, max_length=max_length)
    aligned, previous = [], None
    for word in pieces.word_ids():
        first = word is not None and word != previous
        aligned.append(label2id[labels[word]] if first else IGNORED)
        previous = word
    return {"input_ids": pieces["input_ids"], "attention_mask": pieces["attention_mask"], "labels": aligned}


@torch.inference_mode()
def predict(model, batches: DataLoader) -> tuple[list[list[str]], list[list[str]]]:
    """The true and the predicted labels of every sentence, one a token that was read."""
    model.eval()
    names = model.config.id2label
    true, predicted = [], []
    for batch in tqdm(batches, desc="predict", leave=False):
        batch = batch.to(model.device)
        guesses = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits.argmax(dim=-1)
        for labels, guess in zip(batch["labels"], guesses, strict=True):
            read = labels != IGNORED
            true.append([names[index] for index in labels[read].tolist()])
            predicted.append([names[index] for index in guess[read].tolist()])
    return true, predicted


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
    parser.add_argument(
        "--data", type=existing_file, default=SAMPLE, help="a token and its label a line, empty lines between"
    )
    parser.add_argument(
        "--test", type=existing_file, help="such a file to report on; without it a fifth of --data is kept aside"
    )
    parser.add_argument("--model", default="minilm", help='"minilm", a folder or a hub id')
    parser.add_argument("--out", type=Path, default=Path("ner-model"), help="folder to save")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--learning-rate", type=float, default=2e-4)
    parser.add_argument("--max-length", type=int, default=128, help="word pieces a sentence is cut at")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-accelerate", action="store_true", help="compute padding, as transformers does")
    options = parser.parse_args(arguments)

    metrics = seqeval_metrics()
    torch.manual_seed(options.seed)
    sentences = read_conll(options.data)
    order = torch.randperm(len(sentences)).tolist()
    kept = 0 if options.test else max(1, len(sentences) // 5)
    test = read_conll(options.test) if options.test else [sentences[place] for place in order[:kept]]
    train = [sentences[place] for place in order[kept:]]
    names = sorted({label for _, labels in sentences for label in labels})
    label2id = {name: index for index, name in enumerate(names)}
    unknown = {label for _, labels in test for label in labels} - set(names)
    if unknown:
        sys.exit(f"{options.test}: labels {sorted(unknown)} are not in {options.data}, which has {names}")

    folder = resolve(options.model)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForTokenClassification.from_pretrained(
        folder, num_labels=len(names), label2id=label2id, id2label=dict(enumerate(names))
    )
    if not options.no_accelerate:
        sentcore.accelerate(model)  # computes no padding from here on
    model.to("cuda" if torch.cuda.is_available() else "cpu")

    collate = DataCollatorForTokenClassification(tokenizer)  # pads inputs, and labels with -100
    rows = [[align(tokenizer, sentence, label2id, options.max_length) for sentence in part] for part in (train, test)]
    train_batches = DataLoader(rows[0], options.batch_size, shuffle=True, collate_fn=collate)
    test_batches = DataLoader(rows[1], options.batch_size, collate_fn=collate)
    before = metrics.f1_score(*predict(model, test_batches), zero_division=0)

    optimizer = torch.optim.AdamW(model.parameters(), lr=options.learning_rate)
    steps = options.epochs * len(train_batches)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=steps)
    with tqdm(total=steps, desc="train") as bar:
        for _ in range(options.epochs):
            model.train()
            for batch in train_batches:
                loss = model(**batch.to(model.device)).loss
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                schedule.step()
                bar.set_postfix(loss=f"{loss.item():.3f}")
                bar.update()

    true, predicted = predict(model, test_batches)
    after = metrics.f1_score(true, predicted, zero_division=0)
    print(metrics.classification_report(true, predicted, digits=3, zero_division=0))
    print(f"{len(train)} sentences to train on, {len(test)} to test on; F1 before {before:.3f}, after {after:.3f}")
    save(model, tokenizer, folder, options.out)
    print(f"saved {options.out} (transformers) and {options.out / 'encoder'} (SentenceEncoder)")
    return {"f1_before": before, "f1_after": after}


if __name__ == "__main__":
    main()
