"""Few labels: contrastive pairs from a handful of texts a label move the encoder, then a linear head is fitted on it.

    python examples/few_shot.py --data topics.jsonl --shots 8 --out my-few-shot

This is SetFit (Tunstall et al. 2022, https://arxiv.org/abs/2209.11055): two texts of one label are pulled together, two of
different labels apart, and logistic regression does the rest. The file is .jsonl or .tsv with text and label; --shots texts of each
label are trained on, and the accuracy on all others is printed, with the encoder as it came and after training. Without --data a
small sample in English and Chinese is used. Needs the extra `[train]`.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from arguments import existing_file
from labelled_texts import read_rows
from safetensors.torch import save_file
from sentence_transformers import SentenceTransformer
from torch import nn
from tqdm import tqdm

import sentcore
from sentcore.checkpoint import resolve

SAMPLE = Path(__file__).parent / "data" / "topics.jsonl"


def draw_shots(labels: list[str], shots: int) -> tuple[list[int], list[int]]:
    """Positions of `shots` random texts of each label, and of all others."""
    left = dict.fromkeys(set(labels), shots)
    train, test = [], []
    for place in torch.randperm(len(labels)).tolist():
        if left[labels[place]] > 0:
            left[labels[place]] -= 1
            train.append(place)
        else:
            test.append(place)
    return train, test


def draw_pairs(targets: torch.Tensor, pairs: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """[pairs] first, second: positions in targets [N], half of them of one label; and [pairs] 1.0 where they share it."""
    same = targets[:, None] == targets[None, :]
    alike = (same & ~torch.eye(len(targets), dtype=torch.bool)).nonzero()
    unlike = (~same).nonzero()
    drawn = [kind[torch.randint(len(kind), (pairs // 2,))] for kind in (alike, unlike)]
    first, second = torch.cat(drawn).unbind(dim=1)
    return first, second, same[first, second].float()


def fit_head(features: torch.Tensor, targets: torch.Tensor, classes: int, weight_decay: float = 1e-3) -> nn.Linear:
    """Logistic regression on features [N, E]."""
    head = nn.Linear(features.shape[1], classes)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    optimizer = torch.optim.LBFGS(head.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(head(features), targets) + weight_decay * head.weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return head


def head_and_accuracy(
    folder: Path, texts: list[str], targets: torch.Tensor, train: list[int], test: list[int]
) -> tuple[nn.Linear, float]:
    """The head fitted on the training texts' features, and the share of test texts that it gets right."""
    features = torch.from_numpy(sentcore.SentenceEncoder(folder).encode(texts))
    head = fit_head(features[train], targets[train], int(targets.max()) + 1)
    hits = head(features[test]).argmax(dim=1) == targets[test]
    return head, hits.float().mean().item()


def main(arguments: list[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=existing_file, default=SAMPLE, help=".jsonl or .tsv with text and label")
    parser.add_argument("--shots", type=int, default=6, help="texts of each label to train on, at least 2")
    parser.add_argument("--model", default="minilm", help='"minilm", a folder or a hub id')
    parser.add_argument("--out", type=Path, default=Path("few-shot-model"), help="folder to save")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--batch-size", type=int, default=16, help="pairs a step")
    parser.add_argument("--learning-rate", type=float, default=5e-5)
    parser.add_argument("--max-length", type=int, default=128, help="word pieces a text is cut at")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-accelerate", action="store_true", help="compute padding, as transformers does")
    options = parser.parse_args(arguments)

    torch.manual_seed(options.seed)
    texts, labels = (list(column) for column in zip(*read_rows(options.data), strict=True))
    names = sorted(set(labels))
    scarce = [name for name in names if labels.count(name) < options.shots]
    if options.shots < 2 or len(names) < 2 or scarce:
        sys.exit(
            f"{options.data}: labels {names}, {options.shots} shots; accepted: 2 labels or more, 2 shots or more of each"
        )
    targets = torch.tensor([names.index(label) for label in labels])
    train, test = draw_shots(labels, options.shots)
    if not test:
        sys.exit(f"{options.data}: {options.shots} shots of each label leave no text to test on")

    folder = resolve(options.model)
    _, before = head_and_accuracy(folder, texts, targets, train, test)
    model = SentenceTransformer(str(folder))
    if not options.no_accelerate:
        sentcore.accelerate(model)  # computes no padding from here on
    max_length = min(options.max_length, model.max_seq_length)

    def embed(places: torch.Tensor) -> torch.Tensor:
        chosen = [texts[train[place]] for place in places.tolist()]
        features = model.tokenizer(chosen, padding=True, truncation=True, max_length=max_length, return_tensors="pt")
        return model(dict(features.to(model.device)))["sentence_embedding"]

    optimizer = torch.optim.AdamW(model.parameters(), lr=options.learning_rate)
    model.train()
    bar = tqdm(range(options.steps), desc="train")
    for _ in bar:
        first, second, alike = draw_pairs(targets[train], options.batch_size)
        cosines = F.cosine_similarity(embed(first), embed(second))
        loss = F.mse_loss(cosines, alike.to(cosines.device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        bar.set_postfix(loss=f"{loss.item():.3f}")

    model.save_pretrained(str(options.out))
    head, after = head_and_accuracy(options.out, texts, targets, train, test)
    tensors = {name: tensor.detach() for name, tensor in head.state_dict().items()}
    save_file(tensors, options.out / "head.safetensors", metadata={"labels": json.dumps(names, ensure_ascii=False)})
    print(f"{len(train)} texts to train on, {len(test)} to test on; labels {', '.join(names)}")
    print(f"accuracy  before {before:.3f}   after {after:.3f}")
    print(f"saved {options.out}, and the head as {options.out / 'head.safetensors'}")
    return {"accuracy_before": before, "accuracy_after": after}


if __name__ == "__main__":
    main()
