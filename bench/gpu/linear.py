"""qkv_projection and linear beside F.linear (cuBLASLt), over sizes of encoders.

python bench/gpu/linear.py --out bench/results/<gpu>
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from timing import alternate_ms, arguments, difference_of, kept, rows_of, spread

from sentcore import ops

LIMITS = {"float32": 1e-5, "bfloat16": 2e-2, "float16": 3e-3}
TOKENS = (1024, 4096, 16384, 65536)
HIDDEN = (384, 768, 1024)


def three(t):
    return ops.qkv_projection(t["x"], t["weights"], t["biases"], num_heads=t["heads"])


def torch_three(t):
    return torch.stack([F.linear(t["x"], w, b) for w, b in zip(t["weights"], t["biases"], strict=True)], 1)


def torch_fused(t):
    return F.linear(t["x"], t["fused_weight"], t["fused_bias"])


def up(t):
    return ops.linear(t["x"], t["up_weight"], t["up_bias"], activation="gelu")


def torch_up(t):
    return F.gelu(F.linear(t["x"], t["up_weight"], t["up_bias"]))


def down(t):
    return ops.linear(t["wide"], t["down_weight"], t["down_bias"])


def torch_down(t):
    return F.linear(t["wide"], t["down_weight"], t["down_bias"])


def draw(tokens: int, hidden: int, dtype: torch.dtype, device: str) -> dict:
    generator = torch.Generator(device).manual_seed(0)

    def normal(*shape, scale=1.0):
        return (torch.randn(*shape, generator=generator, device=device) * scale).to(dtype)

    weights = tuple(normal(hidden, hidden, scale=hidden**-0.5) for _ in range(3))
    biases = tuple(normal(hidden) for _ in range(3))
    return {
        "x": normal(tokens, hidden),
        "weights": weights,
        "biases": biases,
        "heads": hidden // 32,
        "fused_weight": torch.cat(weights),
        "fused_bias": torch.cat(biases),
        "up_weight": normal(4 * hidden, hidden, scale=hidden**-0.5),
        "up_bias": normal(4 * hidden),
        "wide": normal(tokens, 4 * hidden),
        "down_weight": normal(hidden, 4 * hidden, scale=(4 * hidden) ** -0.5),
        "down_bias": normal(hidden),
    }


CASES = {  # name -> (ours, peers, output columns per H)
    "qkv_projection": (three, {"three F.linear": torch_three, "one F.linear on a fused copy": torch_fused}, 3),
    "linear with GELU": (up, {"F.gelu(F.linear)": torch_up}, 4),
    "linear from 4 H": (down, {"F.linear": torch_down}, 4),
}


def main() -> None:
    options = arguments(__doc__)
    with kept("linear", options, LIMITS) as rows:
        measure(options.device, rows)


def measure(device: str, rows: list) -> None:
    """Adds to `rows`."""
    for dtype in (torch.bfloat16, torch.float32):
        name = str(dtype).removeprefix("torch.")
        for hidden in HIDDEN:
            for tokens in TOKENS if device == "cuda" else (40,):
                if dtype == torch.float32 and (tokens > 16384 or hidden != 768) and device == "cuda":
                    continue
                t = draw(tokens, hidden, dtype, device)
                for case, (ours, peers, columns) in CASES.items():
                    exact = ours({k: _wide(v) for k, v in t.items()}) if device == "cpu" else _exact(case, t)
                    result = ours(t)
                    difference = difference_of(result[: len(exact)], exact)
                    times = alternate_ms({**peers, "sentcore": ours}, [t], device)
                    flops = 2.0 * tokens * hidden * hidden * columns
                    rate = flops / (spread(times["sentcore"])[0] * 1e-3) / 1e12
                    rows += rows_of(f"{case}, {name}", f"T{tokens} H{hidden}", times, difference, tflops=rate)


def _wide(value):
    if isinstance(value, torch.Tensor):
        return value.double()
    return tuple(map(_wide, value)) if isinstance(value, tuple) else value


def _exact(case: str, t: dict) -> torch.Tensor:
    """The first rows in float64: all of them would take longer than the benchmark."""
    wide = {k: _wide(v[:512] if k in ("x", "wide") else v) for k, v in t.items()}
    if case.startswith("qkv"):
        return torch_three(wide).unflatten(-1, (t["heads"], -1))
    return torch_down(wide) if case == "linear from 4 H" else torch_up(wide)


if __name__ == "__main__":
    main()
