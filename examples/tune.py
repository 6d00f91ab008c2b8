"""Tune: Optuna looks for the learning rate, batch size and warmup of a text classifier, by transformers' Trainer.

    python examples/tune.py --data reviews.tsv --trials 8 --report-to tensorboard --out my-tuning

The rows are parted in three: trials learn from one part and are compared on the second; the accuracy of the defaults and of what was
found is that of the third, which no trial saw. The file is .jsonl, with fields text and label, or .tsv, with a header that names
these two columns. Without --data a small sample in English and Chinese is used. Needs the extras `[train]` and `[tune]`; W&B, which
only writes to --out here (offline), is `pip install wandb`.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sys
from pathlib import Path

import torch
from arguments import existing_file
from labelled_texts import accuracy, split, tokenized
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    PreTrainedModel,
    Trainer,
    TrainingArguments,
)

import sentcore
from sentcore.checkpoint import resolve

SAMPLE = Path(__file__).parent / "data" / "topics.jsonl"
DEFAULTS = {"learning_rate": 2e-4, "per_device_train_batch_size": 16, "warmup_steps": 0.1}


def space(trial) -> dict:
    """What Optuna chooses among."""
    return {
        "learning_rate": trial.suggest_float("learning_rate", 2e-5, 2e-3, log=True),
        "per_device_train_batch_size": trial.suggest_categorical("per_device_train_batch_size", [8, 16, 32]),
        "warmup_steps": trial.suggest_float("warmup_steps", 0.0, 0.3),  # a share of all steps
    }


def need(package: str, remedy: str, why: str) -> None:
    if importlib.util.find_spec(package) is None:
        sys.exit(f"{why} needs the package {package}, which is not installed; {remedy}")


def main(arguments: list[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=existing_file, default=SAMPLE, help=".jsonl or .tsv with text and label")
    parser.add_argument("--test", type=existing_file, help="such a file to report; without it a fifth of --data")
    parser.add_argument("--trials", type=int, default=4)
    parser.add_argument(
        "--report-to", choices=["none", "tensorboard", "wandb"], default="none", help="curves of trials"
    )
    parser.add_argument("--model", default="minilm", help='"minilm", a folder or a hub id')
    parser.add_argument("--out", type=Path, default=Path("tuned"), help="folder to save")
    parser.add_argument("--epochs", type=float, default=3)
    parser.add_argument("--max-length", type=int, default=128, help="word pieces a text is cut at")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-accelerate", action="store_true", help="compute padding, as transformers does")
    options = parser.parse_args(arguments)

    need("optuna", "pip install 'sentcore[tune]'", "the search")
    if options.report_to == "tensorboard":
        need("tensorboard", "pip install 'sentcore[tune]'", "--report-to tensorboard")
    if options.report_to == "wandb":
        need("wandb", "pip install wandb", "--report-to wandb")
        os.environ.update(WANDB_MODE="offline", WANDB_DIR=str(options.out))
    import optuna

    torch.manual_seed(options.seed)
    known, test, names = split(options.data, options.test)
    kept = max(1, len(known) // 4)
    folder = resolve(options.model)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    compared, train, test = (
        tokenized(part, names, tokenizer, options.max_length) for part in (known[:kept], known[kept:], test)
    )

    def fresh(trial=None) -> PreTrainedModel:
        """Every trial begins with the same model."""
        torch.manual_seed(options.seed)
        model = AutoModelForSequenceClassification.from_pretrained(
            folder,
            num_labels=len(names),
            label2id={name: index for index, name in enumerate(names)},
            id2label=dict(enumerate(names)),
        )
        return model if options.no_accelerate else sentcore.accelerate(model)  # computes no padding

    def trainer(report_to: str = "none", **choices) -> Trainer:
        return Trainer(
            model_init=fresh,
            args=TrainingArguments(
                output_dir=str(options.out),
                num_train_epochs=options.epochs,
                per_device_eval_batch_size=16,
                eval_strategy="epoch",
                logging_steps=1,
                seed=options.seed,
                save_strategy="no",
                report_to=report_to,
                **choices,
            ),
            train_dataset=train,
            eval_dataset=compared,
            data_collator=DataCollatorWithPadding(tokenizer),
            compute_metrics=accuracy,
        )

    def trained(choices: dict) -> tuple[Trainer, dict[str, float]]:
        """A classifier by these choices, and its figures on the third part."""
        one = trainer(**choices)
        one.train()
        return one, one.evaluate(test, metric_key_prefix="test")

    losses = []  # of each trial, that of its last epoch

    def chosen(trial) -> dict:
        losses.append(float("nan"))
        return space(trial)

    def objective(figures: dict[str, float]) -> float:
        losses[-1] = figures["eval_loss"]
        return losses[-1]

    options.out.mkdir(parents=True, exist_ok=True)
    # The defaults, because what a trial chooses is cut to the type of what stands there: a share of steps to 0.
    search = trainer(options.report_to, **DEFAULTS)
    best = search.hyperparameter_search(
        hp_space=chosen,
        hp_name=lambda trial: f"trial-{trial.number}",
        compute_objective=objective,
        n_trials=options.trials,
        direction="minimize",
        backend="optuna",
        sampler=optuna.samplers.TPESampler(seed=options.seed),
    )
    if options.report_to == "wandb":
        import wandb

        wandb.finish()
    _, before = trained(DEFAULTS)
    tuned, after = trained(best.hyperparameters)
    tuned.save_model(options.out)
    tokenizer.save_pretrained(options.out)
    (options.out / "choices.json").write_text(json.dumps(best.hyperparameters) + "\n", encoding="utf-8")

    print(f"{len(train)} texts to train on, {len(compared)} to compare trials on, {len(test)} to test on")
    print(f"losses of {len(losses)} trials: {', '.join(f'{loss:.3f}' for loss in losses)}")
    print(f"best: {', '.join(f'{name} {value:.3g}' for name, value in best.hyperparameters.items())}")
    for name in ("accuracy", "loss"):
        print(f"{name:<8}  defaults {before[f'test_{name}']:.3f}   tuned {after[f'test_{name}']:.3f}")
    print(f"saved {options.out} (transformers), and the choices as {options.out / 'choices.json'}")
    return {
        "best_loss": best.objective,
        "tuned_loss": tuned.evaluate()["eval_loss"],
        "losses": losses,
        "accuracy_before": before["test_accuracy"],
        "accuracy_after": after["test_accuracy"],
    }


if __name__ == "__main__":
    main()
