"""The whole encoder beside transformers (SDPA, padded, also in float16, which latency.py and texts.py
take sentence-transformers in), torch.compile of it (of BERT-base alone, as it takes long), and a packed encoder made of torch's
own ops.

    python bench/gpu/encoder.py --out bench/results/<gpu>

Weights are random, so that no download is needed; both sides hold the same ones, and their hidden states are compared.
"""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path

import torch
import torch.nn.functional as F
from timing import alternate_ms, arguments, can, kept, rows_of, spread

import sentcore
from sentcore.checkpoint.load import load_checkpoint

LIMITS = {"float32": 1e-4, "bfloat16": 6e-2}
SHAPES = {  # name -> hidden, layers, heads, feed-forward
    "MiniLM": (384, 6, 12, 1536),
    "BERT-base": (768, 12, 12, 3072),
    "BERT-large": (1024, 24, 16, 4096),
}
# name -> lengths of one batch's sentences; "real": 512 from 8 to 195, by a formula, about as package descriptions have
BATCHES = {
    "128": [128] * 128,
    "512": [512] * 32,
    "real": [8 + (i * i * 37) % 97 + (i % 7 == 0) * 95 for i in range(512)],
}


def models(shape: str, dtype: torch.dtype, device: str, folder: Path):
    """(transformers' model, sentcore's Encoder) with the same random weights."""
    from transformers import BertConfig, BertModel

    hidden, layers, heads, inner = SHAPES[shape]
    if device == "cpu":
        hidden, layers, heads, inner = 64, 2, 4, 128
    config = BertConfig(
        vocab_size=8192, hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads, intermediate_size=inner,
        hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1,
    )  # fmt: skip
    torch.manual_seed(0)
    theirs = BertModel(config, add_pooling_layer=False)
    theirs.save_pretrained(folder)
    checkpoint = load_checkpoint(folder)
    ours = sentcore.Encoder(checkpoint.config)
    ours.load_state_dict(checkpoint.state_dict)
    return theirs.to(device, dtype).eval(), ours.to(device, dtype).eval()


def draw(lengths: list[int], device: str):
    """The same ids packed, and padded with a mask."""
    if device == "cpu":
        lengths = [min(length, 24) for length in lengths[:4]]
    generator = torch.Generator().manual_seed(0)
    rows = [torch.randint(8192, (length,), generator=generator) for length in lengths]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True).to(device)
    mask = (torch.arange(ids.shape[1])[None] < torch.tensor(lengths)[:, None]).long().to(device)
    return sentcore.PackedBatch.from_sequences(rows, device=device), ids, mask


def packed_by_torch(encoder: sentcore.Encoder, batch: sentcore.PackedBatch) -> torch.Tensor:
    """The last hidden state [T, H] by F.linear, F.layer_norm, F.gelu and torch.nn.attention.varlen, without dropout."""
    from torch.nn.attention.varlen import varlen_attn

    tables, heads = encoder.embeddings, encoder.config.num_attention_heads
    x = tables.word_embeddings(batch.token_ids) + tables.token_type_embeddings(batch.token_type_ids)
    x = tables.layer_norm(x + tables.position_embeddings(batch.position_ids))
    cu, longest = batch.cu_seqlens, batch.max_seqlen
    for layer in encoder.layers:
        a, f = layer.attention, layer.feed_forward
        q, k, v = (part(x).unflatten(-1, (heads, -1)) for part in (a.query, a.key, a.value))
        x = a.layer_norm(x + a.output(varlen_attn(q, k, v, cu, cu, longest, longest).flatten(1)))
        x = f.layer_norm(x + f.down(F.gelu(f.up(x))))
    return x


def main() -> None:
    options = arguments(__doc__)
    with kept("encoder", options, LIMITS) as rows:
        measure(options.device, rows)


def measure(device: str, rows: list) -> None:
    """Adds to `rows`."""
    for dtype in (torch.bfloat16, torch.float32):
        name = str(dtype).removeprefix("torch.")
        for shape in SHAPES if dtype == torch.bfloat16 else ("MiniLM",):
            with tempfile.TemporaryDirectory() as folder:
                theirs, ours = models(shape, dtype, device, Path(folder))
            compiled = torch.compile(theirs, dynamic=True) if device == "cuda" and shape == "BERT-base" else None
            half = copy.deepcopy(theirs).half()
            for label, lengths in BATCHES.items():
                packed, ids, mask = draw(lengths, device)
                peers = {
                    "transformers, SDPA": lambda ids=ids, mask=mask: theirs(ids, mask).last_hidden_state,
                }
                if compiled is not None:
                    peers["the same, torch.compile"] = lambda ids=ids, mask=mask: compiled(ids, mask).last_hidden_state
                peers["transformers, SDPA, float16"] = lambda ids=ids, mask=mask: half(ids, mask).last_hidden_state
                peers["packed, torch's own ops"] = lambda packed=packed: packed_by_torch(ours, packed)
                with torch.inference_mode():
                    peers = {name: run for name, run in peers.items() if can(run)}
                    runs = {**peers, "sentcore": lambda packed=packed: ours(packed)}
                    expected = peers["transformers, SDPA"]()[mask.bool()]
                    difference = float(
                        (ours(packed).float() - expected.float()).abs().max() / expected.float().abs().max()
                    )
                    times = alternate_ms({k: lambda _, f=f: f() for k, f in runs.items()}, [None], device)
                rows += _rows("forward", name, shape, label, times, difference, packed)


def _rows(what, dtype, shape, label, times, difference, packed):
    rate = packed.num_tokens / (spread(times["sentcore"])[0] * 1e-3)
    return rows_of(f"encoder {what}, {dtype}", f"{shape}, {label}", times, difference, tokens_per_second=rate)


if __name__ == "__main__":
    main()
