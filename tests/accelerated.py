"""Models of transformers in pairs, plain and accelerated, and what is compared of them."""

from __future__ import annotations

import copy

import torch
import transformers as hf
from torch import nn

import sentcore
from families import SMALL, make_model, randomize

LENGTHS = (5, 1, 17, 40)
LARGEST = 1e-5  # beside the largest of the values compared
BACKENDS = ("auto", "reference")


def same(mine: torch.Tensor, other: torch.Tensor) -> None:
    torch.testing.assert_close(mine, other, rtol=0, atol=LARGEST * max(1.0, float(other.detach().abs().max())))


def ragged(vocabulary: int = 90, pad: int = 0, left: bool = False) -> dict[str, torch.Tensor]:
    ids = torch.randint(5, vocabulary, (len(LENGTHS), max(LENGTHS)))
    mask = torch.zeros_like(ids)
    for row, length in enumerate(LENGTHS):
        mask[row, slice(-length, None) if left else slice(0, length)] = 1
    ids[mask == 0] = pad
    return {"input_ids": ids, "attention_mask": mask}


def to(device: str, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value.to(device) for name, value in batch.items()}


def pair(name: str, backend: str = "auto", device: str = "cpu") -> tuple[hf.PreTrainedModel, hf.PreTrainedModel]:
    model = make_model(name).to(device)
    return sentcore.accelerate(copy.deepcopy(model), backend), model


def classifier(kind: str = "BertForTokenClassification", **options) -> hf.PreTrainedModel:
    torch.manual_seed(3)
    name = kind.split("For")[0]
    sizes = {**SMALL, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "num_labels": 3, **options}
    if name == "ModernBert":
        sizes = {**SMALL, "num_labels": 3, "pad_token_id": 0, **options}
    elif name in ("Roberta", "MPNet"):
        sizes |= {"pad_token_id": 1, "max_position_embeddings": 514, "bos_token_id": 0, "eos_token_id": 2}
    model = getattr(hf, kind)(getattr(hf, f"{name}Config")(**sizes))
    randomize(model)
    return model


def losses(model: nn.Module, batches: list[dict[str, torch.Tensor]], **call) -> list[float]:
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4)
    found = []
    model.train()
    for batch in batches:
        optimizer.zero_grad()
        loss = model(**to(str(trained[0].device), batch), **call)
        loss = loss if isinstance(loss, torch.Tensor) else loss.loss
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    return found


def batches_for(kind: str, count: int, pad: int) -> list[dict[str, torch.Tensor]]:
    torch.manual_seed(7)
    result = []
    for _ in range(count):
        batch = ragged(pad=pad)
        if "Token" in kind:
            labels = torch.randint(0, 3, batch["input_ids"].shape)
            batch["labels"] = labels.masked_fill(batch["attention_mask"] == 0, -100)
        else:
            batch["labels"] = torch.randint(0, 3, (len(LENGTHS),))
        result.append(batch)
    return result


def same_training(ours: nn.Module, theirs: nn.Module, batches: list[dict[str, torch.Tensor]]) -> None:
    mine, others = losses(ours, batches), losses(theirs, batches)
    assert len(set(others)) > len(others) // 2  # it learns something
    for step, (a, b) in enumerate(zip(mine, others, strict=True)):
        assert abs(a - b) <= 1e-4 * abs(b), step
    same_parameters(ours, theirs)


def same_parameters(ours: nn.Module, theirs: nn.Module) -> None:
    for (key, p), q in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        # Softmax does not change with a key's bias: its gradient is rounding alone, which AdamW scales up to whole steps.
        if key.endswith((".key.bias", ".k.bias")):
            continue
        if key.endswith("in_proj_bias"):  # of queries, keys and values
            p, q = (torch.cat((bias.chunk(3)[0], bias.chunk(3)[2])) for bias in (p, q))
        assert (p - q).norm() <= 1e-4 * q.norm(), key
