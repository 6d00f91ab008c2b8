"""What compare.py measured, as the table and the pictures of docs/benchmarks.md.

    python bench/cpu/report.py bench/results/MACHINE/cpu.json

writes docs/images/MACHINE-*.svg and puts the table between MACHINE's two marks in docs/benchmarks.md.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PAGE, IMAGES = ROOT / "docs" / "benchmarks.md", ROOT / "docs" / "images"
ST = "sentence-transformers float32"
COLORS = {"sentcore": "#1b6ca8", "ONNX Runtime": "#c0803a", "OpenVINO": "#7a9a4a", "sentence-transformers": "#8a8a8a"}


def table(report: dict) -> str:
    """Markdown of every part that is in the report."""
    lines = [_machine(report), ""]
    for key, title in (
        ("short", "titles and paragraphs, each a text"),
        ("long", "titles with their bodies, as one text"),
    ):
        if key in report.get("throughput", {}):
            lines += [*_throughput(report["throughput"][key], title, report["settings"]), ""]
    if "latency" in report:
        lines += [*_latency(report["latency"]), ""]
    if "bert_base" in report:
        base = report["bert_base"]
        lines += [
            f"BERT-base's shape with random weights, four texts of 512 tokens, float32: {base['ratio']:.2f} times as fast as ONNX "
            f"Runtime at its better batch size; largest difference {base['max_abs_difference']:.1e}.",
            "",
        ]
    if "ceiling" in report:
        lines += [
            "| share of the matrix-product ceiling | ceiling, GFLOP/s | a whole encode | share |",
            "| --- | --- | --- | --- |",
        ]
        for dtype, row in report["ceiling"].items():
            rates = f"{row['ceiling_gflops']:.0f} | {row['reached_gflops']:.0f}"
            lines.append(f"| {dtype} | {rates} | {row['share']:.0%} |")
        lines.append("")
    if "retrieval" in report:
        lines += ["| recall@10, title to its own body | |", "| --- | --- |"]
        lines += [f"| {name} | {value:.2%} |" for name, value in report["retrieval"].items()] + [""]
    if "invariance" in report:
        lines += [
            "| batch_invariant | sentences x batchings x threads | rows with other bits | times as long |",
            "| --- | --- | --- | --- |",
        ]
        for dtype, row in report["invariance"].items():
            threads = " and ".join(map(str, row["threads"]))
            tried = f"{row['sentences']} x {row['batchings']} x {threads}"
            lines.append(f"| {dtype} | {tried} | {row['differing_rows']} | {row['times_as_long']:.2f} |")
        lines.append("")
    return "\n".join(lines).rstrip()


def _machine(report: dict) -> str:
    machine = report["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return (
        f"{machine['cpu']} ({', '.join(machine['instructions'])}), {machine['threads']} threads; Python {machine['python']}, "
        f"{versions}. Command: `{report['command']}`."
    )


def _throughput(rows: dict, title: str, settings: dict) -> list[str]:
    base = rows[ST]["sentences_per_second"] if ST in rows else None
    lines = [
        f"| MiniLM, {title} | sentences/s | against sentence-transformers | largest difference | cosine: min, mean | settings |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, row in rows.items():
        ratio = f"{row['sentences_per_second'] / base:.2f}" if base else ""
        lines.append(
            f"| {name} | {row['sentences_per_second']:.0f} | {ratio} | {row['max_abs_difference']:.1e} | "
            f"{row['min_cosine']:.5f}, {row['mean_cosine']:.5f} | {settings.get(name, '')} |"
        )
    return lines


def _latency(rows: dict) -> list[str]:
    lengths = list(next(iter(rows.values())))
    lines = ["| one text, milliseconds, by tokens | " + " | ".join(lengths) + " |", "| --- " * (len(lengths) + 1) + "|"]
    lines += [f"| {name} | " + " | ".join(f"{row[n]:.2f}" for n in lengths) + " |" for name, row in rows.items()]
    return lines


def pictures(machine: str, report: dict) -> None:
    """Throughput by method and dtype; latency by length."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    plt.rcParams |= {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "sentcore"}
    IMAGES.mkdir(exist_ok=True)
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    for axis, key, title in zip(axes, ("short", "long"), ("titles and paragraphs", "titles with bodies"), strict=True):
        rows = report["throughput"][key]
        names = sorted(rows, key=lambda name: rows[name]["sentences_per_second"])
        values = [rows[name]["sentences_per_second"] for name in names]
        bars = axis.barh(names, values, color=[_color(name) for name in names])
        axis.bar_label(bars, fmt=" %.0f")
        axis.set(title=title, xlabel="sentences per second", xlim=(0, max(values) * 1.12))
        axis.tick_params(left=False)
    figure.savefig(IMAGES / f"{machine}-throughput.svg", metadata={"Date": None})
    figure, axis = plt.subplots(figsize=(6.5, 3.6), layout="constrained")
    for name, row in report["latency"].items():
        style = {"float32": "-", "bfloat16": "--", "int8": ":"}[name.split()[-1]]
        axis.plot(
            [int(n) for n in row], list(row.values()), style, color=_color(name), label=name, marker="o", markersize=3
        )
    axis.set(xscale="log", yscale="log", xlabel="tokens of one text", ylabel="milliseconds, median")
    ticks = [int(n) for n in next(iter(report["latency"].values()))]
    axis.set_xticks(ticks, [str(n) for n in ticks])
    axis.minorticks_off()
    axis.set_yticks([1, 2, 5, 10, 20, 50], ["1", "2", "5", "10", "20", "50"])
    axis.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(IMAGES / f"{machine}-latency.svg", metadata={"Date": None})


def _color(name: str) -> str:
    return next(color for start, color in COLORS.items() if name.startswith(start))


def put(machine: str, report: dict) -> None:
    """The table into docs/benchmarks.md, between the machine's marks."""
    begin, end = (f"<!-- from {machine}/cpu.json: {which} -->" for which in ("begin", "end"))
    page = PAGE.read_text(encoding="utf-8")
    before, rest = page.split(begin)
    after = rest.split(end)[1]
    PAGE.write_text(f"{before}{begin}\n\n{table(report)}\n\n{end}{after}", encoding="utf-8")


if __name__ == "__main__":
    path = Path(sys.argv[1])
    found = json.loads(path.read_text(encoding="utf-8"))
    put(path.parent.name, found)
    pictures(path.parent.name, found)
