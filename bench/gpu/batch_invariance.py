"""The same sentences in batches drawn by chance, compared bit by bit, and what batch_invariant=True costs.

    python bench/gpu/batch_invariance.py --out bench/results/<gpu>

Weights are random, sentences ragged. The difference of a row is the largest one between two batchings: with batch_invariant=True
anything but 0 fails the run. Where that is refused on this device, the row is of the usual path, and says so.
"""

from __future__ import annotations

import json
import random
import tempfile
from pathlib import Path

import numpy as np
import torch
from encoder import BATCHES, SHAPES
from timing import Row, alternate_ms, arguments, kept, spread, times_ms

import sentcore
from sentcore.errors import SentcoreError
from sentcore.inputs.packing import pack_batch

WORDS = [f"w{number}" for number in range(2000)]
DTYPES = ("bfloat16", "float32")
BATCHINGS, ALONE = 8, 16


def write_folder(shape: str, device: str, folder: Path) -> Path:
    """A bare checkpoint with random weights and a vocabulary of WORDS."""
    from transformers import BertConfig, BertModel

    hidden, layers, heads, inner = SHAPES[shape] if device == "cuda" else (64, 2, 4, 128)
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads,
        intermediate_size=inner,
    )  # fmt: skip
    BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    settings = {"tokenizer_class": "BertTokenizer", "do_lower_case": True}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder


def sentences_for(device: str) -> list[str]:
    """Words by chance, as many tokens each as encoder.py's ragged batch has."""
    lengths = BATCHES["real"] if device == "cuda" else BATCHES["real"][:24]
    draw = random.Random(0)
    return [" ".join(draw.choices(WORDS, k=length - 2)) for length in lengths]


def largest_difference(encoder: sentcore.SentenceEncoder, sentences: list[str], device: str) -> tuple[float, int]:
    """(the largest difference between batchings, sentences whose bits are not always the same)."""
    draw = random.Random(1)
    rows = encoder.encode(sentences)
    largest, changed = 0.0, np.zeros(len(sentences), bool)

    def compare(found: np.ndarray, places: list[int]) -> None:
        nonlocal largest
        largest = max(largest, float(np.abs(found - rows[places]).max()))
        changed[places] |= (found.view(np.uint32) != rows[places].view(np.uint32)).any(axis=1)

    for _ in range(BATCHINGS if device == "cuda" else 3):
        places = draw.sample(range(len(sentences)), len(sentences))
        tokens = draw.choice([256, 1000, 4096, 10_000, 32_768])
        compare(encoder.encode([sentences[i] for i in places], batch_tokens=tokens), places)
    for place in draw.sample(range(len(sentences)), ALONE if device == "cuda" else 3):
        compare(encoder.encode([sentences[place]]), [place])
    if np.isnan(rows).any():
        largest = float("nan")
    return largest, int(changed.sum())


def forward(encoder: sentcore.SentenceEncoder, batch: sentcore.PackedBatch):
    """Features of one packed batch."""

    def run(_):
        with torch.inference_mode():
            return encoder.model.sentence_embedding(batch)

    return run


def measure(folder: Path, shape: str, dtype: str, device: str) -> Row:
    """The row of one model in one dtype."""
    sentences = sentences_for(device)
    usual = sentcore.SentenceEncoder(folder, device=device, dtype=dtype)
    tokens = usual.tokenizer(sentences)
    batch = pack_batch(tokens, np.arange(len(tokens)), device=torch.device(device))
    case = f"{shape}, {len(sentences)} sentences"
    try:
        invariant = sentcore.SentenceEncoder(folder, device=device, dtype=dtype, batch_invariant=True)
    except SentcoreError as error:
        largest, changed = largest_difference(usual, sentences, device)
        median, p20, p80 = spread(times_ms(forward(usual, batch), [None], device))
        extra = {"sentences_changed": changed, "refused": str(error)}
        return Row(f"usual path, {dtype}", case, "none", None, median, p20, p80, largest, extra)
    largest, changed = largest_difference(invariant, sentences, device)
    if changed or not largest == 0.0:
        raise SystemExit(
            f"{case}, {dtype}: {changed} sentences change their bits with the batch, by {largest:.3g} at most; accepted: none"
        )
    runs = {"batch_invariant=False": forward(usual, batch), "sentcore": forward(invariant, batch)}
    times = alternate_ms(runs, [None], device)
    median, p20, p80 = spread(times["sentcore"])
    other = spread(times["batch_invariant=False"])[0]
    extra = {"cost": median / other, "sentences_changed": changed}
    return Row(f"batch_invariant, {dtype}", case, "batch_invariant=False", other, median, p20, p80, largest, extra)


def main() -> None:
    options = arguments(__doc__)
    with kept("batch_invariance", options) as rows:
        for shape in ("MiniLM", "BERT-base"):
            with tempfile.TemporaryDirectory() as folder:
                path = write_folder(shape, options.device, Path(folder))
                for dtype in DTYPES:
                    rows.append(measure(path, shape, dtype, options.device))


if __name__ == "__main__":
    main()
