"""Adapters: text classification with the encoder frozen, by LoRA, AdaLoRA, a prefix, a prompt, bottlenecks or a head alone.

    python examples/adapters.py --method lora --data reviews.tsv --out my-adapter

PEFT does all but the bottlenecks, which are small modules around linear layers (Houlsby et al. 2019,
https://arxiv.org/abs/1902.00751). Prefixes go to transformers' encoders as a cache that its classifiers do not take, so the head is
one of our own, on the mean of a text's tokens. The file is .jsonl, with fields text and label, or .tsv, with a header that names
these two columns. Without --data a small sample in English and Chinese is used. Needs the extra `[train]`.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import peft
import torch
import torch.nn.functional as F
from arguments import existing_file
from labelled_texts import split, tokenized
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from tqdm import tqdm
from transformers import AutoModel, AutoTokenizer, DataCollatorWithPadding

import sentcore
from sentcore.checkpoint import resolve

SAMPLE = Path(__file__).parent / "data" / "topics.jsonl"
# What is drawn at random in a large encoder that stands still bears, and wants, larger steps than the encoder would.
LEARNING_RATES = {"lora": 2e-3, "adalora": 5e-3, "prefix": 1e-2, "prompt": 1e-2, "bottleneck": 2e-3, "head": 1e-2}
TAKE_PREFIXES = ("bert", "roberta", "xlm-roberta", "camembert", "electra")
# The ends of the names of the linear layers that close a block of attention or a feed-forward network, in every family.
BLOCK_ENDS = ("output.dense", "attention.dense", "ffn_output", "out_lin", "ffn.lin2", "attn.o", "attn.Wo", "mlp.Wo")


class Bottleneck(nn.Module):
    """A linear layer, and what a narrow network makes of its output [..., H] added to that; nothing, to begin with."""

    def __init__(self, inner: nn.Linear, width: int) -> None:
        super().__init__()
        self.inner = inner
        self.down, self.up = nn.Linear(inner.out_features, width), nn.Linear(width, inner.out_features)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.inner(x)
        return y + self.up(F.gelu(self.down(y)))


def add_bottlenecks(encoder: nn.Module, width: int) -> nn.Module:
    """Puts one around the last linear layer of each attention and each feed-forward network; all else is frozen."""
    encoder.requires_grad_(False)
    ends = [name for name, part in encoder.named_modules() if isinstance(part, nn.Linear) and name.endswith(BLOCK_ENDS)]
    if not ends:
        sys.exit(f"{type(encoder).__name__} has no linear layer named {', '.join(BLOCK_ENDS)}; add yours to BLOCK_ENDS")
    for name in ends:
        encoder.set_submodule(name, Bottleneck(encoder.get_submodule(name), width))
    return encoder


class Classifier(nn.Module):
    """A linear layer on the mean of a text's last hidden states."""

    def __init__(self, encoder: nn.Module, width: int, classes: int) -> None:
        super().__init__()
        self.encoder, self.head = encoder, nn.Linear(width, classes)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """[B, S] int64 ids and mask -> [B, classes] scores."""
        states = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        states = states[:, -input_ids.shape[1] :]  # a prompt stands before the text
        mask = attention_mask[:, :, None].to(states.dtype)
        return self.head((states * mask).sum(dim=1) / mask.sum(dim=1))


def with_adapter(encoder: nn.Module, method: str, size: int, steps: int) -> nn.Module:
    """The encoder frozen, with an adapter to train: a rank, a width or a number of tokens of `size`."""
    if method == "prefix" and encoder.config.model_type not in TAKE_PREFIXES:
        sys.exit(f"--method prefix: {encoder.config.model_type} takes none; accepted: {', '.join(TAKE_PREFIXES)}")
    if method == "head":
        return encoder.requires_grad_(False)
    if method == "bottleneck":
        return add_bottlenecks(encoder, size)
    task = peft.TaskType.FEATURE_EXTRACTION
    # A pooler is not on the way to the hidden states.
    linear = {"target_modules": "all-linear", "exclude_modules": r".*\bpooler\b.*", "lora_alpha": 2 * size}
    if method == "lora":
        config = peft.LoraConfig(task_type=task, r=size, lora_dropout=0.1, **linear)
    elif method == "adalora":  # begins with ranks of 3/2 `size` and ends with `size` on average
        parts = {"total_step": steps, "tinit": steps // 5, "tfinal": steps // 3, "deltaT": 1}
        config = peft.AdaLoraConfig(task_type=task, init_r=size + size // 2, target_r=size, **linear, **parts)
    elif method == "prefix":
        config = peft.PrefixTuningConfig(task_type=task, num_virtual_tokens=size)
    else:
        shape = encoder.config  # said, because PEFT does not read DistilBERT's
        config = peft.PromptTuningConfig(
            task_type=task,
            num_virtual_tokens=size,
            token_dim=encoder.get_input_embeddings().embedding_dim,
            num_layers=shape.num_hidden_layers,
            num_attention_heads=shape.num_attention_heads,
        )
    return peft.get_peft_model(encoder, config)


def orthogonality(encoder: nn.Module) -> torch.Tensor:
    """How far AdaLoRA's two factors are from orthogonal, which PEFT adds to a loss only where the model itself computes one."""
    factors = [
        p if "lora_A" in name else p.T for name, p in encoder.named_parameters() if "lora_A" in name or "lora_B" in name
    ]
    return torch.stack([(p @ p.T - torch.eye(len(p), device=p.device)).norm() for p in factors]).mean()


def save(model: Classifier, names: list[str], method: str, size: int, folder: Path) -> None:
    """The adapter as PEFT saves it, or the bottlenecks' tensors; and the head, with the labels in its metadata."""
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(model.encoder, peft.PeftModel):
        model.encoder.save_pretrained(folder)
    elif method == "bottleneck":
        tensors = {name: p.detach() for name, p in model.encoder.named_parameters() if p.requires_grad}
        save_file(tensors, folder / "bottlenecks.safetensors", metadata={"width": str(size)})
    tensors = {name: tensor.detach() for name, tensor in model.head.state_dict().items()}
    save_file(tensors, folder / "head.safetensors", metadata={"labels": json.dumps(names, ensure_ascii=False)})


def load(base: Path, folder: Path) -> tuple[Classifier, list[str]]:
    """The model that was saved, on transformers' encoder as it comes, and the names of its labels."""
    encoder = AutoModel.from_pretrained(base)
    width = encoder.config.hidden_size
    if (folder / "adapter_config.json").is_file():
        encoder = peft.PeftModel.from_pretrained(encoder, folder)
    elif (folder / "bottlenecks.safetensors").is_file():
        with safe_open(folder / "bottlenecks.safetensors", "pt") as file:
            encoder = add_bottlenecks(encoder, int(file.metadata()["width"]))
            left = encoder.load_state_dict({name: file.get_tensor(name) for name in file.keys()}, strict=False)  # noqa: SIM118
        assert not left.unexpected_keys, left
    with safe_open(folder / "head.safetensors", "pt") as file:
        names = json.loads(file.metadata()["labels"])
        model = Classifier(encoder, width, len(names))
        model.head.load_state_dict({name: file.get_tensor(name) for name in ("weight", "bias")})
    return model, names


@torch.no_grad()
def scores(model: Classifier, batches: list[dict[str, torch.Tensor]]) -> torch.Tensor:
    """[N, classes] of all texts."""
    model.eval()
    return torch.cat([model(batch["input_ids"], batch["attention_mask"]) for batch in batches])


def main(arguments: list[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=existing_file, default=SAMPLE, help=".jsonl or .tsv with text and label")
    parser.add_argument(
        "--test", type=existing_file, help="such a file to evaluate on; without it a fifth of --data is kept aside"
    )
    parser.add_argument("--method", choices=list(LEARNING_RATES), default="lora", help='"head" trains no adapter')
    parser.add_argument("--size", type=int, default=8, help="rank, width or number of tokens of the adapter")
    parser.add_argument("--model", default="minilm", help='"minilm", a folder or a hub id')
    parser.add_argument("--out", type=Path, default=Path("adapter"), help="folder to save")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, help=f"without it by the method: {LEARNING_RATES}")
    parser.add_argument("--max-length", type=int, default=128, help="word pieces a text is cut at")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-accelerate", action="store_true", help="compute padding, as transformers does")
    options = parser.parse_args(arguments)

    torch.manual_seed(options.seed)
    train, test, names = split(options.data, options.test)
    folder = resolve(options.model)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    collate = DataCollatorWithPadding(tokenizer)
    train, test = (tokenized(part, names, tokenizer, options.max_length) for part in (train, test))
    batches = [collate(test[at : at + options.batch_size]) for at in range(0, len(test), options.batch_size)]
    wanted = torch.cat([batch["labels"] for batch in batches])

    encoder = AutoModel.from_pretrained(folder)
    if not options.no_accelerate:
        sentcore.accelerate(encoder)  # computes no padding from here on
    model = Classifier(encoder, encoder.config.hidden_size, len(names))  # drawn first: the same head for all methods
    model.encoder = with_adapter(encoder, options.method, options.size, options.steps)
    trained = [p for p in model.parameters() if p.requires_grad]
    before = scores(model, batches)

    optimizer = torch.optim.AdamW(trained, lr=options.learning_rate or LEARNING_RATES[options.method])
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / options.steps)
    model.train()
    bar = tqdm(range(options.steps), desc="train")
    for step in bar:
        drawn = [train[place] for place in torch.randperm(len(train))[: options.batch_size].tolist()]
        batch = collate(drawn)
        loss = F.cross_entropy(model(batch["input_ids"], batch["attention_mask"]), batch["labels"])
        if options.method == "adalora":
            loss = loss + 0.5 * orthogonality(model.encoder)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if options.method == "adalora":
            model.encoder.base_model.update_and_allocate(step)  # reads the gradients
        schedule.step()
        bar.set_postfix(loss=f"{loss.item():.3f}")

    after = scores(model, batches)
    save(model, names, options.method, options.size, options.out)
    again = scores(load(folder, options.out)[0], batches)
    figures = {
        "trained": sum(p.numel() for p in trained),
        "parameters": sum(p.numel() for p in model.parameters()),
        "accuracy_before": (before.argmax(dim=1) == wanted).float().mean().item(),
        "accuracy_after": (after.argmax(dim=1) == wanted).float().mean().item(),
        "loaded_differs": (again - after).abs().max().item(),
    }
    print(f"{len(train)} texts to train on, {len(test)} to test on; labels {', '.join(names)}")
    print(f"{options.method}: {figures['trained']:,} of {figures['parameters']:,} parameters are trained", end=" ")
    print(f"({figures['trained'] / figures['parameters']:.2%})")
    print(f"accuracy  before {figures['accuracy_before']:.3f}   after {figures['accuracy_after']:.3f}")
    same = int((again.argmax(dim=1) == after.argmax(dim=1)).sum())
    print(f"saved {options.out}; loaded again: {same} of {len(test)} labels the same,", end=" ")
    print(f"scores differ by at most {figures['loaded_differs']:.1e}")
    return figures


if __name__ == "__main__":
    main()
