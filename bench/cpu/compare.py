"""sentcore beside its peers on a CPU, in one run.

    python bench/cpu/compare.py --texts FILE.jsonl.gz --out bench/results/MACHINE/cpu.json

FILE holds JSON objects with `title` and `body` (a list of paragraphs). Throughput is of titles and paragraphs, each a text
("short"), and of title and body joined ("long"); retrieval is from titles to bodies.
"""

from __future__ import annotations

import argparse
import gzip
import importlib.metadata
import json
import os
import platform
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")

import methods
import parts
import peers
import torch

import sentcore
from sentcore.checkpoint.resolve import resolve
from sentcore.measure import cpu

PARTS = ("throughput", "latency", "bert_base", "retrieval", "invariance", "ceiling")
PACKAGES = (
    "torch",
    "sentence-transformers",
    "transformers",
    "tokenizers",
    "onnxruntime",
    "openvino",
    "numpy",
    "sentcore",
)


def main() -> None:
    """Runs the chosen parts and writes the JSON; parts of an older file that are not run again stay in it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--part", default=",".join(PARTS), help="some of them, by comma")
    parser.add_argument("--num-texts", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--max-length", type=int, default=256)
    args = parser.parse_args()
    chosen = args.part.split(",")
    torch.set_num_threads(args.threads)
    folder = Path(resolve("minilm"))
    records = read(args.texts)
    short, long = texts_of(records, args.num_texts)
    report = json.loads(args.out.read_text()) if args.out.is_file() else {}
    report["machine"] = machine(args.threads)
    report["command"] = "python bench/cpu/compare.py --texts FILE --out OUT" + "".join(
        f" --{name.replace('_', '-')} {getattr(args, name)}"
        for name in ("num_texts", "rounds", "threads", "max_length")
    )
    with tempfile.TemporaryDirectory() as work:
        found, report["settings"], report["absent"] = methods.build(
            folder, Path(work), short[:256], args.max_length, args.threads
        )
        for name, reason in report["absent"].items():
            print(f"skipped: {name}: {reason}", file=sys.stderr)
        runs = {
            "throughput": lambda: {
                "short": parts.throughput(found, short, args.rounds),
                "long": parts.throughput(found, long[: args.num_texts // 4], args.rounds),
            },
            "latency": lambda: parts.latency(found, peers.load_tokenizer(folder, args.max_length), 3 * args.rounds),
            "bert_base": lambda: parts.bert_base(folder, args.threads, args.rounds),
            "retrieval": lambda: parts.retrieval(
                {name: encode for name, encode in found.items() if name.startswith(("sentcore", "ONNX Runtime int8"))},
                *titles_and_bodies(records, args.num_texts),
            ),
            "invariance": lambda: parts.invariance(folder, short[:2000], args.max_length, args.threads),
            "ceiling": lambda: parts.ceiling(
                sentcore.SentenceEncoder(folder, device="cpu", max_length=args.max_length), long[: args.num_texts // 4]
            ),
        }
        for name in chosen:
            print(f"{name} ...", file=sys.stderr)
            report[name] = runs[name]()
            args.out.parent.mkdir(parents=True, exist_ok=True)
            args.out.write_text(json.dumps(report, indent=1) + "\n")  # after each part: nothing done is lost


def read(path: Path) -> list[dict]:
    """The file's objects."""
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def texts_of(records: list[dict], count: int) -> tuple[list[str], list[str]]:
    """(titles and paragraphs, titles with their bodies), every n-th one, so that a sorted file gives all its sizes."""
    some = records[:: max(1, len(records) // count)][:count]
    short = [text for record in some for text in (record["title"], *record["body"])]
    long = [" ".join((record["title"], *record["body"])) for record in some]
    return short[:: max(1, len(short) // count)][:count], long[::4]


def titles_and_bodies(records: list[dict], count: int) -> tuple[list[str], list[str]]:
    """Of every n-th record that has a body."""
    some = [record for record in records[:: max(1, len(records) // count)] if any(record["body"])][:count]
    return [record["title"] for record in some], [" ".join(record["body"]) for record in some]


def machine(threads: int) -> dict:
    """What the figures depend on."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "absent"
    name, instructions = cpu()
    return {
        "cpu": name,
        "instructions": instructions,
        "cores": os.cpu_count(),
        "threads": threads,
        "python": platform.python_version(),
        "versions": versions,
    }


if __name__ == "__main__":
    main()
