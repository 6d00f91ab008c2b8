"""The kernels of compute capability 9.0 beside the portable ones, shape by shape, with F.linear (cuBLASLt) as a third.

python bench/gpu/sm_90a.py --out bench/results/<gpu>
python bench/gpu/choose.py bench/results/<gpu>      # which of them are taken from then on
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from timing import alternate_ms, arguments, difference_of, kept, rows_of, spread

from sentcore import _kernels, ops

LIMITS = {"bfloat16": 2e-2, "float16": 3e-3}
TOKENS = (1024, 8192, 65536)
HIDDEN = (384, 768, 1024)
ATTENTION = ((64, 12), (128, 8))  # D, N
LENGTHS = (256, 512, 1024, 2048, 8192)
PORTABLE, OWN = "portable", "sm_90a"


def products(hidden: int) -> list[tuple[int, int, str]]:
    """(N, K, activation) of a layer: queries, keys and values; output projection; feed-forward up and down."""
    return [
        (3 * hidden, hidden, "none"),
        (hidden, hidden, "none"),
        (4 * hidden, hidden, "gelu"),
        (hidden, 4 * hidden, "none"),
    ]


def normal(generator, *shape, scale=1.0, dtype, device):
    return (torch.randn(*shape, generator=generator, device=device) * scale).to(dtype)


def taking(mode: str | None, run, t: dict, device: str):
    """A call of `run(t)` with the kernels of `mode`: on a GPU a graph's replay, so that small products are not timed by how
    fast Python launches them; on a CPU, where nothing is measured, with whatever kernels are there."""
    if device != "cuda":
        return lambda _: run(t)
    with _kernels.kernels(mode) if mode else nullcontext():
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            run(t)
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            result = run(t)

    def replay(_):
        graph.replay()
        return result

    return replay


def forward(t):
    return torch.ops.sentcore.linear(t["x"], t["weight"], t["bias"], t["activation"], False)[0]


def backward(t):
    return torch.ops.sentcore.linear_backward(t["grad"], t["x"], t["weight"], t["grad"][:0], True, "none")[:2]


def torch_forward(t):
    out = F.linear(t["x"], t["weight"], t["bias"])
    return F.gelu(out) if t["activation"] == "gelu" else out


def torch_backward(t):
    return t["grad"] @ t["weight"], t["grad"].T @ t["x"]


def measure(group: str, case: str, ours, peers: dict, t: dict, exact: torch.Tensor, flops: float, device: str, **extra):
    """Rows of sm_90a's kernel beside the portable one and `peers`; both of ours are compared with `exact`, the first rows."""
    runs = {name: taking(None, run, t, device) for name, run in peers.items()}
    runs |= {mode: taking(mode, ours, t, device) for mode in (PORTABLE, OWN)}
    results = [runs[name](t) for name in (PORTABLE, OWN)]
    results = [r[0] if isinstance(r, tuple) else r for r in results]
    difference = max(difference_of(r[: len(exact)], exact) for r in results)
    times = alternate_ms(runs, [t], device)
    tflops = flops / (spread(times[OWN])[0] * 1e-3) / 1e12
    return rows_of(group, case, times, difference, ours=OWN, tflops=tflops, **extra)


def linear_rows(dtype: torch.dtype, widths: Sequence[int], device: str) -> Iterator:
    """Forward, and both products of the backward together."""
    name = str(dtype).removeprefix("torch.")
    generator = torch.Generator(device).manual_seed(0)
    for hidden in widths:
        for columns, depth, activation in products(hidden):
            given = {"dtype": dtype, "device": device}
            for tokens in TOKENS if device == "cuda" else (24,):
                t = {
                    "x": normal(generator, tokens, depth, **given),
                    "weight": normal(generator, columns, depth, scale=depth**-0.5, **given),
                    "bias": normal(generator, columns, **given),
                    "grad": normal(generator, tokens, columns, **given),
                    "activation": activation,
                }
                wide = {k: v.double() if torch.is_tensor(v) else v for k, v in t.items()} | {"x": t["x"][:256].double()}
                case, flops = f"N{columns} K{depth}", 2.0 * tokens * columns * depth
                yield from measure(
                    f"linear {activation}, {name}", case, forward, {"F.linear": torch_forward}, t, torch_forward(wide),
                    flops, device, tokens=tokens,
                )  # fmt: skip
                exact = t["grad"][:256].double() @ t["weight"].double()
                yield from measure(
                    f"linear backward, {name}", f"backward {case}", backward, {"torch": torch_backward}, t, exact,
                    2 * flops, device, tokens=tokens,
                )  # fmt: skip


def fp8_rows(dtype: torch.dtype, widths: Sequence[int], device: str) -> Iterator:
    """The product of e4m3, with the rounding of its rows, beside the portable one and a product in `dtype`."""
    name = str(dtype).removeprefix("torch.")
    generator = torch.Generator(device).manual_seed(0)
    for hidden in widths:
        for columns, depth, activation in products(hidden):
            weight = normal(generator, columns, depth, scale=depth**-0.5, dtype=torch.float32, device=device)
            prepared, bias = ops.quantize_weight_fp8(weight), torch.zeros(columns, device=device)
            for tokens in TOKENS if device == "cuda" else (24,):
                x = normal(generator, tokens, depth, dtype=dtype, device=device)
                t = {"x": x, "weight": weight.to(dtype), "bias": bias.to(dtype), "activation": activation}

                def run(t, prepared=prepared, bias=bias):
                    if device == "cpu":  # which no kernel is for
                        return ops.reference.fp8_linear(t["x"], prepared, bias, activation=t["activation"])
                    return torch.ops.sentcore.fp8_linear(t["x"], *prepared, bias, t["activation"])

                exact = ops.reference.fp8_linear(x[:256].float(), prepared, bias, activation=activation)
                yield from measure(
                    f"fp8_linear {activation}, {name}", f"fp8 N{columns} K{depth}", run,
                    {f"F.linear in {name}": torch_forward}, t, exact, 2.0 * tokens * columns * depth, device, tokens=tokens,
                )  # fmt: skip


def norm_rows(dtype: torch.dtype, device: str) -> Iterator:
    """A linear layer with residual and LayerNorm behind it, in one op and in two."""
    name = str(dtype).removeprefix("torch.")
    generator = torch.Generator(device).manual_seed(0)
    given = {"dtype": dtype, "device": device}
    for depth in (384, 1536):
        weight, bias = normal(generator, 384, depth, scale=depth**-0.5, **given), normal(generator, 384, **given)
        scale, shift = normal(generator, 384, **given), normal(generator, 384, **given)
        for tokens in TOKENS if device == "cuda" else (24,):
            t = {"x": normal(generator, tokens, depth, **given), "residual": normal(generator, tokens, 384, **given)}

            def run(t, w=weight, b=bias, g=scale, s=shift):
                if _kernels.chosen() == OWN or device == "cpu":
                    return ops.linear_add_layer_norm(t["x"], w, b, t["residual"], g, s, eps=1e-12)
                return ops.add_layer_norm(ops.linear(t["x"], w, b), t["residual"], g, s, eps=1e-12)

            def torch_run(t, w=weight, b=bias, g=scale, s=shift):
                return F.layer_norm(t["residual"] + F.linear(t["x"], w, b), (384,), g, s, 1e-12)

            first = {key: value[:256].double() for key, value in t.items()}
            exact = torch_run(first, weight.double(), bias.double(), scale.double(), shift.double())
            yield from measure(
                f"linear_add_layer_norm, {name}", f"norm N384 K{depth}", run, {"torch": torch_run}, t, exact,
                2.0 * tokens * 384 * depth, device, tokens=tokens,
            )  # fmt: skip


def attention_rows(dtype: torch.dtype, device: str) -> Iterator:
    """Forward over sentences of one length."""
    name = str(dtype).removeprefix("torch.")
    generator = torch.Generator(device).manual_seed(0)
    for size, heads in ATTENTION:
        for length in LENGTHS if device == "cuda" else (24,):
            sentences = max(1, 65536 // length) if device == "cuda" else 2
            qkv = normal(generator, sentences * length, 3, heads, size, dtype=dtype, device=device)
            t = {"qkv": qkv, "cu": torch.arange(0, sentences + 1, device=device, dtype=torch.int32) * length}

            def run(t, length=length):
                return ops.varlen_attention(t["qkv"], t["cu"], length)

            def sdpa(t, length=length, sentences=sentences):
                q, k, v = t["qkv"].unflatten(0, (sentences, length)).permute(2, 0, 3, 1, 4)
                return F.scaled_dot_product_attention(q, k, v)

            first = {"qkv": qkv[:length].double(), "cu": t["cu"][:2]}
            exact = ops.reference.varlen_attention(first["qkv"], first["cu"], length)
            flops = 4.0 * sentences * length * length * heads * size
            yield from measure(
                f"attention, {name}", f"D{size} keys {length}", run, {"SDPA": sdpa}, t, exact, flops, device
            )


def measure_all(device: str) -> Iterator:
    """Row by row."""
    # float16 at one width: gpu.sh gives this benchmark a minute.
    for dtype, hidden in ((torch.bfloat16, HIDDEN), (torch.float16, (768,))):
        hidden = hidden if device == "cuda" else (96,)
        yield from linear_rows(dtype, hidden, device)
        if dtype == torch.bfloat16:
            yield from attention_rows(dtype, device)
            yield from fp8_rows(dtype, hidden, device)
            yield from norm_rows(dtype, device)


def main() -> None:
    options = arguments(__doc__)
    with kept("sm_90a", options, LIMITS) as rows:
        rows.extend(measure_all(options.device))  # each as it comes


if __name__ == "__main__":
    main()
