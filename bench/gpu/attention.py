"""varlen_attention beside torch's attentions: padded SDPA, torch.nn.attention.varlen, nested tensors.

python bench/gpu/attention.py --out bench/results/<gpu>
"""

from __future__ import annotations

from itertools import accumulate, pairwise

import torch
import torch.nn.functional as F
from timing import alternate_ms, arguments, can, difference_of, kept, rows_of, spread

from sentcore import ops

LIMITS = {"float32": 1e-5, "bfloat16": 2e-2, "float16": 3e-3}
# name -> (shortest, longest, tokens in the batch)
LENGTHS = {
    "8-64": (8, 64, 65536),
    "16-128": (16, 128, 65536),
    "32-512": (32, 512, 65536),
    "512": (512, 512, 65536),
    "2048": (2048, 2048, 65536),
    "8192": (8192, 8192, 65536),
}
WIDTHS = {32: 12, 64: 12}  # D -> N


def draw(name: str, heads: int, size: int, dtype: torch.dtype, device: str) -> dict:
    """A packed batch [T,3,N,D] of lengths drawn evenly, and its padded form [B,N,S,D] with a mask."""
    shortest, longest, tokens = LENGTHS[name]
    if device == "cpu":
        tokens, longest, shortest = 64, min(longest, 32), min(shortest, 8)
    generator = torch.Generator().manual_seed(0)
    lengths: list[int] = []
    while sum(lengths) < tokens:
        lengths.append(int(torch.randint(shortest, longest + 1, (), generator=generator)))
    starts = [0, *accumulate(lengths)]
    generator = torch.Generator(device).manual_seed(0)  # a CPU would take a second for the larger ones
    qkv = torch.randn(starts[-1], 3, heads, size, generator=generator, device=device).to(dtype)
    longest = max(lengths)
    padded = torch.zeros(len(lengths), longest, 3, heads, size, dtype=dtype, device=device)
    mask = torch.zeros(len(lengths), longest, dtype=torch.bool, device=device)
    for row, (first, last) in enumerate(pairwise(starts)):
        padded[row, : last - first], mask[row, : last - first] = qkv[first:last], True
    return {
        "qkv": qkv,
        "cu_seqlens": torch.tensor(starts, dtype=torch.int32, device=device),
        "max_seqlen": longest,
        "padded": [padded[:, :, i].transpose(1, 2).contiguous() for i in range(3)],
        "mask": None if min(lengths) == longest else mask[:, None, None, :],
        "tokens_mask": mask,
        "flops": sum(4.0 * n * n * heads * size for n in lengths),
    }


def sentcore_attention(batch):
    return ops.varlen_attention(batch["qkv"], batch["cu_seqlens"], batch["max_seqlen"])


def padded_sdpa(batch):
    q, k, v = batch["padded"]
    return F.scaled_dot_product_attention(q, k, v, attn_mask=batch["mask"])


def torch_varlen(batch):
    from torch.nn.attention.varlen import varlen_attn

    q, k, v = batch["qkv"].unbind(1)
    cu, longest = batch["cu_seqlens"], batch["max_seqlen"]
    return varlen_attn(q, k, v, cu, cu, longest, longest)


def nested_sdpa(batch):
    if "nested" not in batch:
        offsets = batch["cu_seqlens"].long()
        batch["nested"] = [
            torch.nested.nested_tensor_from_jagged(part.contiguous(), offsets).transpose(1, 2)
            for part in batch["qkv"].detach().unbind(1)
        ]
    q, k, v = batch["nested"]
    return F.scaled_dot_product_attention(q, k, v)


PEERS = {"SDPA, padded": padded_sdpa, "torch.nn.attention.varlen": torch_varlen, "SDPA, nested": nested_sdpa}


def with_backward(run, batch):
    """Forward and backward of `run` on `batch`."""

    def step(_):
        leaves = [batch["qkv"], *batch["padded"]]
        for leaf in leaves:
            leaf.grad = None
        out = run(batch)
        out.backward(torch.ones_like(out))

    return step


def main() -> None:
    options = arguments(__doc__)
    with kept("attention", options, LIMITS) as rows:
        measure(options.device, rows)


def measure(device: str, rows: list) -> None:
    """Adds to `rows`."""
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        name = str(dtype).removeprefix("torch.")
        lengths = list(LENGTHS) if dtype == torch.bfloat16 else ["8-64", "512"]
        for size, heads in WIDTHS.items():
            for length in lengths:
                batch = draw(length, heads, size, dtype, device)
                exact = ops.reference.varlen_attention(
                    batch["qkv"].double() if length != "8192" else batch["qkv"].float(), batch["cu_seqlens"],
                    batch["max_seqlen"],
                )  # fmt: skip
                difference = difference_of(sentcore_attention(batch), exact)
                del exact
                for backward in (False, True):
                    if backward:
                        batch["qkv"].requires_grad_()
                        for part in batch["padded"]:
                            part.requires_grad_()
                    peers = {
                        k: f
                        for k, f in PEERS.items()
                        if not (backward and "nested" in k)
                        and can(lambda f=f: (with_backward(f, batch) if backward else lambda _: f(batch))(None))
                    }
                    runs = {
                        key: with_backward(function, batch)
                        if backward
                        else lambda _, function=function: function(batch)
                        for key, function in {**peers, "sentcore": sentcore_attention}.items()
                    }
                    times = alternate_ms(runs, [None], device)
                    flops = batch["flops"] * (3.5 if backward else 1.0)
                    rate = flops / (spread(times["sentcore"])[0] * 1e-3) / 1e12
                    group = f"attention {'forward + backward' if backward else 'forward'}, {name}"
                    rows += rows_of(group, f"lengths {length}, D{size}", times, difference, tflops=rate)


if __name__ == "__main__":
    main()
