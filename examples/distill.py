"""Distill: a student with a few of the teacher's layers learns the teacher's features; both are compared side by side.

    python examples/distill.py --data corpus.txt --layers 3 --out my-student

The student starts with the teacher's embeddings and `--layers` of its layers, evenly spaced, and keeps its width, so that its
features can stand in for the teacher's. The file holds a text a line. Without --data a small sample in English and Chinese is
used. Needs the extra `[train]`.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from arguments import existing_file
from sentence_transformers import SentenceTransformer
from torch import nn
from tqdm import tqdm

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


def keep_layers(transformer: nn.Module, kept: int) -> list[int]:
    """Drops all layers of a transformers model but `kept` evenly spaced ones; returns their numbers."""
    encoder = getattr(transformer, "encoder", None)
    if not isinstance(getattr(encoder, "layer", None), nn.ModuleList):
        sys.exit(
            f"{type(transformer).__name__} has no list encoder.layer; accepted: BERT, RoBERTa, XLM-R, MPNet, ELECTRA"
        )
    layers = len(encoder.layer)
    if not 1 <= kept < layers:
        sys.exit(f"--layers is {kept}; accepted: 1 to {layers - 1}, fewer than the teacher's {layers}")
    numbers = [(index + 1) * layers // kept - 1 for index in range(kept)]  # the last one always
    encoder.layer = nn.ModuleList(encoder.layer[number] for number in numbers)
    transformer.config.num_hidden_layers = kept
    return numbers


def similarities(features: torch.Tensor) -> torch.Tensor:
    """The cosines of all pairs of rows [B, E], each pair once."""
    features = F.normalize(features, dim=1)
    first, second = torch.triu_indices(len(features), len(features), offset=1)
    return (features @ features.T)[first, second]


def rank_correlation(a: torch.Tensor, b: torch.Tensor) -> float:
    """Spearman's: the correlation of ranks; 1 where both order all pairs alike."""
    ranks = torch.stack([values.argsort().argsort().double() for values in (a, b)])
    return torch.corrcoef(ranks)[0, 1].item()


def measure(folder: Path, texts: list[str], wanted: torch.Tensor) -> dict[str, float]:
    """Size, speed, and how well the model in a folder orders pairs of texts as the features `wanted` [B, E] do."""
    model = sentcore.SentenceEncoder(folder)
    features = model.encode(texts, convert_to_tensor=True).cpu()
    repeated = texts * max(1, 256 // len(texts))
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        model.encode(repeated)
        seconds.append(time.perf_counter() - start)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    files = list(folder.glob("*.safetensors")) or list(folder.glob("*.bin"))
    return {
        "parameters (million)": parameters / 1e6,
        "size (MB)": sum(file.stat().st_size for file in files) / 1e6,
        "texts/s": len(repeated) / min(seconds),
        "similarity correlation": rank_correlation(similarities(features), similarities(wanted)),
        "mean cosine to teacher": F.cosine_similarity(features, wanted).mean().item(),
    }


def main(arguments: list[str] | None = None) -> dict[str, dict[str, float]]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=existing_file, default=SAMPLE, help="a text a line")
    parser.add_argument("--held-out", type=float, default=0.2, help="share of the lines that is kept to compare on")
    parser.add_argument("--model", default="minilm", help='the teacher: "minilm", a folder or a hub id')
    parser.add_argument("--layers", type=int, default=3, help="layers of the student")
    parser.add_argument("--out", type=Path, default=Path("student"), help="folder to save")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=2e-4)
    parser.add_argument(
        "--loss", choices=["cosine", "mse"], default="cosine", help="what is made small, feature by feature"
    )
    parser.add_argument("--max-length", type=int, default=128, help="word pieces a text is cut at")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-accelerate", action="store_true", help="compute padding, as transformers does")
    options = parser.parse_args(arguments)

    torch.manual_seed(options.seed)
    texts = read_texts(options.data)
    order = torch.randperm(len(texts)).tolist()
    kept = max(3, round(options.held_out * len(texts)))
    test, train = [texts[place] for place in order[:kept]], [texts[place] for place in order[kept:]]
    if not train:
        sys.exit(f"{options.data}: {len(texts)} lines with text; accepted: at least 4")

    teacher_folder = resolve(options.model)
    student = SentenceTransformer(str(teacher_folder))
    numbers = keep_layers(student[0].auto_model, options.layers)
    print(f"the student has the teacher's layers {numbers}")
    student.max_seq_length = min(options.max_length, student.max_seq_length)
    # The teacher speaks once: its features of all texts are computed before training.
    teacher = sentcore.SentenceEncoder(teacher_folder)
    teacher.max_seq_length = student.max_seq_length
    wanted = teacher.encode(train, convert_to_tensor=True).to(student.device)
    wanted_test = teacher.encode(test, convert_to_tensor=True).cpu()
    student.save_pretrained(str(options.out))
    columns = {
        "teacher": measure(teacher_folder, test, wanted_test),
        "untrained": measure(options.out, test, wanted_test),
    }

    if not options.no_accelerate:
        sentcore.accelerate(student)  # computes no padding from here on
    optimizer = torch.optim.AdamW(student.parameters(), lr=options.learning_rate)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=options.steps)
    student.train()
    bar = tqdm(range(options.steps), desc="train")
    for _ in bar:
        places = torch.randperm(len(train))[: options.batch_size]
        features = student.tokenizer(
            [train[place] for place in places.tolist()],
            padding=True, truncation=True, max_length=student.max_seq_length, return_tensors="pt",
        )  # fmt: skip
        learned = student(dict(features.to(student.device)))["sentence_embedding"]
        target = wanted[places.to(wanted.device)]
        if options.loss == "mse":
            loss = F.mse_loss(learned, target)
        else:
            loss = 1 - F.cosine_similarity(learned, target).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        bar.set_postfix(loss=f"{loss.item():.4f}")

    student.save_pretrained(str(options.out))
    columns["student"] = measure(options.out, test, wanted_test)
    print(f"{len(train)} lines to train on, {len(test)} to compare on")
    print(f"{'':<24}" + "".join(f"{name:>12}" for name in columns))
    for name in columns["teacher"]:
        print(f"{name:<24}" + "".join(f"{column[name]:>12.3f}" for column in columns.values()))
    print(f"saved {options.out}")
    return columns


if __name__ == "__main__":
    main()
