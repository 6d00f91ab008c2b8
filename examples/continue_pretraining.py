"""Continue pretraining: masked language modelling on your own text, perplexity before and after.

    python examples/continue_pretraining.py --data corpus.txt --epochs 3 --out my-encoder

The file holds a text a line. Sentence encoders such as MiniLM come without a masked-LM head; then the head starts afresh, which
the first perplexity shows. Without --data a small sample in English and Chinese is used. Needs the extra `[train]`.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

import torch
from arguments import existing_file
from sentence_transformers import SentenceTransformer
from torch.utils.data import DataLoader
from tqdm import tqdm
from transformers import AutoModelForMaskedLM, AutoTokenizer, DataCollatorForLanguageModeling

import sentcore
from sentcore.checkpoint import resolve

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


@torch.inference_mode()
def perplexity(model, batches: list) -> float:
    """exp of the mean loss over all masked tokens of batches that are masked already."""
    model.eval()
    loss, masked = 0.0, 0
    for batch in tqdm(batches, desc="evaluate", leave=False):
        count = int((batch["labels"] != -100).sum())
        if count:
            loss += model(**batch.to(model.device)).loss.item() * count
            masked += count
    return math.exp(loss / masked)


def save(model, tokenizer, base: Path, folder: Path) -> None:
    """A folder that SentenceEncoder reads, with the base's pooling; and in it `masked-lm`, transformers' whole model."""
    encoder = SentenceTransformer(str(base), device="cpu")
    left = encoder[0].auto_model.load_state_dict(model.base_model.state_dict(), strict=False)
    assert not left.unexpected_keys, left
    encoder.save_pretrained(str(folder))
    model.save_pretrained(folder / "masked-lm")
    tokenizer.save_pretrained(folder / "masked-lm")


def main(arguments: list[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=existing_file, default=SAMPLE, help="a text a line")
    parser.add_argument("--held-out", type=float, default=0.1, help="share of the lines that is kept to evaluate on")
    parser.add_argument("--model", default="minilm", help='"minilm", a folder or a hub id')
    parser.add_argument("--out", type=Path, default=Path("pretrained"), help="folder to save")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=2e-4)
    parser.add_argument("--mlm-probability", type=float, default=0.15, help="share of the tokens that is masked")
    parser.add_argument("--max-length", type=int, default=128, help="word pieces a text is cut at")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-accelerate", action="store_true", help="compute padding, as transformers does")
    options = parser.parse_args(arguments)

    torch.manual_seed(options.seed)
    texts = read_texts(options.data)
    if len(texts) < 2:
        sys.exit(f"{options.data}: {len(texts)} lines with text; accepted: at least 2")
    order = torch.randperm(len(texts)).tolist()
    kept = max(1, round(options.held_out * len(texts)))
    test, train = [texts[place] for place in order[:kept]], [texts[place] for place in order[kept:]]

    folder = resolve(options.model)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForMaskedLM.from_pretrained(folder)
    if not options.no_accelerate:
        sentcore.accelerate(model)  # computes no padding from here on
    model.to("cuda" if torch.cuda.is_available() else "cpu")

    def tokenized(part: list[str]) -> list[dict]:
        return [tokenizer(text, truncation=True, max_length=options.max_length) for text in part]

    def masking(seed: int) -> DataCollatorForLanguageModeling:
        return DataCollatorForLanguageModeling(tokenizer, mlm_probability=options.mlm_probability, seed=seed)

    # The held-out lines are masked once, so that both perplexities are about the same tokens.
    test_batches = list(DataLoader(tokenized(test), options.batch_size, collate_fn=masking(1)))
    train_batches = DataLoader(tokenized(train), options.batch_size, shuffle=True, collate_fn=masking(options.seed))
    before = perplexity(model, test_batches)

    optimizer = torch.optim.AdamW(model.parameters(), lr=options.learning_rate)
    steps = options.epochs * len(train_batches)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=steps)
    with tqdm(total=steps, desc="train") as bar:
        for _ in range(options.epochs):
            model.train()
            for batch in train_batches:
                if not (batch["labels"] != -100).any():
                    continue  # nothing was masked, so there is nothing to learn
                loss = model(**batch.to(model.device)).loss
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                schedule.step()
                bar.set_postfix(loss=f"{loss.item():.3f}")
                bar.update()

    after = perplexity(model, test_batches)
    print(f"{len(train)} lines to train on, {len(test)} to evaluate on")
    print(f"perplexity  before {before:.1f}   after {after:.1f}")
    save(model, tokenizer, folder, options.out)
    print(f"saved {options.out} (SentenceEncoder) and {options.out / 'masked-lm'} (transformers)")
    return {"perplexity_before": before, "perplexity_after": after}


if __name__ == "__main__":
    main()
