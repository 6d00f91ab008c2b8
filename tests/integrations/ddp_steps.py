"""Run by torchrun in two processes: steps of DistributedDataParallel, plain and accelerated, on other batches in each process."""

from __future__ import annotations

import copy
import os

import torch
import torch.distributed as dist
import transformers as hf
from torch.nn.parallel import DistributedDataParallel

import sentcore

SIZES = {
    "vocab_size": 100,
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 80,
}


def main() -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    torch.manual_seed(0)
    config = hf.BertConfig(**SIZES, num_labels=3, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    plain = hf.BertForTokenClassification(config).train()
    models = [DistributedDataParallel(m) for m in (plain, sentcore.accelerate(copy.deepcopy(plain)))]
    optimizers = [torch.optim.AdamW(model.parameters(), lr=1e-4) for model in models]
    generator = torch.Generator().manual_seed(dist.get_rank())
    for step in range(10):
        lengths = torch.randint(1, 30, (4,), generator=generator)
        mask = (torch.arange(30) < lengths[:, None]).long()
        ids = torch.randint(5, 100, (4, 30), generator=generator) * mask
        labels = torch.randint(0, 3, (4, 30), generator=generator).masked_fill(mask == 0, -100)
        losses = []
        for model, optimizer in zip(models, optimizers, strict=True):
            optimizer.zero_grad()
            loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert abs(losses[0] - losses[1]) <= 1e-4 * abs(losses[0]), (step, losses)
    for (name, a), b in zip(models[0].named_parameters(), models[1].parameters(), strict=True):
        both = [torch.empty_like(b) for _ in range(2)]
        dist.all_gather(both, b.detach())
        assert torch.equal(*both), name
        assert name.endswith("key.bias") or (a - b).norm() <= 1e-4 * a.norm() + 1e-6, name
    print(f"rank {os.environ['RANK']}: same")  # the test counts these
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
