"""A trace, and perhaps an attribution, as one picture, by matplotlib (extra [viz])."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterable, Sequence

import torch

from sentcore.errors import MissingPackageError
from sentcore.explain import Attribution, Trace, chosen_head
from sentcore.explain.payload import check_traces

SHOWN = 48  # tokens drawn; more could not be read
COLUMNS = 64  # of embeddings
# matplotlib's own, then what systems have for Han characters and kana
FONTS = (
    "DejaVu Sans", "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Source Han Sans SC", "PingFang SC", "Heiti TC",
    "Microsoft YaHei", "SimHei", "WenQuanYi Zen Hei", "WenQuanYi Micro Hei", "Arial Unicode MS",
)  # fmt: skip


def check_matplotlib() -> None:
    """Raises MissingPackageError without matplotlib."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise MissingPackageError(
            f"a .png needs matplotlib, which cannot be imported ({error}); pip install 'sentcore[viz]', or write .html"
        ) from error


def png_report(
    traces: Sequence[Trace],
    attribution: Attribution | None = None,
    *,
    model_name: str = "",
    layer: int | None = None,
    head: int | None = None,
) -> bytes:
    """The picture, PNG; arguments and errors are html_report's. The steps are of the first text.

    Raises:
        MissingPackageError: no matplotlib.

    Warns:
        UserWarning: no font on this machine has some character; a box stands in its place.
    """
    check_matplotlib()
    check_traces(traces)
    layer, head = chosen_head(traces[0], layer, head)
    import matplotlib
    from matplotlib.figure import Figure

    words = "".join(trace.text + "".join(trace.labels) for trace in traces)
    with matplotlib.rc_context(
        {"font.family": _fonts(words), "text.parse_math": False, "font.size": 9, "axes.titlesize": 9}
    ):
        heights = _heights(traces[0], attribution)
        figure = Figure(figsize=(13, sum(heights)), layout="constrained")
        rows = iter(figure.subfigures(len(heights), 1, height_ratios=heights))
        _header(next(rows), traces, attribution, model_name)
        if attribution is not None:
            _similarity(next(rows), attribution)
        _embeddings(next(rows), traces[0])
        if traces[0].layers:
            _maps(next(rows), traces[0])
            _head(next(rows), traces[0], layer, head)
        _ends(next(rows), traces[0])
        out = io.BytesIO()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing")  # _fonts has said it in one line
            figure.savefig(out, format="png", dpi=110, facecolor="white")
    return out.getvalue()


def _heights(trace: Trace, attribution: Attribution | None) -> list[float]:
    """Inches of each row; a token's label takes an eighth of one."""
    tokens = min(SHOWN, len(trace.tokens)) / 8
    heights = [1.2, max(3.2, 1.2 + tokens), 3.4]
    if attribution is not None:
        both = sum(min(SHOWN, len(labels)) for labels in attribution.labels) / 8
        heights.insert(1, max(5.0, 1.2 + both))
    if trace.layers:
        across = 12 / max(12, len(trace.layers[0].query))
        heights[-1:-1] = [0.5 + across * len(trace.layers), max(4.4, 1.6 + tokens)]
    return heights


def _header(figure, traces: Sequence[Trace], attribution: Attribution | None, model_name: str) -> None:
    first = traces[0]
    lines = [_short(trace.text, 110) for trace in traces]
    heads = f"{len(first.layers[0].query)} heads, " if first.layers else ""
    feature = "no feature" if first.feature is None else f"feature of {len(first.feature)}"
    lines.append(
        f"{model_name}: {len(first.layers)} layers, {heads}hidden size {first.hidden_states[0].shape[1]}, {feature}"
    )
    for which, trace in enumerate(traces, 1):
        count = len(trace.tokens)
        if count > SHOWN or trace.truncated:
            cut = ", where the text was cut" if trace.truncated else ""
            lines.append(
                f"text {which} has {count} tokens{cut}; drawn are the first {min(count, SHOWN)}, computed are all"
            )
    if attribution is not None:
        method = "exact decomposition" if attribution.method == "exact" else "integrated gradients"
        lines.append(f"cosine {attribution.score:.4f}, by {method}; below it the steps of the first text")
    figure.text(0.01, 0.95, "\n".join(lines), va="top", linespacing=1.5)


def _similarity(figure, found: Attribution) -> None:
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    matrix = found.matrix[:SHOWN, :SHOWN]
    names = [labels[:SHOWN] for labels in found.labels]
    _signed(left, matrix, "What each token pair adds to the cosine")
    _name(left.yaxis, names[0])
    _name(left.xaxis, names[1], rotation=90)
    sums = [each[:SHOWN] for each in found.token_sums]
    bars = torch.cat(sums).tolist()
    places = [*range(len(sums[0])), *range(len(sums[0]) + 1, len(bars) + 1)]
    right.barh(places, bars, color=["tab:blue"] * len(sums[0]) + ["tab:orange"] * len(sums[1]))
    right.set_yticks(places, [*names[0], *names[1]], fontsize=7)
    right.invert_yaxis()
    right.set_title("What each token adds: first text, then second")


def _embeddings(figure, trace: Trace) -> None:
    rows = trace.embeddings
    tables = {"word": rows.word, "position": rows.position, "token type": rows.token_type, "sum": rows.sum}
    tables = {name: table for name, table in (tables | {"after LayerNorm": rows.normed}).items() if table is not None}
    axes = figure.subplots(1, len(tables), squeeze=False)[0]
    for axis, (name, table) in zip(axes, tables.items(), strict=True):
        _signed(axis, table[:SHOWN, :COLUMNS], name)
        axis.set_yticks([])
    _name(axes[0].yaxis, trace.labels[:SHOWN])
    figure.suptitle(
        f"Tokens and embeddings, the first {min(COLUMNS, rows.word.shape[1])} of {rows.word.shape[1]} columns"
    )


def _maps(figure, trace: Trace) -> None:
    heads = len(trace.layers[0].query)
    axes = figure.subplots(len(trace.layers), heads, squeeze=False)
    for number, (row, layer) in enumerate(zip(axes, trace.layers, strict=True)):
        row[0].set_ylabel(f"layer {number}")
        for axis, one in zip(row, layer.attention, strict=True):
            axis.imshow(one[:SHOWN, :SHOWN].sqrt(), cmap="Blues", vmin=0)
            axis.set(xticks=[], yticks=[])
    figure.suptitle("Attention of every layer and head: a row is a token that looks (colour by the square root)")


def _head(figure, trace: Trace, layer: int, head: int) -> None:
    one = trace.layers[layer]
    axes = figure.subplots(1, 4, width_ratios=(2, 1, 1, 1))
    image = axes[0].imshow(one.attention[head, :SHOWN, :SHOWN], cmap="Blues", vmin=0)
    figure.colorbar(image, ax=axes[0], shrink=0.7)
    _name(axes[0].yaxis, trace.labels[:SHOWN])
    _name(axes[0].xaxis, trace.labels[:SHOWN], rotation=90)
    axes[0].set_title(f"Attention of layer {layer}, head {head}")
    shape = f"[{one.query.shape[0]}, {len(trace.tokens)}, {one.query.shape[2]}]"
    for axis, name, values in zip(axes[1:], ("Q", "K", "V"), (one.query, one.key, one.value), strict=True):
        _signed(axis, values[head, :SHOWN], f"{name}, of shape {shape}")
        axis.set_yticks([])


def _ends(figure, trace: Trace) -> None:
    norms, pooling, feature = figure.subplots(1, 3, width_ratios=(2, 1, 1))
    for key in ("before", "after"):
        values = [getattr(each, key) for each in trace.norms]
        places = range(len(values))
        norms.plot(places, [float(each.mean()) for each in values], marker=".", label=f"{key} LayerNorm")
        norms.fill_between(
            places, [float(each.min()) for each in values], [float(each.max()) for each in values], alpha=0.15
        )
    short = [
        each.name.replace("layer ", "L").replace("attention", "attn").replace("feed-forward", "ffn")
        for each in trace.norms
    ]
    norms.set_xticks(range(len(short)), short, rotation=90, fontsize=7)
    norms.set_yscale("log")
    norms.yaxis.set_major_formatter("{x:g}")
    norms.set_title("Length of the tokens' rows: mean, least to largest")
    norms.legend()
    for mode, weights in trace.pooling.items():
        pooling.plot(weights[:SHOWN], marker=".", label=mode)
    pooling.set_title("Pooling weights" if trace.pooling else "No pooling")
    if trace.pooling:
        pooling.set_ylim(bottom=0)
        pooling.legend()
        pooling.set_xlabel("token")
    feature.axis("off")
    if trace.feature is not None:
        feature.axis("on")
        feature.bar(range(len(trace.feature)), trace.feature, width=1.0)
        feature.set_title(f"Feature: {len(trace.feature)} numbers, length {float(trace.feature.norm()):.3f}")


def _signed(axis, values: torch.Tensor, title: str) -> None:
    """Blue below zero, red above; beyond the 99th percentile the colour is full."""
    most = float(torch.quantile(values.abs().flatten()[: 2**24], 0.99)) or 1.0
    axis.imshow(values, cmap="RdBu_r", vmin=-most, vmax=most, aspect="auto", interpolation="nearest")
    axis.set_title(f"{title}\n±{most:.3g}", fontsize=9)


def _name(axis, labels: list[str], rotation: int = 0) -> None:
    axis.set_ticks(range(len(labels)), [_short(label, 14) for label in labels], rotation=rotation)
    axis.set_tick_params(labelsize=7)


def _short(text: str, most: int) -> str:
    text = " ".join(text.split()) or text
    return text if len(text) <= most else text[: most - 1] + "…"


def _fonts(words: Iterable[str]) -> list[str]:
    """Families of FONTS that are installed; a warning names characters that none of them has."""
    from matplotlib import font_manager

    needed = {char for char in words if char.isprintable() and not char.isspace()}
    families, missing = _covering(needed)
    if missing:
        # matplotlib remembers the fonts of the day it was first used.
        remembered = {entry.fname for entry in font_manager.fontManager.ttflist}
        for path in set(font_manager.findSystemFonts()) - remembered:
            with contextlib.suppress(Exception):  # a file that is no font it can read; it raises many kinds
                font_manager.fontManager.addfont(path)
        families, missing = _covering(needed)
    if missing:
        warnings.warn(
            f"no font found here has {''.join(sorted(missing))[:20]!r}, drawn as boxes; install one that has, for Chinese Noto Sans "
            "CJK, or write .html",
            stacklevel=3,
        )
    return families or ["sans-serif"]


def _covering(needed: set[str]) -> tuple[list[str], set[str]]:
    """(families of FONTS that matplotlib knows, the characters that none of them has)."""
    from matplotlib import font_manager

    known = {entry.name: entry.fname for entry in font_manager.fontManager.ttflist}
    families = [name for name in FONTS if name in known]
    missing = set(needed)
    for name in families:
        if missing:
            glyphs = font_manager.get_font(known[name]).get_charmap()
            missing = {char for char in missing if ord(char) not in glyphs}
    return families, missing
