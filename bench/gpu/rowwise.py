"""LayerNorm, bias-GELU and embeddings beside torch's own and torch.compile, as a fraction of the bandwidth of a copy.

python bench/gpu/rowwise.py --out bench/results/<gpu>
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from timing import alternate_ms, arguments, copy_bandwidth, difference_of, kept, rows_of, spread

from sentcore import ops

# (H, dtype) that torch.compile is timed at: it takes seconds to compile each.
COMPILED = [(768, torch.bfloat16), (3072, torch.bfloat16)]
LIMITS = {"float32": 1e-5, "bfloat16": 2e-2, "float16": 3e-3}


def torch_layer_norm(t):
    return F.layer_norm(t["x"] + t["residual"], t["weight"].shape, t["weight"], t["bias"], 1e-12)


def sentcore_layer_norm(t):
    return ops.add_layer_norm(t["x"], t["residual"], t["weight"], t["bias"], eps=1e-12)


def torch_gelu(t):
    return F.gelu(t["x"] + t["bias"])


def sentcore_gelu(t):
    return ops.bias_gelu(t["x"], t["bias"])


OPS = {  # name -> (ours, torch's, passes over [T, H] of forward, of backward)
    "add_layer_norm": (sentcore_layer_norm, torch_layer_norm, 3, 3),
    "bias_gelu": (sentcore_gelu, torch_gelu, 2, 3),
}


def draw(tokens: int, hidden: int, dtype: torch.dtype, device: str) -> dict:
    generator = torch.Generator(device).manual_seed(0)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, device=device).to(dtype)

    return {
        "x": normal(tokens, hidden),
        "residual": normal(tokens, hidden),
        "weight": normal(hidden),
        "bias": normal(hidden),
        "grad": normal(tokens, hidden),
    }


def stepped(run):
    """Forward and backward."""

    def step(t):
        leaves = {k: v for k, v in t.items() if k != "grad"}
        for leaf in leaves.values():
            leaf.grad = None
        run(t).backward(t["grad"])

    return step


def can(run, t) -> bool:
    """Whether a peer runs here at all: torch.compile wants a C compiler."""
    try:
        run(t)
    except Exception:
        return False
    return True


def main() -> None:
    options = arguments(__doc__)
    bandwidth = copy_bandwidth(options.device)
    with kept("rowwise", options, LIMITS, copy_bytes_per_second=bandwidth) as rows:
        measure(options.device, bandwidth, rows)


def measure(device: str, bandwidth: float, rows: list) -> None:
    """Adds to `rows`."""
    for op, (ours, plain, *passes) in OPS.items():
        compiled = torch.compile(plain, dynamic=False)
        for dtype in (torch.bfloat16, torch.float32):
            name = str(dtype).removeprefix("torch.")
            for hidden in (384, 768, 1024):
                tokens = 65536 if device == "cuda" else 64
                if op == "bias_gelu":
                    hidden *= 4
                inputs = [draw(tokens, hidden, dtype, device) for _ in range(3)]
                exact = plain({k: v.double() for k, v in inputs[0].items()})
                difference = difference_of(ours(inputs[0]), exact)
                del exact
                for backward in (False, True):
                    runs = {"torch": plain, "sentcore": ours}
                    if device == "cuda" and (hidden, dtype) in COMPILED and can(compiled, inputs[0]):
                        runs["torch.compile"] = compiled
                    if backward:
                        for t in inputs:
                            for key, value in t.items():
                                value.requires_grad_(key != "grad")
                        runs = {key: stepped(run) for key, run in runs.items()}
                    times = alternate_ms(runs, inputs, device)
                    moved = (sum(passes) if backward else passes[0]) * tokens * hidden * dtype.itemsize
                    fraction = moved / (spread(times["sentcore"])[0] * 1e-3) / bandwidth
                    group = f"{op} {'forward + backward' if backward else 'forward'}, {name}"
                    rows += rows_of(group, f"T{tokens} H{hidden}", times, difference, of_copy=fraction)


if __name__ == "__main__":
    main()
