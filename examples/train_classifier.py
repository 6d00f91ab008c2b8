"""Train a small encoder from scratch on packed batches: no padding is computed, forward or backward.

    python examples/train_classifier.py

The task is made up (does a sequence hold token 7?), so that the script needs no data and ends in seconds.
"""

from __future__ import annotations

import argparse

import torch
import torch.nn.functional as F
from torch import nn

import sentcore


class Classifier(nn.Module):
    """An encoder, the first token's hidden state, a linear layer."""

    def __init__(self, config: sentcore.EncoderConfig) -> None:
        super().__init__()
        self.encoder = sentcore.Encoder(config)
        self.head = nn.Linear(config.hidden_size, 2)

    def forward(self, batch: sentcore.PackedBatch) -> torch.Tensor:
        """[B, 2] scores of a packed batch of B sequences."""
        first = batch.cu_seqlens[:-1].long()  # where each sequence begins among the T tokens
        return self.head(self.encoder(batch)[first])


def draw(sequences: int, generator: torch.Generator) -> tuple[sentcore.PackedBatch, torch.Tensor]:
    """Ragged sequences of 3 to 24 tokens as one packed batch, and their labels [B]."""
    lengths = torch.randint(3, 25, (sequences,), generator=generator).tolist()
    pieces = [torch.randint(8, 50, (length,), generator=generator) for length in lengths]
    labels = torch.randint(2, (sequences,), generator=generator)
    for piece, label in zip(pieces, labels, strict=True):
        piece[0] = 1  # what the classifier looks at
        if label:
            piece[int(torch.randint(1, len(piece), (), generator=generator))] = 7
    return sentcore.PackedBatch.from_sequences(pieces), labels


def main() -> float:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=75)
    options = parser.parse_args()
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    config = sentcore.EncoderConfig(
        vocab_size=50, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128,
        max_position_embeddings=32,
    )  # fmt: skip
    model = Classifier(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for step in range(options.steps):
        batch, labels = draw(64, generator)
        loss = F.cross_entropy(model(batch), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 25 == 0:
            print(f"step {step}: loss {loss.item():.3f}")
    model.eval()
    batch, labels = draw(512, generator)
    with torch.inference_mode():
        accuracy = (model(batch).argmax(dim=1) == labels).float().mean().item()
    print(f"accuracy on new sequences: {accuracy:.3f}")
    return accuracy


if __name__ == "__main__":
    main()
