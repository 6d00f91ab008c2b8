"""Steps of token classification with transformers, as tutorials write it, without and with `sentcore.accelerate`.

    python bench/training.py --out bench/results/MACHINE/training.json

A BertForTokenClassification of MiniLM's size with random weights, AdamW, sentences of about 30 tokens; padded to 128, to the
longest of a batch, and to the longest of a batch of sentences sorted by length. All variants take the same batches in turn, with
the dropout of BERT's configuration (`--dropout 0` leaves it out). Before that the losses of a padding scheme without and with
the added line must agree over three steps without dropout. Peak memory is measured in a process each, less what the process held
before its first step.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
import transformers

import sentcore

SCHEMES = ("max_length", "dynamic", "sorted")
LONGEST = 128


def make_model(layers: int, hidden: int, dropout: float) -> transformers.PreTrainedModel:
    """In training mode, the same weights at every call."""
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=21128,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 32 if hidden < 768 else hidden // 64,
        intermediate_size=4 * hidden,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        num_labels=9,
    )
    return transformers.BertForTokenClassification(config).train()


def make_batches(scheme: str, count: int, size: int) -> list[dict[str, torch.Tensor]]:
    """`count` batches of `size` sentences, 8 to 60 tokens and 30 on average."""
    generator = torch.Generator().manual_seed(1)
    lengths = (torch.randn(count * size, generator=generator) * 11 + 30).round().long().clamp(8, 60)
    if scheme == "sorted":
        lengths = lengths.sort().values
        order = torch.randperm(count, generator=generator)
        lengths = lengths.view(count, size)[order].flatten()
    batches = []
    for group in lengths.view(count, size):
        width = LONGEST if scheme == "max_length" else int(group.max())
        mask = (torch.arange(width) < group[:, None]).long()
        ids = torch.randint(1000, 21128, (size, width), generator=generator) * mask
        labels = torch.randint(0, 9, (size, width), generator=generator).masked_fill(mask == 0, -100)
        batches.append({"input_ids": ids, "attention_mask": mask, "labels": labels})
    return batches


class Variant:
    """One model and its optimizer."""

    def __init__(self, scheme: str, accelerated: bool, options: argparse.Namespace, dropout: float, steps: int) -> None:
        self.model = make_model(options.layers, options.hidden, dropout)
        if accelerated:
            sentcore.accelerate(self.model)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=3e-5)
        self.batches = make_batches(scheme, steps, options.batch_size)
        self.times: list[float] = []
        self.losses: list[float] = []

    def step(self, index: int) -> None:
        """One batch forward, backward, update."""
        start = time.perf_counter()
        self.optimizer.zero_grad()
        loss = self.model(**self.batches[index]).loss
        loss.backward()
        self.optimizer.step()
        self.times.append(time.perf_counter() - start)
        self.losses.append(loss.item())


def check_losses(scheme: str, options: argparse.Namespace) -> None:
    """Raises where three steps without dropout do not give the losses of the untouched model."""
    plain, ours = (Variant(scheme, on, options, 0.0, 3) for on in (False, True))
    for index in range(3):
        plain.step(index)
        ours.step(index)
    for expected, found in zip(plain.losses, ours.losses, strict=True):
        if abs(expected - found) > 1e-4 * abs(expected):
            raise SystemExit(f"{scheme}: a loss of {found}, {expected} without sentcore.accelerate")


def peak_memory(scheme: str, accelerated: bool, options: argparse.Namespace) -> int:
    """Bytes that a process of its own holds at its peak, less what it held with the model loaded."""
    command = [sys.executable, __file__, "--layers", str(options.layers), "--hidden", str(options.hidden)]
    command += ["--batch-size", str(options.batch_size), "--threads", str(options.threads)]
    command += ["--dropout", str(options.dropout), "--memory-of", scheme]
    done = subprocess.run(
        [*command, *(["--accelerated"] if accelerated else [])], capture_output=True, text=True, check=True
    )
    return int(done.stdout.split()[-1])


def _resident(name: str) -> int:
    """Bytes of this process, now ("VmRSS") or at its peak ("VmHWM"); Linux alone tells."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(name)).split()[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="a .json file for the figures")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--hidden", type=int, default=384)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dropout", type=float, default=0.1, help="of hidden states and of attention")
    parser.add_argument("--memory-of", choices=SCHEMES, help=argparse.SUPPRESS)
    parser.add_argument("--accelerated", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.memory_of:
        variant = Variant(options.memory_of, options.accelerated, options, options.dropout, 3)
        Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
        before = _resident("VmRSS")
        for index in range(3):
            variant.step(index)
        print(_resident("VmHWM") - before)
        return
    for scheme in SCHEMES:
        check_losses(scheme, options)
    variants = {
        (scheme, on): Variant(scheme, on, options, options.dropout, options.steps)
        for scheme in SCHEMES
        for on in (False, True)
    }
    for index in range(options.steps):
        for variant in variants.values():
            variant.step(index)
    rows = []
    for scheme in SCHEMES:
        plain, ours = variants[scheme, False], variants[scheme, True]
        before, after = (statistics.median(variant.times[1:]) for variant in (plain, ours))
        memory = [peak_memory(scheme, on, options) for on in (False, True)]
        row = {
            "padding": scheme,
            "steps_per_second": 1 / before,
            "steps_per_second_accelerated": 1 / after,
            "ratio": before / after,
            "peak_memory_mib": memory[0] / 2**20,
            "peak_memory_mib_accelerated": memory[1] / 2**20,
            "memory_ratio": memory[1] / memory[0],
        }
        rows.append(row)
        print(
            f"{scheme:12s} {1 / before:6.2f} -> {1 / after:6.2f} steps/s, {row['ratio']:.2f}x; "
            f"memory {memory[0] >> 20} -> {memory[1] >> 20} MiB, {row['memory_ratio']:.2f}x"
        )
    if options.out:
        versions = {
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "sentcore": sentcore.__version__,
        }
        settings = {k: v for k, v in vars(options).items() if k not in ("out", "memory_of", "accelerated")}
        result = {"machine": platform.processor() or platform.machine(), "versions": versions, **settings, "rows": rows}
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
