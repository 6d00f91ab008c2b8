"""Topic or sentiment: train a text classifier with transformers' Trainer on a file of texts and labels.

    python examples/classify.py --data reviews.tsv --epochs 3 --out my-classifier

The file is .jsonl, with fields text and label, or .tsv, with a header that names these two columns. Without --data a small
sample in English and Chinese is used. Needs the extra `[train]`.

In several processes, each on rows of its own, with gradients averaged (DistributedDataParallel):

    torchrun --nproc-per-node 2 examples/classify.py --data reviews.tsv --out my-classifier
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from arguments import existing_file
from labelled_texts import accuracy, split, tokenized
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
    train, test, names = split(options.data, options.test)

    folder = resolve(options.model)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(
        folder,
        num_labels=len(names),
        label2id={name: index for index, name in enumerate(names)},
        id2label=dict(enumerate(names)),
    )
    if not options.no_accelerate:
        sentcore.accelerate(model)  # computes no padding from here on

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
            # Not by evaluate() before train(), after which the processes of torchrun train apart, unnoticed.
            eval_on_start=True,
            save_strategy="no",
            report_to="none",
            # Said, because torchrun's processes find each other on a CPU only where it is asked for.
            use_cpu=not torch.accelerator.is_available(),
            # The loss is a mean over the process's rows; Trainer would multiply it by the number of processes.
            average_tokens_across_devices=False,
        ),
        train_dataset=tokenized(train, names, tokenizer, options.max_length),
        eval_dataset=tokenized(test, names, tokenizer, options.max_length),
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_metrics=accuracy,
    )
    trainer.train()
    before = next(entry for entry in trainer.state.log_history if "eval_accuracy" in entry)
    after = trainer.evaluate()
    if trainer.is_world_process_zero():  # one of several processes prints and saves
        print(f"{len(train)} texts to train on, {len(test)} to test on; labels {', '.join(names)}")
        for name in ("accuracy", "macro_f1", "loss"):
            print(f"{name:<9} before {before[f'eval_{name}']:.3f}   after {after[f'eval_{name}']:.3f}")
        save(model, tokenizer, folder, options.out)
        print(f"saved {options.out} (transformers) and {options.out / 'encoder'} (SentenceEncoder)")
    return {"accuracy_before": before["eval_accuracy"], "accuracy_after": after["eval_accuracy"]}


if __name__ == "__main__":
    main()
    if torch.distributed.is_initialized():  # Here, where the trainer is gone: with its model alive gloo may never end.
        torch.distributed.destroy_process_group()
