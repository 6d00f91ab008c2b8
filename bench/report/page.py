"""One HTML page without anything outside it: verdicts, pictures, tables."""

from __future__ import annotations

import math
from html import escape

from bench.report import judge, plots
from bench.report.judge import Comparison
from bench.report.read import Run, yardsticks_of

STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, "Noto Sans CJK SC", sans-serif; max-width: 60rem; margin: 0 auto; padding: 1rem; color: #222; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.2rem; margin-top: 2rem; } h3 { font-size: 1rem; }
.scroll { overflow-x: auto; } .scroll svg, .scroll table { min-width: 34rem; } .scroll svg { width: 100%; height: auto; }
table { border-collapse: collapse; font-size: 13px; } th, td { padding: .25rem .6rem; border-bottom: 1px solid #ddd; text-align: left; }
td.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.slower { color: #b3261e; font-weight: 600; } .faster { color: #2e7d32; font-weight: 600; }
.verdict { padding: .6rem .9rem; border-left: 4px solid #2e7d32; background: #f3f7f3; } .verdict.bad { border-color: #b3261e; background: #fbf1f0; }
"""
RULE = f"""A change counts where it exceeds the noise: z · √(e² + e'² + s²), at least {judge.SMALLEST:.0%}. e and e' are the two medians'
standard errors, 0.93 · IQR / √rounds; s is how far the yardsticks (what is timed beside sentcore and no commit changes) scatter around
their common drift between the runs, which is taken off every change; z leaves a chance of {judge.ALARM:.0%} that runs of equal
speed show any regression. The fastest rounds must have moved the same way at least half as far. Fewer than {judge.FEWEST_ROUNDS} rounds,
and noise that would hide a factor of two, are not judged."""


def page(runs: list[Run], comparisons: list[Comparison]) -> str:
    """The whole page."""
    parts = [f"<h1>Benchmarks: {escape(', '.join(run.label for run in runs))}</h1>", _runs(runs)]
    parts += [_comparison(comparison) for comparison in comparisons]
    if comparisons:
        parts.append(f"<h2>The rule</h2><p>{RULE}</p>")
    parts.append(_ratios(runs))
    parts.append("<h2>Medians</h2>")
    for group in dict.fromkeys(timing.group for run in runs for timing in run.timings.values()):
        parts.append(f'<h3>{escape(group)}</h3><div class="scroll">{plots.medians(group, runs)}</div>')
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><title>sentcore benchmarks</title>'
        f"<style>{STYLE}</style></head><body>{''.join(parts)}</body></html>\n"
    )


def _runs(runs: list[Run]) -> str:
    rows = [
        (run.label, run.commit, run.date, run.machine, ", ".join(f"{name} {v}" for name, v in run.versions.items()))
        for run in runs
    ]
    return _table(("run", "commit", "date", "machine", "versions"), rows)


def _comparison(comparison: Comparison) -> str:
    before, after = comparison.before, comparison.after
    slower, judged = comparison.slower, [c for c in comparison.changes if c.verdict not in judge.UNJUDGED]
    said = (
        f"{len(slower)} of {len(judged)} became slower beyond noise."
        if slower
        else f"None of {len(judged)} became slower beyond noise."
    )
    unjudged = len(comparison.changes) - len(judged)
    if unjudged:
        said += f" {unjudged} cannot be judged: too few rounds, or too much noise. Measure again."
    parts = [
        f"<h2>{escape(after.label)} against {escape(before.label)}</h2>",
        f'<p class="verdict{" bad" if slower else ""}">{said}</p>',
        f"<p>The machine's own drift, by {comparison.yardsticks} yardsticks: {_percent(comparison.drift)}, scatter "
        f"{comparison.scatter:.1%}{' (assumed: too few yardsticks)' if comparison.yardsticks < judge.FEWEST_YARDSTICKS else ''}.</p>",
    ]
    changed = [
        f"{name} {before.versions[name]} → {after.versions[name]}"
        for name in before.versions
        if after.versions.get(name, before.versions[name]) != before.versions[name]
    ]
    if changed:
        parts.append(f"<p>Other versions: {escape(', '.join(changed))}.</p>")
    for names, run in ((comparison.only_before, before), (comparison.only_after, after)):
        if names:
            parts.append(f"<p>Only in {escape(run.label)}: {escape(', '.join(map(plots.short, names)))}.</p>")
    if comparison.changes:
        parts.append(f'<div class="scroll">{plots.changes(comparison)}</div>')
        parts.append(_changes(comparison))
    return "".join(parts)


def _changes(comparison: Comparison) -> str:
    rows = [
        (
            plots.short(row.after.name),
            _milliseconds(row.before.median),
            _milliseconds(row.after.median),
            _percent(row.change),
            _percent(row.fastest),
            f"{100 * math.expm1(row.noise):.1f}%" if row.noise <= judge.LARGEST else "over 100%",
            f'<span class="{row.verdict.replace(" ", "-")}">{row.verdict}</span>',
        )
        for row in comparison.changes
    ]
    head = ("benchmark", "before, ms", "after, ms", "change", "fastest rounds", "noise", "verdict")
    return _table(head, rows, numbers=range(1, 6), markup=(6,))


def _ratios(runs: list[Run]) -> str:
    """Times as fast as the fastest yardstick of the same work, which may be compared between machines."""
    names = list(dict.fromkeys(name for run in runs for name, timing in run.timings.items() if not timing.yardstick))
    rows = []
    for name in names:
        cells = []
        for run in runs:
            beside = yardsticks_of(run.timings[name], run) if name in run.timings else []
            best = min(beside, key=lambda other: other.median, default=None)
            cells.append(f"{best.median / run.timings[name].median:.2f} ({best.yardstick})" if best else "")
        if any(cells):
            rows.append((plots.short(name), *cells))
    if not rows:
        return ""
    head = ("times as fast as the fastest yardstick of one run", *(f"{run.label}" for run in runs))
    return f"<h2>Beside the yardsticks</h2>{_table(head, rows, numbers=range(1, len(head)))}"


def _table(head, rows, numbers=(), markup=()) -> str:
    def cell(index: int, text: str) -> str:
        kind = ' class="number"' if index in numbers else ""
        return f"<td{kind}>{text if index in markup else escape(text)}</td>"

    lines = "".join(f"<tr>{''.join(cell(i, text) for i, text in enumerate(row))}</tr>" for row in rows)
    titles = "".join(f"<th>{escape(title)}</th>" for title in head)
    return f'<div class="scroll"><table><thead><tr>{titles}</tr></thead><tbody>{lines}</tbody></table></div>'


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:.3g}"


def _percent(log: float) -> str:
    return f"{100 * math.expm1(log):+.1f}%"
