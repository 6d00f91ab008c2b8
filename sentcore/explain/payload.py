"""What a report's page holds as data: JSON, large arrays in it as deflated bytes in base64."""

from __future__ import annotations

import base64
import math
import re
import zlib
from collections.abc import Sequence

import numpy as np
import torch

from sentcore.errors import ArgumentValueError, NonFiniteError
from sentcore.explain.attribution import Attribution
from sentcore.explain.data import Trace

SHOWN = 128  # tokens of which maps are drawn, at most
MAP_BYTES = 1_500_000  # of all attention maps, before deflating; a page stays below 3 MB
VALUE_BYTES = 700_000  # the same of queries, keys and values
COLUMNS = 64  # of embeddings that are drawn
CHARACTERS = 8_000  # of a text that are shown as they are
_STORED = {"u8": "|u1", "i8": "|i1", "f16": "<f2"}


def tokens_shown(layers: int, heads: int, texts: int) -> int:
    """Tokens of which a page of so many texts draws maps."""
    return max(8, min(SHOWN, math.isqrt(MAP_BYTES // max(1, layers * heads * texts))))


def check_traces(traces: Sequence[Trace]) -> None:
    """Raises ArgumentValueError for none or more than two, NonFiniteError for NaN or an infinity, by its first place."""
    if not 1 <= len(traces) <= 2:
        raise ArgumentValueError(f"traces holds {len(traces)}; accepted: one or two")
    for trace in traces:
        _check_finite(trace)


def chosen_head(trace: Trace, layer: int | None, head: int | None) -> tuple[int, int]:
    """Which layer and head are drawn large: those asked for, by default the last layer's first.

    Raises:
        ArgumentValueError: the model has no such layer or head.
    """
    layers = len(trace.layers)
    heads = len(trace.layers[0].query) if layers else 0
    for name, value, most in (("layer", layer, layers), ("head", head, heads)):
        if value is not None and not 0 <= value < most:
            raise ArgumentValueError(f"{name} is {value}; accepted for this model: 0 to {most - 1}")
    return max(0, layers - 1) if layer is None else layer, head or 0


def payload(
    traces: Sequence[Trace], attribution: Attribution | None, model_name: str, layer: int | None, head: int | None
) -> dict:
    """The page's data, ready for json.dumps; the arguments are html_report's."""
    check_traces(traces)
    first = traces[0]
    layers = len(first.layers)
    heads, _, size = first.layers[0].query.shape if layers else (0, 0, 0)
    shown = tokens_shown(layers, heads, len(traces))
    valued = max(1, VALUE_BYTES // max(1, len(traces) * layers * 3 * heads * size))
    return {
        "model": model_name,
        "layers": layers,
        "heads": heads,
        "headSize": size,
        "chosen": chosen_head(first, layer, head),
        "hidden": first.hidden_states[0].shape[1],
        "texts": [_text(trace, min(shown, trace.kept), valued) for trace in traces],
        "attribution": None if attribution is None else _attribution(attribution, shown),
    }


def _text(trace: Trace, shown: int, valued: int) -> dict:
    valued = min(shown, valued)
    embeddings = trace.embeddings
    tables = {
        "word": embeddings.word,
        "position": embeddings.position,
        "token type": embeddings.token_type,
        "sum": embeddings.sum,
        "after LayerNorm": embeddings.normed,
    }
    found = {
        "text": trace.text if len(trace.text) <= CHARACTERS else trace.text[:CHARACTERS] + "…",
        "lang": language(trace.text),
        "tokens": trace.labels[:shown],
        "ids": trace.token_ids[:shown],
        "count": len(trace.tokens),
        "truncated": trace.truncated,
        "width": embeddings.word.shape[1],
        "embeddings": [_table(name, rows[:shown]) for name, rows in tables.items() if rows is not None],
        "absent": [name for name, rows in tables.items() if rows is None],
        "norms": [
            {"name": each.name, **{k: _spread(getattr(each, k)) for k in ("before", "after")}} for each in trace.norms
        ],
        "sliding": [layer.sliding for layer in trace.layers],
        "pooling": [{"mode": mode, "weights": _rounded(weights[:shown])} for mode, weights in trace.pooling.items()],
        "feature": None,
        "maps": None,
    }
    if trace.feature is not None:
        found["feature"] = {"length": float(trace.feature.norm()), "values": blob(trace.feature, "f16")}
    if trace.layers:
        maps = torch.stack([layer.attention[:, :shown, :shown] for layer in trace.layers])
        # The square root keeps small probabilities apart in 256 steps.
        found["maps"] = blob((maps.clamp(0, 1).sqrt() * 255).round(), "u8")
        values = [torch.stack((layer.query, layer.key, layer.value))[:, :, :valued] for layer in trace.layers]
        found["values"] = _scaled(torch.stack(values), dims=(3, 4))  # [L, 3, N, t, D]
    return found


def _attribution(found: Attribution, shown: int) -> dict:
    sums = found.token_sums
    return {
        "method": found.method,
        "score": found.score,
        "delta": found.delta,
        "shared": list(found.shared),
        "matrix": blob(found.matrix[:shown, :shown], "f16"),
        "sums": [_rounded(each[:shown]) for each in sums],
        "counts": [len(each) for each in sums],
    }


def _table(name: str, rows: torch.Tensor) -> dict:
    lengths = torch.linalg.vector_norm(rows, dim=1)
    return {"name": name, "lengths": _rounded(lengths), "values": _scaled(rows[:, :COLUMNS], dims=(0, 1))}


def _scaled(values: torch.Tensor, dims: tuple[int, ...]) -> dict:
    """Values in 8 bits, with one scale for what lies along `dims`: value = byte · scale."""
    scale = values.abs().amax(dim=dims, keepdim=True).clamp(min=1e-12) / 127
    return {**blob((values / scale).round(), "i8"), "scale": _rounded(scale.flatten())}


def blob(values: torch.Tensor, kind: str) -> dict:
    """{"type", "shape", "data"}: "u8", "i8" or "f16", little-endian, deflated, in base64."""
    array = np.ascontiguousarray(values.numpy().astype(_STORED[kind]))
    data = base64.b64encode(zlib.compress(array.tobytes(), 9)).decode("ascii")
    return {"type": kind, "shape": list(array.shape), "data": data}


def _spread(lengths: torch.Tensor) -> list[float]:
    return _rounded(torch.stack((lengths.mean(), lengths.min(), lengths.max())))


def _rounded(values: torch.Tensor) -> list[float]:
    """Six digits."""
    return [float(f"{value:.6g}") for value in values.tolist()]


def _check_finite(trace: Trace) -> None:
    places = [(each.name, torch.cat((each.before, each.after))) for each in trace.norms]
    if trace.feature is not None:
        places.append(("feature", trace.feature))
    for name, values in places:
        if not bool(torch.isfinite(values).all()):
            raise NonFiniteError(
                f"the trace of {trace.text[:40]!r} holds NaN or an infinity, first at {name!r}; accepted: finite values. Check the "
                "model's weights"
            )


def language(text: str) -> str:
    """A tag that lets a browser pick the right form of Han characters; "" where there are none."""
    if re.search("[\u3040-\u30ff]", text):
        return "ja"
    if re.search("[\uac00-\ud7af]", text):
        return "ko"
    return "zh-Hans" if re.search("[\u3400-\u9fff\U00020000-\U0003ffff]", text) else ""
