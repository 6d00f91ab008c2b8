"""The page's pictures, as SVG text."""

from __future__ import annotations

import io
import math

from bench.report.judge import Comparison
from bench.report.read import Run

COLORS = ("#1b6ca8", "#c0803a", "#7a9a4a", "#8a5a9a", "#8a8a8a")
VERDICTS = {"slower": "#b3261e", "faster": "#2e7d32", "same": "#777777", "too few rounds": "#bbbbbb"}


def changes(comparison: Comparison) -> str:
    """A dot for each benchmark's change and a bar for its noise, the worst on top."""
    rows = comparison.changes
    figure, axes = _figure(0.28 * len(rows) + 1.1)
    for place, row in enumerate(reversed(rows)):
        low, high = (100 * math.expm1(sign * row.noise) for sign in (-1, 1))
        axes.plot([low, high], [place, place], color="#dddddd", linewidth=7, solid_capstyle="butt", zorder=1)
        axes.plot(100 * math.expm1(row.change), place, "o", color=VERDICTS[row.verdict], markersize=5, zorder=2)
    axes.axvline(0, color="#333333", linewidth=0.8)
    axes.set_yticks(range(len(rows)), [short(row.after.name) for row in reversed(rows)], fontsize=7)
    axes.set_ylim(-0.7, len(rows) - 0.3)
    axes.set_xlabel("change of time, %, machine's drift taken off; grey: noise", fontsize=8)
    return _svg(figure)


def medians(group: str, runs: list[Run]) -> str:
    """Bars of the group's medians, a colour a run, with the quartiles' distance as a line."""
    names = list(dict.fromkeys(name for run in runs for name, timing in run.timings.items() if timing.group == group))
    height = 0.8 / len(runs)
    figure, axes = _figure(0.3 * len(names) * max(1, len(runs) / 2) + 1.1)
    for place, run in enumerate(runs):
        there = [(index, run.timings[name]) for index, name in enumerate(reversed(names)) if name in run.timings]
        axes.barh(
            [index + 0.4 - height * (place + 0.5) for index, _ in there],
            [1000 * timing.median for _, timing in there],
            height,
            xerr=[500 * timing.iqr for _, timing in there],
            error_kw={"linewidth": 0.8},
            color=COLORS[place % len(COLORS)],
            label=run.label,
        )
    axes.set_yticks(range(len(names)), [short(name) for name in reversed(names)], fontsize=7)
    axes.set_xlabel("median, ms", fontsize=8)
    if len(runs) > 1:
        figure.legend(fontsize=7, loc="upper right", ncols=min(4, len(runs)), frameon=False)
    return _svg(figure)


def short(name: str) -> str:
    """A benchmark's name less its folder and suffix."""
    return name.rpartition("/")[2].replace(".py::", ": ")


def _figure(height: float):
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, height), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.add_subplot()
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _svg(figure) -> str:
    import matplotlib

    out = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "sentcore"}):
        figure.savefig(out, format="svg", metadata={"Date": None})
    text = out.getvalue()
    return text[text.index("<svg") :]
