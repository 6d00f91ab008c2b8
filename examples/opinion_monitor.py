"""Opinion monitor: dated texts in, topic and sentiment of each, and an alert when a topic's negative share surges.

    python examples/opinion_monitor.py --data reviews.jsonl --topic "delivery=delivery, courier, parcel" --out report

A row of --data is {"date": "2026-03-01", "text": ...}. A text's topic is the description that is nearest to it. Its sentiment is
that of a logistic regression on the encoder's features, trained on --labelled: {"text": ..., "sentiment": "positive" or
"negative"}. Days come in order, and each day a topic's last --window days are compared with all days before them: an alert says
that so many negative texts are unlikely at the share seen before (a binomial tail below --alert-below). Where rows hold "topic"
and "sentiment" of their own, the share that agrees is printed.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import sys
from collections import defaultdict
from pathlib import Path

import torch
import torch.nn.functional as F
from arguments import existing_file

import sentcore

DATA = Path(__file__).parent / "data"
TOPICS = [
    "delivery=delivery by courier, the parcel arrived, late, lost, on time",
    "support=customer support on the phone, mail, chat, answer to a question",
    "quality=the product works, is broken, well made, solid, poor material",
    "price=the price, expensive, cheap, discount, costs",
]


def read_rows(path: Path, needed: tuple[str, ...]) -> list[dict]:
    """Rows of a .jsonl file that hold texts under the names needed; an error names the line."""
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            if not all(isinstance(row[name], str) for name in needed):
                raise TypeError("a field holds no text")
            if "date" in needed:
                row["date"] = datetime.date.fromisoformat(row["date"])
        except (ValueError, KeyError, TypeError) as error:
            sys.exit(f"{path}, line {number}: no JSON object with {', '.join(needed)} ({error!r})")
        rows.append(row)
    if not rows:
        sys.exit(f"{path}: no row; accepted: a JSON object a line with {', '.join(needed)}")
    return rows


def train_sentiment(features: torch.Tensor, negative: torch.Tensor) -> torch.nn.Linear:
    """Logistic regression: features [B, E] and negative [B] -> a layer whose output is above 0 for negative texts."""
    layer = torch.nn.Linear(features.shape[1], 1)
    torch.nn.init.zeros_(layer.weight)
    optimizer = torch.optim.LBFGS(layer.parameters(), max_iter=100)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = F.binary_cross_entropy_with_logits(layer(features)[:, 0], negative.float())
        loss = loss + 0.001 * layer.weight.square().sum()  # few texts, many columns
        loss.backward()
        return loss

    optimizer.step(closure)
    return layer.requires_grad_(False)


def tail(negative: int, texts: int, share: float) -> float:
    """The probability of at least so many negative ones among `texts` when each is negative with probability `share`."""
    chances = (math.comb(texts, n) * share**n * (1 - share) ** (texts - n) for n in range(negative, texts + 1))
    return min(1.0, math.fsum(chances))


def watch(days: dict, window: int, least: int, below: float) -> list[tuple]:
    """Alerts (date, topic, negative, texts, share before, probability) of {date: {topic: [negative, texts]}} in order."""
    alerts, dates = [], sorted(days)
    for date in dates:
        first = date - datetime.timedelta(days=window - 1)
        for topic in sorted({topic for counts in days.values() for topic in counts}):
            now, before = [0, 0], [0, 0]
            for day in dates:
                if day <= date:
                    counts = days[day].get(topic, (0, 0))
                    part = before if day < first else now
                    part[0], part[1] = part[0] + counts[0], part[1] + counts[1]
            if before[1] < least or now[1] == 0:
                continue
            share = (before[0] + 1) / (before[1] + 2)  # never 0 or 1, however few texts there were
            chance = tail(*now, share)
            if chance < below:
                alerts.append((date, topic, *now, share, chance))
    return alerts


def draw(days: dict, topics: list[str], alerts: list[tuple], window: int, path: Path) -> None:
    """Each topic's negative share over the last `window` days, and its alerts."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(8, 3.4))
    dates = sorted(days)
    for topic in topics:
        shares = []
        for date in dates:
            recent = [day for day in dates if 0 <= (date - day).days < window]
            counts = [days[day].get(topic, (0, 0)) for day in recent]
            texts = sum(count[1] for count in counts)
            shares.append(sum(count[0] for count in counts) / texts if texts else math.nan)
        (line,) = axis.plot(dates, shares, label=topic)
        warned = [dates.index(alert[0]) for alert in alerts if alert[1] == topic]
        axis.plot([dates[place] for place in warned], [shares[place] for place in warned], "o", color=line.get_color())
    axis.set(ylim=(-0.02, 1.02), ylabel=f"negative share, {window} days", title="dots are alerts")
    axis.legend(ncols=len(topics), fontsize=8)
    figure.autofmt_xdate()
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    print(f"saved {path}")


def main(arguments: list[str] | None = None) -> list[tuple]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=existing_file, default=DATA / "opinions.jsonl", help=".jsonl: date, text")
    parser.add_argument(
        "--labelled", type=existing_file, default=DATA / "sentiment.jsonl", help=".jsonl: text, sentiment"
    )
    parser.add_argument("--topic", action="append", metavar="NAME=DESCRIPTION", help="give it once for each topic")
    parser.add_argument("--model", default="minilm", help='"minilm", a folder or a hub id')
    parser.add_argument("--window", type=int, default=3, help="days that are compared with those before")
    parser.add_argument("--least", type=int, default=20, help="texts of a topic before it can alert")
    parser.add_argument("--alert-below", type=float, default=1e-3, help="probability; each topic is looked at each day")
    parser.add_argument(
        "--seed", type=int, default=0, help="nothing is drawn by chance but the start of a layer's bias"
    )
    parser.add_argument("--out", type=Path, help="folder for the picture (needs matplotlib) and alerts.jsonl")
    options = parser.parse_args(arguments)

    torch.manual_seed(options.seed)
    named = [topic.split("=", 1) for topic in options.topic or TOPICS]
    if any(len(parts) < 2 or not all(parts) for parts in named):
        sys.exit(f"--topic is {options.topic}; accepted: NAME=DESCRIPTION")
    topics = [name for name, _ in named]
    rows = sorted(read_rows(options.data, ("date", "text")), key=lambda row: row["date"])
    labelled = read_rows(options.labelled, ("text", "sentiment"))
    if {row["sentiment"] for row in labelled} != {"positive", "negative"}:
        sys.exit(f"{options.labelled}: accepted: sentiments 'positive' and 'negative', both at least once")

    model = sentcore.SentenceEncoder(options.model)
    known = model.encode([row["text"] for row in labelled], convert_to_tensor=True)
    negative = torch.tensor([row["sentiment"] == "negative" for row in labelled], device=known.device)
    sentiment = train_sentiment(known, negative).to(known.device)
    descriptions = model.encode([description for _, description in named], convert_to_tensor=True)
    days = defaultdict(lambda: defaultdict(lambda: [0, 0]))
    agree = defaultdict(list)
    for places, block in model.encode_iter((row["text"] for row in rows), show_progress_bar=True):
        features = torch.from_numpy(block).to(known.device)
        nearest = model.similarity(features, descriptions).argmax(dim=1).tolist()
        is_negative = (sentiment(features)[:, 0] > 0).tolist()
        for place, topic, bad in zip(places, nearest, is_negative, strict=True):
            row = rows[place]
            counts = days[row["date"]][topics[topic]]
            counts[0], counts[1] = counts[0] + bad, counts[1] + 1
            for name, value in (("topic", topics[topic]), ("sentiment", "negative" if bad else "positive")):
                if name in row:
                    agree[name].append(row[name] == value)
    alerts = watch(days, options.window, options.least, options.alert_below)
    print(f"{len(rows)} texts from {rows[0]['date']} to {rows[-1]['date']}")
    for name, values in agree.items():
        print(f"{name} as labelled: {sum(values) / len(values):.3f} of {len(values)}")
    for date, topic, bad, texts, share, chance in alerts:
        print(
            f"ALERT {date} {topic}: {bad} of {texts} negative in {options.window} days, {share:.2f} before, p {chance:.1e}"
        )
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        names = ("date", "topic", "negative", "texts", "share_before", "probability")
        lines = [json.dumps(dict(zip(names, [str(alert[0]), *alert[1:]], strict=True))) + "\n" for alert in alerts]
        (options.out / "alerts.jsonl").write_text("".join(lines), encoding="utf-8")
        draw(days, topics, alerts, options.window, options.out / "opinion_monitor.png")
    return alerts


if __name__ == "__main__":
    main()
