"""Ops that memory bounds, beside torch's own and torch.compile, as a fraction of the bandwidth of a copy.

python bench/gpu/rowwise.py --out bench/results/<gpu>
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from timing import alternate_ms, arguments, can, copy_bandwidth, difference_of, kept, rows_of, spread

from sentcore import ops

# (op, H, dtype) that torch.compile is timed at: it takes seconds to compile each.
COMPILED = {("add_layer_norm", 768, torch.bfloat16), ("bias_gelu", 3072, torch.bfloat16)}
LIMITS = {"float32": 1e-5, "bfloat16": 2e-2, "float16": 3e-3}
EPS = 1e-12


def layer_norm(t, x, bias="bias"):
    return F.layer_norm(x, t["weight"].shape, t["weight"], t[bias], EPS)


def torch_embedding(t):
    return layer_norm(t, t["words"][t["ids"]] + t["positions"][t["position_ids"]] + t["types"][t["type_ids"]])


def sentcore_embedding(t):
    ids = (t["ids"], t["position_ids"], t["type_ids"])
    return ops.embedding_layer_norm(*ids, t["words"], t["positions"], t["types"], t["weight"], t["bias"], eps=EPS)


def torch_pooling(t):
    x = t["x"] if t["x"].dtype == torch.float64 else t["x"].float()
    return F.normalize(torch.segment_reduce(x, "mean", lengths=t["lengths"]), dim=1)


def sentcore_pooling(t):
    return ops.segment_pooling(t["x"], t["cu_seqlens"], mode="mean", normalize=True)


@dataclass(frozen=True)
class Op:
    """One op.

    Attributes:
        ours, torch: of the tensors that `draw` gives.
        needs: what `draw` draws.
        widths: H.
        forward, backward: passes over [T, H]: reads and writes that no implementation does without.
    """

    ours: Callable
    torch: Callable
    needs: tuple[str, ...]
    widths: tuple[int, ...]
    forward: float
    backward: float


OPS = {
    "add_layer_norm": Op(
        lambda t: ops.add_layer_norm(t["x"], t["residual"], t["weight"], t["bias"], eps=EPS),
        lambda t: layer_norm(t, t["x"] + t["residual"]),
        ("x", "residual", "weight", "bias"), (384, 768, 1024), 3, 3,
    ),
    "bias_gelu": Op(
        lambda t: ops.bias_gelu(t["x"], t["bias"]),
        lambda t: F.gelu(t["x"] + t["bias"]),
        ("x", "bias"), (1536, 3072, 4096), 2, 3,
    ),
    "bias_gelu_layer_norm": Op(
        lambda t: ops.bias_gelu_layer_norm(t["x"], t["bias"], t["weight"], t["norm_bias"], EPS),
        lambda t: layer_norm(t, F.gelu(t["x"] + t["bias"]), "norm_bias"),
        ("x", "bias", "weight", "norm_bias"), (768,), 2, 3,
    ),
    "embedding_layer_norm": Op(
        sentcore_embedding, torch_embedding,
        ("words", "positions", "types", "weight", "bias", "ids"), (768,), 2, 2,
    ),
    "segment_pooling": Op(sentcore_pooling, torch_pooling, ("x", "lengths"), (384,), 1, 1),
}  # fmt: skip


def draw(op: Op, tokens: int, hidden: int, dtype: torch.dtype, device: str) -> dict[str, torch.Tensor]:
    """What `op` needs, and a gradient of its result."""
    generator = torch.Generator(device).manual_seed(0)
    shapes = {
        "x": (tokens, hidden), "residual": (tokens, hidden), "weight": (hidden,), "bias": (hidden,), "norm_bias": (hidden,),
        "words": (30522, hidden), "positions": (512, hidden), "types": (2, hidden),
    }  # fmt: skip
    t = {
        name: torch.randn(*shapes[name], generator=generator, device=device).to(dtype)
        for name in op.needs
        if name in shapes
    }
    rows = tokens
    if "ids" in op.needs:
        places = torch.arange(tokens, device=device)
        t["ids"] = torch.randint(30522, (tokens,), generator=generator, device=device)
        t |= {"position_ids": places % 36, "type_ids": places // 18 % 2}
    if "lengths" in op.needs:  # sentences of 8 to 64 tokens
        lengths = [8 + 13 * i % 57 for i in range(tokens // 36)]
        while sum(lengths) > tokens:
            lengths.pop()
        lengths.append(tokens - sum(lengths))
        t["lengths"] = torch.tensor(lengths, device=device)
        t["cu_seqlens"] = F.pad(t["lengths"].cumsum(0), (1, 0)).int()
        rows, dtype = len(lengths), torch.float32
    return t | {"grad": torch.randn(rows, hidden, generator=generator, device=device).to(dtype)}


def stepped(run):
    """Forward and backward."""

    def step(t):
        for name, leaf in t.items():
            if name != "grad":
                leaf.grad = None
        run(t).backward(t["grad"])

    return step


def main() -> None:
    options = arguments(__doc__)
    bandwidth = copy_bandwidth(options.device)
    with kept("rowwise", options, LIMITS, copy_bytes_per_second=bandwidth) as rows:
        for name in OPS:
            measure(name, options.device, bandwidth, rows)


def measure(name: str, device: str, bandwidth: float, rows: list) -> None:
    """Adds to `rows`."""
    op = OPS[name]
    compiled = torch.compile(op.torch, dynamic=False)
    tokens = 65536 if device == "cuda" else 64
    for dtype in (torch.bfloat16, torch.float32):
        for hidden in op.widths:
            inputs = [draw(op, tokens, hidden, dtype, device) for _ in range(3)]
            exact = op.torch({k: v.double() if v.is_floating_point() else v for k, v in inputs[0].items()})
            difference = difference_of(op.ours(inputs[0]), exact)
            del exact
            for backward in (False, True):
                runs = {"torch": op.torch, "sentcore": op.ours}
                wanted = device == "cuda" and (name, hidden, dtype) in COMPILED
                if wanted and can(lambda: compiled(inputs[0])):  # torch.compile wants a C compiler
                    runs["torch.compile"] = compiled
                if backward:
                    for t in inputs:
                        for key, value in t.items():
                            value.requires_grad_(key != "grad" and value.is_floating_point())
                    runs = {key: stepped(run) for key, run in runs.items()}
                times = alternate_ms(runs, inputs, device)
                passes = op.forward + (op.backward if backward else 0)
                moved = passes * tokens * hidden * dtype.itemsize
                fraction = moved / (spread(times["sentcore"])[0] * 1e-3) / bandwidth
                group = f"{name} {'forward + backward' if backward else 'forward'}, {str(dtype).removeprefix('torch.')}"
                rows += rows_of(group, f"T{tokens} H{hidden}", times, difference, of_copy=fraction)


if __name__ == "__main__":
    main()
