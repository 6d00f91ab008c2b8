"""The page's pictures, as SVG text."""

from __future__ import annotations

import io
import math

from bench.report.judge import LARGEST, Comparison
from bench.report.read import Run

COLORS = ("#1b6ca8", "#c0803a", "#7a9a4a", "#8a5a9a", "#8a8a8a")
TICKS = (0.1, 0.2, 0.5, 0.7, 0.9, 0.95, 1, 1.05, 1.1, 1.3, 2, 3, 5, 10)
VERDICTS = {
    "slower": "#b3261e",
    "faster": "#2e7d32",
    "same": "#777777",
    "too few rounds": "#bbbbbb",
    "too noisy": "#bbbbbb",
}


def changes(comparison: Comparison) -> str:
    """A dot for each benchmark's change and a bar for its noise, the worst on top."""
    rows = comparison.changes
    figure, axes = _figure(0.28 * len(rows) + 1.1)
    for place, row in enumerate(reversed(rows)):
        low, high = (math.exp(sign * min(row.noise, 9.0)) for sign in (-1, 1))
        axes.plot([low, high], [place, place], color="#dddddd", linewidth=7, solid_capstyle="butt", zorder=1)
        axes.plot(math.exp(row.change), place, "o", color=VERDICTS[row.verdict], markersize=5, zorder=2)
    axes.axvline(1, color="#333333", linewidth=0.8)
    # Wide enough for every dot and for all noise that lets a verdict pass.
    reach = 1.1 * max([*(abs(row.change) for row in rows), *(row.noise for row in rows if row.noise <= LARGEST), 0.1])
    axes.set_xscale("log")
    axes.set_xlim(math.exp(-reach), math.exp(reach))
    apart = reach / 8
    ticks = [tick for tick in TICKS if abs(math.log(tick)) <= reach and (tick == 1 or abs(math.log(tick)) >= apart)]
    ticks = [tick for place, tick in enumerate(ticks) if place == 0 or math.log(tick / ticks[place - 1]) >= apart]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_yticks(range(len(rows)), [short(row.after.name) for row in reversed(rows)], fontsize=7)
    axes.set_ylim(-0.7, len(rows) - 0.3)
    axes.set_xlabel("times as long as before, the machine's drift taken off; grey: noise", fontsize=8)
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
